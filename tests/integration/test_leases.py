"""The lease on an account: one holder at a time, and no harm from one who has lost it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from sqlalchemy import update

from dev.processes import wait_for
from dev.sim.cloudapi.simulator import Simulator
from shared.clients.keys import KeyPair
from shared.reasons import Reason
from shared.state import group_state, groups, instances, leases
from shared.state.group_state import Check, DueGroup
from shared.state.groups import Group
from shared.state.leases import Lease, LeaseLost, is_held
from shared.state.work import WAKE_AGAIN
from shared.store.db import Database
from shared.store.tables import accounts
from tests.integration.conftest import World
from tsg_workers.runner import Keeper


def take(world: World, owner: str = "worker-1", *, seconds: int = 30) -> Lease | None:
    with world.db.read() as connection:
        return leases.claim(connection, world.account.id, owner, seconds=seconds)


def taken(world: World, owner: str = "worker-1") -> Lease:
    lease = take(world, owner)
    assert lease is not None
    return lease


def renew(world: World, lease: Lease, *, seconds: int = 30) -> bool:
    with world.db.read() as connection:
        return leases.renew(connection, lease, seconds=seconds)


def release(world: World, lease: Lease, *, budget_left: float = 0.0) -> bool:
    with world.db.read() as connection:
        return leases.release(connection, lease, budget_left=budget_left)


def expire(world: World) -> None:
    """The term of the account's holder is over."""
    world.sql("UPDATE tsg_work SET until = now() - interval '1 millisecond' WHERE subject = :id", id=world.account.id)
    world.sql("UPDATE tsg_accounts SET lease_until = now() - interval '1 millisecond' WHERE id = :id", id=world.account.id)


def row(world: World) -> Any:
    statement = (
        "SELECT owner, until, budget_left, budget_at, extract(epoch FROM until - now())::float AS left"
        " FROM tsg_work JOIN tsg_accounts a ON a.id = subject WHERE kind = 'account' AND subject = :id"
    )
    return world.sql(statement, id=world.account.id)[0]


def due(world: World, group: Group) -> DueGroup:
    with world.db.read() as connection:
        return next(work for work in group_state.list_due(connection, world.account.id, limit=100) if work.id == group.id)


def claim(world: World, *, late: int = 0) -> bool:
    with world.db.read() as connection:
        return world.account.id in leases.claim_due(connection, limit=100_000, late=late)


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    begin = threading.Barrier(count)

    def together(number: int) -> Any:
        begin.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(together, range(count)))


# Taking


def test_of_many_takers_at_once_exactly_one_gets_it(world: World) -> None:
    for _ in range(5):
        got = [lease for lease in at_once(16, lambda number: take(world, f"worker-{number}")) if lease]
        assert len(got) == 1
        release(world, got[0])


def test_a_lease_that_is_held_is_not_had_not_even_by_its_holder(world: World) -> None:
    taken(world)
    assert take(world, "worker-2") is None
    assert take(world) is None


def test_who_holds_it_and_until_when_is_to_be_seen_in_the_row(world: World) -> None:
    taken(world, "host:42")
    assert row(world).owner == "host:42"
    assert 25 < row(world).left <= 30


def test_accounts_are_leased_one_by_one(world: World) -> None:
    other = World(world.db, world.sim, world.pair)
    assert taken(world).account_id == world.account.id
    assert taken(other).account_id == other.account.id
    other.close()


def test_an_account_that_is_not_there_is_not_leased(world: World) -> None:
    with world.db.read() as connection:
        assert leases.claim(connection, "00000000-0000-4000-8000-000000000000", "worker-1", seconds=30) is None


def test_an_expired_lease_is_anybody_s_and_its_number_is_higher(world: World) -> None:
    first = taken(world)
    expire(world)
    second = taken(world, "worker-2")
    assert second.token > first.token
    assert row(world).owner == "worker-2"


# Keeping


def test_a_renewed_lease_is_held_from_now_on(world: World) -> None:
    lease = taken(world)
    assert renew(world, lease, seconds=300)
    assert 295 < row(world).left <= 300


def test_a_lease_whose_term_is_over_is_not_renewed_even_when_nobody_else_took_it(world: World) -> None:
    lease = taken(world)
    expire(world)
    assert not renew(world, lease)


def test_a_lease_that_another_has_is_neither_renewed_nor_released(world: World) -> None:
    first = taken(world)
    expire(world)
    second = taken(world, "worker-2")
    assert not renew(world, first)
    release(world, first, budget_left=7)
    assert row(world).owner == "worker-2"
    assert row(world).budget_left is None
    assert renew(world, second)


def test_a_released_lease_is_free_at_once_and_not_to_be_renewed(world: World) -> None:
    lease = taken(world)
    release(world, lease)
    assert (row(world).owner, row(world).until) == (None, None)
    assert not renew(world, lease)
    assert take(world, "worker-2") is not None


def test_what_was_left_of_the_budget_goes_to_the_next_holder(world: World) -> None:
    first = taken(world)
    assert (first.budget_left, first.budget_age) == (None, None)
    release(world, first, budget_left=-3.5)
    world.sql("UPDATE tsg_accounts SET budget_at = budget_at - interval '2 seconds' WHERE id = :id", id=world.account.id)
    second = taken(world)
    assert second.budget_left == -3.5
    assert second.budget_age is not None
    assert 2 <= second.budget_age < 10


# The writes of a holder


def test_the_holder_s_condition_holds_while_the_lease_does(world: World) -> None:
    lease = taken(world)

    def write() -> int:
        with world.db.read() as connection:
            statement = update(accounts).where(accounts.c.id == world.account.id, is_held(lease))
            return connection.execute(statement.values(account_name=accounts.c.account_name)).rowcount

    assert write() == 1
    expire(world)
    assert write() == 0


@pytest.mark.parametrize("how", ["expired", "released", "stolen"])
def test_nothing_is_written_under_a_lease_that_is_over(world: World, how: str) -> None:
    group = world.make_group(3)
    work = due(world, group)
    lease = taken(world)
    with world.db.read() as connection:
        machine = "11111111-1111-4111-8111-111111111111"
        seen = instances.insert_found(connection, lease, group.id, machine, "running")
    if how == "released":
        release(world, lease)
    else:
        expire(world)
    if how == "stolen":
        taken(world, "worker-2")
    before = world.group_row(group)
    with world.db.read() as connection:
        assert instances.insert_launch(connection, lease, work) is None
        assert not instances.may_delete(connection, lease, work)
        instances.mark_state(connection, lease, seen.id, "failed")
        with pytest.raises(LeaseLost):
            leases.require_held(connection, lease)
        assert not group_state.mark_checked(connection, lease, [Check(work, after=300, failures=5, error="stale", reason=Reason.BACKOFF)])
    assert world.rows(group) == [seen]
    after = world.group_row(group)
    assert (after.check_at, after.failures, after.last_error) == (before.check_at, 0, None)


def test_the_same_writes_are_done_while_the_lease_is_held(world: World) -> None:
    group = world.make_group(3)
    work = due(world, group)
    lease = taken(world)
    with world.db.read() as connection:
        seen = instances.insert_found(connection, lease, group.id, "22222222-2222-4222-8222-222222222222", "running")
        assert instances.insert_launch(connection, lease, work) is not None
        instances.mark_state(connection, lease, seen.id, "stopped")
        assert world.states(group) == ["launching", "stopped"]
        assert instances.may_delete(connection, lease, work)
        leases.require_held(connection, lease)
        instances.mark_deleting(connection, seen.id)
        assert group_state.mark_checked(connection, lease, [Check(work, after=300, failures=5, error="why", reason=Reason.BACKOFF)])
    assert world.states(group) == ["deleting", "launching"]
    assert (world.group_row(group).failures, world.group_row(group).last_error) == (5, "why")


# The keeper


def test_a_keeper_renews_until_it_is_left(world: World) -> None:
    lease = taken(world)
    renewals = "SELECT until FROM tsg_work WHERE kind = 'account' AND subject = :id"
    with Keeper(world.db, partial(leases.renew, lease=lease, seconds=1), seconds=1, claimed_at=0.0) as keeper:
        first = world.sql(renewals, id=world.account.id)
        assert wait_for_change(world, renewals, first), "it was not renewed"
        assert wait_for(lambda: keeper.holds, seconds=20), "it does not know that it was"
    last = world.sql(renewals, id=world.account.id)
    assert not wait_for_change(world, renewals, last, seconds=0.7), "it was renewed after it was left"


def test_a_keeper_whose_lease_another_has_taken_knows_it_when_it_renews(world: World) -> None:
    lease = taken(world)
    expire(world)
    taken(world, "worker-2")
    with Keeper(world.db, partial(leases.renew, lease=lease, seconds=1), seconds=1, claimed_at=time.monotonic() + 3600) as keeper:
        assert keeper.holds, "by its own clock it holds it for long"
        assert wait_for(lambda: not keeper.holds, seconds=20)
    assert row(world).owner == "worker-2"


def test_a_keeper_that_cannot_reach_the_database_gives_up_when_the_term_is_over(world: World) -> None:
    keeper = Keeper(world.db, partial(leases.renew, lease=taken(world), seconds=1000), seconds=1000, claimed_at=time.monotonic() - 1000)
    assert not keeper.holds


# Wake-ups


def test_an_account_with_a_due_group_is_told_once(world: World) -> None:
    world.make_group(1)
    assert claim(world)
    assert not claim(world)


def test_of_two_clocks_at_once_one_is_told(world: World) -> None:
    world.make_group(1)
    blocked = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool:
        with world.db.engine.begin() as connection:
            assert world.account.id in leases.claim_due(connection, limit=100_000)
            second = pool.submit(claim, world)
            assert wait_for(lambda: bool(world.sql(blocked)), seconds=20), "the second did not come while the first was at it"
        assert not second.result()


def test_it_is_told_again_when_nobody_has_answered_for_five_seconds(world: World) -> None:
    world.make_group(1)
    assert claim(world)
    rung(world, ago=WAKE_AGAIN - 2)
    assert not claim(world)
    rung(world, ago=WAKE_AGAIN + 1)
    assert claim(world)


def test_it_is_not_told_while_somebody_is_working_on_it(world: World) -> None:
    world.make_group(1)
    lease = taken(world)
    assert not claim(world)
    release(world, lease)
    assert claim(world)


def test_it_is_told_at_once_when_its_holder_has_died(world: World) -> None:
    world.make_group(1)
    assert claim(world)
    taken(world)
    expire(world)
    assert claim(world), "the holder of the lease answers the wake-up: earlier ones count no more"


def test_an_account_without_a_due_group_is_not_told(world: World) -> None:
    group = world.make_group(0)
    world.converge()
    assert not claim(world)
    world.sql("UPDATE tsg_group_state SET check_at = now() WHERE group_id = :id", id=group.id)
    assert claim(world)


def test_a_group_that_is_emptied_is_never_due(world: World) -> None:
    group = world.make_group(0)
    world.delete(group)
    world.converge()
    assert world.group_row(group).emptied_at is not None
    assert not claim(world)


def test_where_nomad_goes_first_only_what_is_late_is_told(world: World) -> None:
    group = world.make_group(1)
    assert not claim(world, late=60)
    world.sql("UPDATE tsg_group_state SET check_at = now() - interval '61 seconds' WHERE group_id = :id", id=group.id)
    assert claim(world, late=60)


def test_accounts_that_cannot_be_told_take_no_place_from_others(database: Database, sim: Simulator, pair: KeyPair) -> None:
    several = [World(database, sim, pair) for _ in range(7)]
    for one in several:
        one.make_group(1)
    taken(several[0])
    told = []
    for _ in range(4):
        with database.read() as connection:
            told.append(leases.claim_due(connection, limit=2))
    assert [len(accounts) for accounts in told] == [2, 2, 2, 0]
    assert {account for accounts in told for account in accounts} == {one.account.id for one in several[1:]}
    for one in several:
        one.close()


def test_the_longest_due_is_told_first(database: Database, sim: Simulator, pair: KeyPair) -> None:
    several = [World(database, sim, pair) for _ in range(4)]
    for due_for, one in zip((20, 40, 10, 30), several, strict=True):
        one.make_group(1)
        one.sql(f"UPDATE tsg_group_state SET check_at = now() - interval '{due_for} seconds' WHERE account_id = :id", id=one.account.id)
        one.make_group(1)
    told = []
    for _ in range(2):
        with database.read() as connection:
            told += leases.claim_due(connection, limit=2)
    assert told == [several[number].account.id for number in (1, 3, 0, 2)]
    for one in several:
        one.close()


def rung(world: World, *, ago: int) -> None:
    world.sql(f"UPDATE tsg_work SET woken_at = now() - interval '{ago} seconds' WHERE subject = :id", id=world.account.id)


def wait_for_change(world: World, statement: str, before: list[Any], *, seconds: float = 20) -> bool:
    return wait_for(lambda: world.sql(statement, id=world.account.id) != before, seconds=seconds)


# Beside programs of the previous release


def test_a_group_that_the_previous_release_made_is_due_and_brought_to_its_capacity(world: World) -> None:
    group = world.make_group(1)
    world.settle()
    ((made,),) = world.sql(
        "INSERT INTO tsg_groups (name, template_id, account_id, capacity, created_at, updated_at, by_name)"
        " SELECT 'made-then', template_id, account_id, 2, now(), now(), false FROM tsg_groups WHERE id = :id RETURNING id::text",
        id=group.id,
    )
    assert claim(world)
    with world.db.read() as connection:
        other = groups.get(connection, world.account.id, made)
    world.settle()
    assert (world.running(group), world.running(other)) == (1, 2)


def test_a_change_by_the_previous_release_is_seen(world: World) -> None:
    group = world.make_group(1)
    world.settle()
    world.sql("UPDATE tsg_groups SET capacity = 3, generation = generation + 1, check_at = now() WHERE id = :id", id=group.id)
    assert claim(world)
    world.settle()
    assert world.running(group) == 3
    assert world.group_row(group).observed_generation == 2


def test_a_worker_of_the_previous_release_and_one_of_this_keep_each_other_out(world: World) -> None:
    world.make_group(1)
    world.sql(
        "UPDATE tsg_accounts SET lease_owner = 'old', lease_until = now() + interval '30 seconds' WHERE id = :id", id=world.account.id
    )
    assert not claim(world)
    assert take(world) is None
    world.sql("UPDATE tsg_accounts SET lease_owner = NULL, lease_until = NULL WHERE id = :id", id=world.account.id)
    lease = taken(world)
    held = "SELECT lease_until > now() FROM tsg_accounts WHERE id = :id"
    assert world.sql(held, id=world.account.id)[0][0], "what an old worker asks before it begins"
    assert renew(world, lease)
    release(world, lease)
    assert world.sql(held, id=world.account.id)[0][0] is None


def test_the_end_of_a_lease_shows_what_was_made_due_under_it(world: World) -> None:
    """The wake-up for it found the lease taken, and is gone."""
    group = world.make_group(0)
    world.settle()
    lease = taken(world)
    world.db.transact(lambda connection: group_state.mark_due(connection, group.id))
    assert release(world, lease)
    assert not release(world, lease), "it is another's business now"
    world.settle()
    assert not release(world, taken(world))
