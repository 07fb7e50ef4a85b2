"""Rollouts over HTTP: what may be asked for, what is shown, and who waits for what."""

import time
from typing import Any

import pytest

from tests.integration.api.service import NOBODY, Caller, error, field_errors, together

STEPS = [{"percent": 10, "pause_seconds": 600, "pause": False}, {"percent": 100, "pause_seconds": 0, "pause": False}]
SETTINGS = {
    "max_surge": "20%",
    "max_unavailable": 1,
    "steps": STEPS,
    "bake_seconds": 0,
    "max_failures": 2,
    "progress_deadline_seconds": 60,
    "on_failure": "stop",
    "skip_matching": False,
    "in_place": False,
    "protected": "skip",
}


def start(tsg: Caller, group: dict[str, Any], **body: Any) -> dict[str, Any]:
    made: dict[str, Any] = tsg.ok("POST", f"/groups/{group['id']}/rollouts", body)
    return made


def path(rollout: dict[str, Any], below: str = "") -> str:
    return f"/groups/{rollout['group_id']}/rollouts/{rollout['id']}{below}"


def put(tsg: Caller, rollout: dict[str, Any], state: str, **columns: Any) -> None:
    """What a worker writes."""
    ended = "now()" if state in {"Successful", "Failed", "Cancelled"} else "NULL"
    more = "".join(f", {name} = :{name}" for name in columns)
    tsg.api.sql(
        f"UPDATE tsg_rollouts SET state = :state, ended_at = {ended}{more} WHERE id = :id", state=state, id=rollout["id"], **columns
    )


def test_a_rollout_is_given_back_with_all_that_was_asked_for(tsg: Caller) -> None:
    group, template_id = tsg.make_group(3), tsg.make_template()
    answer = tsg("POST", f"/groups/{group['id']}/rollouts", {"template_id": template_id.upper(), **SETTINGS})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["Location"] == f"/v1/tsg{path(made)}"
    assert made == {
        "id": made["id"],
        "group_id": group["id"],
        "template_id": template_id,
        "previous_template_id": group["template_id"],
        "state": "Pending",
        "reason": None,
        "message": None,
        "step": 0,
        "counts": {"wanted": 3, "new": 0, "new_available": 0, "outdated": 0, "draining": 0, "failed": 0},
        "percent_complete": 0,
        "created_at": made["created_at"],
        "started_at": None,
        "ended_at": None,
        "next_at": None,
        **SETTINGS,
    }
    assert tsg.ok("GET", path(made)) == made
    assert tsg.ok("GET", f"/groups/{group['id']}")["template_id"] == template_id
    status = tsg.ok("GET", f"/groups/{group['id']}/status")
    assert status["rollout"] == {name: made[name] for name in ("id", "state", "counts")}
    (told, *_) = tsg.ok("GET", f"/groups/{group['id']}/activities")
    assert (told["kind"], told["rollout_id"]) == ("TSG_ROLLOUT_START", made["id"])


def test_without_anything_it_is_a_reload_by_the_defaults(tsg: Caller) -> None:
    group = tsg.make_group(3)
    made = start(tsg, group)
    assert made["template_id"] == made["previous_template_id"] == group["template_id"]
    assert (made["max_surge"], made["max_unavailable"], made["on_failure"], made["protected"]) == ("25%", 0, "pause", "wait")
    assert made["steps"] == [{"percent": 100, "pause_seconds": 0, "pause": False}]
    assert start(tsg, tsg.make_group(3), max_surge=None, steps=None, template_id=None)["max_surge"] == "25%"


def test_all_that_is_wrong_is_told_at_once(tsg: Caller) -> None:
    group = tsg.make_group(3)
    wrong = {
        "template_id": "x",
        "max_surge": "lots",
        "steps": [{"percent": 0}, {"percent": 50, "pause": 1}],
        "bake_seconds": -1,
        "max_failures": "3",
        "on_failure": "retry",
        "protected": None,
        "in_place": "no",
    }
    assert field_errors(tsg("POST", f"/groups/{group['id']}/rollouts", wrong)) == {
        "template_id": "template ID must be a valid UUID",
        "max_surge": 'max_surge must be a number of instances, 0 to 10000, or a share of the capacity: "0%" to "100%"',
        "steps.0.percent": "steps.0.percent must be greater than or equal to 1",
        "steps.1.pause": "steps.1.pause must be a boolean",
        "bake_seconds": "bake_seconds must be greater than or equal to 0",
        "max_failures": "max_failures must be an integer",
        "on_failure": "on_failure must be 'pause', 'stop' or 'rollback'",
        "in_place": "in_place must be a boolean",
    }
    assert tsg.ok("GET", f"/groups/{group['id']}/rollouts") == []


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"max_surge": 0}, "max_surge", "max_surge and max_unavailable cannot both be 0: nothing could be replaced"),
        ({"template_id": NOBODY}, "template_id", f"there is no template {NOBODY}"),
        (
            {"on_failure": "rollback"},
            "on_failure",
            "on_failure cannot be rollback where the group keeps its template: there is no other one to go back to",
        ),
    ],
)
def test_a_rollout_that_cannot_be_changes_nothing(tsg: Caller, body: dict[str, Any], field: str, message: str) -> None:
    group = tsg.make_group(3)
    assert field_errors(tsg("POST", f"/groups/{group['id']}/rollouts", body)) == {field: message}
    assert tsg.ok("GET", "/groups") == [group]


def test_one_at_a_time_and_the_answer_names_it(tsg: Caller) -> None:
    group = tsg.make_group(3)
    answers = together(4, lambda _number: tsg("POST", f"/groups/{group['id']}/rollouts", {}))
    (made,) = [answer.json() for answer in answers if answer.status_code == 201]
    assert [made["id"] in error(one, 409, "Conflict")["message"] for one in answers if one.status_code != 201] == [True] * 3
    assert len(tsg.ok("GET", f"/groups/{group['id']}/rollouts")) == 1


def test_the_list_has_the_newest_first_in_pages(tsg: Caller) -> None:
    group = tsg.make_group(3)
    ids = []
    for _ in range(3):
        made = start(tsg, group)
        ids.insert(0, made["id"])
        tsg.ok("PUT", path(made, "/cancel"))
    assert [one["id"] for one in tsg.ok("GET", f"/groups/{group['id']}/rollouts")] == ids
    first = tsg("GET", f"/groups/{group['id']}/rollouts?limit=2")
    assert ([one["id"] for one in first.json()], first.headers["X-Resource-Count"]) == (ids[:2], "3")
    assert [one["id"] for one in tsg.api.request("GET", first.links["next"]["url"], headers=tsg.signed()).json()] == ids[2:]
    assert tsg.ok("GET", f"/groups/{group['id']}/status")["rollout"]["state"] == "Cancelled"


def test_it_is_paused_resumed_rolled_back_and_cancelled(tsg: Caller) -> None:
    group = tsg.make_group(3)
    made = start(tsg, group, template_id=tsg.make_template())
    for what, state in (("pause", "Pausing"), ("resume", "InProgress"), ("rollback", "RollingBack"), ("cancel", "Cancelled")):
        asked = tsg.ok("PUT", path(made, f"/{what}"))
        assert (asked["state"], tsg.ok("GET", path(made))) == (state, asked)
    assert asked["ended_at"]
    assert tsg.ok("GET", f"/groups/{group['id']}")["template_id"] == group["template_id"]
    refused = error(tsg("PUT", path(made, "/pause")), 409, "Conflict")
    assert refused["message"] == f"The rollout {made['id']} is Cancelled: pause is for one that is Baking, InProgress, Pending."
    kinds = [one["kind"] for one in tsg.ok("GET", f"/groups/{group['id']}/activities") if one["rollout_id"] == made["id"]]
    assert kinds == [f"TSG_ROLLOUT_{what}" for what in ("CANCEL", "ROLLBACK", "RESUME", "PAUSE", "START")]


def test_one_that_was_successful_goes_back_too(tsg: Caller) -> None:
    group = tsg.make_group(3)
    made = start(tsg, group, template_id=tsg.make_template())
    put(tsg, made, "Successful")
    assert tsg.ok("PUT", path(made, "/rollback"))["state"] == "RollingBack"
    assert tsg.ok("GET", f"/groups/{group['id']}")["template_id"] == group["template_id"]


def test_a_request_with_a_key_begins_one_rollout(tsg: Caller) -> None:
    group, key = tsg.make_group(3), {"Idempotency-Key": "one rollout"}
    first, again = (tsg("POST", f"/groups/{group['id']}/rollouts", {}, headers=key) for _ in range(2))
    assert (first.status_code, again.status_code, again.headers["Idempotency-Replayed"]) == (201, 201, "true")
    assert (first.json(), first.headers["Location"]) == (again.json(), again.headers["Location"])


def test_a_rollout_of_a_group_that_was_changed_is_refused(tsg: Caller) -> None:
    group = tsg.make_group(3)
    etag = tsg("GET", f"/groups/{group['id']}").headers["ETag"]
    made = start(tsg, group)
    stale = {"If-Match": etag}
    error(tsg("PUT", path(made, "/cancel"), headers=stale), 412, "PreconditionFailed")
    error(tsg("POST", f"/groups/{group['id']}/rollouts", {}, headers=stale), 412, "PreconditionFailed")


@pytest.mark.parametrize("what", ["", "/pause", "/cancel"])
def test_what_is_no_rollout_of_the_group_is_not_found(tsg: Caller, what: str) -> None:
    group, other = tsg.make_group(3), start(tsg, tsg.make_group(3))
    for rollout_id in (NOBODY, "x", other["id"]):
        error(tsg("PUT" if what else "GET", f"/groups/{group['id']}/rollouts/{rollout_id}{what}"), 404, "ResourceNotFound")


@pytest.mark.parametrize(("state", "columns"), [("Successful", {}), ("Failed", {}), ("Paused", {"reason": "Failures"})])
def test_who_waits_is_answered_when_it_ends_or_needs_somebody(tsg: Caller, state: str, columns: dict[str, Any]) -> None:
    made = start(tsg, tsg.make_group(3))
    began = time.monotonic()
    answers = together(2, lambda number: tsg("GET", path(made, "?wait=20")) if number else put(tsg, made, state, **columns))
    assert answers[1] is not None
    assert (answers[1].json()["state"], time.monotonic() - began < 15) == (state, True)


def test_a_pause_that_ends_by_itself_needs_nobody(tsg: Caller) -> None:
    made = start(tsg, tsg.make_group(3))
    put(tsg, made, "Paused")
    tsg.api.sql("UPDATE tsg_rollouts SET next_at = now() + interval '1 hour' WHERE id = :id", id=made["id"])
    assert tsg.ok("GET", path(made, "?wait=0.2"))["state"] == "Paused"
    assert set(field_errors(tsg("GET", path(made, "?wait=61")))) == {"wait"}
