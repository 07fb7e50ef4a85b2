"""`dry_run=true`: the plan of a change, and nothing changed."""

from collections import Counter
from typing import Any

import pytest

from tests.integration.api.service import Caller, error, field_errors, make_member

TABLES = ("tsg_groups", "tsg_group_state", "tsg_instances", "tsg_rollouts", "tsg_activities")


def everything(tsg: Caller) -> Any:
    return [[row._mapping for row in tsg.api.sql(f"SELECT * FROM {name} WHERE account_id = :id ORDER BY 1", id=tsg.id)] for name in TABLES]


def foreseen(tsg: Caller, method: str, path: str, body: object = None) -> dict[str, Any]:
    """The plan; everything else stays."""
    before = everything(tsg)
    answer = tsg(method, f"{path}{'&' if '?' in path else '?'}dry_run=true", body)
    assert answer.status_code == 200, answer.text
    assert everything(tsg) == before
    plan: dict[str, Any] = answer.json()
    assert answer.headers["ETag"] == plan["etag"]
    assert list(plan) == ["etag", "as_of", "capacity", "changes", "waves", "warnings"]
    return plan


def actions(plan: dict[str, Any]) -> dict[str, int]:
    return dict(Counter(change["action"] for change in plan["changes"]))


@pytest.fixture
def group(tsg: Caller) -> dict[str, Any]:
    """Three members, and nothing to do."""
    made = tsg.make_group(3)
    for _ in range(3):
        make_member(tsg, made)
    return made


def test_a_plan_says_what_would_be_launched(tsg: Caller, group: dict[str, Any]) -> None:
    plan = foreseen(tsg, "PUT", f"/groups/{group['id']}/increment", {"instance_count": 2, "max_instance": 9})
    assert plan == {
        "etag": tsg("GET", f"/groups/{group['id']}").headers["ETag"],
        "as_of": None,
        "capacity": {"from": 3, "to": 5},
        "changes": [{"action": "launch", "count": 2, "template_id": group["template_id"]}],
        "waves": [{"launch": 2, "terminate": [], "drain": [], "update": [], "pause_seconds": 0}],
        "warnings": [],
    }


def test_a_plan_names_those_that_would_go(tsg: Caller, group: dict[str, Any]) -> None:
    ids = [one["machine_id"] for one in tsg.ok("GET", f"/groups/{group['id']}/members")]
    plan = foreseen(tsg, "PUT", f"/groups/{group['id']}/decrement", {"instance_count": 1, "min_instance": 0})
    assert plan["changes"] == [{"action": "terminate", "machine_id": ids[0], "why": "was one too many"}], "the oldest"
    plan = foreseen(tsg, "PUT", f"/groups/{group['id']}/decrement", {"instances": [ids[2]]})
    assert [change["machine_id"] for change in plan["changes"]] == [ids[2]]
    plan = foreseen(tsg, "DELETE", f"/groups/{group['id']}/members/{ids[1]}")
    assert (actions(plan), plan["changes"][0]["machine_id"], plan["capacity"]) == ({"replace": 1}, ids[1], {"from": 3, "to": 3})
    plan = foreseen(tsg, "DELETE", f"/groups/{group['id']}/members/{ids[1]}?decrement=true")
    assert (actions(plan), plan["capacity"]) == ({"terminate": 1}, {"from": 3, "to": 2})
    plan = foreseen(tsg, "DELETE", f"/groups/{group['id']}")
    assert (actions(plan), plan["capacity"]) == ({"terminate": 3}, {"from": 3, "to": 0})


def test_a_plan_of_a_put_with_either_address(tsg: Caller, group: dict[str, Any]) -> None:
    body = {"group_name": group["group_name"], "template_id": group["template_id"], "capacity": 1, "drain": {"seconds": 30}}
    for path in ("/groups", f"/groups/{group['id']}"):
        assert actions(foreseen(tsg, "PUT", path, body)) == {"drain": 2}
    rolling = {
        **body,
        "capacity": 3,
        "template_id": tsg.make_template(package="sim-large"),
        "update": {"strategy": "rolling", "max_surge": 1},
    }
    assert actions(foreseen(tsg, "PUT", f"/groups/{group['id']}", rolling)) == {"replace": 3}


def test_a_plan_of_a_rollout_has_its_waves(tsg: Caller, group: dict[str, Any]) -> None:
    steps = [{"percent": 34, "pause_seconds": 600}, {"percent": 100}]
    template_id = tsg.make_template(package="sim-large")
    plan = foreseen(tsg, "POST", f"/groups/{group['id']}/rollouts", {"template_id": template_id, "max_surge": 1, "steps": steps})
    assert actions(plan) == {"replace": 3}
    assert sum(wave["launch"] for wave in plan["waves"]) == 3
    assert 600 in [wave["pause_seconds"] for wave in plan["waves"]]
    in_place = tsg.make_template(tags={"role": "web"})
    assert actions(foreseen(tsg, "POST", f"/groups/{group['id']}/rollouts", {"template_id": in_place})) == {"update": 3}


def test_what_was_planned_is_done_or_refused(tsg: Caller, group: dict[str, Any]) -> None:
    path, step = f"/groups/{group['id']}/increment", {"instance_count": 2, "max_instance": 9}
    plan = foreseen(tsg, "PUT", path, step)
    assert tsg("PUT", path, step, headers={"If-Match": plan["etag"]}).status_code == 202
    error(tsg("PUT", path, step, headers={"If-Match": plan["etag"]}), 412, "PreconditionFailed")
    error(tsg("PUT", f"{path}?dry_run=true", step, headers={"If-Match": plan["etag"]}), 412, "PreconditionFailed")


def test_a_change_that_would_be_refused_is_refused(tsg: Caller, group: dict[str, Any]) -> None:
    before = everything(tsg)
    step = {"instance_count": 1, "max_instance": 3}
    error(tsg("PUT", f"/groups/{group['id']}/increment?dry_run=true", step), 400, "BadRequest")
    assert field_errors(tsg("PUT", f"/groups/{group['id']}/increment?dry_run=maybe", step)) == {"dry_run": "dry_run must be true or false"}
    assert everything(tsg) == before
    assert tsg("PUT", f"/groups/{group['id']}/increment?dry_run=false", {**step, "max_instance": 9}).status_code == 202


def test_a_write_that_cannot_be_rehearsed_is_not_made(tsg: Caller, group: dict[str, Any]) -> None:
    machine_id = make_member(tsg, group)
    rollout = tsg.ok("POST", f"/groups/{group['id']}/rollouts", {})
    before, member = everything(tsg), f"/groups/{group['id']}/members/{machine_id}"
    for method, path, body in (
        ("POST", "/groups", {"group_name": "new", "template_id": group["template_id"]}),
        ("POST", "/templates", {}),
        ("DELETE", f"/templates/{group['template_id']}", None),
        ("PUT", f"{member}/protection", {"protected": True}),
        ("PUT", f"{member}/health", {"status": "unhealthy"}),
        ("POST", f"{member}/detach", {}),
        ("POST", f"/groups/{group['id']}/members", {"machine_id": machine_id}),
        ("PUT", f"/groups/{group['id']}/rollouts/{rollout['id']}/cancel", None),
    ):
        told = error(tsg(method, f"{path}?dry_run=true", body), 400, "BadRequest")
        assert told["message"] == "dry_run is not offered here: nothing was done."
    assert everything(tsg) == before


def test_a_key_that_was_sent_with_a_dry_run_is_free(tsg: Caller, group: dict[str, Any]) -> None:
    path, step, key = (
        f"/groups/{group['id']}/increment",
        {"instance_count": 1, "max_instance": 9},
        {"Idempotency-Key": f"dry {group['id']}"},
    )
    assert tsg("PUT", f"{path}?dry_run=true", step, headers=key).status_code == 200
    assert tsg("PUT", path, step, headers=key).status_code == 202
    assert tsg.capacity(group) == 4
