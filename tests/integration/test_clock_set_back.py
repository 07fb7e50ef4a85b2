"""The database's clock is set back an hour: nothing waits until it is where it was."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection, DateTime

from dev.sim.cloudapi.simulator import Simulator
from shared.backoff import LONGEST
from shared.clients.keys import KeyPair
from shared.plan.schedule import LATE_LOOKS_END
from shared.state import clock, group_state, idempotency, work
from shared.store.db import Database
from shared.store.tables import metadata
from tests.integration.conftest import World
from tsg_workers.reconcilers.clock_mending import AGAIN, ClockWatch


def set_back(world: World, hours: int = 1) -> None:
    """All that is written was written by a clock that is so much later."""
    for table in metadata.sorted_tables:
        times = [column.name for column in table.columns if isinstance(column.type, DateTime)]
        world.sql(f"UPDATE {table.name} SET " + ", ".join(f"{name} = {name} + interval '{hours} hours'" for name in times))


def mend(world: World) -> int:
    with world.db.read() as connection:
        return clock.bring_back(connection)


def times_ahead(world: World) -> list[str]:
    """The columns that hold a time of the future, but for those that say when to do something."""
    return [
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if isinstance(column.type, DateTime) and world.sql(f"SELECT 1 FROM {table.name} WHERE {column.name} > now() + interval '1 minute'")
    ]


def is_due(world: World) -> bool:
    with world.db.read() as connection:
        return bool(group_state.list_due(connection, world.account.id, limit=10))


@pytest.fixture
def world(database: Database, sim: Simulator, pair: KeyPair) -> Iterator[World]:
    """In a database of its own: the clock is everybody's."""
    built = World(database, sim, pair)
    yield built
    built.close()


def test_a_dead_machine_is_replaced_at_once(world: World) -> None:
    group = world.make_group(3, interval=300)
    world.settle()
    world.sim.cloud.kill(world.machines(group)[0])
    set_back(world)
    assert not is_due(world)
    assert mend(world)
    assert is_due(world)
    world.settle()
    assert world.running(group) == 3
    assert len(set(world.ids(group))) == 3
    assert mend(world) == 0, "what is right is left alone"


def test_a_launch_that_came_to_nothing_and_a_pause_do_not_wait_for_the_clock(world: World) -> None:
    group = world.make_group(1, interval=3600)
    world.converge()
    world.sql("UPDATE tsg_group_state SET launch_at = now() + interval '10 seconds' WHERE group_id = :id", id=group.id)
    set_back(world)
    mend(world)
    ((launch_at,),) = world.sql("SELECT launch_at <= now() FROM tsg_group_state WHERE group_id = :id", id=group.id)
    assert launch_at
    assert not [name for name in times_ahead(world) if name.startswith("tsg_instances")]


def test_a_check_that_lies_as_far_ahead_as_its_interval_stays(world: World) -> None:
    group = world.make_group(0, interval=86_400)
    emptied = world.make_group(0, interval=10)
    set_to = "UPDATE tsg_group_state SET check_at = now() + interval '{} seconds', emptied_at = {} WHERE group_id = :id"
    world.sql(set_to.format(86_400, "NULL"), id=group.id)
    world.sql(set_to.format(3 * LATE_LOOKS_END, "now()"), id=emptied.id)
    mend(world)
    for one in (group, emptied):
        assert world.sql("SELECT 1 FROM tsg_group_state WHERE group_id = :id AND check_at > now() + interval '1 hour'", id=one.id)
    assert clock.LONGEST_PAUSE >= LONGEST
    assert clock.LATE_LOOK >= 3 * LATE_LOOKS_END


def test_the_job_of_a_group_is_looked_after(world: World) -> None:
    group = world.make_group(0, interval=300)
    with world.db.read() as connection:
        work.mark_due(connection, work.NOMAD_JOB, group.id)
    set_back(world)
    mend(world)
    assert world.sql("SELECT 1 FROM tsg_work WHERE kind = 'nomad_job' AND subject = :id AND due_at <= now()", id=group.id)


def test_an_answer_that_was_given_is_given_again_and_is_forgotten_a_day_later(world: World) -> None:
    with world.db.read() as connection:
        assert idempotency.claim(connection, world.account.id, "key", "request")
    set_back(world, hours=48)
    mend(world)
    with world.db.read() as connection:
        assert not idempotency.claim(connection, world.account.id, "key", "request"), "it is not carried out twice"
    world.sql("UPDATE tsg_idempotency_keys SET created_at = created_at - interval '25 hours'")
    with world.db.read() as connection:
        assert idempotency.claim(connection, world.account.id, "key", "request")


def test_the_scheduler_sees_the_clock_go_back_and_mends_at_its_start(world: World) -> None:
    set_back_by = timedelta(0)

    def now(connection: Connection) -> datetime:
        return clock.get_now(connection) - set_back_by

    world.make_group(0)
    watch = ClockWatch(now)
    for _ in range(2):
        set_back(world)
        assert not is_due(world)
        with world.db.read() as connection:
            watch.look(connection)
            assert is_due(world)
            world.sql("UPDATE tsg_group_state SET check_at = now() + interval '10 seconds'")
            watch.look(connection)
        assert not is_due(world), "the clock is as it was"
        set_back_by += timedelta(hours=1)
    assert AGAIN >= work.LONGEST_CLAIM, "what is written later is written under a claim that began later"
