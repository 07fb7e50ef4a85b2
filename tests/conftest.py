"""What tests run against: a real PostgreSQL and a real Valkey, and a CloudAPI in memory. A server that can't start fails the run."""

import fcntl
import gc
import io
import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest import mock

import hypothesis
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import Connection, NullPool, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError

from dev.services import Postgres, Valkey, copy_of, scratch
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE
from dev.sim.cloudapi.simulator import Simulator
from dev.stack import DATABASE
from shared import log
from shared.clients import keys
from shared.clients.keys import KeyPair
from shared.runtime import process, program
from shared.store import db, schema
from shared.store.db import Database
from shared.store.tables import metadata

# Seconds say nothing on a machine that does other things too.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# All that tests ask is on this machine: proxies of the environment have no say, but where a test sets them.
for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[_name]

#: The database with our tables that every other one is a copy of.
TEMPLATE = "tsg_template"

#: The level of isolation that the servers have by default: `dev/test --isolation LEVEL`.
ISOLATION = os.environ.get("TSG_TEST_ISOLATION", "")

#: Bits of RSA keys where their size does not matter: of 2048, making one and signing with it take five times as long.
FEW_BITS = 1024

_numbers = itertools.count(1)


def pytest_collection_finish() -> None:
    """What was imported and collected lasts: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    log.configure("WARNING", "json")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The directory of a stopped server with our tables in `TEMPLATE` and `DATABASE`, to be copied.

    Made once for a run, in however many processes: initdb and migrating take two seconds.
    """
    common = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    made, unfinished = common / "cluster", common / "cluster.unfinished"
    with (common / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            with scratch() as directory:
                with Postgres(directory / "postgres", durable=False) as server:
                    migrate(server, TEMPLATE)
                    migrate(server, DATABASE)
                    if ISOLATION:
                        by_default(server, "default_transaction_isolation", ISOLATION)
                copy_of(directory / "postgres", unfinished)
            unfinished.rename(made)
    return made


@pytest.fixture(scope="session")
def postgres(cluster: Path) -> Iterator[Postgres]:
    """A server with the migrated database `TEMPLATE`. Nobody may break it: a test that stops servers takes a `breakable` one."""
    with scratch() as directory, Postgres(copy_of(cluster, directory / "postgres"), durable=False) as server:
        yield server


@pytest.fixture
def breakable(cluster: Path) -> Iterator[Postgres]:
    """Another such server, of the test's own."""
    with scratch() as directory, Postgres(copy_of(cluster, directory / "postgres"), durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """Nobody may break this one either."""
    with scratch() as directory, Valkey(directory / "valkey") as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[Database]:
    """A database of the test's own, with our tables and nothing in them."""
    with new_database(postgres) as opened:
        yield opened


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    """A CloudAPI of the test's own, without accounts, that answers as fast as it can."""
    with Simulator(throttle=False, provision_seconds=0, delete_seconds=0, job_seconds=0) as cloudapi:
        yield cloudapi


def new_pair() -> KeyPair:
    return keys.of_private_key(rsa.generate_private_key(65537, FEW_BITS))


def sql(database: Database, statement: str, **parameters: Any) -> list[Any]:
    with database.read() as connection:
        result = connection.execute(text(statement), parameters)
        return list(result) if result.returns_rows else []


def run_here(main: Callable[[Sequence[str]], int], arguments: Sequence[str], environ: Mapping[str, str]) -> CompletedProcess[str]:
    """A program of ours run to its end in this process: a process of its own takes most of a second to begin."""
    out, err = io.StringIO(), io.StringIO()
    with ExitStack() as stack:
        for redirected in (redirect_stdout(out), redirect_stderr(err), mock.patch.dict(os.environ, environ, clear=True)):
            stack.enter_context(redirected)
        # The process itself, and its log, are the tests'.
        for module, name in ((log, "configure"), (process, "prepare"), (process, "forbid_core_dumps"), (program, "survive_hangup")):
            stack.enter_context(mock.patch.object(module, name))
        try:
            status = main(arguments)
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    return CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def migrate(server: Postgres, name: str) -> None:
    server.create_database(name)
    engine = create_engine(server.url(name), poolclass=NullPool)  # a template can't be copied while somebody is connected to it
    with engine.begin() as connection:
        schema.upgrade(connection)


def by_default(server: Postgres, setting: str, value: str) -> None:
    """A setting of the server, and of all its copies, from their next start on."""
    engine = create_engine(server.url("postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"ALTER SYSTEM SET {setting} TO '{value}'")


@contextmanager
def new_database(server: Postgres) -> Iterator[Database]:
    """A database with our tables and nothing in them, for as long as it is needed.

    One that nobody needs any more is emptied for the next, which takes 15 ms; a copy of `TEMPLATE` takes 80, and migrating one 400.
    """
    spare = _spare[server]
    if not spare:
        spare.append(f"test_{next(_numbers)}")
        server.create_database(spare[-1], template=TEMPLATE)
    name = spare.pop()
    opened = db.connect(make_url(server.url(name)), pool_size=40)
    with opened.read() as connection:
        shape = _shape(connection)
    try:
        yield opened
    finally:
        if _emptied(opened, shape):
            spare.append(name)
        else:
            server.drop_database(name)
        opened.close()


#: Databases that nobody needs any more, empty again.
_spare: dict[Postgres, list[str]] = defaultdict(list)


def _shape(connection: Connection) -> str:
    """One word for all columns, constraints and indexes, and the revision."""
    return str(
        connection.exec_driver_sql("""
            SELECT md5(string_agg(told, ' ' ORDER BY told)) FROM (
                SELECT concat_ws(' ', attrelid, attname, atttypid, atttypmod, attnotnull, atthasdef) AS told
                FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'public'::regnamespace
                UNION ALL SELECT concat_ws(' ', oid, convalidated) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
                UNION ALL SELECT version_num FROM alembic_version
            ) AS everything
        """).scalar_one()
    )


def _emptied(database: Database, shape: str) -> bool:
    """Send everybody else away, and delete all rows. False when somebody has changed the tables."""
    others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    deletions = [f"DELETE FROM {table.name}" for table in metadata.sorted_tables]
    try:
        with database.read() as connection:
            connection.exec_driver_sql(others)
            if _shape(connection) != shape:
                return False
            # In any order.
            connection.exec_driver_sql("; ".join(["SET session_replication_role = replica", *deletions]))
            return True
    except DBAPIError:
        return False


def order(name: str, tags: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The body of a request for a machine of the simulated cloud."""
    made_from = {"name": name, "package": DEFAULT_PACKAGE, "image": DEFAULT_IMAGE}
    return {**made_from, **{f"tag.{key}": value for key, value in tags.items()}, **more}
