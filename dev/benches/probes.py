"""What health probes cost: thousands of instances probed by one process, beside the probes that are due."""

import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import Any, NamedTuple

from sqlalchemy import text

from dev.benches.report import Figure
from dev.database import new_database
from dev.processes import Child, wait_for
from dev.services import Postgres, scratch
from shared import log, metrics
from shared.spec import group_settings
from shared.spec.group_settings import GroupSettings, HealthCheck, Probe
from shared.state import accounts
from shared.store.db import Database
from tsg_workers.probes.prober import Prober

GROUPS = 50
ADDRESSES = 100
#: A probe that begins later than this is late.
LATE_SECONDS = 0.1

FILL = """
WITH template AS (INSERT INTO tsg_templates (template_name, account_id, package, image_id, created_at)
                  VALUES ('t', :account, gen_random_uuid()::text, gen_random_uuid()::text, now()) RETURNING id),
     made AS (INSERT INTO tsg_groups (name, template_id, account_id, capacity, created_at, updated_at, by_name, more)
              SELECT 'g' || n, id, :account, :each, now(), now(), false, :more FROM template, generate_series(1, :groups) n RETURNING id)
INSERT INTO tsg_instances (account_id, group_id, machine_id, state, running_since, primary_ip)
SELECT :account, made.id, gen_random_uuid(), 'running', now(), (CAST(:addresses AS text[]))[1 + n % :of]
FROM made, generate_series(1, :each) n
"""


class Case(NamedTuple):
    instances: int
    interval: int
    type: Probe = Probe.HTTP
    path: str = "/"

    def __str__(self) -> str:
        what = "that hang for 3 s" if self.path != "/" else "over " + self.type.upper()
        return f"{self.instances:,} instances every {self.interval} s, {what}"


CASES = [Case(5_000, 10), Case(5_000, 5), Case(5_000, 10, Probe.TCP), Case(5_000, 10, path="/hang"), Case(20_000, 20)]
QUICK = [Case(500, 5), Case(500, 5, Probe.TCP)]


def bench(*, quick: bool) -> Iterator[Figure]:
    """Probes a second of one process that are begun, over some intervals once all are under way."""
    log.configure("ERROR", "json")
    command = [sys.executable, "-m", "dev.benches.instances", str(ADDRESSES)]
    with (
        scratch() as directory,
        Postgres(directory / "postgres") as server,
        Child(command, log=directory / "instances.log") as instances,
    ):
        there = json.loads(instances.wait_for_line(r"(\{.+\})"))
        for number, case in enumerate(QUICK if quick else CASES):
            with new_database(server, f"probes_{number}") as database:
                _fill(database, case, there["addresses"], there["port"])
                yield _measured(database, case)


def _fill(database: Database, case: Case, addresses: Sequence[str], port: int) -> None:
    check = HealthCheck(type=case.type, port=port, path=case.path, interval_seconds=case.interval, timeout_seconds=3)
    values = {
        "more": group_settings.to_document(GroupSettings(health_check=check)),
        "groups": GROUPS,
        "each": case.instances // GROUPS,
        "addresses": list(addresses),
        "of": len(addresses),
    }
    with database.engine.begin() as connection:
        connection.execute(text(FILL), {"account": accounts.insert_account(connection, "bench", "uuid").id, **values})
    with database.read() as connection:
        connection.execute(text("ANALYZE"))


def _measured(database: Database, case: Case) -> Figure:
    prober = Prober(database, [ip_network("127.0.0.0/8")], owner="bench")
    begun = _count()["probes"]
    prober.start()
    try:
        if not wait_for(lambda: _count()["probes"] - begun > 1.5 * case.instances, seconds=60 + 3 * case.interval):
            raise RuntimeError(f"only {_count()['probes'] - begun:.0f} probes began")
        before, cpu, since = _count(), time.process_time(), time.perf_counter()
        time.sleep(2 * case.interval)
        seconds, cpu = time.perf_counter() - since, time.process_time() - cpu
        after = _count()
    finally:
        prober.stop()
    probes = after["probes"] - before["probes"]
    more = {
        "CPU %": 100 * cpu / seconds,
        "CPU us a probe": 1e6 * cpu / max(probes, 1),
        "mean lag ms": 1e3 * (after["lag"] - before["lag"]) / max(probes, 1),
        f"% over {LATE_SECONDS * 1e3:.0f} ms late": 100 * (after["late"] - before["late"]) / max(probes, 1),
    }
    return Figure(str(case), probes / seconds, "probes/s", case.instances / case.interval, more)


def _count() -> dict[str, float]:
    """Of this process: probes that began, their lags in seconds together, and how many were late."""
    samples: Any = list(itertools.chain.from_iterable(metric.samples for metric in metrics.probe_lag.collect()))
    total = {sample.name.rpartition("_")[2]: sample.value for sample in samples if sample.name.endswith(("_count", "_sum"))}
    in_time = next(sample.value for sample in samples if sample.labels.get("le") == str(LATE_SECONDS))
    return {"probes": total["count"], "lag": total["sum"], "late": total["count"] - in_time}
