"""A worker, a real database and a simulated cloud: whatever happens, a group ends at its capacity and nothing is doubled."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, text

from dev.processes import free_port, wait_for
from dev.sim.cloudapi.catalog import DEFAULT_PACKAGE, LARGE_PACKAGE, PRIVATE_NETWORK
from dev.sim.cloudapi.machine import Machine
from dev.sim.cloudapi.simulator import Simulator
from shared.backoff import LONGEST
from shared.clients.access import Timeouts
from shared.clients.cloudapi import CloudAPI
from shared.clients.keys import KeyPair, Sealer
from shared.clients.signature import Signer
from shared.plan.census import LISTED_AFTER
from shared.plan.schedule import CLOUDAPI_AGAIN
from shared.reasons import Reason
from shared.spec.rollout_settings import RolloutSettings
from shared.state import activities, group_state, groups, instances, leases, rollouts
from shared.state.groups import Group, Wish
from shared.store.db import Database
from tests.conftest import order
from tests.integration.conftest import DELETE_SECONDS, LIMITS, PROVISION_SECONDS, World
from tsg_workers.reconcilers.groups import CLOCK_REFUSED, GroupReconciler, Pace
from tsg_workers.runner import Runner

#: A moment, in which a machine neither boots nor goes; but long enough for CloudAPI to list what it made.
A_MOMENT = 6.0


def settled(world: World, group: Group, capacity: int) -> bool:
    """So many machines run, none else is there, and the service knows it."""
    return world.running(group) == len(world.machines(group)) == capacity and world.states(group) == ["running"] * capacity


def legacy_machine(world: World, name: str, **tags: str) -> str:
    """A machine as the 2018 service made it: it carries the group's name, and nobody's id."""
    clouds = CloudAPI(world.sim.url, Timeouts(5, 30))
    client = clouds.as_account(world.login, Signer(world.login, world.pair.fingerprint, world.pair.private_pem))
    machine = client.create_machine(order("old-{{shortId}}", {"tsg.name": name, **tags}))
    clouds.close()
    return machine.id


def machine_of(world: World, machine_id: str) -> Machine:
    return next(machine for machine in world.sim.cloud.all_machines() if machine.id == machine_id)


@contextmanager
def caught_in_a_pass(world: World, worker: Runner[Any] | None = None) -> Iterator[Connection]:
    """A worker that has read what is due and listed the machines, and can't go on until the block is left.

    What is done on the connection that it gives becomes visible in the moment in which the worker goes on.
    """
    with ThreadPoolExecutor(1) as pool:
        with world.db.engine.begin() as connection:
            connection.execute(text("LOCK TABLE tsg_instances IN ACCESS EXCLUSIVE MODE"))
            converging = pool.submit(world.converge, worker)
            waiting = "SELECT 1 FROM pg_locks WHERE relation = 'tsg_instances'::regclass AND NOT granted"
            assert wait_for(lambda: bool(world.sql(waiting)), seconds=20), "the worker never came to read the instances"
            yield connection
        converging.result()


# Up and down


def test_a_group_grows_and_shrinks_and_empties(world: World) -> None:
    group = world.make_group(0)
    for capacity in (5, 2, 0):
        world.resize(group, capacity)
        world.settle()
        assert settled(world, group, capacity)
    assert (world.creates, world.deletes) == (5, 5)
    assert world.kinds(group) == [activities.LAUNCH] * 5 + [activities.TERMINATE] * 5


def test_a_machine_carries_all_that_its_template_says_and_where_it_belongs(world: World) -> None:
    template = world.make_template(
        package=LARGE_PACKAGE.upper(),
        networks=[PRIVATE_NETWORK],
        firewall_enabled=True,
        userdata="#!/bin/sh\n",
        metadata={"role": "web"},
        tags={"owner": "me", "tsg.name": "not to be forged"},
    )
    group = world.make_group(1, template=template)
    world.settle()
    (machine,) = world.machines(group)
    (row,) = world.rows(group)
    assert machine.name == f"tsg-{template.id[:8]}-{machine.id[:8]}"
    own = {"tsg.name": group.name, "tsg.group": group.id, "tsg.template": template.id, "tsg.launch": row.id, "triton.cmon.groups": group.id}
    assert machine.tags == {"owner": "me", **own}
    assert (machine.metadata["role"], machine.metadata["user-data"]) == ("web", "#!/bin/sh\n")
    assert (machine.package.id, machine.firewall_enabled) == (LARGE_PACKAGE, True)
    assert [network.id for network in machine.networks] == [PRIVATE_NETWORK]


def test_the_oldest_machines_go_first(world: World) -> None:
    group = world.make_group(2)
    world.settle()
    old = world.ids(group)
    world.resize(group, 4)
    world.settle()
    young = set(world.ids(group)) - set(old)
    world.resize(group, 2)
    world.settle()
    assert set(world.ids(group)) == young


def test_a_template_of_another_kind_changes_only_what_is_launched_from_now_on(world: World) -> None:
    group = world.make_group(1)
    world.settle()
    world.resize(group, 2, template=world.make_template(package=LARGE_PACKAGE))
    world.settle()
    assert [machine.package.id for machine in world.machines(group)] == [DEFAULT_PACKAGE, LARGE_PACKAGE]


def test_a_settled_group_costs_one_list_and_changes_nothing(world: World) -> None:
    group = world.make_group(3)
    world.settle()
    world.sim.cloud.counters.reset()
    world.later(300)
    least, most = world.pause_after_converging(group)
    assert least <= 300
    assert most >= 270
    assert world.sim.cloud.counters.to_json()["by_endpoint"] == {"ListMachines": {"200": 1}}


def test_many_groups_of_one_account_share_one_list(world: World) -> None:
    several = [world.make_group(number) for number in range(5)]
    world.settle()
    assert all(settled(world, group, number) for number, group in enumerate(several))
    world.sim.cloud.counters.reset()
    world.converge()
    assert world.asked("ListMachines") == 1


def test_what_is_not_ours_is_left_alone(world: World) -> None:
    strange = [legacy_machine(world, "elsewhere"), legacy_machine(world, "elsewhere", **{"tsg.group": "no id at all"})]
    group = world.make_group(1)
    world.settle()
    world.resize(group, 0)
    world.settle()
    assert [machine_of(world, machine_id).state for machine_id in strange] == ["running", "running"]


# Machines that fail


def test_a_failed_machine_is_deleted_and_replaced(world: World) -> None:
    world.sim.knobs.turn({"fail_next_creates": 1})
    group = world.make_group(3)
    world.settle()
    assert settled(world, group, 3)
    assert (world.creates, world.deletes) == (4, 1)


def test_a_machine_stuck_in_provisioning_is_replaced_when_its_time_is_over_and_no_sooner(world: World) -> None:
    world.sim.knobs.turn({"stick_next_creates": 1})
    group = world.make_group(2)
    world.settle()
    assert world.states(group) == ["provisioning", "running"]
    assert world.creates == 2
    (stuck,) = world.ids(group, "provisioning")
    world.later(LIMITS.provision_timeout)
    world.settle()
    assert settled(world, group, 2)
    assert stuck not in world.ids(group)
    assert world.creates == 3


def test_a_stuck_machine_that_could_not_be_deleted_does_not_push_a_good_one_out(world: World) -> None:
    group = world.make_group(1)
    world.settle()
    (good,) = world.ids(group)
    world.sim.knobs.turn({"stick_next_creates": 1})
    world.resize(group, 2)
    world.settle()
    (stuck,) = world.ids(group, "provisioning")
    world.later(LIMITS.provision_timeout)
    world.sim.knobs.turn({"error_share": 1, "error_endpoints": ["DeleteMachine"]})
    world.converge()
    world.sim.knobs.turn({"error_share": 0})
    world.settle()
    assert settled(world, group, 2)
    assert good in world.ids(group)
    assert stuck not in world.ids(group)


def test_a_machine_killed_behind_our_back_is_replaced(world: World) -> None:
    group = world.make_group(3)
    world.settle()
    killed = world.machines(group)[0]
    world.sim.cloud.kill(killed)
    world.settle()
    assert settled(world, group, 3)
    assert (world.creates, world.deletes) == (4, 0)


def test_a_stopped_machine_is_deleted_and_replaced(world: World) -> None:
    group = world.make_group(3)
    world.settle()
    stopped = world.machines(group)[1]
    world.sim.cloud.break_machine(stopped, "stopped")
    world.settle()
    assert settled(world, group, 3)
    assert stopped.id not in world.ids(group)


@pytest.mark.parametrize("state", ["unknown", "offline", "stopping", "ready"])
def test_a_machine_that_may_come_back_is_waited_for_and_then_replaced(world: World, state: str) -> None:
    group = world.make_group(2)
    world.settle()
    broken = world.machines(group)[0]
    world.sim.cloud.break_machine(broken, state)
    world.settle()
    assert broken.id in world.ids(group)
    assert world.creates == 2
    world.later(LIMITS.provision_timeout)
    world.settle()
    assert settled(world, group, 2)
    assert broken.id not in world.ids(group)


def test_a_machine_that_came_back_is_kept(world: World) -> None:
    group = world.make_group(1)
    world.settle()
    (machine,) = world.machines(group)
    world.sim.cloud.break_machine(machine, "unknown")
    world.converge()
    world.later(LIMITS.provision_timeout - 10)
    world.sim.cloud.break_machine(machine, "running")
    world.converge()
    world.later(LIMITS.provision_timeout)
    world.converge()
    assert world.ids(group) == [machine.id]
    assert (world.creates, world.deletes) == (1, 0)


# Answers that are lost


@pytest.mark.parametrize("status", [None, 502, 504])
def test_creates_whose_answers_were_lost_are_adopted_and_not_repeated(world: World, status: int | None) -> None:
    world.sim.knobs.turn({"lost_answers_next": 3, "lost_answer_status": status})
    group = world.make_group(5)
    world.converge()
    assert world.states(group) == ["launching"] * 3 + ["provisioning"] * 2
    assert world.group_row(group).failures == 1
    world.settle()
    assert settled(world, group, 5)
    assert world.creates == 5
    assert world.group_row(group).last_error is None
    kinds = world.kinds(group)
    assert (kinds.count(activities.LAUNCH), kinds.count(activities.FOUND)) == (2, 3), "each machine is told of once"


def test_creates_that_answer_too_late_are_adopted_and_not_repeated(world: World) -> None:
    hasty = world.make_worker(timeouts=Timeouts(connect=5, read=0.3))
    world.sim.knobs.turn({"hang_seconds": 1.0, "hang_endpoints": ["CreateMachine"]})
    group = world.make_group(2)
    world.converge(hasty)
    assert world.states(group) == ["launching"] * 2
    world.sim.knobs.turn({"hang_seconds": 0.0})
    world.settle()
    assert settled(world, group, 2)
    assert world.creates == 2


def test_a_launch_that_never_left_us_is_made_again_when_its_grace_is_over_and_no_sooner(world: World) -> None:
    """What a worker leaves that was killed after writing the launch down and before asking for it."""
    group = world.make_group(2)

    def write_a_launch_down(connection: Connection) -> None:
        lease = leases.claim(connection, world.account.id, "killed", seconds=1)
        assert lease is not None
        (work,) = group_state.list_due(connection, world.account.id, limit=1)
        assert instances.insert_launch(connection, lease, work)
        leases.release(connection, lease, budget_left=1)

    world.db.transact(write_a_launch_down)
    world.converge()
    world.later(LIMITS.launch_grace - 10)
    world.converge()
    assert world.creates == 1
    world.later(11)
    world.settle()
    assert settled(world, group, 2)
    assert world.creates == 2


def test_a_launch_given_up_whose_machine_turns_up_after_all_is_one_too_many_and_goes(world: World) -> None:
    world.sim.knobs.turn({"lost_answers_next": 1, "stale_list_seconds": LIMITS.launch_grace + 30})
    group = world.make_group(1)
    world.converge()
    world.later(LIMITS.launch_grace + 1)
    world.converge()
    assert world.creates == 2
    world.later(LIMITS.launch_grace + 31)
    world.settle()
    assert settled(world, group, 1)
    assert (world.creates, world.deletes) == (2, 1)


def test_creates_that_failed_in_cloudapi_and_made_their_machines_all_the_same_are_not_repeated(world: World) -> None:
    world.sim.knobs.turn({"lost_answers_next": 2, "lost_answer_status": 500, "stale_list_seconds": LISTED_AFTER - 1})
    group = world.make_group(3)
    world.converge()
    assert world.states(group) == ["doubted"] * 2 + ["provisioning"]
    world.later(LISTED_AFTER - 2)
    world.converge()
    assert world.creates == 3, "they may not be listed yet"
    world.later(3)
    world.settle()
    assert settled(world, group, 3)
    assert world.creates == 3
    found = [one.description for one in world.told(group) if one.kind == activities.FOUND]
    assert len(found) == 2
    assert all("of a launch that failed" in description for description in found)


def test_creates_that_failed_in_cloudapi_are_repeated_as_soon_as_a_list_lacks_them(world: World) -> None:
    world.sim.knobs.turn({"error_share": 1.0, "error_status": 500, "error_endpoints": ["CreateMachine"]})
    group = world.make_group(1)
    world.converge()
    world.sim.knobs.turn({"error_share": 0.0})
    world.converge()
    assert (world.states(group), world.creates) == (["doubted"], 0)
    world.later(LISTED_AFTER + 1)
    world.converge()
    assert (world.states(group), world.creates) == (["provisioning"], 1)
    assert world.kinds(group) == [activities.LAUNCH_ERROR, activities.LAUNCH], "a failure is told once"
    assert world.group_row(group).launch_failures == 0, "and says nothing of the template"


def test_no_machine_goes_for_creates_that_may_have_come_to_nothing(world: World) -> None:
    group = world.make_group(3)
    world.settle()
    world.sim.knobs.turn({"error_share": 1.0, "error_status": 500, "error_endpoints": ["CreateMachine"]})
    world.resize(group, 5)
    world.converge()
    assert world.states(group) == ["doubted"] * 2 + ["running"] * 3
    world.resize(group, 3)
    world.settle()
    assert settled(world, group, 3)
    assert (world.creates, world.deletes) == (3, 0)


# What CloudAPI refuses


def test_a_quota_is_told_and_waited_for_and_what_fits_under_it_runs(world: World) -> None:
    world.sim.knobs.turn({"quota": {world.login: 2}})
    group = world.make_group(5)
    world.settle()
    assert world.running(group) == 2
    assert world.states(group) == ["running"] * 2
    row = world.group_row(group)
    assert "Quota exceeded" in row.last_error
    assert row.failures >= 2
    world.sim.knobs.turn({"quota": {}})
    world.settle()
    assert settled(world, group, 5)
    assert world.creates == 5


def test_a_full_datacenter_is_told_and_waited_for(world: World) -> None:
    world.sim.knobs.turn({"capacity": 1})
    group = world.make_group(3)
    world.settle()
    assert world.states(group) == ["running"]
    assert "No compute resources available" in world.group_row(group).last_error
    assert activities.LAUNCH_ERROR in world.kinds(group)
    world.sim.knobs.turn({"capacity": None})
    world.settle()
    assert settled(world, group, 3)


def test_a_template_that_will_not_do_costs_its_own_group_only(world: World) -> None:
    nobodys = "00000000-0000-4000-8000-000000000000"
    bad, good = world.make_group(2, template=world.make_template(image_id=nobodys)), world.make_group(2)
    world.settle()
    assert settled(world, good, 2)
    assert settled(world, bad, 0)
    assert "image not found" in world.group_row(bad).last_error
    assert world.group_row(good).last_error is None


def test_a_management_key_that_cloudapi_does_not_know_stops_all_and_is_to_be_registered_again(world: World) -> None:
    group = world.make_group(3)
    world.settle()
    world.triton.keys.remove(world.pair.fingerprint)
    world.resize(group, 1)
    world.converge()
    assert (world.running(group), world.deletes) == (3, 0)
    assert "Invalid authorization credentials" in world.group_row(group).last_error
    registered = "SELECT registered_at FROM tsg_keys k JOIN tsg_accounts a ON a.key_id = k.id WHERE a.id = :id"
    assert world.sql(registered, id=world.account.id) == [(None,)]
    world.triton.keys.add(world.pair.public_line, "tsg")
    world.settle()
    assert settled(world, group, 1)


@pytest.mark.parametrize(
    ("status", "said"),
    [(400, "Authorization header invalid: clock skew of 301.000s was greater than 300s"), (401, "Date header is too old")],
)
def test_a_clock_that_cloudapi_refuses_is_told_as_such_and_is_no_fault_of_the_key(world: World, status: int, said: str) -> None:
    group = world.make_group(1)
    world.sim.knobs.turn({"error_share": 1, "error_status": status, "error_code": "InvalidHeader", "error_message": said})
    world.converge()
    row = world.group_row(group)
    assert (row.reason, row.last_error) == (Reason.CLOUDAPI_UNAVAILABLE, CLOCK_REFUSED.format(error=said))
    registered = "SELECT registered_at FROM tsg_keys k JOIN tsg_accounts a ON a.key_id = k.id WHERE a.id = :id"
    assert world.sql(registered, id=world.account.id) != [(None,)]


def test_a_key_that_does_not_open_is_told_and_cloudapi_is_asked_for_nothing(world: World) -> None:
    group = world.make_group(1)
    world.converge(world.make_worker(sealer=Sealer([b"x" * 32])))
    assert "can't be used" in world.group_row(group).last_error
    assert world.sim.cloud.counters.to_json()["requests"] == 0


def test_a_disabled_account_is_left_as_it_is(world: World) -> None:
    group = world.make_group(1)
    world.sql("UPDATE tsg_accounts SET archived = true WHERE id = :id", id=world.account.id)
    world.converge()
    assert world.group_row(group).last_error == "The account is disabled."
    assert world.sim.cloud.counters.to_json()["requests"] == 0


def test_a_throttle_that_is_tighter_than_we_were_told_delays_and_breaks_nothing(world: World) -> None:
    world.sim.knobs.turn({"throttle": True, "throttle_burst": 7, "throttle_rate": 1.0})
    group = world.make_group(20)
    world.converge()
    assert 0 < world.creates < 20
    for _ in range(8):
        world.settle()
    assert settled(world, group, 20)
    assert world.creates == 20
    assert world.sim.cloud.counters.to_json()["throttled"] > 0


# CloudAPI away, or not telling the truth


def down(world: World) -> None:
    world.sim.knobs.turn({"down": True})


def failing(world: World) -> None:
    world.sim.knobs.turn({"error_share": 1})


def not_speaking_json(world: World) -> None:
    world.sim.knobs.turn({"bad_json": True})


def denying_every_machine(world: World) -> None:
    world.sim.knobs.turn({"empty_lists": True, "error_share": 1, "error_endpoints": ["GetMachine"]})


@pytest.mark.parametrize("trouble", [down, failing, not_speaking_json, denying_every_machine])
def test_while_cloudapi_is_in_trouble_nothing_is_launched_or_deleted(world: World, trouble: Callable[[World], None]) -> None:
    group, shrinking, growing = world.make_group(3), world.make_group(2), world.make_group(0)
    world.settle()
    world.resize(shrinking, 1)
    world.resize(growing, 1)
    trouble(world)
    for failures in range(1, 4):
        world.later(A_MOMENT)
        least, most = world.pause_after_converging(group)
        assert least <= 2**failures
        assert most >= 2 ** (failures - 1)
        row = world.group_row(group)
        assert row.failures == failures
        assert row.last_error
    # A group of which no machine is in doubt may grow, whatever is said of the others'.
    assert (world.creates, world.deletes) == (6 if trouble is denying_every_machine else 5, 0)
    assert world.states(group) == ["running"] * 3
    world.sim.knobs.turn({"down": False, "error_share": 0, "bad_json": False, "empty_lists": False})
    world.settle()
    assert settled(world, group, 3)
    assert settled(world, shrinking, 1)
    assert settled(world, growing, 1)
    assert (world.group_row(group).failures, world.group_row(group).last_error) == (0, None)


def test_a_cloudapi_that_cannot_be_reached_is_waited_for(world: World) -> None:
    group = world.make_group(1)
    nowhere = CloudAPI(f"http://127.0.0.1:{free_port()}", Timeouts(1, 1))
    world.converge(
        Runner(world.db, GroupReconciler(world.db, nowhere, world.sealer, Pace(1000, 1000, 30, LIMITS), owner="lost"), owner="lost")
    )
    assert "CloudAPI did not answer" in world.group_row(group).last_error
    assert world.group_row(group).failures == 1
    assert world.rows(group) == []


def rejecting_the_key(world: World) -> None:
    world.triton.keys.remove(world.pair.fingerprint)


@pytest.mark.parametrize(
    ("trouble", "reason", "longest"), [(down, "CloudAPIUnavailable", CLOUDAPI_AGAIN), (rejecting_the_key, "AccountRejected", LONGEST)]
)
def test_patience_ends(world: World, trouble: Callable[[World], None], reason: str, longest: float) -> None:
    group = world.make_group(1, interval=3600)
    world.sql("UPDATE tsg_group_state SET failures = 1000, reason = :reason WHERE group_id = :id", id=group.id, reason=reason)
    trouble(world)
    least, most = world.pause_after_converging(group)
    assert least <= longest
    assert most >= longest / 2


@pytest.mark.parametrize(("lie", "asked"), [({"empty_lists": True}, 4), ({"truncate_lists": 3}, 3)])
def test_machines_missing_from_a_list_are_asked_for_one_by_one_and_not_replaced(world: World, lie: dict[str, object], asked: int) -> None:
    group = world.make_group(4)
    world.settle()
    before = world.ids(group)
    world.sim.knobs.turn(lie)
    world.sim.cloud.counters.reset()
    world.later(300)
    world.converge()
    assert world.asked("GetMachine") == asked
    assert (world.creates, world.deletes) == (0, 0)
    assert world.ids(group) == before
    assert world.states(group) == ["running"] * 4


#: What CloudAPI says of a machine in place of the truth.
ODDITIES: list[dict[str, object]] = [
    {"id": "vm-7"},
    {"id": None},
    {"id": 7},
    {"id": "\ud800\0"},
    {"state": None},
    {"state": "incomplete", "created": "yesterday", "name": 7, "primaryIp": "dhcp", "nics": {"ip": None}, "compute_node": "here"},
    {"tags": {"tsg.name": "x", "tsg.group": 7, "tsg.launch": ["x"], "tsg.template": True}},
    {"tags": None, "metadata": None, "created": None, "nics": None, "ips": None, "networks": None, "name": None},
    {"created": "9999-12-31T23:59:59-14:00"},
    {"created": "0001-01-01T00:00:00+14:00"},
]


def test_machines_of_somebody_else_cost_nothing_however_odd_they_are(world: World) -> None:
    world.sim.knobs.turn({"odd_machines": {legacy_machine(world, "somebody-s"): oddity for oddity in ODDITIES}})
    group = world.make_group(2)
    world.settle()
    assert (settled(world, group, 2), world.deletes, world.group_row(group).last_error) == (True, 0, None)


def test_members_that_are_described_oddly_are_neither_deleted_nor_made_again(world: World) -> None:
    group, other = world.make_group(len(ODDITIES)), world.make_group(1)
    world.settle()
    before, made = world.ids(group), world.creates
    world.sim.knobs.turn({"odd_machines": dict(zip(before, ODDITIES, strict=True))})
    world.resize(other, 2)
    world.later(A_MOMENT)
    world.settle()
    assert (world.ids(group), world.deletes) == (before, 0)
    assert (settled(world, other, 2), world.creates) == (True, made + 1)
    world.sim.knobs.turn({"odd_machines": {}})
    world.later(A_MOMENT)
    world.settle()
    assert settled(world, group, len(ODDITIES))


def test_a_launch_whose_machine_has_an_id_of_another_kind_is_told_and_not_made_again(world: World) -> None:
    world.sim.knobs.turn({"odd_machines": {"*": {"id": "vm-7"}}})
    group = world.make_group(1)
    for _ in range(3):
        world.settle()
        world.later(LIMITS.launch_grace + 1)
    row = world.group_row(group)
    assert (world.creates, world.deletes, row.reason) == (1, 0, Reason.CLOUDAPI_UNAVAILABLE)
    assert "id is no UUID: vm-7" in row.last_error
    world.sim.knobs.turn({"odd_machines": {}})
    world.settle()
    assert (settled(world, group, 1), world.creates) == (True, 1)


@pytest.mark.parametrize("status", [429, 503])
def test_cloudapi_is_left_alone_for_as_long_as_it_asks(world: World, status: int) -> None:
    group = world.make_group(1)
    world.sim.knobs.turn({"error_share": 1, "error_status": status, "error_retry_after": 40})
    least, most = world.pause_after_converging(group)
    assert (least <= 40 <= most, world.asked("ListMachines")) == (True, 1)
    world.sim.knobs.turn({"error_share": 0})
    world.settle()
    assert settled(world, group, 1)


@pytest.mark.parametrize("counts_all", [False, True])
def test_a_list_on_small_pages_is_whole(world: World, *, counts_all: bool) -> None:
    world.sim.knobs.turn({"page_most": 2, "count_all_pages": counts_all})
    group = world.make_group(4)
    world.settle()
    assert (settled(world, group, 4), world.asked("GetMachine")) == (True, 0)
    world.sim.cloud.kill(world.machines(group)[0])
    world.later(300)
    world.settle()
    assert (settled(world, group, 4), world.creates, world.deletes) == (True, 5, 0)


def test_a_list_that_is_late_does_not_make_machines_twice(world: World) -> None:
    world.sim.knobs.turn({"stale_list_seconds": 3600})
    group = world.make_group(3)
    world.settle()
    assert settled(world, group, 3)
    assert world.creates == 3


# Deleting


def test_a_deletion_that_was_refused_is_tried_again(world: World) -> None:
    group = world.make_group(3)
    world.settle()
    world.resize(group, 1)
    world.sim.knobs.turn({"error_share": 1, "error_endpoints": ["DeleteMachine"]})
    world.converge()
    assert world.states(group) == ["running"] * 3
    assert "set to fail" in world.group_row(group).last_error
    assert world.kinds(group).count(activities.TERMINATE_ERROR) == 2
    world.sim.knobs.turn({"error_share": 0})
    world.settle()
    assert settled(world, group, 1)


def test_a_deletion_that_cloudapi_gave_up_is_told_again_after_two_hundred_seconds(world: World) -> None:
    group = world.make_group(1)
    world.settle()
    world.sim.knobs.turn({"delete_seconds": 100_000})
    world.resize(group, 0)
    world.converge()
    world.later(195)
    world.converge()
    assert world.deletes == 1
    world.later(10)
    world.converge()
    assert world.deletes == 2
    world.converge()
    assert world.deletes == 2, "it was told again just now"


def test_a_deletion_whose_answer_was_lost_comes_to_its_end(world: World) -> None:
    group = world.make_group(2)
    world.settle()
    world.sim.knobs.turn({"lost_answers_next": 2, "lost_answer_endpoints": ["DeleteMachine"]})
    world.resize(group, 0)
    world.settle()
    assert settled(world, group, 0)


def test_a_protected_machine_is_spared_for_another_and_told_when_there_is_no_other(world: World) -> None:
    group = world.make_group(1)
    world.settle()
    (protected,) = world.machines(group)
    world.sim.cloud.set_deletion_protection(protected, True)
    world.resize(group, 3)
    world.settle()
    world.resize(group, 1)
    world.settle()
    assert world.ids(group) == [protected.id]
    world.delete(group)
    world.settle()
    row = world.group_row(group)
    assert 'has "deletion_protection" enabled' in row.last_error
    assert (row.emptied_at, world.states(group)) == (None, ["running"])
    world.sim.cloud.set_deletion_protection(protected, False)
    world.later(1)
    world.settle()
    assert world.machines(group) == []
    assert world.group_row(group).emptied_at is not None


def test_a_deleted_group_is_emptied_when_the_last_machine_is_gone_and_no_sooner(world: World) -> None:
    group = world.make_group(3)
    world.settle()
    world.delete(group)
    world.converge()
    assert (world.deletes, world.group_row(group).emptied_at) == (3, None)
    world.later(DELETE_SECONDS - 1)
    world.converge()
    assert world.group_row(group).emptied_at is None
    world.later(2)
    world.converge()
    row = world.group_row(group)
    assert row.emptied_at is not None
    assert world.machines(group) == []


def test_a_group_deleted_while_its_creates_are_unanswered_leaves_no_machine_behind(world: World) -> None:
    world.sim.knobs.turn({"lost_answers_next": 2, "stale_list_seconds": 30})
    group = world.make_group(2)
    world.converge()
    world.delete(group)
    world.converge()
    assert world.group_row(group).emptied_at is None
    world.later(31)
    world.settle()
    assert world.group_row(group).emptied_at is not None
    assert world.machines(group) == []
    assert world.creates == 2


def test_a_deleted_group_with_a_launch_that_never_left_us_is_emptied_when_its_grace_is_over(world: World) -> None:
    world.sim.knobs.turn({"error_share": 1, "error_status": 504, "error_endpoints": ["CreateMachine"]})
    group = world.make_group(1)
    world.converge()
    world.delete(group)
    world.later(LIMITS.launch_grace - 5)
    world.converge()
    assert world.group_row(group).emptied_at is None
    world.later(10)
    world.converge()
    assert world.group_row(group).emptied_at is not None
    assert world.creates == 0


def test_a_new_group_of_the_same_name_has_nothing_in_common_with_the_old_one(world: World) -> None:
    old = world.make_group(3, name="web")
    world.settle()
    before = set(world.ids(old))
    world.delete(old)
    new = world.make_group(2, name="web")
    world.converge()
    assert not before & set(world.ids(new))
    world.settle()
    assert settled(world, new, 2)
    assert world.machines(old) == []
    assert world.group_row(old).emptied_at is not None
    assert world.creates == 5


# Groups of 2018


def test_a_group_of_2018_takes_its_machines_over_by_their_name(world: World) -> None:
    machines = []
    for _ in range(3):
        machines.append(legacy_machine(world, "web"))
        world.later(PROVISION_SECONDS + 1)
    group = world.make_group(2, name="web", by_name=True)
    world.settle()
    assert [machine_of(world, machine_id).state for machine_id in machines] == ["deleted", "running", "running"]
    assert world.creates == 3
    world.resize(group, 3)
    world.settle()
    assert world.states(group) == ["running"] * 3
    assert world.creates == 4


def test_the_machines_of_a_name_are_the_living_groups_and_not_those_of_its_archived_namesakes(world: World) -> None:
    """As where rows of 2018 were loaded into tables that were up to date already."""
    machine = legacy_machine(world, "web")
    for _ in range(4):
        world.delete(world.make_group(1, name="web", by_name=True))
    world.make_group(1, name="web", by_name=True)
    world.settle()
    assert machine_of(world, machine).state == "running"
    assert world.creates == 1


def test_an_archived_namesake_that_is_looked_at_alone_takes_no_machine_from_the_living_group(world: World) -> None:
    machine = legacy_machine(world, "web")
    world.delete(world.make_group(1, name="web", by_name=True))
    living = world.make_group(1, name="web", by_name=True)
    world.settle()
    world.sql(
        "UPDATE tsg_group_state SET check_at = now() WHERE group_id IN"
        " (SELECT id FROM tsg_groups WHERE name = 'web' AND archived AND account_id = :id)",
        id=world.account.id,
    )
    world.worker.run(world.account.id)
    assert (world.deletes, machine_of(world, machine).state) == (0, "running")
    assert [row.machine_id for row in world.rows(living)] == [machine]


def test_a_group_of_ours_does_not_take_machines_by_their_name(world: World) -> None:
    old = legacy_machine(world, "web")
    group = world.make_group(1, name="web")
    world.settle()
    world.resize(group, 0)
    world.settle()
    assert machine_of(world, old).state == "running"
    assert world.creates == 2


def test_a_group_of_2018_does_not_take_a_machine_that_says_whose_it_is(world: World) -> None:
    other = world.make_group(1, name="web")
    world.settle()
    world.sql("UPDATE tsg_groups SET name = 'other' WHERE id = :id", id=other.id)
    group = world.make_group(0, name="web", by_name=True)
    world.settle()
    assert settled(world, other, 1)
    assert world.rows(group) == []


# Several at once


def test_a_group_changed_during_a_pass_gets_what_it_wants_now(world: World) -> None:
    group = world.make_group(9)
    with caught_in_a_pass(world) as connection:
        groups.update_group(connection, world.account.id, group.id, Wish(group.name, group.template_id, 2), request_id=None)
    assert world.creates == 2


def test_a_group_that_was_settled_and_is_changed_during_a_pass_is_not_left_until_its_next_check(world: World) -> None:
    group = world.make_group(1)
    world.settle()
    with caught_in_a_pass(world) as connection:
        groups.update_group(connection, world.account.id, group.id, Wish(group.name, group.template_id, 3), request_id=None)
    assert world.creates == 3


def test_a_group_that_grows_back_during_a_pass_loses_nothing(world: World) -> None:
    group = world.make_group(4)
    world.settle()
    world.resize(group, 0)
    with caught_in_a_pass(world) as connection:
        groups.update_group(connection, world.account.id, group.id, Wish(group.name, group.template_id, 4), request_id=None)
    assert world.deletes == 0
    assert settled(world, group, 4)


def test_a_group_deleted_during_a_pass_is_not_filled_any_more(world: World) -> None:
    group = world.make_group(9)
    with caught_in_a_pass(world) as connection:
        groups.delete_group(connection, world.account.id, group.id, request_id=None)
    assert world.creates == 0
    assert world.group_row(group).emptied_at is not None


def test_a_worker_that_lost_its_lease_launches_and_deletes_nothing(world: World) -> None:
    growing, shrinking = world.make_group(0), world.make_group(2)
    world.settle()
    world.resize(growing, 3)
    world.resize(shrinking, 0)
    lists = world.asked("ListMachines")
    with caught_in_a_pass(world) as connection:
        connection.execute(text("UPDATE tsg_work SET until = now() - interval '1 second' WHERE subject = :id"), {"id": world.account.id})
        connection.execute(text("UPDATE tsg_accounts SET lease_until = NULL WHERE id = :id"), {"id": world.account.id})
        thief = leases.claim(connection, world.account.id, "worker-2", seconds=30)
        assert thief is not None
        before = world.group_row(growing).check_at
    assert (world.creates, world.deletes) == (2, 0)
    assert world.states(growing) == []
    assert world.group_row(growing).check_at == before, "when to look again is for the holder to say"
    assert world.asked("ListMachines") == lists + 1, "it went on looking"
    with world.db.read() as connection:
        assert leases.renew(connection, thief, seconds=30), "the lease of the other was not released by the one who had lost it"
        leases.release(connection, thief, budget_left=100)
    world.settle()
    assert settled(world, growing, 3)
    assert settled(world, shrinking, 0)


def test_what_a_worker_saw_before_it_lost_its_lease_is_not_written_down(world: World) -> None:
    unknown = legacy_machine(world, "web")
    world.later(PROVISION_SECONDS + 1)
    group, emptied = world.make_group(1, name="web", by_name=True), world.make_group(0)
    world.delete(emptied)
    with caught_in_a_pass(world) as connection:
        connection.execute(text("UPDATE tsg_work SET token = token + 1, owner = 'worker-2' WHERE subject = :id"), {"id": world.account.id})
    assert world.rows(group) == []
    assert world.kinds(group) == []
    assert world.group_row(emptied).emptied_at is None
    world.sql("UPDATE tsg_work SET until = NULL WHERE subject = :id", id=world.account.id)
    world.sql("UPDATE tsg_accounts SET lease_until = NULL WHERE id = :id", id=world.account.id)
    world.settle()
    assert [row.machine_id for row in world.rows(group)] == [unknown]
    assert world.group_row(emptied).emptied_at is not None


def test_a_worker_leaves_an_account_alone_on_which_another_is_working(world: World) -> None:
    group = world.make_group(2)
    other = world.make_worker("worker-2")
    with caught_in_a_pass(world):
        assert not other.run(world.account.id)
        assert world.asked("ListMachines") == 1
    assert len(world.machines(group)) == 2


def test_twenty_workers_at_once_never_double_anything(world: World) -> None:
    group = world.make_group(25)
    workers = [world.make_worker(f"worker-{number}") for number in range(20)]
    begin = threading.Barrier(len(workers))

    def work(worker: Runner[Any]) -> None:
        begin.wait()
        for _ in range(3):
            world.converge(worker)

    def all_at_once() -> None:
        with ThreadPoolExecutor(len(workers)) as pool:
            list(pool.map(work, workers))

    all_at_once()
    assert world.creates == 25
    world.later(PROVISION_SECONDS + 1)
    world.resize(group, 10)
    all_at_once()
    assert world.deletes == 15
    world.settle()
    assert settled(world, group, 10)
    assert (world.creates, world.deletes) == (25, 15)


def test_two_accounts_do_not_see_each_other_s_machines(world: World, sim: Simulator, pair: KeyPair) -> None:
    other = World(world.db, sim, pair)
    ours, theirs = world.make_group(2, name="web"), other.make_group(3, name="web")
    world.settle()
    other.settle()
    assert settled(world, ours, 2)
    assert settled(other, theirs, 3)
    other.close()


# Rows that are not what they should be


def test_a_group_whose_template_is_missing_costs_itself_only(database: Database, sim: Simulator, pair: KeyPair) -> None:
    """The tables of 2018 may have come without the reference that forbids it."""
    world = World(database, sim, pair)
    world.sql("ALTER TABLE tsg_groups DROP CONSTRAINT tsg_groups_template_id_fkey")
    bad, good = world.make_group(2), world.make_group(2)
    world.sql("DELETE FROM tsg_templates WHERE id = :id", id=bad.template_id)
    world.settle()
    assert settled(world, good, 2)
    assert settled(world, bad, 0)
    assert "template" in world.group_row(bad).last_error
    world.delete(bad)
    world.settle()
    assert world.group_row(bad).emptied_at is not None
    world.close()


def test_settings_that_another_release_wrote_cost_their_own_group_only(world: World) -> None:
    rolled, strange, bad, good = (world.make_group(1) for _ in range(4))
    world.settle()
    for group in (rolled, strange, bad, good):
        world.resize(group, 2)
    later = '{"version": 99, "fields": {}}'
    for group in (rolled, strange):
        world.db.transact(
            lambda connection, group=group: rollouts.insert_rollout(
                connection, world.account.id, group.id, template_id=None, settings=RolloutSettings(), request_id=None
            )
        )
    world.sql("UPDATE tsg_rollouts SET settings = :later WHERE group_id = :id", later=later, id=rolled.id)
    world.sql("UPDATE tsg_rollouts SET state = 'Rehearsing' WHERE group_id = :id", id=strange.id)
    world.sql("UPDATE tsg_groups SET more = :later WHERE id = :id", later=later, id=bad.id)
    world.sql("UPDATE tsg_group_state SET reason = 'Rehearsing' WHERE group_id = :id", id=good.id)
    world.settle()
    assert [settled(world, group, count) for group, count in ((good, 2), (rolled, 1), (strange, 1), (bad, 1))] == [True] * 4
    for group, what in ((rolled, "the settings of a rollout"), (strange, "the state of a rollout"), (bad, "the settings of a group")):
        row = world.group_row(group)
        assert (row.reason, f"Another release of this service wrote {what}" in row.last_error) == ("ServiceFailed", True)
    world.delete(bad)
    world.settle()
    assert world.group_row(bad).emptied_at is not None


@pytest.mark.parametrize("column", ["tags", "metadata"])
def test_a_group_whose_template_is_unreadable_costs_itself_only(world: World, column: str) -> None:
    bad, good = world.make_group(2), world.make_group(2)
    world.sql(f"UPDATE tsg_templates SET {column} = 'not json' WHERE id = :id", id=bad.template_id)
    world.settle()
    assert settled(world, good, 2)
    assert settled(world, bad, 0)
    assert f"is unreadable: {column}" in world.group_row(bad).last_error
    world.sql(f"UPDATE tsg_templates SET {column} = NULL WHERE id = :id", id=bad.template_id)
    world.settle()
    assert settled(world, bad, 2)


def test_a_fault_of_ours_is_put_off_and_costs_its_own_group_only(database: Database, sim: Simulator, pair: KeyPair) -> None:
    world = World(database, sim, pair)
    bad, good = world.make_group(1), world.make_group(2)
    world.sql("UPDATE tsg_templates SET metadata = :told WHERE id = :id", id=bad.template_id, told='{"no JSON": NaN}')
    for failures in (1, 2):
        world.converge()
        row = world.group_row(bad)
        assert (row.failures, row.last_error) == (failures, "The service failed on this group (ValueError); its log says how.")
        world.later(LIMITS.launch_grace + 1)
    world.sql("UPDATE tsg_templates SET metadata = NULL WHERE id = :id", id=bad.template_id)
    world.settle()
    assert settled(world, bad, 1)
    assert settled(world, good, 2)
    world.close()


def test_a_group_that_cannot_be_concluded_costs_itself_only(world: World) -> None:
    """As where a newer version of this service has written a word that this one does not know."""
    bad, good, gone = world.make_group(2), world.make_group(2), world.make_group(0)
    world.delete(gone)
    pausing = "launch_failures = 1, launch_window = 1, launch_at = now() + interval '60 s'"
    world.sql(f"UPDATE tsg_group_state SET reason = 'Unheard-of', last_error = 'x', {pausing} WHERE group_id = :id", id=bad.id)
    world.converge()
    row = world.group_row(bad)
    assert (row.failures, row.reason) == (1, Reason.SERVICE_FAILED)
    assert row.last_error == "The service failed on this group (ValueError); its log says how."
    assert world.group_row(good).last_error is None
    assert world.group_row(gone).emptied_at is not None
    world.later(61)
    world.settle()
    assert settled(world, good, 2)
    assert settled(world, bad, 2)


@pytest.mark.parametrize(("column", "value"), [("health_check_interval", 10**15), ("health_check_interval", -1), ("capacity", 10**15)])
def test_a_number_that_nobody_would_choose_costs_its_own_group_only(world: World, column: str, value: int) -> None:
    world.sim.knobs.turn({"quota": {world.login: 4}})
    good, bad = world.make_group(2), world.make_group(2)
    world.converge()
    world.sql(f"UPDATE tsg_groups SET {column} = {value} WHERE id = :id", id=bad.id)
    world.settle()
    assert settled(world, good, 2)
    assert settled(world, bad, 2)


# Why


def reason(world: World, group: Group) -> str:
    return str(world.group_row(group).reason)


def test_the_reason_goes_with_the_group(world: World) -> None:
    group = world.make_group(2)
    assert world.group_row(group).reason is None
    world.converge()
    assert reason(world, group) == Reason.PROVISIONING
    world.settle()
    assert reason(world, group) == Reason.SETTLED
    world.resize(group, 1)
    for _ in range(2):
        world.converge()
        assert reason(world, group) == Reason.DELETING, "also while nothing is left to do but to wait for the end"
    world.settle()
    since = world.group_row(group).reason_since
    world.converge()
    row = world.group_row(group)
    assert (row.reason, row.reason_since) == (Reason.SETTLED, since), "it is the same reason still"
    assert row.checked_at > since
    world.delete(group)
    world.converge()
    assert reason(world, group) == Reason.DELETING
    world.settle()
    assert reason(world, group) == Reason.DELETED


REFUSALS = [
    (409, "InvalidArgument", "package is not there", Reason.TEMPLATE_REJECTED),
    (409, "ValidationFailed", "Invalid VM parameters", Reason.TEMPLATE_REJECTED),
    (404, "ResourceNotFound", "no such image", Reason.TEMPLATE_REJECTED),
    (409, "NoAllocatableServersError", "No compute resources available", Reason.NO_CAPACITY),
    (409, "VolumeServerNoResourcesError", "No storage", Reason.NO_CAPACITY),
    (409, "KeyRequired", "At least one SSH key is required to provision", Reason.ACCOUNT_REJECTED),
    (403, "NotAuthorized", "Quota exceeded; to have your limits raised please ask", Reason.QUOTA_EXCEEDED),
    (403, "NotAuthorized", "Account or user is disabled", Reason.ACCOUNT_REJECTED),
    (429, "TooManyRequestsError", "You have exceeded your request rate", Reason.THROTTLED),
    (500, "InternalError", "something broke", Reason.CLOUDAPI_UNAVAILABLE),
    (503, "ServiceUnavailableError", "This data center is being upgraded", Reason.CLOUDAPI_UNAVAILABLE),
]


@pytest.mark.parametrize(("status", "code", "message", "expected"), REFUSALS)
def test_what_cloudapi_says_gives_the_reason(world: World, status: int, code: str, message: str, expected: Reason) -> None:
    group = world.make_group(1)
    # As often as a throttled request is tried.
    world.sim.knobs.turn({"refuse_next_creates": 5, "refuse_status": status, "refuse_code": code, "refuse_message": message})
    world.converge()
    assert reason(world, group) == expected
    world.sim.knobs.turn({"refuse_next_creates": 0})
    world.settle()
    assert reason(world, group) == Reason.SETTLED


# What is told


def told(world: World, group: Group) -> list[tuple[str, str, str | None]]:
    return [(one.kind, one.status, one.cause) for one in world.told(group)]


def test_what_is_done_is_told_with_what_led_to_it(world: World) -> None:
    group = world.make_group(1)
    world.settle()
    world.resize(group, 2)
    world.settle()
    first, _second = world.ids(group)
    made, changed = "created with capacity 1 by POST", "capacity 1 -> 2 by PUT"
    assert told(world, group) == [
        ("TSG_GROUP_CREATE", "success", made),
        ("TSG_INSTANCE_LAUNCH", "success", f"{made}; found none of 1; launches 1"),
        ("TSG_GROUP_SETTLED", "success", f"{made}; found 1 running of 1"),
        ("TSG_CAPACITY_CHANGE", "success", changed),
        ("TSG_INSTANCE_LAUNCH", "success", f"{changed}; found 1 running of 2; launches 1"),
        ("TSG_GROUP_SETTLED", "success", f"{changed}; found 2 running of 2"),
    ]
    launch = world.told(group)[1]
    assert (launch.machine_id, launch.actor, launch.description) == (first, "worker-1", f"launched {first}")
    assert launch.started_at is not None
    assert launch.started_at < launch.at


@pytest.mark.parametrize(("status", "code", "message", "expected"), [refusal for refusal in REFUSALS if refusal[3] != Reason.THROTTLED])
def test_a_group_that_fails_the_same_way_for_long_is_told_of_once(
    world: World, status: int, code: str, message: str, expected: Reason
) -> None:
    group = world.make_group(3)
    world.sim.knobs.turn({"refuse_next_creates": 1000, "refuse_status": status, "refuse_code": code, "refuse_message": message})
    for _ in range(LIMITS.breaker + 3):
        world.converge()
        world.later(3600)
    once = ["TSG_GROUP_CREATE", "TSG_INSTANCE_LAUNCH_ERROR", f"TSG_GROUP_{expected.name}"]
    # CloudAPI's own failures open no circuit: they say nothing of the template.
    once += ["TSG_GROUP_CIRCUIT_OPEN"] if expected != Reason.CLOUDAPI_UNAVAILABLE else []
    assert [one.kind for one in world.told(group)] == once
    failed = world.told(group)[1]
    assert (failed.status, failed.error_code) == ("failed", code)
    assert message in failed.description
    assert failed.cloudapi_request_id
    world.sim.knobs.turn({"refuse_next_creates": 0})
    world.settle()
    assert [one.kind for one in world.told(group)] == [*once, *["TSG_INSTANCE_LAUNCH"] * 3, "TSG_GROUP_SETTLED"]


def test_a_refusal_in_words_that_no_column_takes_costs_its_own_group_only(world: World) -> None:
    one, other = world.make_group(1), world.make_group(1)
    refusal = {"refuse_status": 409, "refuse_code": "ValidationFailed", "refuse_message": "no\0 such \ud800 thing"}
    world.sim.knobs.turn({"refuse_next_creates": 1, **refusal})
    world.converge()
    assert {world.group_row(group).last_error for group in (one, other)} == {"no such ? thing", None}


def test_a_cloud_that_is_away_for_long_is_told_of_once(world: World) -> None:
    group = world.make_group(1)
    world.sim.knobs.turn({"down": True})
    for _ in range(5):
        world.converge()
    world.sim.knobs.turn({"down": False})
    world.settle()
    assert [one.kind for one in world.told(group)] == [
        *("TSG_GROUP_CREATE", "TSG_GROUP_CLOUDAPI_UNAVAILABLE", "TSG_INSTANCE_LAUNCH", "TSG_GROUP_SETTLED"),
    ]


def test_a_machine_that_fails_is_told_of_and_so_is_one_that_is_gone_and_one_that_is_found(world: World) -> None:
    group = world.make_group(2, name=f"{world.login}-web", by_name=True)
    found = legacy_machine(world, group.name)
    world.settle()
    lost = next(machine_id for machine_id in world.ids(group) if machine_id != found)
    world.sim.cloud.kill(machine_of(world, lost))
    world.settle()
    kinds = [(one.kind, one.machine_id) for one in world.told(group)]
    assert (activities.FOUND, found) in kinds
    assert (activities.LOST, lost) in kinds


def test_a_deleted_group_is_told_to_be_gone_once(world: World) -> None:
    group = world.make_group(1)
    world.settle()
    world.delete(group)
    world.settle()
    world.settle()
    assert [one.kind for one in world.told(group)][-3:] == ["TSG_GROUP_DELETE", "TSG_INSTANCE_TERMINATE", "TSG_GROUP_DELETED"]


def test_a_refusal_is_over_when_a_launch_is_taken_on_again(world: World) -> None:
    group = world.make_group(3)
    refused = {"refuse_status": 403, "refuse_code": "NotAuthorized", "refuse_message": "Quota exceeded"}
    world.sim.knobs.turn({"refuse_next_creates": 1000, **refused})
    world.converge()
    assert reason(world, group) == Reason.QUOTA_EXCEEDED
    world.sim.knobs.turn({"refuse_next_creates": 0})
    world.sql("UPDATE tsg_group_state SET launch_at = now() WHERE group_id = :id", id=group.id)
    world.converge()
    row = world.group_row(group)
    assert (row.reason, row.last_error) == (Reason.BACKOFF, None), "one at a time comes first"
    world.settle()
    assert reason(world, group) == Reason.SETTLED


def test_a_machine_without_its_tags_keeps_no_failed_launch_in_doubt(world: World) -> None:
    """The list rightly lacks it: that is no sign that it lacks others."""
    group = world.make_group(1)
    world.settle()
    (untagged,) = world.ids(group)
    machine = machine_of(world, untagged)
    machine.tags.clear()
    machine.touch(world.sim.cloud.now())
    world.sim.knobs.turn({"error_share": 1.0, "error_status": 500, "error_endpoints": ["CreateMachine"]})
    world.resize(group, 2)
    world.converge()
    world.sim.knobs.turn({"error_share": 0.0})
    world.later(3600)
    world.settle()
    assert world.states(group) == ["running"] * 2


def test_a_machine_that_failed_before_any_list_had_it_is_found_and_goes(world: World) -> None:
    """Lists leave the failed ones out, and its create was not answered."""
    world.sim.knobs.turn({"lost_answers_next": 1, "fail_next_creates": 1})
    group = world.make_group(1)
    world.converge()
    world.later(LIMITS.launch_grace + 1)
    assert len(world.machines(group, "failed")) == 1
    world.settle()
    assert settled(world, group, 1)
    assert (world.creates, world.deletes) == (2, 1)
    assert activities.FOUND in world.kinds(group)
    assert activities.LAUNCH_LOST not in world.kinds(group)
