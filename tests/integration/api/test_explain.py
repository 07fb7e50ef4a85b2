"""Why a group is what it is: its status and its activities over HTTP."""

import re
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection

from shared.reasons import Reason
from shared.state import decisions, policies
from shared.state.activities import KINDS
from shared.state.decisions import Decision
from tests.integration.api.service import NOBODY, TIMESTAMP, Api, Caller, error, field_errors

Group = dict[str, Any]


def activities(tsg: Caller, group: Group, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tsg.ok("GET", f"/groups/{group['id']}/activities{query}")
    return found


def status(tsg: Caller, group: Group, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = tsg.ok("GET", f"/groups/{group['id']}/status{query}")
    return found


def change(tsg: Caller, group: Group, **fields: Any) -> Any:
    body = {"group_name": group["group_name"], "template_id": group["template_id"], "capacity": group["capacity"], **fields}
    return tsg("PUT", f"/groups/{group['id']}", body, headers={"X-Request-Id": "R"})


def looked_at(api: Api, group: Group, reason: Reason, **more: Any) -> None:
    """A worker looked at the group, and this is what it found."""
    values = {"error": None, **more}
    api.sql(
        "UPDATE tsg_group_state SET observed_generation = generation, reason = :reason, reason_since = now(), checked_at = now(),"
        " check_at = now() + interval '5 seconds', last_error = :error WHERE group_id = :id",
        id=group["id"],
        reason=str(reason),
        **values,
    )


def instances(api: Api, group: Group, *states: str) -> None:
    for state in states:
        api.sql(
            "INSERT INTO tsg_instances (account_id, group_id, machine_id, state)"
            " SELECT account_id, id, gen_random_uuid(), :state FROM tsg_groups WHERE id = :id",
            id=group["id"],
            state=state,
        )


# Activities


def test_each_change_is_told_with_who_asked_for_it(tsg: Caller) -> None:
    group = tsg("POST", "/groups", {"group_name": "web", "template_id": tsg.make_template(), "capacity": 3}, headers={"X-Request-Id": "R"})
    made = group.json()
    other = tsg.make_template()
    change(tsg, made, capacity=5)
    change(tsg, made, capacity=4, template_id=other, health_check_interval=60)
    tsg("PUT", f"/groups/{made['id']}/increment", {"instance_count": 5, "max_instance": 6}, headers={"X-Request-Id": "R"})
    tsg("PUT", f"/groups/{made['id']}/decrement", {"instance_count": 5, "min_instance": 0}, headers={"X-Request-Id": "R"})
    tsg("DELETE", f"/groups/{made['id']}", headers={"X-Request-Id": "R"})
    told = activities(tsg, made)
    assert [(one["kind"], one["description"]) for one in reversed(told)] == [
        ("TSG_GROUP_CREATE", "group web was created with capacity 3 by POST, request R"),
        ("TSG_CAPACITY_CHANGE", "capacity 3 -> 5 by PUT, request R"),
        (
            "TSG_GROUP_UPDATE",
            f"capacity 5 -> 4, template {made['template_id']} -> {other}, health_check_interval 300 -> 60 by PUT, request R",
        ),
        ("TSG_CAPACITY_CHANGE", "capacity 4 -> 6 by increment, request R"),
        ("TSG_CAPACITY_CHANGE", "capacity 6 -> 1 by decrement, request R"),
        ("TSG_GROUP_DELETE", "group web of capacity 1 was deleted by DELETE, request R"),
    ]
    assert {(one["status"], one["actor"], one["request_id"], one["group_id"]) for one in told} == {("success", tsg.login, "R", made["id"])}


def test_an_activity_has_these_fields(tsg: Caller) -> None:
    (told,) = activities(tsg, tsg.make_group(1))
    assert set(told) == {
        *("id", "group_id", "kind", "status", "description", "cause", "instance_ids", "error_code", "cloudapi_request_id"),
        *("actor", "request_id", "started_at", "ended_at", "rollout_id"),
    }
    assert uuid.UUID(told["id"])
    assert re.fullmatch(TIMESTAMP, told["started_at"])
    assert told["started_at"] == told["ended_at"]
    assert (told["instance_ids"], told["error_code"], told["cloudapi_request_id"]) == ([], None, None)


def test_a_change_that_changes_nothing_or_is_refused_is_no_news(tsg: Caller) -> None:
    group = tsg.make_group(2)
    assert change(tsg, group).status_code == 200
    assert change(tsg, group, health_check_interval=300).status_code == 200
    assert change(tsg, group, template_id=NOBODY).status_code == 422
    assert tsg("PUT", f"/groups/{group['id']}/increment", {"instance_count": 1, "max_instance": 2}).status_code == 400
    assert len(activities(tsg, group)) == 1


def test_the_pages_are_all_there_is_whatever_comes_in_between(tsg: Caller) -> None:
    group = tsg.make_group(0)
    for capacity in range(1, 7):
        change(tsg, group, capacity=capacity)
    everything = [one["id"] for one in activities(tsg, group)]
    assert len(everything) == 7
    read: list[str] = []
    path = f"/groups/{group['id']}/activities?limit=3"
    while path:
        answer = tsg("GET", path)
        read += [one["id"] for one in answer.json()]
        link = re.fullmatch(r'</v1/tsg(/[^>]+)>; rel="next"', answer.headers.get("Link", ""))
        path = link[1] if link else ""
        change(tsg, group, capacity=50 + len(read))
    assert read == everything


def test_rows_of_one_moment_are_each_on_one_page(tsg: Caller) -> None:
    group = tsg.make_group(0)
    for capacity in (1, 2, 3):
        change(tsg, group, capacity=capacity)
    tsg.api.sql("UPDATE tsg_activities SET at = '2026-01-01T00:00:00Z' WHERE group_id = :id", id=group["id"])
    everything = [one["id"] for one in activities(tsg, group)]
    read, before = [], ""
    while found := activities(tsg, group, f"?limit=1{before}"):
        read.append(found[0]["id"])
        before = f"&before={found[0]['id'].upper()}"
    assert read == everything
    assert len(set(read)) == 4


def test_activities_can_be_filtered(tsg: Caller) -> None:
    group = tsg.make_group(1)
    change(tsg, group, capacity=2)
    tsg.api.sql("UPDATE tsg_activities SET status = 'failed' WHERE group_id = :id AND kind = 'TSG_GROUP_CREATE'", id=group["id"])
    assert [one["kind"] for one in activities(tsg, group, "?status=failed")] == ["TSG_GROUP_CREATE"]
    assert [one["kind"] for one in activities(tsg, group, "?status=success")] == ["TSG_CAPACITY_CHANGE"]
    assert [one["kind"] for one in activities(tsg, group, "?kind=TSG_CAPACITY_CHANGE")] == ["TSG_CAPACITY_CHANGE"]
    assert activities(tsg, group, "?kind=TSG_CAPACITY_CHANGE&status=failed") == []


def test_all_that_is_wrong_with_the_query_is_told_at_once(tsg: Caller) -> None:
    group = tsg.make_group(1)
    answer = tsg("GET", f"/groups/{group['id']}/activities?limit=0&before=yesterday&status=done&kind=LAUNCH")
    assert field_errors(answer) == {
        "limit": "limit must be an integer from 1 to 1000",
        "before": "before must be the id of the last activity of the page before",
        "status": "status must be one of: success, failed",
        "kind": f"kind must be one of: {', '.join(KINDS)}",
    }


@pytest.mark.parametrize("query", ["limit=1001", "limit=-1", "limit=x", "limit=", "limit=1&limit=2", "status=", f"before={NOBODY}"])
def test_a_wrong_parameter_of_activities_is_refused(tsg: Caller, query: str) -> None:
    assert set(field_errors(tsg("GET", f"/groups/{tsg.make_group(1)['id']}/activities?{query}"))) == {query.partition("=")[0]}


def test_the_place_to_go_on_from_is_of_the_same_group(tsg: Caller) -> None:
    group, other = tsg.make_group(1), tsg.make_group(1)
    (foreign,) = activities(tsg, other)
    assert set(field_errors(tsg("GET", f"/groups/{group['id']}/activities?before={foreign['id']}"))) == {"before"}


@pytest.mark.parametrize("what", ["status", "activities"])
def test_another_accounts_group_does_not_exist(tsg: Caller, stranger: Caller, what: str) -> None:
    group = tsg.make_group(1)
    error(stranger("GET", f"/groups/{group['id']}/{what}?limit=x&wait=x"), 404, "ResourceNotFound")
    error(tsg("GET", f"/groups/{NOBODY}/{what}"), 404, "ResourceNotFound")
    error(tsg("GET", f"/groups/nonsense/{what}"), 404, "ResourceNotFound")


def test_a_deleted_group_has_its_activities_and_its_status_still(tsg: Caller, stranger: Caller) -> None:
    group = tsg.make_group(1)
    tsg.ok("DELETE", f"/groups/{group['id']}")
    assert [one["kind"] for one in activities(tsg, group)] == ["TSG_GROUP_DELETE", "TSG_GROUP_CREATE"]
    assert status(tsg, group)["reason"] == "Deleting"
    error(stranger("GET", f"/groups/{group['id']}/status"), 404, "ResourceNotFound")


# Status


def test_a_status_has_these_fields(tsg: Caller) -> None:
    group = tsg.make_group(3)
    found = status(tsg, group)
    assert re.fullmatch(TIMESTAMP, found.pop("since"))
    assert re.fullmatch(TIMESTAMP, found.pop("next_attempt_at"))
    assert found == {
        "group_id": group["id"],
        "group_name": group["group_name"],
        "desired": 3,
        "running": 0,
        "provisioning": 0,
        "failed": 0,
        "deleting": 0,
        "settled": False,
        "stuck": False,
        "reason": "Provisioning",
        "message": "0 of 3 instances run. No worker has looked at the newest change yet.",
        "last_error": None,
        "failures": 0,
        "checked_at": None,
        "generation": 1,
        "observed_generation": 0,
        "watched": False,
        "rollout": None,
        "watch_error": None,
        "decisions": [],
    }


def test_the_last_decision_of_each_policy_says_why_the_group_has_its_size(api: Api, tsg: Caller) -> None:
    group, other = tsg.make_group(4), tsg.make_group(1)
    hook = {"kind": "webhook", "change": "+1"}
    first, second = (tsg.ok("POST", f"/groups/{group['id']}/policies", {"policy_name": name, **hook}) for name in ("first", "second"))
    made = decided(api, group, second)
    answer = tsg("GET", f"/groups/{group['id']}/status")
    (shown,) = answer.json()["decisions"]
    assert shown == tsg.ok("GET", f"/groups/{group['id']}/decisions")[0]
    assert (shown["id"], shown["policy_name"], shown["message"]) == (made, "second", "second: called")
    assert status(tsg, other)["decisions"] == []
    by_group = {one["group_id"]: one["decisions"] for one in tsg.ok("GET", "/status")}
    assert by_group == {group["id"]: [shown], other["id"]: []}
    api.db.transact(lambda connection: decisions.mark_repeated(connection, [made]))
    seen = {"If-None-Match": answer.headers["ETag"]}
    assert tsg("GET", f"/groups/{group['id']}/status", headers=seen).status_code == 304, "the same decision again is no change"
    decided(api, group, first)
    again = tsg("GET", f"/groups/{group['id']}/status", headers=seen)
    assert [one["policy_name"] for one in again.json()["decisions"]] == ["first", "second"]


def decided(api: Api, group: Group, policy: dict[str, Any]) -> str:
    """A worker decided about the policy; the id of its decision."""

    def write(connection: Connection) -> str:
        stored, now = policies.get(connection, group["id"], policy["id"]), datetime.now(UTC)
        it = Decision(str(uuid.uuid4()), group["id"], stored.id, stored.name, now, 1, now, "clamped", "webhook", f"{stored.name}: called",
                      None, None, None, None, 5, 4, 4, None)  # fmt: skip
        decisions.insert_decision(connection, stored.account_id, it)
        policies.mark_progress(connection, stored.id, stored.progress, decision_id=it.id)
        return it.id

    return api.db.transact(write)


def test_instances_are_counted_by_what_they_are(api: Api, tsg: Caller) -> None:
    group = tsg.make_group(9)
    instances(api, group, *["running"] * 2, "launching", "provisioning", "ready", "failed", "stopped", "deleting", "gone")
    api.sql("UPDATE tsg_instances SET gone_at = now() WHERE state = 'gone' AND group_id = :id", id=group["id"])
    found = status(tsg, group)
    assert [found[name] for name in ("desired", "running", "provisioning", "failed", "deleting")] == [9, 2, 3, 2, 1]


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in {Reason.DELETED, Reason.NOMAD_UNAVAILABLE}])
def test_the_reason_is_that_of_the_last_look(api: Api, tsg: Caller, reason: Reason) -> None:
    group = tsg.make_group(1)
    looked_at(api, group, reason, error="CloudAPI's own words")
    found = status(tsg, group)
    assert (found["reason"], found["last_error"]) == (reason, "CloudAPI's own words")
    assert found["settled"] == (reason == Reason.SETTLED)
    assert found["generation"] == found["observed_generation"] == 1
    assert found["checked_at"] is not None


def test_a_change_is_not_settled_by_what_was_before_it(api: Api, tsg: Caller) -> None:
    group = tsg.make_group(1)
    looked_at(api, group, Reason.SETTLED)
    change(tsg, group, capacity=2)
    found = status(tsg, group)
    assert (found["settled"], found["reason"]) == (False, "Provisioning")
    assert (found["generation"], found["observed_generation"]) == (2, 1)


def test_a_group_that_is_gone_says_so(api: Api, tsg: Caller) -> None:
    group = tsg.make_group(1)
    tsg.ok("DELETE", f"/groups/{group['id']}")
    api.sql(
        "UPDATE tsg_group_state SET emptied_at = now(), check_at = NULL, observed_generation = generation WHERE group_id = :id",
        id=group["id"],
    )
    found = status(tsg, group, "?wait=60")
    assert (found["settled"], found["reason"], found["desired"], found["next_attempt_at"]) == (True, "Deleted", 0, None)


def test_a_job_that_nomad_did_not_take_is_told_in_nomads_words(api: Api, tsg: Caller) -> None:
    group = tsg.make_group(1)
    api.sql("UPDATE tsg_group_state SET job_error = 'no leader' WHERE group_id = :id", id=group["id"])
    found = status(tsg, group)
    assert (found["reason"], found["last_error"]) == ("NomadUnavailable", "no leader")
    looked_at(api, group, Reason.SETTLED)
    found = status(tsg, group)
    assert (found["reason"], found["settled"], found["last_error"]) == ("Settled", True, "no leader"), "a worker did it in Nomad's place"
    assert "Nomad does not run the group's job" in found["message"]


@pytest.mark.parametrize("wait", ["-1", "61", "60.5", "x", "", "1e1", "inf", "nan", "1&wait=2"])
def test_a_wait_is_0_to_60_seconds(tsg: Caller, wait: str) -> None:
    answer = tsg("GET", f"/groups/{tsg.make_group(1)['id']}/status?wait={wait}")
    assert field_errors(answer) == {"wait": "wait must be 0 to 60 seconds"}


# All statuses


def test_the_status_of_each_group_can_be_listed(api: Api, tsg: Caller, stranger: Caller) -> None:
    groups = [tsg.make_group(capacity) for capacity in (3, 1, 0)]
    stranger.make_group(1)
    tsg.ok("DELETE", f"/groups/{groups.pop()['id']}")
    looked_at(api, groups[0], Reason.SETTLED)
    instances(api, groups[0], "running", "running", "running")
    listed = tsg("GET", "/status")
    assert listed.headers["X-Resource-Count"] == "2"
    assert listed.json() == [status(tsg, group) for group in groups]


def test_statuses_are_listed_in_pages(tsg: Caller) -> None:
    groups = [tsg.make_group(1)["id"] for _ in range(3)]
    first = tsg("GET", "/status?limit=2")
    assert first.headers["Link"] == f'</v1/tsg/status?limit=2&marker={groups[1]}>; rel="next"'
    rest = tsg.ok("GET", f"/status?limit=2&marker={groups[1]}")
    assert [one["group_id"] for one in first.json() + rest] == groups
    assert set(field_errors(tsg("GET", "/status?limit=0"))) == {"limit"}
