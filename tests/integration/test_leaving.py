"""Who goes and who stays: drain, protection, votes, named instances, suspensions."""

from typing import Any

import pytest

from shared.reasons import Reason
from shared.state.groups import Group
from tests.integration.conftest import World

CNS = ["web:80"]


def mark(world: World, machine_id: str, **values: Any) -> None:
    """What a request writes about an instance."""
    written = ", ".join(f"{name} = :{name}" for name in values)
    world.sql(f"UPDATE tsg_instances SET {written} WHERE machine_id = :machine_id", machine_id=machine_id, **values)


def in_dns(world: World, group: Group) -> list[str]:
    """The machines to which the group's service leads."""
    names = world.sim.cloud.dns()
    served = {ip for name, ips in names.items() if name.startswith("web.svc.") for ip in ips}
    return [machine.id for machine in world.machines(group) if {nic.ip for nic in machine.nics} & served]


@pytest.fixture
def drained(world: World) -> Group:
    """Three instances in DNS, each to drain for a minute."""
    world.triton.cns = world.triton.approved = True
    group = world.make_group(3, template=world.make_template(cns_services=CNS))
    world.set_up(group, drain={"seconds": 60})
    world.settle()
    assert len(in_dns(world, group)) == 3
    return group


def test_a_surplus_instance_leaves_dns_first_and_is_deleted_when_its_time_has_come(world: World, drained: Group) -> None:
    before = world.ids(drained)
    world.resize(drained, 2)
    world.converge()
    world.later(1)
    left = in_dns(world, drained)
    assert len(left) == 2
    assert world.ids(drained) == before
    assert world.group_row(drained).reason == Reason.DRAINING
    world.later(55)
    world.converge()
    assert world.running(drained) == 3
    low, high = world.pause_after_converging(drained)
    assert 0 <= low <= high <= 5, "it is looked at when the drain is over"
    world.later(5)
    world.converge()
    world.later(20)
    assert world.ids(drained) == left
    assert world.kinds(drained)[-2:] == ["TSG_INSTANCE_DRAIN", "TSG_INSTANCE_TERMINATE"]


def test_a_group_that_grows_again_takes_its_draining_instance_back(world: World, drained: Group) -> None:
    before = world.ids(drained)
    world.resize(drained, 2)
    world.converge()
    world.resize(drained, 4)
    world.converge()
    world.later(21)
    world.settle()
    assert set(before) < set(world.ids(drained))
    assert len(in_dns(world, drained)) == 4
    assert world.creates == 4
    assert world.deletes == 0
    assert "TSG_INSTANCE_UNDRAIN" in world.kinds(drained)


def test_unhealthy_instances_and_deleted_groups_do_not_wait_for_a_drain(world: World, drained: Group) -> None:
    stopped = world.machines(drained)[0]
    mark(world, stopped.id, vote="unhealthy")
    world.converge()
    assert stopped.id not in world.ids(drained, "running")
    world.settle()
    world.delete(drained)
    world.converge()
    world.later(20)
    assert world.machines(drained) == []


def test_a_drain_goes_on_where_it_was_killed(world: World, drained: Group) -> None:
    """The row says that it drains, and DNS does not know of it yet."""
    first = world.ids(drained)[0]
    world.resize(drained, 2)
    mark(world, first, draining_since="2026-01-01T00:00:00Z")
    world.converge()
    world.later(1)
    assert first not in in_dns(world, drained)
    assert world.sql("SELECT drained_at FROM tsg_instances WHERE machine_id = :id", id=first)[0][0] is not None
    world.later(60)
    world.settle()
    assert world.running(drained) == 2
    assert first not in world.ids(drained)


def test_protected_instances_stay_and_the_reason_names_them(world: World) -> None:
    group = world.make_group(3)
    world.settle()
    first, second, third = world.ids(group)
    for one in (first, second):
        mark(world, one, protected=True)
    world.resize(group, 1)
    world.settle()
    assert world.ids(group) == [first, second]
    row = world.group_row(group)
    assert row.reason == Reason.PROTECTED
    assert first in row.last_error
    assert second in row.last_error
    mark(world, first, protected_until="2026-01-01T00:00:00Z")
    world.settle()
    assert world.ids(group) == [second]
    assert world.group_row(group).reason == Reason.SETTLED
    assert third not in world.ids(group)


@pytest.mark.parametrize("policy", ["oldest", "newest"])
def test_the_termination_policy_says_who_goes(world: World, policy: str) -> None:
    group = world.make_group(0)
    for capacity in (1, 2, 3):
        world.resize(group, capacity)
        world.settle()
    before = world.ids(group)
    world.set_up(group, termination_policy=[policy])
    world.resize(group, 1)
    world.settle()
    assert world.ids(group) == (before[-1:] if policy == "oldest" else before[:1])


def test_of_two_servers_the_crowded_one_gives(world: World) -> None:
    group = world.make_group(6)
    world.settle()
    world.set_up(group, termination_policy=["crowded_server"])
    servers = ["11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"]
    for number, machine in enumerate(world.machines(group)):
        machine.compute_node = servers[0 if number < 4 else 1]
        machine.touch(machine.updated)
    world.later(20)
    world.resize(group, 3)
    world.settle()
    left = sorted(machine.compute_node for machine in world.machines(group))
    assert [left.count(server) for server in servers] in ([1, 2], [2, 1])


def test_an_instance_that_its_owner_wants_gone_goes_and_is_replaced(world: World) -> None:
    group = world.make_group(3)
    world.settle()
    chosen = world.ids(group)[1]
    mark(world, chosen, desired="gone")
    world.settle()
    assert chosen not in world.ids(group)
    assert world.running(group) == 3
    assert "its owner wanted" in next(one.description for one in world.told(group) if one.kind == "TSG_INSTANCE_TERMINATE")


def test_a_vote_and_a_probe_that_an_instance_is_unhealthy_have_it_replaced(world: World) -> None:
    group = world.make_group(4)
    world.settle()
    voted, probed = world.ids(group)[:2]
    mark(world, voted, vote="unhealthy")
    mark(world, probed, probe="unhealthy")
    world.settle()
    assert voted not in world.ids(group)
    assert probed in world.ids(group), "it has no health check"
    world.set_up(group, health_check={"type": "tcp", "port": 80})
    world.settle()
    assert probed not in world.ids(group)
    assert world.running(group) == 4


def test_no_more_than_a_share_is_replaced_however_many_are_voted_unhealthy(world: World) -> None:
    group = world.make_group(10)
    world.settle()
    for one in world.ids(group):
        mark(world, one, vote="unhealthy")
    world.converge()
    assert world.deletes == 2
    assert world.group_row(group).reason == Reason.REPLACING


@pytest.mark.parametrize(("what", "capacity"), [("launch", 5), ("terminate", 1)])
def test_what_is_suspended_is_not_done_and_the_reason_says_so(world: World, what: str, capacity: int) -> None:
    group = world.make_group(3)
    world.settle()
    world.set_up(group, suspended=[what], suspend_reason="the move")
    world.resize(group, capacity)
    world.settle()
    assert world.running(group) == 3
    row = world.group_row(group)
    assert row.reason == Reason.SUSPENDED
    assert what in row.last_error
    assert "the move" in row.last_error
    world.set_up(group, suspended=[])
    world.settle()
    assert world.running(group) == capacity


@pytest.mark.parametrize("what", ["launch", "terminate", "replace"])
def test_nothing_is_replaced_while_a_part_of_it_is_suspended(world: World, what: str) -> None:
    group = world.make_group(3)
    world.settle()
    world.set_up(group, suspended=[what])
    mark(world, world.ids(group)[0], vote="unhealthy")
    world.settle()
    assert (world.creates, world.deletes, world.running(group)) == (3, 0, 3)
    assert world.group_row(group).reason == Reason.SUSPENDED


def test_what_cloudapi_says_of_a_machine_is_written_down(world: World) -> None:
    group = world.make_group(1)
    world.settle()
    (machine,) = world.machines(group)
    row = world.sql("SELECT * FROM tsg_instances WHERE machine_id = :id", id=machine.id)[0]
    assert (row.name, row.primary_ip, str(row.template_id)) == (machine.name, machine.nics[0].ip, world.template_id(group))
    assert row.running_since is not None
