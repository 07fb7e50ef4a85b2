"""Machines that come to a group and leave it by hand, beside a worker that looks at the same moment."""

from sqlalchemy import Connection

from shared.state import members
from shared.state.changes import Asker
from shared.state.groups import Group
from shared.state.members import Adoptee
from tests.integration.conftest import World
from tests.integration.test_converge import caught_in_a_pass
from tests.integration.test_tags_by_hand import retag


def asker(world: World, group: Group) -> Asker:
    return Asker(world.account.id, group.id, "R")


def known(world: World, group: Group) -> set[str | None]:
    return {row.machine_id for row in world.rows(group)}


def test_a_machine_that_is_detached_while_a_worker_looks_at_it_is_not_found_again(world: World) -> None:
    group = world.make_group(3)
    world.settle()
    machine_id, *rest = world.ids(group)
    with caught_in_a_pass(world) as connection:
        members.detach(connection, asker(world, group), machine_id, lowers=True)
    # CloudAPI takes the tags away in a job, and lists them until then.
    world.settle()
    assert known(world, group) == set(rest)
    assert (world.running(group), world.creates, world.deletes) == (3, 3, 0)


def test_a_detachment_that_is_planned_around_keeps_the_machine(world: World) -> None:
    group = world.make_group(3)
    world.settle()
    machine_id = world.ids(group)[0]
    world.resize(group, 2)

    def hold(connection: Connection) -> None:
        members.hold(connection, asker(world, group), machine_id, lowers=False)

    world.db.transact(hold)
    world.settle()
    assert machine_id in known(world, group), "the oldest would have gone"
    assert machine_id in world.ids(group, "running")


def test_an_adopted_machine_counts_before_it_has_tags_and_after(world: World) -> None:
    group, other = world.make_group(1), world.make_group(1)
    world.settle()
    (machine,) = world.machines(other)
    world.db.transact(lambda connection: members.detach(connection, asker(world, other), machine.id, lowers=True))
    retag(world, machine)
    with caught_in_a_pass(world) as connection:
        members.adopt(connection, asker(world, group), Adoptee(machine.id, "by-hand", "running", None, None), most=100)
    world.settle()
    assert machine.id in known(world, group)
    retag(world, machine, tsg__name=group.name, tsg__group=group.id)
    world.settle()
    assert known(world, group) == set(world.ids(group))
    assert (world.running(group), world.creates, world.deletes) == (2, 2, 0)
