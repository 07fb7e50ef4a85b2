"""tsg-clock, the scheduler: sends a wake-up for whatever is due and not claimed. Several may run: one of them sends each wake-up.

It also has the duties of the whole installation that follow from the time of day: retention, statistics, clock mending.
"""

import argparse
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

import redis
import sqlalchemy.exc
from dramatiq.brokers.redis import RedisBroker

from shared import log, metrics
from shared.clients.nomad import Nomad
from shared.clients.queue import count_waiting, make_broker, send
from shared.runtime import diagnostics, flags, health, monitor, program
from shared.runtime.checks import health_of
from shared.runtime.settings import Settings
from shared.runtime.signals import on_signal
from shared.state import group_state, jobs
from shared.store import db
from tsg_workers import wiring
from tsg_workers.nomad_watch import NomadWatch
from tsg_workers.reconcilers import clock_mending, retention, statistics, watching
from tsg_workers.room import Room
from tsg_workers.wiring import Kind

_log = log.get(__name__)

#: Seconds between looks at what is due, at most; and at least, where a group is due before that.
TICK, SHORTEST_TICK = 1.0, 0.2
#: The share of the time that a duty at intervals may take. One that takes longer is run less often, but once in these seconds.
SHARE, RARELY = 0.05, 60.0
#: Seconds, at most, until a duty that failed is tried again.
RETRY = 15.0
#: Seconds to wait for a duty that is under way at the end.
STOP_SECONDS = 5.0
#: The result of a duty that did not fail.
DONE = "done"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tsg-clock", description="Send wake-ups for what is due to be reconciled.")
    flags.add(parser)
    return tick(program.begin(parser.prog, parser.parse_args(arguments), needs_keys=False))


def tick(chosen: Settings) -> int:
    """Send wake-ups until a signal comes, also after an outage of the database or of Redis."""
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


class Duty:
    """Something the scheduler does again and again. Its failure is logged, and keeps no other duty from its turn."""

    def __init__(self, name: str, run: Callable[[], bool], *, every: float = 0.0) -> None:
        """`run` returns whether it is complete; if not, its rest is done at the next look. `every`: seconds between two runs."""
        self.name = name
        self._run = run
        self._every = every
        self._due_at = -math.inf

    def run_if_due(self) -> str:
        """The result, as the metric of ticks names it."""
        if time.monotonic() < self._due_at:
            return DONE
        began, after, result = time.monotonic(), min(self._every, RETRY), DONE
        try:
            is_complete = self._run()
            after = max(self._every, min((time.monotonic() - began) / SHARE, RARELY)) if is_complete and self._every else 0.0
        except (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError) as error:
            result = "database_unavailable"
            _log.warning("database_unavailable", duty=self.name, error=str(error))
        except redis.RedisError as error:
            result = "queue_unavailable"
            _log.warning("queue_unavailable", duty=self.name, error=str(error))
        except Exception as error:  # noqa: BLE001 - a fault in one duty must not end the others
            result = "failed"
            _log.error("duty_failed", duty=self.name, exc_info=error)
        self._due_at = time.monotonic() + after
        return result


def _tick(chosen: Settings, database: db.Database, stop: threading.Event, watch: NomadWatch | None = None) -> None:
    """With a `watch`, Nomad runs the scaling, and workers reconcile a group when Nomad is late or away."""
    broker = make_broker(chosen.redis_url)
    debugging = diagnostics.start(chosen, "tsg-clock")
    _log.info("ticking")
    metrics.export_state()
    wake_ups, others = _duties(chosen, database, broker, watch)
    # Of a large cloud a count takes seconds: no wake-up waits for it.
    thread = threading.Thread(target=_repeat, args=(others, stop, lambda: TICK), name="duties", daemon=True)
    thread.start()
    _repeat(wake_ups, stop, lambda: TICK if watch else _pause(database))
    thread.join(timeout=STOP_SECONDS)
    debugging.stop()
    broker.close()


def _pause(database: db.Database) -> float:
    """Seconds until the next look. A database that can't be asked is the duties' to log."""
    try:
        with database.read() as connection:
            return min(TICK, max(SHORTEST_TICK, group_state.get_next_due(connection)))
    except (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError):
        return TICK


def _repeat(duties: Sequence[Duty], stop: threading.Event, pause: Callable[[], float]) -> None:
    """Run what is due of them until the end. `pause`: seconds until the next look."""
    while not stop.is_set():
        results = [duty.run_if_due() for duty in duties]
        metrics.ticks.labels(next((result for result in results if result != DONE), DONE)).inc()
        stop.wait(pause())


def _duties(chosen: Settings, database: db.Database, broker: RedisBroker, watch: NomadWatch | None) -> tuple[list[Duty], list[Duty]]:
    """Wake-ups, and all other duties, in the order of their turns."""

    def wake(kind: Kind, room: Room) -> bool:
        """What is still due comes at the next look."""
        late = chosen.nomad_grace if watch and not watch.is_away else 0
        waiting = sum(count_waiting(broker, queue) for queue in kind.reconciler.queues)
        wake_ups: list[tuple[str, str]] = []
        if (most := room.count(waiting, time.monotonic())) > 0:
            with database.read() as connection:
                wake_ups = kind.reconciler.claim_due(connection, limit=most, late=late)
            for queue, subject in wake_ups:
                send(broker, queue, subject)
        room.sent(waiting + len(wake_ups), time.monotonic())
        return True

    def enrol() -> bool:
        with database.read() as connection:
            jobs.insert_missing(connection)
        return True

    wake_ups = [Duty(f"wake_{kind.reconciler.kind}", partial(wake, kind, Room())) for kind in wiring.kinds(chosen)]
    enrolment = [Duty("enrol_nomad_jobs", enrol, every=statistics.EVERY)] if watch else []
    return wake_ups, [
        *enrolment,
        Duty("watching", partial(watching.mend, database), every=watching.EVERY),
        Duty("clock_mending", partial(clock_mending.ClockWatch().mend, database)),
        Duty("statistics", partial(statistics.count, database, broker), every=statistics.EVERY),
        Duty("retention", partial(retention.prune, database, activity_days=chosen.activity_days), every=retention.EVERY),
    ]


if __name__ == "__main__":
    sys.exit(main())
