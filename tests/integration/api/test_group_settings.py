"""What a group's owner may ask for beyond 2018: bounds, probes, drains, updates, suspensions."""

from typing import Any

import pytest

from tests.integration.api.service import NOBODY, Caller, error, field_errors, together

MOMENT = "suspended_until must be a moment as RFC 3339 has it, such as 2026-11-27T09:30:00Z"
SETTINGS = {
    "min_capacity": 2,
    "max_capacity": 8,
    "ready_seconds": 5,
    "health_check": {
        "type": "http",
        "port": 80,
        "path": "/health",
        "interval_seconds": 10,
        "timeout_seconds": 3,
        "unhealthy_after": 3,
        "healthy_after": 2,
        "grace_seconds": 300,
        "expect": [200, 299],
        "network": None,
    },
    "drain": {"seconds": 30, "cns": True},
    "termination_policy": ["newest", "crowded_server"],
    "update": {
        "strategy": "rolling",
        "max_surge": "20%",
        "max_unavailable": 1,
        "steps": [{"percent": 10, "pause_seconds": 0, "pause": True}, {"percent": 100, "pause_seconds": 0, "pause": False}],
        "bake_seconds": 0,
        "max_failures": 3,
        "progress_deadline_seconds": 1800,
        "on_failure": "rollback",
        "skip_matching": True,
        "in_place": True,
        "protected": "skip",
    },
    "suspended": ["launch", "replace"],
    "suspend_reason": "a night of work",
    "suspended_until": "2100-01-01T00:00:00Z",
}


def body(group: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**{name: group[name] for name in ("group_name", "template_id", "capacity")}, **more}


def put(tsg: Caller, group: dict[str, Any], **more: Any) -> dict[str, Any]:
    changed: dict[str, Any] = tsg.ok("PUT", f"/groups/{group['id']}", body(group, **more))
    return changed


def told(tsg: Caller, group: dict[str, Any], kind: str = "TSG_GROUP_UPDATE") -> list[str]:
    """What was changed, the newest first."""
    found = tsg.ok("GET", f"/groups/{group['id']}/activities?kind={kind}")
    return [one["description"].partition(" by PUT")[0] for one in found]


def documents(tsg: Caller, group: dict[str, Any]) -> Any:
    ((found,),) = tsg.api.sql("SELECT more FROM tsg_groups WHERE id = :id", id=group["id"])
    return found


def test_settings_are_given_back_as_they_were_sent(tsg: Caller) -> None:
    made = tsg.make_group(3, **SETTINGS)
    assert {name: made[name] for name in SETTINGS} == SETTINGS
    assert tsg.ok("GET", f"/groups/{made['id']}") == made
    assert tsg.ok("GET", "/groups") == [made]


def test_a_change_without_them_keeps_them_and_null_is_the_default(tsg: Caller) -> None:
    made = tsg.make_group(3, **SETTINGS)
    assert put(tsg, made) == {**made, "updated_at": tsg.ok("GET", f"/groups/{made['id']}")["updated_at"]}
    changed = put(tsg, made, health_check=None, max_capacity=None)
    assert (changed["health_check"], changed["max_capacity"], changed["drain"]) == (None, 100, SETTINGS["drain"])
    changed = put(tsg, made, **dict.fromkeys(SETTINGS))
    assert documents(tsg, made) is None
    assert changed == {**tsg.ok("GET", f"/groups/{tsg.make_group(3)['id']}"), **{name: changed[name] for name in list(changed)[:6]}}


def test_a_group_can_be_put_back_as_it_was_got(tsg: Caller) -> None:
    for settings in ({}, SETTINGS):
        made = tsg.make_group(3, **settings)
        changed = tsg.ok("PUT", f"/groups/{made['id']}", made)
        # The operator's maximum is a bound like another once somebody asks for it.
        assert {**changed, "updated_at": made["updated_at"]} == made


def test_a_group_without_settings_costs_no_document(tsg: Caller) -> None:
    made = tsg.make_group(3)
    assert documents(tsg, made) is None
    put(tsg, made, ready_seconds=0, update={"strategy": "manual"}, suspended=[])
    assert documents(tsg, made) is None
    put(tsg, made, ready_seconds=1)
    assert documents(tsg, made)


def test_each_change_is_told(tsg: Caller) -> None:
    made = tsg.make_group(3)
    put(tsg, made, ready_seconds=5, drain={"seconds": 3}, health_check=SETTINGS["health_check"])
    expected = 'ready_seconds 0 -> 5, health_check was changed, drain null -> {"seconds": 3, "cns": true}'
    assert told(tsg, made) == [expected]


def test_all_that_is_wrong_is_told_at_once(tsg: Caller) -> None:
    wrong = {
        "group_name": "",
        "min_capacity": 101,
        "max_capacity": "5",
        "ready_seconds": 3601,
        "health_check": {"type": "ping", "port": 0, "path": "x", "timeout_seconds": 0, "expect": [400, 200], "network": "n"},
        "drain": {"cns": 1},
        "termination_policy": ["oldest", "youngest"],
        "update": {"strategy": "rolling", "max_surge": "x", "steps": [{"percent": 50}]},
        "suspended": "launch",
        "suspend_reason": "a\nb",
        "suspended_until": "tomorrow",
    }
    assert field_errors(tsg("POST", "/groups", {"template_id": tsg.make_template(), **wrong})) == {
        "group_name": "group name cannot be empty",
        "min_capacity": "min_capacity must be 0 to 100",
        "max_capacity": "max_capacity must be an integer",
        "ready_seconds": "ready_seconds must be less than or equal to 3600",
        "health_check.type": "health_check.type must be 'http' or 'tcp'",
        "health_check.port": "health_check.port must be greater than or equal to 1",
        "health_check.path": "health_check.path must begin with / and have at most 1024 printable ASCII characters, no blanks",
        "health_check.timeout_seconds": "health_check.timeout_seconds must be greater than or equal to 1",
        "health_check.expect": "health_check.expect must be two HTTP statuses from 100 to 599, the lower one first",
        "health_check.network": "the network of a health_check must be a valid UUID",
        "drain.seconds": "drain.seconds is required",
        "drain.cns": "drain.cns must be a boolean",
        "termination_policy.1": "termination_policy.1 must be 'outdated', 'oldest', 'newest', 'unready' or 'crowded_server'",
        "update.max_surge": 'update.max_surge must be a number of instances, 0 to 10000, or a share of the capacity: "0%" to "100%"',
        "update.steps": "update.steps must end with a step of percent 100",
        "suspended": "suspended must be an array",
        "suspend_reason": "suspend_reason must have at most 255 characters, and no control characters",
        "suspended_until": MOMENT,
    }


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({"health_check": []}, "health_check", "health_check must be an object"),
        ({"drain": {"seconds": 1, "dns": True}}, "drain", "a drain has no 'dns': it has seconds, cns"),
        (
            {"health_check": {"type": "tcp", "port": 1, "interval_seconds": 2}},
            "health_check",
            "the timeout_seconds of a health_check cannot be more than its interval_seconds",
        ),
        ({"update": {"max_surge": 0}}, "update", "max_surge and max_unavailable cannot both be 0: nothing could be replaced"),
        ({"min_capacity": 5, "max_capacity": 4}, "min_capacity", "min_capacity cannot be 5: it is more than the group's max_capacity of 4"),
        ({"suspended_until": "2026-11-27T09:30:00"}, "suspended_until", MOMENT),
        ({"suspended_until": "9999-12-31T23:59:59-23:59"}, "suspended_until", MOMENT),
        (
            {"suspended_until": 1795771800},
            "suspended_until",
            MOMENT,
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(tsg: Caller, given: dict[str, Any], field: str, message: str) -> None:
    group = tsg.make_group(3)
    assert field_errors(tsg("PUT", f"/groups/{group['id']}", body(group, **given))) == {field: message}
    assert tsg.ok("GET", "/groups") == [group]


# Bounds


def test_a_capacity_outside_the_bounds_is_refused(tsg: Caller) -> None:
    group, path = tsg.make_group(3, min_capacity=2, max_capacity=4), "/groups/{}"
    path = path.format(group["id"])
    low = "group capacity cannot be 1: it is less than the group's min_capacity of 2"
    high = "group capacity cannot be 5: it is more than the group's max_capacity of 4"
    assert field_errors(tsg("PUT", path, {**body(group), "capacity": 1})) == {"capacity": low}
    assert field_errors(tsg("PUT", path, {**body(group), "capacity": 5})) == {"capacity": high}
    assert field_errors(tsg("PUT", f"{path}/increment", {"instance_count": 2, "max_instance": 50})) == {"capacity": high}
    assert field_errors(tsg("PUT", f"{path}/decrement", {"instance_count": 2, "min_instance": 0})) == {"capacity": low}
    assert field_errors(tsg("POST", "/groups", {**body(group), "group_name": "x", "min_capacity": 4})) == {
        "capacity": "group capacity cannot be 3: it is less than the group's min_capacity of 4"
    }
    left_out = {name: value for name, value in body(group).items() if name != "capacity"}
    assert "capacity" in field_errors(tsg("PUT", path, left_out)), "it would mean 0"
    assert tsg.ok("GET", "/groups") == [group]
    assert tsg("PUT", f"{path}/increment", {"instance_count": 9, "max_instance": 4}).status_code == 202
    assert tsg("PUT", f"{path}/decrement", {"instance_count": 9, "min_instance": 2}).status_code == 202


def test_a_bound_that_moves_past_the_capacity_takes_it_along(tsg: Caller) -> None:
    group = tsg.make_group(3)
    raised = put(tsg, group, min_capacity=5)
    assert (raised["capacity"], told(tsg, group)[0]) == (5, "capacity 3 -> 5 (min_capacity is 5 now), min_capacity 0 -> 5")
    lowered = put(tsg, raised, min_capacity=1, max_capacity=2)
    assert lowered["capacity"] == 2
    assert told(tsg, group)[0] == "capacity 5 -> 2 (max_capacity is 2 now), min_capacity 5 -> 1, max_capacity null -> 2"
    assert tsg.make_group(None, min_capacity=4)["capacity"] == 4


def test_a_capacity_that_is_asked_for_against_a_new_bound_is_refused(tsg: Caller) -> None:
    group = tsg.make_group(3)
    refused = field_errors(tsg("PUT", f"/groups/{group['id']}", {**body(group), "capacity": 4, "min_capacity": 5}))
    assert refused == {"capacity": "group capacity cannot be 4: it is less than the group's min_capacity of 5"}


def test_increments_at_once_do_not_pass_the_bound(tsg: Caller) -> None:
    group = tsg.make_group(0, max_capacity=5)
    step = {"instance_count": 1, "max_instance": 100}
    answers = together(8, lambda _number: tsg("PUT", f"/groups/{group['id']}/increment", step).status_code)
    assert sorted(answers) == [202] * 5 + [422] * 3
    assert tsg.capacity(group) == 5


# Updates


def test_another_template_begins_a_rollout_where_the_group_is_so_set(tsg: Caller) -> None:
    group = tsg.make_group(3, update={"strategy": "rolling", "max_surge": 1})
    template_id = tsg.make_template()
    changed = put(tsg, group, template_id=template_id, ready_seconds=4)
    assert (changed["template_id"], changed["ready_seconds"]) == (template_id, 4)
    answer = tsg("GET", f"/groups/{group['id']}")
    assert answer.headers["ETag"].endswith('.3"'), "one change of the settings, one of the template"
    ((found, before),) = tsg.api.sql(
        "SELECT template_id::text, previous_template_id::text FROM tsg_rollouts WHERE group_id = :id", id=group["id"]
    )
    assert (found, before) == (template_id, group["template_id"])
    refused = error(tsg("PUT", f"/groups/{group['id']}", body(group)), 409, "Conflict")
    assert "is under way (Pending)" in refused["message"]
    assert tsg.ok("GET", f"/groups/{group['id']}") == changed
    assert put(tsg, changed, capacity=9)["capacity"] == 9, "anything else may be changed meanwhile"


def test_a_manual_group_gets_another_template_without_a_rollout(tsg: Caller) -> None:
    group = tsg.make_group(3)
    put(tsg, group, template_id=tsg.make_template())
    assert tsg.api.sql("SELECT id FROM tsg_rollouts WHERE group_id = :id", id=group["id"]) == []
    rolling = tsg.make_group(3, update={"strategy": "rolling"})
    put(tsg, rolling, capacity=5)
    assert tsg.api.sql("SELECT id FROM tsg_rollouts WHERE group_id = :id", id=rolling["id"]) == []
    assert field_errors(tsg("PUT", f"/groups/{rolling['id']}", body(rolling, template_id=NOBODY))) == {
        "template_id": f"there is no template {NOBODY}"
    }


def test_settings_that_another_release_wrote_cost_their_own_group_a_clear_answer(tsg: Caller) -> None:
    fine, other = tsg.make_group(1), tsg.make_group(1)
    rollout = tsg.ok("POST", f"/groups/{other['id']}/rollouts", {"bake_seconds": 1})
    later = '{"version": 99, "fields": {}}'
    tsg.api.sql("UPDATE tsg_groups SET more = :later WHERE id = :id", later=later, id=other["id"])
    tsg.api.sql("UPDATE tsg_rollouts SET settings = :later, counts = :counts", later=later, counts='{"wanted": 1, "spare": 2}')
    shown, bare = tsg.ok("GET", "/groups")
    assert (shown, body(bare), "drain" in bare) == (fine, body(other), False)
    path = f"/groups/{other['id']}"
    for method, below, sent in (
        ("GET", "", None),
        ("PUT", "", body(other)),
        ("PUT", "/increment", {"instance_count": 1, "max_instance": 9}),
    ):
        answer = tsg(method, path + below, sent)
        assert (answer.status_code, answer.headers.get("Retry-After")) == (503, "5"), answer.text
        assert "Another release of this service wrote the settings of a group" in answer.text
    assert tsg.ok("GET", path + "/status")["rollout"]["counts"]["wanted"] == 1
    (told,) = tsg.ok("GET", path + "/rollouts")
    assert (told["id"], "bake_seconds" in told) == (rollout["id"], False)
    tsg.api.sql("UPDATE tsg_rollouts SET state = 'Rehearsing'")
    tsg.api.sql("UPDATE tsg_group_state SET reason = 'Rehearsing', observed_generation = generation")
    assert tsg.ok("GET", f"{path}/rollouts/{rollout['id']}")["state"] == "Rehearsing"
    status = tsg.ok("GET", path + "/status")
    assert (status["rollout"]["state"], status["reason"]) == ("Rehearsing", "Provisioning")
    for what in ("pause", "resume", "rollback"):
        assert tsg("PUT", f"{path}/rollouts/{rollout['id']}/{what}").status_code == 409
    assert tsg.ok("PUT", f"{path}/rollouts/{rollout['id']}/cancel")["state"] == "Cancelled"
    assert tsg("DELETE", path).status_code == 204
