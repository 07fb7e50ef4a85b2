"""What the clock reads for /metrics, four times a minute, whatever is scraped."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
import redis
import sqlalchemy.exc
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import event, text

from dev.processes import wait_for
from dev.services import Valkey
from dev.sim.nomad.simulator import Simulator as NomadSimulator
from shared import metrics
from shared.clients.nomad import Nomad
from shared.clients.queue import CONVERGE, SUBMIT_JOB, count_waiting, make_broker, send
from shared.runtime import settings
from shared.store.db import Database
from tests.integration.conftest import World
from tsg_workers import nomad_watch
from tsg_workers.nomad_watch import NomadWatch
from tsg_workers.reconcilers import retention, statistics
from tsg_workers.reconcilers.clock_mending import ClockWatch
from tsg_workers.scheduler import _tick


@pytest.fixture
def world(database: Database, sim: Any, pair: Any) -> Iterator[World]:
    """Alone in its database: what is counted is counted over all accounts."""
    built = World(database, sim, pair)
    yield built
    built.close()


def read(world: World, valkey: Valkey) -> dict[str, float]:
    broker = make_broker(valkey.url.replace("db=0", "db=6"))
    try:
        statistics.count(world.db, broker)
    finally:
        broker.close()
    registry = CollectorRegistry()
    for gauge in metrics.STATE:
        registry.register(gauge)
    lines = [line.rpartition(" ") for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_a_change_is_old_until_a_worker_has_looked_at_it(world: World, valkey: Valkey) -> None:
    group = world.make_group(2)
    world.sql(
        "UPDATE tsg_group_state SET changed_at = now() - interval '90 s', check_at = now() - interval '90 s' WHERE group_id = :id",
        id=group.id,
    )
    for kind, late in (("policies", 61), ("policies", 30), ("deliveries", 90)):
        due = "INSERT INTO tsg_work (kind, subject, due_at) VALUES (:kind, gen_random_uuid(), now() - :late * interval '1 s')"
        world.sql(due, kind=kind, late=late)
    waiting = read(world, valkey)
    assert [waiting[f'tsg_work_late{{kind="{kind}"}}'] for kind in ("policies", "deliveries")] == [1, 1]
    assert 90 <= waiting["tsg_oldest_unhandled_change_seconds"] < 600
    assert (waiting["tsg_groups_due"], waiting["tsg_groups_late"]) == (1, 1)
    assert waiting['tsg_groups{reason="Provisioning"}'] == 1
    world.settle()
    settled = read(world, valkey)
    assert settled["tsg_oldest_unhandled_change_seconds"] == 0
    assert (settled["tsg_groups_due"], settled["tsg_groups_late"]) == (0, 0)
    assert (settled['tsg_groups{reason="Provisioning"}'], settled['tsg_groups{reason="Settled"}']) == (0, 1)
    assert settled['tsg_machines{state="running"}'] == 2
    world.delete(group)
    world.settle()
    gone = read(world, valkey)
    assert sum(value for name, value in gone.items() if name.startswith(("tsg_groups{", "tsg_machines{"))) == 0
    assert gone["tsg_oldest_unhandled_change_seconds"] == 0


def test_wake_ups_that_wait_are_counted(world: World, valkey: Valkey) -> None:
    broker = make_broker(valkey.url.replace("db=0", "db=6"))
    before = read(world, valkey)[f'tsg_queue_messages{{queue="{CONVERGE}"}}']
    send(broker, CONVERGE, world.account.id)
    assert read(world, valkey)[f'tsg_queue_messages{{queue="{CONVERGE}"}}'] == before + 1
    broker.flush_all()
    broker.close()


def test_who_is_due_hears_of_it_although_nothing_can_be_cleared(world: World, valkey: Valkey) -> None:
    """An account that was claimed and not rung for waits for the next claim; and for ever where each look ends in the same way."""
    world.sql("DROP TABLE tsg_idempotency_keys")
    world.make_group(1)
    url = world.db.engine.url.render_as_string(hide_password=False)
    chosen = settings.load({"TSG_DATABASE_URL": url, "TSG_REDIS_URL": valkey.url.replace("db=0", "db=7")}, needs_keys=False)
    broker = make_broker(chosen.redis_url)
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool, mock.patch.object(metrics, "export_state"):
        ticking = pool.submit(_tick, chosen, world.db, stop)
        heard = wait_for(lambda: count_waiting(broker, CONVERGE) == 1 or ticking.done(), seconds=20)
        stop.set()
    ticking.result()
    assert heard
    broker.flush_all()
    broker.close()


@pytest.mark.parametrize(
    "fault", [sqlalchemy.exc.TimeoutError("no connection"), redis.ConnectionError("away"), ValueError("a fault of ours")]
)
def test_a_duty_that_fails_keeps_no_other_from_its_turn(world: World, valkey: Valkey, fault: Exception) -> None:
    """Clock mending comes before statistics and retention in each look."""
    url = world.db.engine.url.render_as_string(hide_password=False)
    chosen = settings.load({"TSG_DATABASE_URL": url, "TSG_REDIS_URL": valkey.url.replace("db=0", "db=9")}, needs_keys=False)
    stop, tried = threading.Event(), []

    def fail(*_: object) -> None:
        tried.append(1)
        raise fault

    with ThreadPoolExecutor(1) as pool, mock.patch.object(metrics, "export_state"), mock.patch.object(ClockWatch, "mend", fail):
        with mock.patch.object(statistics, "count") as counted, mock.patch.object(retention, "prune") as pruned:
            ticking = pool.submit(_tick, chosen, world.db, stop)
            try:
                assert wait_for(lambda: (len(tried) > 1 and pruned.called) or ticking.done(), seconds=20)
            finally:
                stop.set()
        ticking.result()
    assert counted.call_count == pruned.call_count == 1, "each at its own time, whatever becomes of the other duties"


def test_a_job_that_nomad_does_not_run_is_counted(world: World, valkey: Valkey) -> None:
    groups = [world.make_group(1) for _ in range(3)]
    assert read(world, valkey)["tsg_nomad_jobs_failing"] == 0
    world.sql("UPDATE tsg_group_state SET job_error = 'no node' WHERE group_id <> :id", id=groups[0].id)
    assert read(world, valkey)["tsg_nomad_jobs_failing"] == 2


def test_while_nomad_is_away_workers_hear_of_what_is_due_at_once(world: World, valkey: Valkey) -> None:
    world.make_group(1)
    url = world.db.engine.url.render_as_string(hide_password=False)
    with NomadSimulator() as nomad, mock.patch.object(metrics, "export_state"), mock.patch.object(nomad_watch, "PAUSE", 0.05):
        given = {
            "TSG_DATABASE_URL": url,
            "TSG_REDIS_URL": valkey.url.replace("db=0", "db=8"),
            "TSG_SCALER": "nomad",
            "NOMAD_ADDR": nomad.url,
        }
        chosen = settings.load(given, needs_keys=False)
        broker = make_broker(chosen.redis_url)
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool, NomadWatch(Nomad(chosen.nomad)) as watch:
            ticking = pool.submit(_tick, chosen, world.db, stop, watch)
            try:
                # The job's first look is told in the same tick as the group would be.
                assert wait_for(lambda: count_waiting(broker, SUBMIT_JOB) == 1, seconds=20)
                assert not watch.is_away
                assert count_waiting(broker, CONVERGE) == 0
                nomad.knobs.turn({"no_leader": True})
                assert wait_for(lambda: count_waiting(broker, CONVERGE) == 1, seconds=20)
                assert watch.is_away
                nomad.knobs.turn({"no_leader": False})
                assert wait_for(lambda: not watch.is_away, seconds=20)
            finally:
                stop.set()
        ticking.result()
        broker.flush_all()
        broker.close()


def test_counting_reads_indexes_and_no_table(world: World, valkey: Valkey) -> None:
    statements: list[tuple[str, Any]] = []

    @event.listens_for(world.db.reader, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        statements.append((statement, parameters))

    read(world, valkey)
    assert len(statements) == 7
    plans = []
    with world.db.engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        for statement, parameters in statements:
            plans.append("\n".join(row[0] for row in connection.exec_driver_sql("EXPLAIN " + statement, parameters)))
    assert [plan for plan in plans if "Seq Scan" in plan or "Index" not in plan] == []
