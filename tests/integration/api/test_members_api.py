"""Members: what rows know of a group's machines, and what their owner asks of them."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from dev.services import Postgres, Valkey
from dev.sim.cloudapi.machine import Machine
from dev.sim.cloudapi.simulator import Simulator
from shared.spec.machines import TAG_GROUP, TAG_NAME
from tests.conftest import new_database
from tests.integration.api.service import NOBODY, Api, Caller, error, field_errors, make_member, together
from tests.integration.api.test_instances_api import launch, launch_for

FOREVER = "2100-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def api(postgres: Postgres, valkey: Valkey) -> Iterator[Api]:
    """With a cloud in which all is done at once."""
    with (
        new_database(postgres) as database,
        Simulator(throttle=False, provision_seconds=0, job_seconds=0) as simulator,
        Api(database, simulator, valkey.url) as served,
    ):
        yield served


def members(tsg: Caller, group: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["machine_id"]: one for one in tsg.ok("GET", f"/groups/{group['id']}/members")}


def path(group: dict[str, Any], machine_id: str, below: str = "") -> str:
    return f"/groups/{group['id']}/members/{machine_id}{below}"


def told(tsg: Caller, group: dict[str, Any]) -> list[tuple[str, str]]:
    """Kinds and descriptions of what was asked since the group was made, the oldest first."""
    found = tsg.ok("GET", f"/groups/{group['id']}/activities")[::-1]
    return [(one["kind"].removeprefix("TSG_"), one["description"].partition(", request")[0]) for one in found][1:]


def generation(tsg: Caller, group: dict[str, Any]) -> int:
    return int(tsg("GET", f"/groups/{group['id']}").headers["ETag"].rpartition(".")[2].strip('"'))


def machine(tsg: Caller, machine_id: str) -> Machine:
    return next(one for one in tsg.api.sim.cloud.all_machines() if one.id == machine_id)


def row(tsg: Caller, machine_id: str) -> Any:
    return tsg.api.sql("SELECT * FROM tsg_instances WHERE machine_id = :id", id=machine_id)[0]


# The list


def test_a_member_is_shown_as_its_row_has_it_and_cloudapi_is_not_asked(tsg: Caller) -> None:
    group, node = tsg.make_group(3), str(uuid.uuid4())
    machine_id = make_member(tsg, group, name="web-1", compute_node=node, primary_ip="10.0.0.1")
    tsg.ok("GET", "/groups")
    asked = tsg.api.sim.cloud.counters.to_json()
    (found,) = members(tsg, group).values()
    assert tsg.api.sim.cloud.counters.to_json() == asked
    assert found == {
        "machine_id": machine_id,
        "name": "web-1",
        "state": "running",
        "template_id": group["template_id"],
        "outdated": False,
        "launched_at": found["launched_at"],
        "running_since": found["running_since"],
        "available": True,
        "health": {"status": "unknown", "since": None, "last_error": None},
        "protected": False,
        "protected_until": None,
        "draining_since": None,
        "compute_node": node,
        "primary_ip": "10.0.0.1",
    }


def test_the_list_has_the_groups_own_machines_in_pages_the_oldest_first(tsg: Caller) -> None:
    group, other = tsg.make_group(3), tsg.make_group(3)
    ids = [make_member(tsg, group) for _ in range(5)]
    make_member(tsg, other)
    gone = make_member(tsg, group, state="gone")
    tsg.api.sql("UPDATE tsg_instances SET gone_at = now() WHERE machine_id = :id", id=gone)
    tsg.api.sql("INSERT INTO tsg_instances (account_id, group_id, state) VALUES (:owner, :id, 'launching')", owner=tsg.id, id=group["id"])
    assert list(members(tsg, group)) == ids
    first = tsg("GET", f"/groups/{group['id']}/members?limit=2")
    assert ([one["machine_id"] for one in first.json()], first.headers["X-Resource-Count"]) == (ids[:2], "5")
    tsg.api.sql("UPDATE tsg_instances SET gone_at = now(), state = 'gone' WHERE machine_id = :id", id=ids[1])
    second = tsg.api.request("GET", first.links["next"]["url"], headers=tsg.signed())
    assert [one["machine_id"] for one in second.json()] == ids[2:4], "the marker may be gone"
    assert field_errors(tsg("GET", f"/groups/{group['id']}/members?marker={NOBODY}")) == {
        "marker": f"marker: there is nothing with the id {NOBODY} in this list"
    }


@pytest.mark.parametrize(
    ("settings", "columns", "available"),
    [
        ({}, {}, True),
        ({}, {"state": "provisioning"}, False),
        ({}, {"vote": "unhealthy"}, False),
        ({}, {"probe": "unhealthy"}, True),
        ({}, {"desired": "gone"}, False),
        ({"ready_seconds": 50}, {}, True),
        ({"ready_seconds": 3000}, {}, False),
        ({"health_check": {"type": "tcp", "port": 80}}, {}, False),
        ({"health_check": {"type": "tcp", "port": 80}}, {"probe": "unhealthy"}, False),
        ({"health_check": {"type": "tcp", "port": 80}}, {"probe": "healthy"}, True),
        ({"health_check": {"type": "tcp", "port": 80}}, {"probe": "healthy", "vote": "unhealthy"}, False),
    ],
)
def test_what_makes_a_member_available(tsg: Caller, settings: dict[str, Any], columns: dict[str, Any], available: bool) -> None:
    group = tsg.make_group(3, **settings)
    machine_id = make_member(tsg, group, **columns)
    assert members(tsg, group)[machine_id]["available"] is available


def test_a_member_of_another_template_is_outdated(tsg: Caller) -> None:
    group = tsg.make_group(3)
    old = make_member(tsg, group)
    body = {"group_name": group["group_name"], "template_id": tsg.make_template(), "capacity": 3}
    new = make_member(tsg, tsg.ok("PUT", f"/groups/{group['id']}", body))
    assert {one: found["outdated"] for one, found in members(tsg, group).items()} == {old: True, new: False}


# Protection


def test_a_protected_member_is_so_until_it_is_taken_back(tsg: Caller) -> None:
    group = tsg.make_group(3)
    machine_id = make_member(tsg, group)
    answer = tsg("PUT", path(group, machine_id, "/protection"), {"protected": True, "until": FOREVER, "note": "busy"})
    assert answer.status_code == 200
    assert answer.json() == members(tsg, group)[machine_id]
    assert (answer.json()["protected"], answer.json()["protected_until"]) == (True, FOREVER)
    assert answer.headers["ETag"] == tsg("GET", f"/groups/{group['id']}").headers["ETag"]
    tsg.ok("PUT", path(group, machine_id, "/protection"), {"protected": True})
    assert members(tsg, group)[machine_id]["protected_until"] is None
    assert tsg.ok("PUT", path(group, machine_id, "/protection"), {"protected": False})["protected"] is False
    assert told(tsg, group) == [
        ("INSTANCE_PROTECT", f"protection of {machine_id} until 2100-01-01T00:00:00+00:00 (busy) by PUT"),
        ("INSTANCE_PROTECT", f"protection of {machine_id} by PUT"),
        ("INSTANCE_PROTECT", f"end of the protection of {machine_id} by PUT"),
    ]
    assert generation(tsg, group) == 4


def test_a_protection_ends_by_itself(tsg: Caller) -> None:
    group = tsg.make_group(3)
    machine_id = make_member(tsg, group)
    tsg.ok("PUT", path(group, machine_id, "/protection"), {"protected": True, "until": FOREVER})
    tsg.api.sql("UPDATE tsg_instances SET protected_until = now() WHERE machine_id = :id", id=machine_id)
    assert members(tsg, group)[machine_id]["protected"] is False


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {"protected": "protected is required"}),
        (
            {"protected": "yes", "until": 5, "note": 6},
            {"protected": "protected must be a boolean", "until": None, "note": "note must be a string"},
        ),
        ({"protected": True, "until": "2001-01-01T00:00:00Z"}, {"until": None}),
        ({"protected": True, "note": "x" * 256}, {"note": None}),
        ({"protected": True, "note": "a\u0000b"}, {"note": None}),
    ],
)
def test_a_protection_that_cannot_be_changes_nothing(tsg: Caller, body: dict[str, Any], wrong: dict[str, str | None]) -> None:
    group = tsg.make_group(3)
    machine_id = make_member(tsg, group)
    before = members(tsg, group)
    found = field_errors(tsg("PUT", path(group, machine_id, "/protection"), body))
    assert {field: message and found[field] for field, message in wrong.items()} == wrong
    assert found.keys() == wrong.keys()
    assert (members(tsg, group), generation(tsg, group)) == (before, 1)


# Health


def test_the_applications_vote_counts_before_what_probes_found(tsg: Caller) -> None:
    group = tsg.make_group(3, health_check={"type": "tcp", "port": 80})
    machine_id = make_member(tsg, group, probe="healthy")
    voted = tsg.ok("PUT", path(group, machine_id, "/health"), {"status": "unhealthy", "note": "leaks"})
    assert (voted["health"]["status"], voted["health"]["last_error"], voted["available"]) == ("unhealthy", "leaks", False)
    back = tsg.ok("PUT", path(group, machine_id, "/health"), {"status": "healthy"})
    assert (back["health"]["status"], back["health"]["last_error"], back["available"]) == ("healthy", None, True)
    assert told(tsg, group)[0] == ("INSTANCE_VOTE", f"vote that {machine_id} is unhealthy (leaks) by PUT")
    assert field_errors(tsg("PUT", path(group, machine_id, "/health"), {"status": "ill"})) == {
        "status": "status must be 'healthy' or 'unhealthy'"
    }


# Removal


def test_a_removed_member_is_replaced_or_the_capacity_falls(tsg: Caller) -> None:
    group = tsg.make_group(3, min_capacity=2)
    first, second, third = (make_member(tsg, group) for _ in range(3))
    answer = tsg("DELETE", path(group, first))
    assert (answer.status_code, answer.content) == (202, b"")
    assert (tsg.capacity(group), row(tsg, first).desired) == (3, "gone")
    assert tsg("DELETE", path(group, second) + "?decrement=true").status_code == 202
    assert (tsg.capacity(group), row(tsg, second).desired) == (2, "gone")
    refused = error(tsg("DELETE", path(group, third) + "?decrement=true"), 400, "BadRequest")
    assert refused["message"] == "The group capacity is at the group's min_capacity of 2, and cannot fall."
    assert row(tsg, third).desired == "run"
    assert told(tsg, group) == [
        ("INSTANCE_REMOVE", f"removal of {first} by DELETE"),
        ("INSTANCE_REMOVE", f"removal of {second}, capacity 3 -> 2 by DELETE"),
    ]


def test_a_member_is_removed_once(tsg: Caller) -> None:
    group = tsg.make_group(3)
    machine_id = make_member(tsg, group)
    answers = together(4, lambda _number: tsg("DELETE", path(group, machine_id) + "?decrement=true").status_code)
    assert sorted(answers) == [202, 409, 409, 409]
    assert tsg.capacity(group) == 2
    for state in ({"state": "deleting"}, {"desired": "gone"}):
        error(tsg("DELETE", path(group, make_member(tsg, group, **state))), 409, "Conflict")
    assert field_errors(tsg("DELETE", path(group, machine_id) + "?decrement=1")) == {"decrement": "decrement must be true or false"}


def test_a_removal_with_a_key_is_carried_out_once_and_answered_twice(tsg: Caller) -> None:
    group = tsg.make_group(3)
    machine_id = make_member(tsg, group)
    for replayed in (None, "true"):
        answer = tsg("DELETE", path(group, machine_id) + "?decrement=true", headers={"Idempotency-Key": f"once {machine_id}"})
        assert (answer.status_code, answer.headers.get("Idempotency-Replayed")) == (202, replayed)
    assert tsg.capacity(group) == 2


@pytest.mark.parametrize(
    ("method", "below", "body"),
    [
        ("DELETE", "", None),
        ("PUT", "/protection", {"protected": True}),
        ("PUT", "/health", {"status": "unhealthy"}),
        ("POST", "/detach", {}),
    ],
)
def test_a_change_of_what_was_not_seen_is_refused(tsg: Caller, method: str, below: str, body: Any) -> None:
    group = tsg.make_group(3)
    machine_id = make_member(tsg, group)
    etag = tsg("GET", f"/groups/{group['id']}").headers["ETag"]
    tsg.ok("PUT", f"/groups/{group['id']}/increment", {"instance_count": 1, "max_instance": 9})
    before = members(tsg, group)
    error(tsg(method, path(group, machine_id, below), body, headers={"If-Match": etag}), 412, "PreconditionFailed")
    assert (members(tsg, group), generation(tsg, group)) == (before, 2)


@pytest.mark.parametrize("machine_id", [NOBODY, "x", "%00"])
def test_a_machine_that_is_no_member_is_not_found_whatever_the_body(tsg: Caller, machine_id: str) -> None:
    group, other = tsg.make_group(3), tsg.make_group(3)
    for id_ in (machine_id, make_member(tsg, other)):
        for method, below, body in (("DELETE", "", None), ("PUT", "/protection", {}), ("PUT", "/health", 5), ("POST", "/detach", [])):
            error(tsg(method, path(group, id_, below), body), 404, "ResourceNotFound")


# Named victims


def test_those_that_are_named_go_and_no_others(tsg: Caller) -> None:
    group = tsg.make_group(4)
    ids = [make_member(tsg, group) for _ in range(4)]
    assert tsg("PUT", f"/groups/{group['id']}/decrement", {"instances": [ids[2].upper(), ids[0]]}).status_code == 202
    assert tsg.capacity(group) == 2
    assert [row(tsg, one).desired for one in ids] == ["gone", "run", "gone", "run"]
    assert told(tsg, group) == [("INSTANCE_REMOVE", f"capacity 4 -> 2 by decrement, removal of {ids[2]}, {ids[0]}")]


def test_named_ones_go_all_or_none(tsg: Caller) -> None:
    group, other = tsg.make_group(4, min_capacity=1), tsg.make_group(1)
    ids = [make_member(tsg, group) for _ in range(4)]
    theirs, leaving = make_member(tsg, other), make_member(tsg, group, desired="gone")
    decrement = f"/groups/{group['id']}/decrement"
    assert set(field_errors(tsg("PUT", decrement, {"instances": [ids[0], theirs, leaving]}))) == {"instances.1", "instances.2"}
    assert "capacity" in field_errors(tsg("PUT", decrement, {"instances": ids}))
    refused = error(tsg("PUT", decrement, {"instances": ids[:2], "min_instance": 3}), 400, "BadRequest")
    assert refused["message"] == "The group capacity would be 2, which is under the minimum of 3."
    assert [row(tsg, one).desired for one in ids] == ["run"] * 4
    assert (tsg.capacity(group), generation(tsg, group)) == (4, 1)


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"instances": []}, {"instances"}),
        ({"instances": "all"}, {"instances", "instance_count", "min_instance"}),
        ({"instances": [5, "x"]}, {"instances.0", "instances.1"}),
        ({"instances": [NOBODY, NOBODY.upper()]}, {"instances"}),
        ({"instances": [NOBODY], "instance_count": 2}, {"instance_count"}),
        ({"instances": None}, {"instance_count", "min_instance"}),
        ({"INSTANCES": [NOBODY], "Instance_Count": 1}, {"instances.0"}),
    ],
)
def test_what_is_wrong_with_named_ones(tsg: Caller, body: dict[str, Any], wrong: set[str]) -> None:
    group = tsg.make_group(4)
    assert set(field_errors(tsg("PUT", f"/groups/{group['id']}/decrement", body))) == wrong


def test_a_member_named_by_two_at_once_goes_once(tsg: Caller) -> None:
    group = tsg.make_group(4)
    machine_id = make_member(tsg, group)
    answers = together(4, lambda _number: tsg("PUT", f"/groups/{group['id']}/decrement", {"instances": [machine_id]}).status_code)
    assert sorted(answers) == [202, 422, 422, 422]
    assert tsg.capacity(group) == 3


# Adoption


def test_an_adopted_machine_is_a_member_with_the_groups_tags(tsg: Caller) -> None:
    group, machine_id = tsg.make_group(0), launch(tsg, role="db")
    answer = tsg("POST", f"/groups/{group['id']}/members", {"machine_id": machine_id.upper()})
    assert answer.status_code == 201, answer.text
    assert answer.json() == members(tsg, group)[machine_id]
    assert (answer.json()["template_id"], answer.json()["outdated"], answer.json()["state"]) == (None, True, "running")
    assert tsg.capacity(group) == 1
    tags = machine(tsg, machine_id).tags
    assert {name: tags[name] for name in ("role", TAG_NAME, TAG_GROUP, "triton.cmon.groups")} == {
        "role": "db",
        TAG_NAME: group["group_name"],
        TAG_GROUP: group["id"],
        "triton.cmon.groups": group["id"],
    }
    assert told(tsg, group) == [("INSTANCE_ADOPT", f"adoption of {machine_id}, capacity 0 -> 1 by POST")]
    again = tsg("POST", f"/groups/{group['id']}/members", {"machine_id": machine_id})
    assert (again.status_code, again.json()["machine_id"], tsg.capacity(group)) == (201, machine_id, 1)


def test_a_group_that_is_short_adopts_in_the_place_of_a_launch(tsg: Caller) -> None:
    group = tsg.make_group(2)
    make_member(tsg, group)
    tsg.ok("POST", f"/groups/{group['id']}/members", {"machine_id": launch(tsg)})
    assert tsg.capacity(group) == 2
    tsg.ok("POST", f"/groups/{group['id']}/members", {"machine_id": launch(tsg)})
    assert tsg.capacity(group) == 3


def test_a_machine_that_cannot_be_adopted_is_refused(tsg: Caller, stranger: Caller) -> None:
    group, other, bounded = tsg.make_group(0), tsg.make_group(1), tsg.make_group(0, max_capacity=0)
    where = f"/groups/{group['id']}/members"
    assert field_errors(tsg("POST", where, {"machine_id": NOBODY})) == {"machine_id": f"the account has no machine {NOBODY}"}
    theirs = launch(stranger)
    assert field_errors(tsg("POST", where, {"machine_id": theirs})) == {"machine_id": f"the account has no machine {theirs}"}
    tsg.api.sim.knobs.turn({"provision_seconds": 60.0})
    young = launch(tsg)
    tsg.api.sim.knobs.turn({"provision_seconds": 0.0})
    assert "is provisioning" in field_errors(tsg("POST", where, {"machine_id": young}))["machine_id"]
    assert "max_capacity of 0" in field_errors(tsg("POST", f"/groups/{bounded['id']}/members", {"machine_id": launch(tsg)}))["capacity"]
    assert set(field_errors(tsg("POST", where, {"machine_id": "x"}))) == {"machine_id"}
    assert set(field_errors(tsg("POST", where, {}))) == {"machine_id"}
    known = launch(tsg)
    make_member(tsg, other, machine_id=known)
    assert other["id"] in error(tsg("POST", where, {"machine_id": known}), 409, "Conflict")["message"]
    tagged = launch_for(tsg, other)
    assert other["id"] in error(tsg("POST", where, {"machine_id": tagged}), 409, "Conflict")["message"]
    assert (members(tsg, group), tsg.capacity(group)) == ({}, 0)


def test_two_groups_that_adopt_one_machine_at_once_get_it_once(tsg: Caller) -> None:
    groups, machine_id = [tsg.make_group(0) for _ in range(4)], launch(tsg)
    answers = together(4, lambda number: tsg("POST", f"/groups/{groups[number]['id']}/members", {"machine_id": machine_id}).status_code)
    assert sorted(answers) == [201, 409, 409, 409]
    assert sum(tsg.capacity(group) for group in groups) == 1


def test_an_adoption_whose_tags_failed_is_completed_by_the_same_request(tsg: Caller) -> None:
    group, machine_id, key = tsg.make_group(0), launch(tsg), {"Idempotency-Key": str(uuid.uuid4())}
    tsg.ok("GET", "/groups")
    tsg.api.sim.knobs.turn({"error_share": 1.0, "error_endpoints": ["AddMachineTags"]})
    failed = error(tsg("POST", f"/groups/{group['id']}/members", {"machine_id": machine_id}, headers=key), 503, "ServiceUnavailable")
    assert "is a member now" in failed["message"]
    assert list(members(tsg, group)) == [machine_id]
    tsg.api.sim.knobs.turn({"error_share": 0.0})
    again = tsg("POST", f"/groups/{group['id']}/members", {"machine_id": machine_id}, headers=key)
    assert (again.status_code, again.headers["Idempotency-Replayed"], tsg.capacity(group)) == (201, "true", 1)
    assert machine(tsg, machine_id).tags[TAG_GROUP] == group["id"]


# Detachment


def adopted(tsg: Caller, group: dict[str, Any], machine_id: str) -> str:
    tsg.ok("POST", f"/groups/{group['id']}/members", {"machine_id": machine_id})
    return machine_id


def test_a_detached_machine_stays_without_the_services_tags(tsg: Caller) -> None:
    group = tsg.make_group(0)
    machine_id = adopted(tsg, group, launch(tsg, role="db"))
    answer = tsg("POST", path(group, machine_id, "/detach"), {"decrement": True})
    assert (answer.status_code, answer.content) == (204, b"")
    assert (members(tsg, group), tsg.capacity(group)) == ({}, 0)
    left = machine(tsg, machine_id)
    assert (left.state, left.tags) == ("running", {"role": "db"})
    assert told(tsg, group)[-1] == ("INSTANCE_DETACH", f"detachment of {machine_id}, capacity 1 -> 0 by POST")
    error(tsg("POST", path(group, machine_id, "/detach"), {}), 404, "ResourceNotFound")
    assert adopted(tsg, tsg.make_group(0), machine_id), "it may be adopted again"


def test_without_decrement_the_group_is_short_of_one(tsg: Caller) -> None:
    group = tsg.make_group(0)
    tsg.ok("POST", path(group, adopted(tsg, group, launch(tsg)), "/detach"), {})
    assert (members(tsg, group), tsg.capacity(group)) == ({}, 1)


def test_a_member_that_cannot_be_detached_keeps_its_tags(tsg: Caller) -> None:
    group = tsg.make_group(0)
    machine_id = adopted(tsg, group, launch(tsg))
    tsg.ok(
        "PUT", f"/groups/{group['id']}", {**{name: group[name] for name in ("group_name", "template_id")}, "capacity": 1, "min_capacity": 1}
    )
    error(tsg("POST", path(group, machine_id, "/detach"), {"decrement": True}), 400, "BadRequest")
    tsg.api.sql("UPDATE tsg_instances SET state = 'deleting' WHERE machine_id = :id", id=machine_id)
    error(tsg("POST", path(group, machine_id, "/detach"), {}), 409, "Conflict")
    assert machine(tsg, machine_id).tags[TAG_GROUP] == group["id"]
    assert set(field_errors(tsg("POST", path(group, machine_id, "/detach"), {"decrement": "yes"}))) == {"decrement"}
    gone = make_member(tsg, group)
    assert "any more" in error(tsg("POST", path(group, gone, "/detach"), {}), 409, "Conflict")["message"]


def test_a_member_whose_detachment_was_broken_off_is_one_still_and_is_spared(tsg: Caller) -> None:
    group = tsg.make_group(0)
    machine_id = adopted(tsg, group, launch(tsg))
    tsg.api.sim.knobs.turn({"error_share": 1.0, "error_endpoints": ["DeleteMachineTag"]})
    error(tsg("POST", path(group, machine_id, "/detach"), {}), 503, "ServiceUnavailable")
    tsg.api.sim.knobs.turn({"error_share": 0.0})
    assert members(tsg, group)[machine_id]["protected"]
    tsg.ok("POST", path(group, machine_id, "/detach"), {})
    assert members(tsg, group) == {}
