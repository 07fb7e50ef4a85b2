"""Another server takes the writes: a standby is promoted, and the sessions with the old primary go on answering reads."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import requests
import sqlalchemy.exc
from dramatiq.brokers.stub import StubBroker
from sqlalchemy import Connection, NullPool, create_engine, make_url, text
from sqlalchemy.engine import URL
from structlog.testing import capture_logs

from dev.processes import wait_for
from dev.services import Postgres, Valkey, copy_of, scratch
from dev.sim.cloudapi.simulator import Simulator
from shared.clients.keys import KeyPair
from shared.clients.queue import CONVERGE
from shared.runtime import health, settings
from shared.runtime.checks import health_of
from shared.store import db
from shared.store.db import Database
from shared.store.prepared import Prepared
from tests.conftest import ISOLATION, TEMPLATE, by_default
from tests.integration.api.service import Api, error
from tests.integration.conftest import World
from tsg_workers import actors
from tsg_workers.reconcilers.groups import GroupReconciler
from tsg_workers.runner import Runner

#: Connections for reading.
READERS = 3

#: libpq's option by which each transaction is serializable.
SERIALIZABLE = "-c default_transaction_isolation=serializable"

INSERT = "INSERT INTO tsg_accounts (account_name, triton_uuid, created_at, updated_at) VALUES ('demo', gen_random_uuid(), now(), now())"


class Added(NamedTuple):
    id: str


class Servers:
    """A primary and its hot standby."""

    def __init__(self, cluster: Path, directory: Path) -> None:
        self.primary = Postgres(copy_of(cluster, directory / "primary"), durable=False)
        self.standby = Postgres(copy_of(cluster, directory / "standby"), durable=False)
        self.primary.start()
        query = make_url(self.primary.url()).query
        data = self.standby.data_dir / "data"
        with (data / "postgresql.auto.conf").open("a") as stream:
            stream.write(f"primary_conninfo = 'host={query['host']} port={query['port']} user=postgres'\n")
            # A standby refuses all that is to be serializable.
            stream.write("default_transaction_isolation = 'read committed'\n")
        (data / "standby.signal").touch()
        self.standby.start()

    @property
    def url(self) -> URL:
        """Both, the standby first."""
        queries = [make_url(server.url(TEMPLATE)).query for server in (self.standby, self.primary)]
        several = {name: ",".join(str(query[name]) for query in queries) for name in ("host", "port")}
        return make_url(self.primary.url(TEMPLATE)).set(query=several)

    def demote(self) -> None:
        """The primary takes no writes any more, and its sessions stay."""
        run(self.primary, "ALTER SYSTEM SET default_transaction_read_only = on")
        run(self.primary, "SELECT pg_reload_conf()")
        assert wait_for(lambda: run(self.primary, "SHOW default_transaction_read_only") == "on", seconds=10)

    def promote(self) -> None:
        """The standby has all that the primary has, and takes writes."""
        if self.primary.running:
            position = run(self.primary, "SELECT pg_current_wal_lsn()")
            assert wait_for(lambda: run(self.standby, f"SELECT pg_last_wal_replay_lsn() >= '{position}'") is True, seconds=30)
        assert run(self.standby, "SELECT pg_promote()") is True
        if ISOLATION:
            by_default(self.standby, "default_transaction_isolation", ISOLATION)
            run(self.standby, "SELECT pg_reload_conf()")

    def stop(self) -> None:
        self.standby.stop()
        self.primary.stop()


def run(server: Postgres, statement: str) -> object:
    engine = create_engine(server.url(TEMPLATE), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        result = connection.exec_driver_sql(statement)
        return result.scalar() if result.returns_rows else None


def unavailable() -> Exception:
    return sqlalchemy.exc.OperationalError("SELECT", None, Exception("it is away"))


@pytest.fixture
def servers(cluster: Path) -> Iterator[Servers]:
    with scratch() as directory:
        both = Servers(cluster, directory)
        yield both
        both.stop()


@pytest.fixture
def opened(servers: Servers) -> Iterator[Database]:
    database = db.connect(servers.url, pool_size=READERS)
    yield database
    database.close()


def is_standby(connection: Connection) -> bool:
    return bool(connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one())


def add_account(connection: Connection, _none: object = None) -> None:
    connection.execute(text(INSERT))


def test_of_several_servers_the_one_that_takes_writes_is_used_wherever_it_stands(servers: Servers, opened: Database) -> None:
    with opened.read() as connection:
        assert not is_standby(connection)
    opened.transact(add_account)
    any_of_them = db.connect(servers.url.update_query_dict({"target_session_attrs": "any"}), pool_size=1)
    with any_of_them.read() as connection:
        assert is_standby(connection), "what the URL says holds"
    with pytest.raises(sqlalchemy.exc.DBAPIError) as raised:
        any_of_them.transact(add_account)
    assert db.is_unavailable(raised.value)
    any_of_them.close()


def reads_from(database: Database) -> set[bool]:
    """Whether what is read comes from a server that takes writes, over all connections for reading."""

    def ask(connections: list[Connection]) -> set[bool]:
        if len(connections) < READERS:
            with database.read() as connection:
                return ask([*connections, connection])
        return {connection.execute(text("SHOW transaction_read_only")).scalar_one() == "off" for connection in connections}

    return ask([])


def test_a_write_that_a_demoted_primary_refuses_is_done_by_the_new_one_and_no_session_with_the_old_one_stays(
    servers: Servers, opened: Database
) -> None:
    assert reads_from(opened) == {True}
    opened.transact(is_standby)
    servers.demote()
    servers.promote()
    assert reads_from(opened) == {False}, "they read from the old one still"
    opened.transact(add_account)
    assert run(servers.standby, "SELECT count(*) FROM tsg_accounts") == 1
    assert reads_from(opened) == {True}


@pytest.mark.parametrize("write", [add_account, Prepared(Added, text(f"{INSERT} RETURNING id")).one], ids=["plain", "prepared"])
def test_a_statement_that_a_demoted_primary_refuses_is_unavailable_once(
    servers: Servers, opened: Database, write: Callable[..., object]
) -> None:
    """It is not run again by itself, as a transaction is: who runs it does so, or asks for a retry."""
    reads_from(opened)
    servers.demote()
    servers.promote()
    with opened.read() as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as raised:
        write(connection, {})
    assert db.is_unavailable(raised.value)
    with opened.read() as connection:
        write(connection, {})
    assert reads_from(opened) == {True}


def test_whatever_a_standby_refuses_means_that_it_is_not_ours(servers: Servers) -> None:
    """Serializable reads, for one: it says that they are not supported, and not that it takes no writes."""

    def read(connection: Connection, statement: Prepared) -> None:
        connection.execute(text("SET default_transaction_isolation TO serializable"))
        statement.one(connection, {})

    of_standby = db.connect(make_url(servers.standby.url(TEMPLATE)), pool_size=1)
    for _ in range(2):
        with of_standby.read() as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as raised:
            read(connection, Prepared(Added, text("SELECT CAST(1 AS bigint) AS id")))
        assert db.is_unavailable(raised.value)
    of_standby.close()
    serializable = db.connect(make_url(servers.standby.url(TEMPLATE)).update_query_dict({"options": SERIALIZABLE}), pool_size=1)
    with pytest.raises(sqlalchemy.exc.DBAPIError) as raised, serializable.read():
        pass
    assert db.is_unavailable(raised.value)
    serializable.close()


def test_a_dead_machine_is_replaced_after_a_failover(servers: Servers, opened: Database, sim: Simulator, pair: KeyPair) -> None:
    world = World(opened, sim, pair)
    group = world.make_group(3)
    world.settle()
    first = world.ids(group)
    servers.demote()
    servers.promote()
    sim.cloud.kill(world.machines(group)[0])
    for _ in range(2):  # the first wake-up may find a session that has to go; what is due is woken again
        with suppress(sqlalchemy.exc.DBAPIError):
            world.converge()
    world.settle()
    assert world.running(group) == 3
    assert set(first[1:]) < set(world.ids(group, "running"))
    with opened.read() as connection:
        assert connection.execute(text("SHOW transaction_read_only")).scalar_one() == "off"
    world.close()


@pytest.mark.parametrize(("error", "events"), [(unavailable(), ["database_unavailable"]), (LookupError("ours"), [])], ids=["away", "ours"])
def test_a_worker_whose_database_is_away_says_so_in_a_line(error: Exception, events: list[str]) -> None:
    """The wake-up is sent again. What is a fault of ours is told with all that Python knows of it."""

    class Failing:
        reconciler = GroupReconciler

        def run(self, _account_id: str) -> bool:
            raise error

    broker = StubBroker()
    actors.declare(broker, [cast(Runner[Any], Failing())])
    with capture_logs() as logged, suppress(LookupError):
        broker.get_actor(CONVERGE)("account")
    assert [line["event"] for line in logged] == events


def test_posts_are_answered_by_201_or_503_through_a_failover_and_none_is_lost(
    servers: Servers, opened: Database, valkey: Valkey, simulator: Simulator
) -> None:
    with Api(opened, simulator, valkey.url) as api:
        tsg = api.new_account()
        template = tsg.make_template()
        made: list[str] = []
        refused: list[requests.Response] = []
        stop = threading.Event()

        def post(number: int) -> None:
            for count in itertools.count():
                if stop.is_set():
                    return
                name = f"group-{number}-{count}"
                answer = tsg("POST", "/groups", {"group_name": name, "template_id": template, "capacity": 0})
                if answer.status_code == 201:
                    made.append(name)
                else:
                    refused.append(answer)
                assert tsg("GET", "/groups?limit=1").status_code in {200, 503}

        with ThreadPoolExecutor(4) as pool:
            posting = [pool.submit(post, number) for number in range(4)]
            assert wait_for(lambda: len(made) > 20, seconds=30)
            servers.demote()
            assert wait_for(lambda: len(refused) > 3, seconds=30)
            servers.promote()
            before = len(made)
            assert wait_for(lambda: len(made) > before + 20, seconds=30)
            stop.set()
            for one in posting:
                one.result()
        for answer in refused:
            error(answer, 503, "ServiceUnavailable")
            assert answer.headers["Retry-After"]
        with opened.read() as connection:
            there = set(connection.execute(text("SELECT name FROM tsg_groups")).scalars())
        assert there == set(made), "what was refused is not there, and what was made is"


def test_readiness_asks_whether_the_database_takes_writes(servers: Servers) -> None:
    chosen = settings.load({"TSG_SECRET_KEYS": "", "TSG_DATABASE_URL": servers.url.render_as_string(hide_password=False)}, needs_keys=False)
    healthy = health_of(chosen, chosen.database_url, needed={health.DATABASE})
    assert healthy.report().checks["database"] == health.OK
    servers.demote()
    assert wait_for(lambda: not healthy.report().is_ready, seconds=10)
    assert healthy.report().checks["database"] in {health.READ_ONLY, health.UNAVAILABLE}
    servers.promote()
    assert wait_for(lambda: healthy.report().is_ready, seconds=10)
