"""What it costs to look at policies when nothing changes: ten of a group, one group of an account, measured by what is pushed."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import text

from dev.benches.report import Figure
from dev.database import new_database
from dev.percentile import percentile
from dev.services import Postgres, Valkey, scratch
from shared import log
from shared.clients.pushed import Pushed
from shared.measures.gather import Gatherer
from shared.measures.pushed import PushedSource
from shared.measures.sources import list_members
from shared.spec import policy_settings
from shared.store.db import Database
from tsg_workers.reconcilers.policies import PolicyReconciler
from tsg_workers.runner import Runner

#: Policies of a group, accounts with one group each, and threads of a worker.
POLICIES, ACCOUNTS, QUICK, THREADS = 10, 1_000, 100, 8
#: Seconds between evaluations, as a worker has them by default.
INTERVAL = 15.0
#: Rounds after which all have their first decision: an answer that takes its time is asked for again.
WARM = 3

FILL = """
WITH account AS (INSERT INTO tsg_accounts (account_name, triton_uuid, created_at, updated_at)
                 SELECT 'a' || n, gen_random_uuid(), now(), now() FROM generate_series(1, :accounts) n RETURNING id),
template AS (INSERT INTO tsg_templates (template_name, account_id, package, image_id, created_at)
             SELECT 't', id, 'p', gen_random_uuid()::text, now() FROM account RETURNING id, account_id),
made AS (INSERT INTO tsg_groups (name, template_id, account_id, capacity, created_at, updated_at, by_name, check_at)
         SELECT 'g', id, account_id, 10, now(), now(), false, NULL FROM template RETURNING id, account_id),
policy AS (INSERT INTO tsg_policies (account_id, group_id, name, settings)
           SELECT account_id, id, 'p' || n, :settings FROM made, generate_series(1, :policies) n)
SELECT id::text FROM made
"""


def bench(*, quick: bool) -> Iterator[Figure]:
    """A round over all groups, after some that write down the first decisions."""
    log.configure("ERROR", "json")
    accounts = QUICK if quick else ACCOUNTS
    with (
        scratch() as directory,
        Postgres(directory / "postgres") as server,
        Valkey(directory / "valkey") as valkey,
        new_database(server, "policies") as database,
    ):
        yield from _measured(database, valkey.url, accounts)


def _measured(database: Database, redis_url: str, accounts: int) -> Iterator[Figure]:
    metric = {"source": "pushed", "name": "load"}
    told: dict[str, Any] = {"policy_name": "p", "kind": "target", "metric": metric, "target": 60, "per": "group"}
    settings = policy_settings.TargetSettings.model_validate(told).document()
    with database.engine.begin() as connection:
        parameters = {"accounts": accounts, "policies": POLICIES, "settings": settings}
        groups = list(connection.execute(text(FILL), parameters).scalars())
    pushed = Pushed(redis_url)
    for group in groups:
        pushed.put(group, "load", 600.0)
    gatherer = Gatherer({"pushed": PushedSource(pushed)}, list_members(database))
    reconciler = PolicyReconciler(database, gatherer.measure, lambda *_: None, interval=INTERVAL, max_capacity=100)
    runner = Runner(database, reconciler, owner="bench")
    for _ in range(WARM):
        _round(runner, groups)
    cpu, began = time.process_time(), time.monotonic()
    took = _round(runner, groups)
    seconds, used = time.monotonic() - began, time.process_time() - cpu
    count, needed = accounts * POLICIES, accounts * POLICIES / INTERVAL
    more = {"CPU ms each": used / count * 1000, "turn p99 ms": percentile(took, 0.99) * 1000}
    yield Figure(f"{count:,} policies of {accounts:,} accounts, beside one each {INTERVAL:g} s", count / seconds, "1/s", needed, more)
    gatherer.close()
    pushed.close()


def _round(runner: Runner[Any], groups: list[str]) -> list[float]:
    def run(group: str) -> float:
        began = time.monotonic()
        runner.run(group)
        return time.monotonic() - began

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, groups))
