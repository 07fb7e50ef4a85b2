"""Somebody changes the tags of a group's machines by hand: they stay the group's, and everybody says so."""

import uuid
from collections.abc import Iterator

import pytest
import requests
from structlog.testing import capture_logs

from dev.services import Valkey
from dev.sim.cloudapi.machine import Machine
from shared.reasons import Reason
from shared.spec.machines import TAG_GROUP, TAG_NAME
from shared.state.groups import Group
from tests.integration.api.service import PAIR, Api, legacy, now
from tests.integration.conftest import World


@pytest.fixture
def api(world: World, valkey: Valkey) -> Iterator[Api]:
    world.triton.keys.add(f"{PAIR.public_line} own")
    with Api(world.db, world.sim, valkey.url) as served:
        yield served


def get(api: Api, world: World, path: str) -> requests.Response:
    return api.request("GET", f"/v1/tsg{path}", headers=legacy(f"/{world.login}/keys/{PAIR.fingerprint}", now()))


def retag(world: World, machine: Machine, *, drop: tuple[str, ...] = (), **put: str) -> None:
    for name in drop or tuple(machine.tags):
        del machine.tags[name]
    machine.tags.update({name.replace("__", "."): value for name, value in put.items()})
    machine.touch(world.sim.cloud.now())


def seen(api: Api, world: World, group: Group) -> tuple[int, set[str]]:
    """What `status` counts, and what `instances` shows."""
    status = get(api, world, f"/groups/{group.id}/status").json()
    assert status["failed"] == status["deleting"] == status["provisioning"] == 0
    return status["running"], {machine["id"] for machine in get(api, world, f"/groups/{group.id}/instances").json()}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"drop": (TAG_NAME,)},
        {"drop": (TAG_GROUP,)},
        {"drop": (TAG_NAME,), "tsg__name": "another"},
        {"drop": (TAG_GROUP,), "tsg__group": str(uuid.uuid4())},
        {"drop": (TAG_GROUP,), "tsg__group": "no id at all"},
        {"drop": (TAG_GROUP,), "tsg__name": "a\0b\ud800", "tsg__launch": ["x"], "tsg__template": {"x": 1}},
        {"drop": ("tsg.launch", "tsg.template")},
    ],
    ids=["all gone", "no name", "no group", "another name", "an unknown group", "nonsense", "what no row can have", "no launch"],
)
def test_a_machine_stays_its_groups_whatever_becomes_of_its_tags(world: World, api: Api, change: dict[str, object]) -> None:
    group = world.make_group(3)
    world.settle()
    ids = set(world.ids(group))
    changed = world.machines(group)[1]
    retag(world, changed, **change)  # type: ignore[arg-type]
    with capture_logs() as logs:
        for _ in range(2):
            world.later(300)
            world.converge()
    assert seen(api, world, group) == (3, ids)
    assert (world.creates, world.deletes) == (3, 0)
    assert [line for line in logs if line["event"] == "unknown_tagged_machines"] == []
    assert world.group_row(group).last_error is None
    world.delete(group)
    world.settle()
    assert changed.state == "deleted"
    assert world.group_row(group).emptied_at is not None


def test_a_machine_that_died_without_its_tags_is_replaced(world: World, api: Api) -> None:
    group = world.make_group(2)
    world.settle()
    changed = world.machines(group)[0]
    retag(world, changed)
    world.sim.cloud.kill(changed)
    world.settle()
    assert seen(api, world, group) == (2, set(world.ids(group, "running")))
    assert world.creates == 3


@pytest.mark.parametrize("both_are_due", [True, False])
def test_a_machine_with_another_groups_id_moves_to_that_group(world: World, api: Api, *, both_are_due: bool) -> None:
    giving, taking = world.make_group(2), world.make_group(1)
    world.settle()
    moved = world.machines(giving)[0]
    retag(world, moved, drop=(TAG_GROUP,), tsg__group=taking.id)
    world.resize(taking, 2)
    if both_are_due:
        world.converge()
    else:
        world.worker.run(world.account.id)
    world.settle()
    assert moved.id in seen(api, world, taking)[1]
    for group in (giving, taking):
        assert seen(api, world, group) == (2, set(world.ids(group)))
    assert (world.creates, world.deletes) == (4, 0), "one in its place, where it was"


def test_a_launch_is_believed_lost_although_a_machine_has_lost_its_groups_tag(world: World) -> None:
    """The list has the machine: it tells the truth."""
    group = world.make_group(2)
    world.settle()
    retag(world, world.machines(group)[0], drop=(TAG_GROUP,))
    world.sim.knobs.turn({"error_share": 1.0, "error_status": 500, "error_endpoints": ["CreateMachine"]})
    world.resize(group, 3)
    world.converge()
    world.sim.knobs.turn({"error_share": 0.0})
    world.later(600)
    world.settle()
    assert world.states(group) == ["running"] * 3
    assert world.group_row(group).reason == Reason.SETTLED


def test_a_key_that_is_gone_from_cloudapi_is_said_and_put_back_by_the_owners_next_request(world: World, api: Api) -> None:
    group = world.make_group(1)
    world.settle()
    world.triton.keys.remove(world.pair.fingerprint)
    for _ in range(6):
        world.later(600)
        world.converge()
    row = world.group_row(group)
    assert (row.reason, row.failures) == (Reason.ACCOUNT_REJECTED, 6)
    assert "somebody removed it there" in row.last_error
    assert "Send the service one request" in row.last_error
    assert "Invalid authorization credentials" in row.last_error
    # The owner asks why: with that the key is there again, and the group is due.
    status = get(api, world, f"/groups/{group.id}/status").json()
    assert "Send the service one request" in status["last_error"]
    world.worker.run(world.account.id)
    assert world.group_row(group).last_error is None
    assert get(api, world, f"/groups/{group.id}/status").json()["reason"] == "Settled"
