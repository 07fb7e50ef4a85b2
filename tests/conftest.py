"""What tests run against: a real PostgreSQL and a real Valkey, and a CloudAPI in memory. A server that can't start fails the run."""

import fcntl
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from unittest import mock

import pytest
from sqlalchemy import NullPool, create_engine, make_url

from dev.cloudapi.simulator import Simulator
from dev.services import Postgres, Valkey, copy_of, scratch
from dev.stack import DATABASE
from shared import db, log, schema
from shared.db import Database

#: The database with our tables that every other one is a copy of.
TEMPLATE = "tsg_template"

_numbers = itertools.count(1)


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


def run_here(main: Callable[[Sequence[str]], int], arguments: Sequence[str], environ: Mapping[str, str]) -> CompletedProcess[str]:
    """A program of ours run to its end in this process: a process of its own takes most of a second to begin."""
    out, err = io.StringIO(), io.StringIO()
    # Logging is the test process's own.
    here = (mock.patch.dict(os.environ, environ, clear=True), mock.patch.object(log, "configure"))
    with redirect_stdout(out), redirect_stderr(err), here[0], here[1]:
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


@contextmanager
def new_database(server: Postgres) -> Iterator[Database]:
    """A copy of `TEMPLATE`, for as long as it is needed: some 50 ms, against 400 for migrating one."""
    name = f"test_{next(_numbers)}"
    server.create_database(name, template=TEMPLATE)
    opened = db.connect(make_url(server.url(name)), pool_size=40)
    try:
        yield opened
    finally:
        opened.close()
        server.drop_database(name)
