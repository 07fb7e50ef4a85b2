"""tsg-worker: reconciles groups at each wake-up, in threads, and probes instances, in one. More workers are more of these processes."""

import argparse
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import sqlalchemy.exc
from dramatiq import Worker
from dramatiq.broker import Broker

from shared import lines, log
from shared.runtime import diagnostics, flags, health, monitor, program
from shared.runtime.checks import health_of
from shared.runtime.settings import Settings
from shared.runtime.signals import on_signal, wait
from shared.store import db
from tsg_workers import actors, wiring
from tsg_workers.runner import Runner

_log = log.get(__name__)

#: Milliseconds between looks of an idle thread whether it is to stop.
IDLE_MS = 500
#: Connections to the database: each pass writes from several threads, for a moment each.
POOL = 16


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tsg-worker", description="Bring groups to their capacity, at each wake-up.")
    flags.add(parser)
    parser.add_argument("--threads", metavar="N", dest="TSG_WORKER_THREADS", help="accounts worked on at once (TSG_WORKER_THREADS)")
    return work(program.begin(parser.prog, parser.parse_args(arguments)))


def work(chosen: Settings) -> int:
    """Answer wake-ups until a signal comes."""
    stop = threading.Event()
    database = db.connect(chosen.database_url, pool_size=POOL)
    healthy = health_of(chosen, database.engine.url, needed={health.DATABASE, health.MIGRATIONS, health.QUEUE})
    on_signal(healthy.drain, stop.set)
    with monitor.serving(monitor.listen_or_exit("tsg-worker", chosen), healthy):
        finished = _work(chosen, database, stop)
    database.close()
    _log.info("stopped")
    if not finished:
        # The threads of what was cut off would keep the process for as long as CloudAPI keeps them.
        lines.flush()
        os._exit(0)
    return 0


def _work(chosen: Settings, database: db.Database, stop: threading.Event) -> bool:
    """False when some work had not ended within the time to stop."""
    broker = actors.connect(chosen.redis_url)
    runners = wiring.runners(chosen, database, stop)
    actors.declare(broker, runners)
    broker.emit_after("process_boot")
    workers = _workers(chosen, broker, runners)
    for worker in workers:
        worker.start()
    prober = wiring.prober(chosen, database)
    prober.start()
    debugging = diagnostics.start(chosen, "tsg-worker")
    _log.info("working", threads=chosen.worker_threads)
    wait(stop)
    _log.info("stopping")
    prober.stop()
    until = time.monotonic() + chosen.stop_seconds
    for worker in workers:
        worker.stop(timeout=max(0, round((until - time.monotonic()) * 1000)))
    cut_off = _hand_back(runners)
    debugging.stop()
    broker.close()
    return not cut_off


def _workers(chosen: Settings, broker: Broker, runners: Sequence[Runner[Any]]) -> list[Worker]:
    """Threads for all kinds of work together, and for those kinds for which the others must not wait."""
    own = [runner.reconciler for runner in runners if runner.reconciler.threads]
    common = {queue for runner in runners if not runner.reconciler.threads for queue in runner.reconciler.queues}
    return [
        Worker(broker, queues=common, worker_threads=chosen.worker_threads, worker_timeout=IDLE_MS),
        *(Worker(broker, queues=set(one.queues), worker_threads=one.threads, worker_timeout=IDLE_MS) for one in own),
    ]


def _hand_back(runners: Sequence[Runner[Any]]) -> int:
    try:
        cut_off = sum(runner.hand_back() for runner in runners)
    except sqlalchemy.exc.SQLAlchemyError as error:
        _log.warning("claims_not_handed_back", error=str(error), meaning="they end by themselves")
        return 1
    if cut_off:
        _log.warning("work_cut_off", subjects=cut_off)
    return cut_off


if __name__ == "__main__":
    sys.exit(main())
