"""The rows of launches and machines: each change carries its own condition."""

import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from shared.state import group_state, instance_lists, instances, leases
from shared.state.group_state import DueGroup
from shared.state.groups import Group
from shared.state.instances import DELETING, GONE, LAUNCHING, Instance
from shared.state.leases import Lease
from tests.integration.conftest import World


class Holder:
    """Somebody who holds the lease on an account, with one group of it."""

    def __init__(self, world: World, connection: Connection) -> None:
        self.world = world
        self.connection = connection
        self.group = world.make_group(3)
        lease = leases.claim(connection, world.account.id, "holder", seconds=300)
        assert lease is not None
        self.lease: Lease = lease

    def work(self) -> DueGroup:
        (work,) = group_state.list_due(self.connection, self.world.account.id, limit=10)
        return work

    def launch(self) -> str:
        launch_id = instances.insert_launch(self.connection, self.lease, self.work())
        assert launch_id is not None
        return launch_id

    def found(self, machine_id: str | None = None, state: str = "running", group: Group | None = None) -> Instance:
        return instances.insert_found(self.connection, self.lease, (group or self.group).id, machine_id or new_id(), state)

    def rows(self, group: Group | None = None) -> list[Instance]:
        return instance_lists.list_of_groups(self.connection, [(group or self.group).id])[1]

    def row(self) -> Instance:
        (row,) = self.rows()
        return row


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def holder(world: World) -> Iterator[Holder]:
    with world.db.read() as connection:
        yield Holder(world, connection)


def test_a_launch_is_a_row_without_a_machine(holder: Holder) -> None:
    launch_id = holder.launch()
    row = holder.row()
    assert (row.id, row.group_id, row.machine_id, row.state, row.gone_at) == (launch_id, holder.group.id, None, LAUNCHING, None)


def test_several_launches_of_a_group_stand_side_by_side(holder: Holder) -> None:
    assert len({holder.launch() for _ in range(3)}) == len(holder.rows()) == 3


def test_a_launch_planned_for_what_the_group_was_is_not_written_down(holder: Holder) -> None:
    outdated = holder.work()
    holder.world.resize(holder.group, 1)
    assert instances.insert_launch(holder.connection, holder.lease, outdated) is None
    assert holder.rows() == []
    assert holder.launch()


def test_a_deletion_planned_for_what_the_group_was_is_not_right_any_more(holder: Holder) -> None:
    outdated = holder.work()
    holder.world.resize(holder.group, 1)
    assert not instances.may_delete(holder.connection, holder.lease, outdated)
    assert instances.may_delete(holder.connection, holder.lease, holder.work())
    leases.release(holder.connection, holder.lease, budget_left=0)
    assert not instances.may_delete(holder.connection, holder.lease, holder.work())


def test_an_acknowledged_launch_has_its_machine_whoever_holds_the_lease_by_then(holder: Holder) -> None:
    launch_id, machine_id = holder.launch(), new_id()
    leases.release(holder.connection, holder.lease, budget_left=0)
    instances.mark_launched(holder.connection, launch_id, machine_id, "provisioning")
    assert (holder.row().id, holder.row().machine_id, holder.row().state) == (launch_id, machine_id, "provisioning")


def test_the_second_acknowledgement_of_a_launch_changes_nothing(holder: Holder) -> None:
    launch_id, machine_id = holder.launch(), new_id()
    instances.mark_launched(holder.connection, launch_id, machine_id, "provisioning")
    instances.mark_launched(holder.connection, launch_id, new_id(), "running")
    assert (holder.row().machine_id, holder.row().state) == (machine_id, "provisioning")


def test_a_refused_launch_never_was(holder: Holder) -> None:
    instances.delete_launch(holder.connection, holder.launch())
    assert holder.rows() == []


def test_a_launch_that_has_its_machine_is_not_refused_any_more(holder: Holder) -> None:
    launch_id = holder.launch()
    instances.mark_launched(holder.connection, launch_id, new_id(), "provisioning")
    instances.delete_launch(holder.connection, launch_id)
    assert holder.row().id == launch_id


def test_a_machine_is_found_once(holder: Holder) -> None:
    first = holder.found()
    again = holder.found(first.machine_id, "stopped")
    assert (again.id, again.state) == (first.id, "stopped")
    assert holder.rows() == [again]


def test_a_machine_that_was_taken_for_gone_is_found_again(holder: Holder) -> None:
    first = holder.found()
    instances.mark_state(holder.connection, holder.lease, first.id, GONE)
    assert holder.row().gone_at is not None
    assert holder.found(first.machine_id) == holder.row()
    assert (holder.row().id, holder.row().state, holder.row().gone_at) == (first.id, "running", None)


def test_a_machine_that_changed_its_group_is_the_new_one_s(holder: Holder) -> None:
    other = holder.world.make_group(1)
    first = holder.found()
    holder.found(first.machine_id, group=other)
    assert holder.rows() == []
    assert [row.id for row in holder.rows(other)] == [first.id]


def test_two_rows_never_have_the_same_machine(holder: Holder) -> None:
    machine_id = holder.found().machine_id
    assert machine_id is not None
    launch_id = holder.launch()
    with pytest.raises(IntegrityError):
        instances.mark_launched(holder.connection, launch_id, machine_id, "running")


def test_the_state_is_dated_when_it_changes_and_only_then(holder: Holder) -> None:
    first = holder.found(state="provisioning")
    instances.mark_state(holder.connection, holder.lease, first.id, "provisioning")
    assert holder.row() == first
    instances.mark_state(holder.connection, holder.lease, first.id, "running")
    assert holder.row().state == "running"
    assert holder.row().state_since > first.state_since
    assert holder.row().launched_at == first.launched_at


def test_what_is_being_deleted_stays_so_until_it_is_gone(holder: Holder) -> None:
    first = holder.found()
    instances.mark_deleting(holder.connection, first.id)
    for state in ("running", "stopping", "failed"):
        instances.mark_state(holder.connection, holder.lease, first.id, state)
        assert holder.row().state == DELETING
    instances.mark_state(holder.connection, holder.lease, first.id, GONE)
    assert holder.row().state == GONE
    assert holder.row().gone_at is not None


def test_a_deletion_asked_for_again_is_waited_for_from_then_on(holder: Holder) -> None:
    first = holder.found()
    instances.mark_deleting(holder.connection, first.id)
    before = holder.row().state_since
    instances.mark_deleting(holder.connection, first.id)
    assert holder.row().state_since > before


def test_a_machine_that_is_gone_is_not_brought_back_by_a_late_answer(holder: Holder) -> None:
    first = holder.found()
    instances.mark_state(holder.connection, holder.lease, first.id, GONE)
    instances.mark_deleting(holder.connection, first.id)
    assert holder.row().state == GONE


def test_what_went_long_ago_is_not_told_any_more(holder: Holder) -> None:
    there, recent, old = holder.found(), holder.found(), holder.found()
    for gone in (recent, old):
        instances.mark_state(holder.connection, holder.lease, gone.id, GONE)
    holder.world.sql("UPDATE tsg_instances SET gone_at = gone_at - interval '11 minutes' WHERE id = :id", id=old.id)
    assert {row.id for row in holder.rows()} == {there.id, recent.id}


def test_rows_are_kept_for_a_day_after_their_machine_is_gone(holder: Holder) -> None:
    there, kept, old = holder.found(), holder.found(), holder.found()
    for gone, hours in ((kept, 23), (old, 25)):
        instances.mark_state(holder.connection, holder.lease, gone.id, GONE)
        holder.world.sql(f"UPDATE tsg_instances SET gone_at = gone_at - interval '{hours} hours' WHERE id = :id", id=gone.id)
    holder.world.sql("UPDATE tsg_instances SET launched_at = launched_at - interval '1 year' WHERE id = :id", id=there.id)
    assert instances.delete_old(holder.connection, limit=1000) >= 1
    left = holder.world.sql("SELECT id::text FROM tsg_instances WHERE group_id = :id", id=holder.group.id)
    assert {row.id for row in left} == {there.id, kept.id}
