"""What tsg-scale does, once its arguments are read: the same reconciler as a worker's, in the foreground, under the same lease."""

import argparse
import json
import os
import sys
import threading
import time
from datetime import UTC, datetime

import sqlalchemy.exc

from shared import log
from shared.lines import say, writer
from shared.runtime import program
from shared.runtime.settings import Settings
from shared.runtime.signals import on_signal
from shared.state import activities, group_state, jobs, status
from shared.state.status import Status
from shared.store import db
from tsg_workers import wiring
from tsg_workers.runner import Runner

_log = log.get(__name__)

SETTLED, FAILED, TRY_AGAIN = 0, 1, 75

#: Connections to the database.
POOL = 8
#: Seconds for which a database that does not answer is waited for.
PATIENCE = 10.0
#: Seconds between looks at whether another holder of the lease is done.
LOOK = 1.0


def run(given: argparse.Namespace) -> int:
    """Do what the command line says; the exit code."""
    chosen = program.begin("tsg-scale", given)
    try:
        return scale(chosen, given.group_id, wait=given.timeout if given.wait else 0.0)
    except (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError) as error:
        if db.is_unavailable(error):
            _log.warning("database_unavailable", error=str(error))
            return TRY_AGAIN
        text = f"there is no group {given.group_id}" if isinstance(error, sqlalchemy.exc.DataError) else f"the database: {error}"
        say(f"tsg-scale: {text}")
        return FAILED


def scale(chosen: Settings, group_id: str, *, wait: float) -> int:
    """Converge until the group is settled, for one pass or at most `wait` seconds; the exit code."""
    stop = threading.Event()
    on_signal(stop.set)
    database = db.connect(chosen.database_url, pool_size=POOL, patience=PATIENCE)
    acted = threading.Event()
    # Nomad says so to what it runs. By hand, this says nothing of how the job is.
    is_run = "NOMAD_ALLOC_ID" in os.environ
    write = writer(sys.stdout)

    def audit(kind: str, account_name: str, group_name: str, status: str, description: str) -> None:
        acted.set()
        write(_audit(kind, account_name, group_name, status, description))

    runner = Runner(database, wiring.group_reconciler(chosen, database, audit), owner=wiring.name(), stop=stop)
    deadline = time.monotonic() + wait
    found = _status(database, group_id)
    if found is None:
        say(f"tsg-scale: there is no group {group_id}")
        return FAILED
    with database.read() as connection:
        group_state.mark_due(connection, group_id)
    while True:
        runner.run(found.account_id)
        if is_run:
            with database.read() as connection:
                jobs.mark_run(connection, group_id)
        found = _status(database, group_id) or found
        if found.settled:
            break
        pause = max(LOOK, found.next_look)
        if stop.is_set() or time.monotonic() + pause > deadline:
            break
        stop.wait(pause)
    if not acted.is_set():
        audit(activities.NO_OP, found.account_name, found.name, activities.DONE, found.last_error or found.message)
    database.close()
    if found.settled:
        return SETTLED
    return FAILED if found.last_error else TRY_AGAIN


def _status(database: db.Database, group_id: str) -> Status | None:
    with database.read() as connection:
        return status.find(connection, group_id)


def _audit(kind: str, account_name: str, group_name: str, status: str, description: str) -> str:
    line = {
        "time": datetime.now(UTC).isoformat(),
        "event": kind,
        "account_name": account_name,
        "tsg_name": group_name,
        "status": status,
        "description": description,
    }
    return json.dumps(line)
