"""Groups at rest: while CloudAPI's list says what it said at the last check, nothing is read of it, and nothing is planned."""

import pytest

from shared.plan import conclusion
from shared.state import group_state
from shared.state.groups import Group
from tests.integration.conftest import World


def check_in_time(world: World, group: Group) -> bool:
    """Have the account checked because the group's interval is over; was it planned?

    What a row says of a machine is false until the list is read.
    """
    world.sql("UPDATE tsg_instances SET state = 'stopped' WHERE group_id = :id AND gone_at IS NULL", id=group.id)
    world.sql("UPDATE tsg_group_state SET check_at = now(), rest_at = now() WHERE group_id = :id", id=group.id)
    world.worker.run(world.account.id)
    return {row.state for row in world.rows(group)} != {"stopped"}


def test_a_settled_group_is_planned_when_there_is_news_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # The hour of rest does not end during the test.
    monkeypatch.setattr(conclusion, "LONGEST_REST", 10**9)
    group, other = world.make_group(2), world.make_group(1)
    world.settle()
    world.converge()
    lists = world.asked("ListMachines")
    assert not check_in_time(world, group)
    assert world.asked("ListMachines") == lists + 1
    row = world.group_row(group)
    assert (row.reason, row.failures, row.last_error) == ("Settled", 0, None)
    assert not check_in_time(world, group), "rest is lasting"

    # A death, of a machine of another group too: the list is another one.
    world.sim.cloud.kill(world.machines(other)[0])
    assert check_in_time(world, group)
    world.settle()
    assert (world.running(group), world.running(other)) == (2, 1)
    world.converge()
    assert not check_in_time(world, group)

    # Somebody asks for a check, or changes the group.
    world.sql("UPDATE tsg_instances SET state = 'stopped' WHERE group_id = :id AND gone_at IS NULL", id=group.id)
    world.sql("UPDATE tsg_group_state SET check_at = now(), rest_at = now() WHERE group_id = :id", id=group.id)
    world.db.transact(lambda connection: group_state.mark_due(connection, group.id))
    world.worker.run(world.account.id)
    assert {row.state for row in world.rows(group)} == {"running"}, "also of one that is due already"
    world.resize(group, 3)
    world.settle()
    assert world.running(group) == 3
