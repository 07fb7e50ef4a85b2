"""What a round of checks costs when nothing happens: groups at rest, with ten instances each."""

import json
import math
import resource
import statistics
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg2.extensions
from sqlalchemy import Connection, event, text

from dev.benches.report import Figure
from dev.client import send
from dev.database import managed_account, new_database
from dev.processes import Child
from dev.services import Postgres, scratch
from shared import log
from shared.clients import keys
from shared.clients.access import Timeouts
from shared.clients.cloudapi import CloudAPI
from shared.clients.keys import KeyPair, Sealer
from shared.plan.limits import Limits
from shared.store.db import Database
from tsg_workers.reconcilers.groups import GroupReconciler, Pace
from tsg_workers.runner import Runner

INSTANCES = 10
#: Seconds that the simulator may take to make all machines.
FILLING = 300
#: Machines on one page of CloudAPI's list.
PAGE = 1000
#: Groups, and accounts that they are spread over.
CASES = [(100, 1), (1_000, 1), (1_000, 10), (1_000, 100), (5_000, 10)]
QUICK = [(100, 1), (300, 10)]

FILL = """
WITH template AS (INSERT INTO tsg_templates (template_name, account_id, package, image_id, created_at)
                  VALUES ('t', :account, gen_random_uuid()::text, gen_random_uuid()::text, now()) RETURNING id)
INSERT INTO tsg_groups (name, template_id, account_id, capacity, created_at, updated_at, by_name, check_at)
SELECT 'g' || n, id, :account, :capacity, now(), now(), false, now() FROM template, generate_series(1, :groups) n RETURNING id::text, name
"""

#: A check that somebody asked for, and one whose time has come.
ASKED_FOR, BY_INTERVAL = "check_at = now(), rest_at = NULL", "check_at = now(), rest_at = now()"


def bench(*, quick: bool) -> Iterator[Figure]:
    """CPU seconds of one worker for a round: the median of some, after one that warms up. At rest, and where all is planned anew."""
    log.configure("ERROR", "json")
    pair = keys.generate()
    with scratch() as directory, Postgres(directory / "postgres") as server:
        for number, (groups, tenants) in enumerate(QUICK if quick else CASES):
            with new_database(server, f"steady_{number}") as database:
                yield _round(database, directory, pair, groups, tenants, rounds=3 if quick else 5)


def _round(database: Database, directory: Path, pair: KeyPair, groups: int, tenants: int, *, rounds: int) -> Figure:
    sealer = Sealer([b"k" * 32])
    filled = [
        database.transact(lambda connection, n=number: _tenant(connection, sealer, pair, n, groups // tenants)) for number in range(tenants)
    ]
    order, made = directory / "fill.json", directory / "made"
    order.write_text(json.dumps({"key": f"{pair.public_line} tsg", "instances": INSTANCES, "accounts": filled}))
    with Child([sys.executable, "-m", "dev.benches.cloud", order, made], log=directory / "cloud.log") as cloud:
        url = cloud.wait_for_line(r"(http://\S+)", seconds=FILLING)
        _know(database, made)
        return _measured(database, sealer, url, filled, groups, rounds)


def _measured(database: Database, sealer: Sealer, url: str, filled: Sequence[Any], groups: int, rounds: int) -> Figure:
    limits = Limits(provision_timeout=300, launch_grace=60)
    clouds = CloudAPI(url, Timeouts(connect=5, read=60))
    pace = Pace(rate=1e5, burst=100_000, lease_seconds=30, limits=limits)
    worker = Runner(database, GroupReconciler(database, clouds, sealer, pace, owner="bench"), owner="bench")
    database.close()  # it opens others, whose statements count
    for engine in (database.engine, database.reader):  # both of the worker's
        event.listen(engine, "connect", _count_statements)

    def measure(due: str) -> tuple[float, float, int, int]:
        with database.read() as connection:
            connection.execute(text(f"UPDATE tsg_group_state SET {due}"))
        calls, sent, cpu, began = _calls(url), _Cursor.sent, time.process_time(), time.perf_counter()
        for tenant in filled:
            while worker.run(tenant["id"]):
                pass
        return (time.process_time() - cpu, time.perf_counter() - began, _Cursor.sent - sent, _calls(url) - calls)

    measure(ASKED_FOR)  # sees that all is well
    planned = [measure(ASKED_FOR) for _ in range(rounds)]
    found = [measure(BY_INTERVAL) for _ in range(rounds)]
    clouds.close()
    with database.read() as connection:
        unsettled = connection.execute(text("SELECT count(*) FROM tsg_group_state WHERE reason IS DISTINCT FROM 'Settled'")).scalar_one()
    if unsettled:
        raise RuntimeError(f"{unsettled} of {groups} groups are not settled")
    cpu, seconds, statements, asked = (statistics.median(column) for column in zip(*found, strict=True))
    pages = sum(max(1, math.ceil(len(tenant["groups"]) * INSTANCES / PAGE)) for tenant in filled)
    more = {
        "CPU s": cpu,
        "CPU ms a group": cpu / groups * 1000,
        "CPU s planned anew": statistics.median(cpu for cpu, *_ in planned),
        "round s": seconds,
        "SQL": float(statements),
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    return Figure(f"{groups:,} settled groups in {len(filled)} accounts", float(asked), "CloudAPI calls", float(pages), more)


class _Cursor(psycopg2.extensions.cursor):
    """Counts the statements that are sent."""

    sent = 0

    def execute(self, *statement: Any) -> None:
        _Cursor.sent += 1
        super().execute(*statement)


def _count_statements(connection: Any, _record: object) -> None:
    connection.cursor_factory = _Cursor


def _know(database: Database, made: Path) -> None:
    """Have the machines known as running, as they are to a service that launched them: to find 10,000 takes it half a minute."""
    driver = database.engine.raw_connection()
    try:
        with driver.cursor() as cursor, made.open() as rows:
            cursor.execute("CREATE TEMP TABLE made (account_id uuid, group_id uuid, machine_id uuid)")
            cursor.copy_from(rows, "made")
            cursor.execute(
                "INSERT INTO tsg_instances (account_id, group_id, machine_id, state, ran_at)"
                " SELECT account_id, group_id, machine_id, 'running', now() FROM made"
            )
            cursor.execute("DROP TABLE made")
            cursor.execute("ANALYZE")
        driver.commit()
    finally:
        driver.close()


def _calls(url: str) -> int:
    return int(send("GET", f"{url}/--sim/counters", timeout=60).json()["requests"])


def _tenant(connection: Connection, sealer: Sealer, pair: KeyPair, number: int, groups: int) -> dict[str, Any]:
    name, triton = f"tenant-{number}", str(uuid.uuid4())
    account = managed_account(connection, name, triton, pair, sealer)
    rows = connection.execute(text(FILL), {"account": account.id, "groups": groups, "capacity": INSTANCES})
    return {"id": account.id, "login": name, "uuid": triton, "groups": [list(row) for row in rows]}
