"""A whole cloud at rest: what a round of checks costs, how large the database is, and how all comes back after an hour's stop."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import psycopg2
from sqlalchemy import create_engine, make_url

from dev import used
from dev.benches import fill, paths, plans
from dev.benches.computed import BURST, RATE
from dev.benches.numbered import Size
from dev.benches.report import Figure
from dev.client import send
from dev.processes import Child, wait_or_fail
from dev.services import scratch
from dev.stack import DATABASE, Stack
from shared.runtime.values import SECRET_KEYS

SIZES = [Size(100, 1_000), Size(1_000, 10_000), Size(10_000, 100_000)]
#: Workers of the rounds, and of the storm.
WORKERS, QUICK, OF_STORM = (1, 2, 4), (1,), 2
#: Of the machines, one in so many dies while all stands; seconds that a machine boots for.
LOST_EVERY, PROVISION_SECONDS = 50, 5.0
#: Seconds after which a round is given up: so many, and so many for each account.
PATIENCE, OF_EACH = 120, 1.0
#: Tables and indexes whose size is reported.
LARGEST = 16

#: A statement of this bench itself, which is not counted.
OURS = "/* bench */"
STATEMENTS = f"SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE position('{OURS}' IN query) = 0"
ARE_DUE = f"SELECT EXISTS (SELECT 1 FROM tsg_group_state WHERE check_at <= now()) {OURS}"
ARE_UNSETTLED = f"SELECT EXISTS (SELECT 1 FROM tsg_group_state WHERE reason <> 'Settled' AND emptied_at IS NULL) {OURS}"
ARE_UNCHECKED = f"SELECT EXISTS (SELECT 1 FROM tsg_group_state WHERE checked_at < %s) {OURS}"
ALL_DUE = f"UPDATE tsg_group_state SET check_at = now() - random() * interval '%s s' {OURS}"
SIZES_OF_ALL = f"""
SELECT relname, pg_relation_size(oid) / 1e6 FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i') ORDER BY 2 DESC LIMIT {LARGEST}
"""


class Used(NamedTuple):
    """What has been used so far: CPU seconds by kind of program, CloudAPI's calls, statements."""

    at: float
    cpu: Mapping[str, float]
    calls: int
    statements: int


class Cloud:
    """A stack that is filled, and the simulator that computes; workers and the scheduler are started for each measurement."""

    def __init__(self, directory: Path, size: Size) -> None:
        self.size = size
        numbers = (size.accounts, size.groups, size.instances, PROVISION_SECONDS)
        self._simulator = Child([sys.executable, "-m", "dev.benches.computed", *map(str, numbers)], log=directory / "computed.log")
        self._cloud_url = self._simulator.wait_for_line(r"(http://\S+)")
        settings = {"TSG_TRITON_URL": self._cloud_url, "TSG_DRAIN_SECONDS": "0", "TSG_LOG_FORMAT": "json"}
        self._stack = Stack(directory, workers=0, settings=settings)

    def __enter__(self) -> Self:
        try:
            self._stack.start()
            self._stack.processes.pop("clock").stop()
            self.run("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'")
            self._stack.postgres.stop()
            self._stack.postgres.start()
            self.run("CREATE EXTENSION pg_stat_statements")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.stop()
        self._simulator.stop()

    def fill(self) -> None:
        secrets = SECRET_KEYS.read(self._stack.environment["TSG_SECRET_KEYS"])
        with psycopg2.connect(self._dsn) as connection, connection.cursor() as cursor:
            cursor.copy_from(fill.key_rows(self.size, secrets), "tsg_keys", columns=fill.KEY_COLUMNS)
        for statement in (*fill.settled(self.size), "VACUUM ANALYZE"):
            self.run(statement)

    @contextmanager
    def working(self, workers: int) -> Iterator[Sequence[Child]]:
        """So many workers, and the scheduler as the last one, from their start to their end."""
        names = [f"worker-{number}" for number in range(1, workers + 1)]
        try:
            children = [self._stack.start_process(name, "tsg-worker") for name in names]
            for child in children:
                child.wait_until(lambda child=child: '"working"' in child.tail(5))  # type: ignore[misc]
            yield [*children, self._stack.start_process("clock", "tsg-clock")]
        finally:
            for name in ("clock", *names):
                if name in self._stack.processes:
                    self._stack.processes.pop(name).stop()

    def used(self, children: Sequence[Child]) -> Used:
        server = self._stack.postgres.pid
        cpu = {
            "workers": used.cpu_of(child.pid for child in children[:-1]),
            "scheduler": used.cpu_of([children[-1].pid]),
            "PostgreSQL": used.cpu_of([server, *used.children_of(server)]),
            "simulator": used.cpu_of([self._simulator.pid]),
        }
        return Used(time.monotonic(), cpu, self.count("requests"), int(self.one(STATEMENTS)))

    def count(self, what: str) -> int:
        """One of the simulator's counters."""
        return int(self.ask("counters")[what])

    def ask(self, path: str) -> Any:
        """The simulator, for what no user of CloudAPI could ask."""
        return send("GET", f"{self._cloud_url}/--sim/{path}", timeout=60).json()

    def one(self, statement: str, *parameters: object) -> Any:
        """The one value that a statement has."""
        return self.rows(statement, *parameters)[0][0]

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self._stack.sql(statement, *parameters)

    def run(self, statement: str) -> None:
        """A statement that takes no transaction, and has no rows."""
        connection = psycopg2.connect(self._dsn)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    def reads(self) -> dict[str, list[plans.Read]]:
        """What each of the hot paths reads."""
        url = make_url(self._stack.postgres.url(DATABASE))
        engine = create_engine(url)
        with engine.connect() as connection:
            subject = paths.subject_of(connection, self.size)
        engine.dispose()
        return {name: plans.reads_of(url, path) for name, path in paths.paths(subject).items()}

    @property
    def _dsn(self) -> str:
        return make_url(self._stack.postgres.url(DATABASE)).set(drivername="postgresql").render_as_string(hide_password=False)


def bench(*, quick: bool) -> Iterator[Figure]:
    """Ten times the cloud at each step, up to a million machines."""
    before: dict[str, float] = {}
    for size in SIZES[:1] if quick else SIZES:
        with scratch() as directory, Cloud(directory, size) as cloud:
            began = time.monotonic()
            cloud.fill()
            yield Figure(f"{size}: to fill the database", time.monotonic() - began, "s")
            for workers in QUICK if quick else WORKERS:
                yield _round(cloud, workers)
            yield from _storm(cloud)
            yield from _sizes(cloud)
            found = list(_reads(cloud, before))
            yield from found
            before = {figure.what.partition(": ")[2]: figure.value for figure in found}


def _round(cloud: Cloud, workers: int) -> Figure:
    """All groups are due: until all are checked."""
    cloud.run(ALL_DUE % 0)
    return _measured(cloud, workers, "a round", lambda: not cloud.one(ARE_DUE))


def _measured(cloud: Cloud, workers: int, what: str, is_over: Callable[[], bool]) -> Figure:
    size = cloud.size
    with cloud.working(workers) as children:
        before = cloud.used(children)
        wait_or_fail(f"{what} of {size}", is_over, seconds=PATIENCE + OF_EACH * size.accounts, longest_pause=0.5)
        after = cloud.used(children)
        memory = {"worker MB": max(used.peak_mb(child.pid) for child in children[:-1]), "scheduler MB": used.peak_mb(children[-1].pid)}
    more = {
        **{f"{name} CPU s": after.cpu[name] - before.cpu[name] for name in after.cpu},
        "CPU ms an account": (after.cpu["workers"] - before.cpu["workers"]) / size.accounts * 1000,
        "calls": float(after.calls - before.calls),
        "SQL": float(after.statements - before.statements),
        **memory,
    }
    return Figure(f"{size}, {workers} workers: {what}", after.at - before.at, "s", None, more)


def _storm(cloud: Cloud) -> Iterator[Figure]:
    """All stood for an hour: in it all groups became due, and some machines died.

    The limit is what the budget leaves the large account: it lists, asks for each dead machine and makes another.
    """
    cloud.run(ALL_DUE % 3600)
    lost = cloud.ask(f"lose?every={LOST_EVERY}")["lost"]
    before = {name: cloud.count(name) for name in ("made", "throttled", "most")}
    since = cloud.one("SELECT now()")
    checked: list[float] = []

    def is_whole() -> bool:
        if not checked and not cloud.one(ARE_UNCHECKED, since):
            checked.append(time.monotonic())
        return bool(checked) and cloud.count("made") - before["made"] >= lost and not cloud.one(ARE_DUE) and not cloud.one(ARE_UNSETTLED)

    began = time.monotonic()
    storm = _measured(cloud, OF_STORM, "whole again after an hour's stop", is_whole)
    most = cloud.count("most") - before["most"]
    yield storm._replace(limit=max(0.0, most - BURST) / RATE + PROVISION_SECONDS)
    yield Figure("  until each account was looked at", checked[0] - began, "s")
    yield Figure("  machines made, beside those that died", float(cloud.count("made") - before["made"]), "machines", float(lost))
    yield Figure("  requests beyond an account's budget", float(cloud.count("throttled") - before["throttled"]), "requests")


def _sizes(cloud: Cloud) -> Iterator[Figure]:
    yield Figure(f"{cloud.size}: the database", float(cloud.one("SELECT pg_database_size(current_database()) / 1e6")), "MB")
    for name, size in cloud.rows(SIZES_OF_ALL):
        yield Figure(f"  {name}", float(size), "MB")


def _reads(cloud: Cloud, before: Mapping[str, float]) -> Iterator[Figure]:
    """Pages of 8 kB that each hot path reads, beside those it read of a cloud of a tenth."""
    for statement in (*fill.asked_beside(cloud.size), "VACUUM ANALYZE"):
        cloud.run(statement)
    for name, reads in cloud.reads().items():
        more = {
            "rows": float(sum(read.rows for read in reads)),
            "ms": sum(read.took for read in reads),
            "statements": float(len(reads)),
            "tables read whole": float(sum(len(read.whole) for read in reads)),
        }
        yield Figure(f"{cloud.size.machines:,} machines: {name}", float(sum(read.pages for read in reads)), "pages", before.get(name), more)
