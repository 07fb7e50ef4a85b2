"""tsg-clock: rings for whatever is due and not being worked on. Several may run: each due account is told to one of them."""

import argparse
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import redis
import sqlalchemy.exc
from dramatiq.brokers.redis import RedisBroker
from sqlalchemy import Connection

from shared import log, metrics
from shared.clients.nomad import Nomad
from shared.clients.queue import CONVERGE, REMOVE_JOB, SUBMIT_JOB, make_broker, send, waiting
from shared.reasons import Reason
from shared.runtime import diagnostics, flags, health, monitor, program
from shared.runtime.checks import health_of
from shared.runtime.settings import Settings
from shared.runtime.signals import on_signal
from shared.state import activities, clock, idempotency, instances, jobs, leases, looks
from shared.store import db
from tsg_workers.nomad_watch import NomadWatch

_log = log.get(__name__)

#: Seconds between looks at what is due.
TICK = 1.0
#: Accounts rung for at one look.
MOST = 1000
#: Seconds between readings of what is told at /metrics, and after which a group that is due is late.
READ = 15.0
LATE = 60.0
#: Seconds between clearances of what is long gone.
PRUNE = 600.0
#: Rows cleared at one look.
BATCH = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tsg-clock", description="Ring for the groups that are due to be looked at.")
    flags.add(parser)
    return tick(program.begin(parser.prog, parser.parse_args(arguments), needs_keys=False))


def tick(chosen: Settings) -> int:
    """Ring until a signal comes. A database or a Redis that is away is waited for."""
    stop = threading.Event()
    database = db.connect(chosen.database_url, pool_size=2)
    healthy = health_of(chosen, database.engine.url, needed={health.DATABASE, health.MIGRATIONS, health.QUEUE})
    on_signal(healthy.drain, stop.set)
    try:
        with monitor.serving(monitor.listen_or_exit("tsg-clock", chosen), healthy):
            if chosen.scaler == "nomad":
                with NomadWatch(Nomad(chosen.nomad)) as watch:
                    _tick(chosen, database, stop, watch)
            else:
                _tick(chosen, database, stop)
    finally:
        database.close()
    _log.info("stopped")
    return 0


def _tick(chosen: Settings, database: db.Database, stop: threading.Event, watch: NomadWatch | None = None) -> None:
    """With a `watch`, Nomad runs the scaling: a worker's turn comes when Nomad is late or away."""
    broker = make_broker(chosen.redis_url)
    doors = diagnostics.start(chosen, "tsg-clock")
    _log.info("ticking")
    metrics.tell_state()
    pruned_at = read_at = -math.inf
    clock_watch = ClockWatch()
    while not stop.is_set():
        bells: list[tuple[str, str]] = []
        result = "done"
        late = chosen.nomad_grace if watch and not watch.is_away else 0
        try:
            with database.read() as connection:
                bells += [(CONVERGE, account_id) for account_id in leases.claim_due(connection, limit=MOST, late=late)]
                if watch:
                    due = jobs.claim_due(connection, limit=MOST)
                    bells += [(REMOVE_JOB if job.is_over else SUBMIT_JOB, job.group_id) for job in due]
            # These first: whatever else may fail, who was claimed hears of it.
            for actor, subject in bells:
                send(broker, actor, subject)
            with database.read() as connection:
                clock_watch.look(connection)
            if time.monotonic() - read_at > READ:
                read_at = time.monotonic()
                if watch:
                    with database.read() as connection:
                        jobs.enrol(connection)
                _count(database, broker)
            # What is left is for the next look.
            if time.monotonic() - pruned_at > PRUNE and _prune(database, chosen.activity_days):
                pruned_at = time.monotonic()
        except (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError) as error:
            result = "database_unavailable"
            _log.warning("database_unavailable", error=str(error))
        except redis.RedisError as error:
            result = "queue_unavailable"
            _log.warning("bell_not_heard", bells=len(bells), error=str(error))
        metrics.ticks.labels(result).inc()
        stop.wait(TICK)
    doors.stop()
    broker.close()


class ClockWatch:
    """Mends what was written before the database's clock was set back: at the start, when it sees that happen, and now and then."""

    def __init__(self, now: Callable[[Connection], datetime] = clock.now) -> None:
        self._now = now
        self._seen: tuple[datetime, float] | None = None
        self._mended_at = -math.inf

    def look(self, connection: Connection) -> None:
        found, at = self._now(connection), time.monotonic()
        is_back = self._seen is not None and (found - self._seen[0]).total_seconds() < at - self._seen[1] - clock.SLACK
        if is_back or at - self._mended_at > PRUNE:
            if changed := clock.bring_back(connection):
                _log.warning("database_clock_was_set_back", times=changed, meaning="what lay too far ahead is due now")
            self._mended_at = at
        self._seen = (found, at)


def _prune(database: db.Database, activity_days: int) -> bool:
    """Remove what is long gone. False when there is more."""
    with database.read() as connection:
        removed = {
            "tsg_instances": instances.prune(connection, limit=BATCH),
            "tsg_idempotency_keys": idempotency.prune(connection, limit=BATCH),
            "tsg_activities": activities.prune(connection, days=activity_days, limit=BATCH),
        }
    for table, rows in removed.items():
        metrics.pruned.labels(table).inc(rows)
    return max(removed.values()) < BATCH


def _count(database: db.Database, broker: RedisBroker) -> None:
    """Read the state that is told at /metrics: here and now, so that whoever asks for it costs nobody anything."""
    with database.read() as connection:
        backlog = looks.backlog(connection, late=LATE)
        metrics.replace(metrics.groups, {**dict.fromkeys(map(str, Reason), 0), **looks.by_reason(connection)})
        metrics.replace(metrics.machines, instances.by_state(connection))
        metrics.nomad_jobs_failing.set(jobs.failing(connection))
    metrics.groups_due.set(backlog.due)
    metrics.groups_late.set(backlog.late)
    metrics.oldest_change.set(backlog.oldest_change)
    for actor in (CONVERGE, SUBMIT_JOB, REMOVE_JOB):
        metrics.queue_messages.labels(actor).set(waiting(broker, actor))
    metrics.read_at.set_to_current_time()


if __name__ == "__main__":
    sys.exit(main())
