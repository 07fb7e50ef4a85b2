"""The engine: what is retried, and what a database that goes away looks like."""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy.exc
from sqlalchemy import Connection, create_engine, inspect, literal_column, make_url, select, text

from dev.processes import free_port, wait_for
from dev.services import Postgres, scratch
from shared import metrics
from shared.cli import admin, seed
from shared.runtime import health, settings
from shared.runtime.checks import health_of
from shared.state import accounts, groups
from shared.store import db, schema
from shared.store.db import Database
from shared.store.prepared import Prepared
from tests.conftest import TEMPLATE, run_here

GROUP = seed.GROUPS[0][0]
CONFLICT = "DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$"
REFUSALS = metrics.database_refusals.labels("40001")._value


class One(NamedTuple):
    value: int


def test_a_transaction_that_can_not_be_serialized_is_run_again(database: Database) -> None:
    tries = []

    def work(connection: Connection) -> str:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        tries.append(connection.get_transaction())
        if len(tries) < 3:
            connection.exec_driver_sql(CONFLICT)
        return "done"

    assert database.transact(work) == "done"
    assert len(tries) == 3
    assert len(set(tries)) == 3, "each try has a transaction of its own"


#: A function that the database refuses to order among the others, for the first two times that it is called.
REFUSED = """
    CREATE SEQUENCE calls;
    CREATE FUNCTION refused() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('calls') < 3 THEN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END IF;
        RETURN currval('calls');
    END $$
"""


@pytest.mark.parametrize(
    "ask",
    [
        lambda connection: connection.execute(text("SELECT refused()")).scalar_one(),
        lambda connection: Prepared(One, text("SELECT refused() AS value")).one(connection, {}).value,
    ],
)
def test_a_statement_that_stands_for_itself_is_run_again(database: Database, ask: Callable[[Connection], int]) -> None:
    database.transact(lambda connection: connection.exec_driver_sql(REFUSED))
    before = REFUSALS.get()
    with database.read() as connection:
        assert ask(connection) == 3
        connection.exec_driver_sql("ALTER SEQUENCE calls RESTART")
    assert database.transact(ask, alone=True) == 3
    assert REFUSALS.get() == before + 4
    database.transact(lambda connection: connection.exec_driver_sql("DROP FUNCTION refused; DROP SEQUENCE calls"))


def test_a_statement_that_is_refused_every_time_is_given_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "TRIES", 2)
    before = REFUSALS.get()
    with pytest.raises(sqlalchemy.exc.DBAPIError) as raised:
        database.transact(lambda connection: connection.exec_driver_sql(CONFLICT), alone=True)
    assert db.is_unavailable(raised.value)
    assert REFUSALS.get() == before + 1


def test_a_transaction_whose_connection_is_cut_is_run_again_once(database: Database) -> None:
    runs: list[int] = []

    def die(connection: Connection, times: int) -> int:
        runs.append(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())
        if len(runs) <= times:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return runs[-1]

    database.transact(lambda connection: die(connection, 1))
    assert len(set(runs)) == 2
    runs.clear()
    with pytest.raises(sqlalchemy.exc.DBAPIError) as raised:
        database.transact(lambda connection: die(connection, 2))
    assert db.is_unavailable(raised.value)
    assert len(runs) == 2


def test_another_error_is_not_tried_again(database: Database) -> None:
    tries = []

    def work(connection: Connection) -> None:
        tries.append(None)
        connection.execute(text("SELECT 1 / 0"))

    with pytest.raises(sqlalchemy.exc.DataError) as raised:
        database.transact(work)
    assert len(tries) == 1
    assert not db.is_unavailable(raised.value)


def test_a_server_that_is_killed_under_load_is_unavailable_and_nothing_else() -> None:
    with scratch() as directory, Postgres(directory / "postgres", durable=False) as server:
        database = db.connect(make_url(server.url()), pool_size=4)
        with database.engine.begin() as connection:
            schema.upgrade(connection)
        database.transact(seed.load)
        stop = threading.Event()
        done: list[None] = []
        away: list[Exception] = []
        broken: list[Exception] = []

        def load() -> None:
            while not stop.is_set():
                try:
                    with database.read() as connection:
                        groups.get(connection, seed.ACCOUNT_ID, GROUP)
                    database.transact(
                        lambda connection: groups.increment(connection, seed.ACCOUNT_ID, GROUP, by=1, maximum=10**9, request_id=None)
                    )
                    done.append(None)
                except Exception as error:  # noqa: BLE001 - every kind is judged below
                    (away if db.is_unavailable(error) else broken).append(error)

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        for end in (server.kill, server.stop, server.kill):
            before = len(done)
            assert wait_for(lambda before=before: len(done) > before + 20, seconds=30), "the load does not go on"
            end()
            missed = len(away)
            assert wait_for(lambda missed=missed: len(away) > missed, seconds=30), "nobody noticed"
            server.start()
        before = len(done)
        assert wait_for(lambda: len(done) > before + 20, seconds=30)
        stop.set()
        for thread in threads:
            thread.join()
        database.close()
    assert not broken


def test_a_server_of_unknown_kind_is_asked_where_its_url_says_in_whatever_way(postgres: Postgres) -> None:
    """Several hosts, and certificates, stand behind the question mark."""
    url = make_url(postgres.url(TEMPLATE))
    hosts = [f"127.0.0.1:{free_port()}", f"{url.query['host']}:{url.query['port']}"]
    several = url.set(drivername="cockroachdb+psycopg2", query={"host": hosts, "sslmode": "disable"})
    found = db.connect(several, pool_size=1, patience=10)
    assert found.engine.dialect.name == "postgresql"
    with found.read() as connection:
        assert schema.is_current(connection)
    found.close()


def test_a_server_of_unknown_kind_that_does_not_answer_is_waited_for_no_longer_than_was_said() -> None:
    port = free_port()
    with pytest.raises(sqlalchemy.exc.OperationalError, match=str(port)) as raised:
        db.connect(make_url(f"cockroachdb+psycopg2://root:hush@127.0.0.1:{port}/triton"), pool_size=1, patience=0)
    assert db.is_unavailable(raised.value)
    assert "hush" not in str(raised.value)


@pytest.fixture
def narrow(database: Database) -> Iterator[Database]:
    """The same database over one connection for reading."""
    opened = db.connect(database.engine.url, pool_size=1)
    yield opened
    opened.close()


def backend(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_those_who_read_at_once_share_the_connections(narrow: Database) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: backend(narrow), range(40)))) == 1


def test_a_connection_that_breaks_in_use_leaves_its_place_to_another(narrow: Database) -> None:
    found = []
    for _ in range(3):
        found.append(backend(narrow))
        with pytest.raises(sqlalchemy.exc.DBAPIError) as raised, narrow.read() as connection:
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        assert db.is_unavailable(raised.value)
    assert len(set(found)) == 3


def test_those_who_wait_for_a_place_are_told_at_once_that_no_connection_can_be_opened(tmp_path: Path) -> None:
    """SQLAlchemy's pool would keep them for as long as a place may take to become free."""
    opened = db.connect(make_url(f"postgresql+psycopg2:///tsg?host={tmp_path}"), pool_size=1)

    def fail(_number: int) -> bool:
        with pytest.raises(sqlalchemy.exc.OperationalError) as raised:
            opened.transact(lambda connection: connection)
        return db.is_unavailable(raised.value)

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(fail, range(40)))
    assert time.monotonic() - began < db.POOL_TIMEOUT / 2
    opened.close()


def test_a_connection_that_broke_unused_costs_nobody_an_answer(narrow: Database, database: Database) -> None:
    before = backend(narrow)
    with database.read() as connection:
        assert connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": before}).scalar_one()
    assert backend(narrow) != before


@pytest.mark.parametrize(
    "ask",
    [
        lambda connection: connection.execute(text("SELECT 1")),
        lambda connection: Prepared(One, select(literal_column("1").label("value"))).one(connection, {}),
    ],
    ids=["plain", "prepared"],
)
def test_where_one_connection_breaks_all_of_its_age_are_replaced(narrow: Database, ask: Callable[[Connection], object]) -> None:
    """Those to a machine that is unplugged would each have to be waited for."""

    def writer(connection: Connection) -> int:
        return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())

    before = narrow.transact(writer)
    assert narrow.transact(writer) == before
    with narrow.read() as connection:
        with socket.socket(fileno=os.dup(connection.connection.fileno())) as of_connection:
            of_connection.shutdown(socket.SHUT_RDWR)
        with pytest.raises(sqlalchemy.exc.OperationalError):
            ask(connection)
    assert narrow.transact(writer) != before


def test_a_server_that_does_not_answer_is_waited_for_once_and_not_by_each_connection(database: Database) -> None:
    url = database.engine.url
    with socket.create_server(("127.0.0.1", 0)) as mute:
        hosts, ports = f"127.0.0.1,{url.query['host']}", f"{mute.getsockname()[1]},{url.query['port']}"
        several = db.connect(url.set(query={"host": hosts, "port": ports, "connect_timeout": "2"}), pool_size=1)
        assert backend(several)
        several.transact(lambda connection: connection.execute(text("SELECT 1")))
        several.close()
        mute.settimeout(0)
        mute.accept()[0].close()
        with pytest.raises(BlockingIOError):
            mute.accept()


def test_a_prepared_statement_fails_as_sqlalchemy_does(narrow: Database) -> None:
    wrong = Prepared(One, select(literal_column("1 / 0").label("value")))
    with narrow.read() as connection, pytest.raises(sqlalchemy.exc.DataError):
        wrong.one(connection, {})
    ended = Prepared(One, select(literal_column("pg_terminate_backend(pg_backend_pid())").label("value")))
    with narrow.read() as connection, pytest.raises(sqlalchemy.exc.OperationalError) as raised:
        ended.one(connection, {})
    assert db.is_unavailable(raised.value)
    assert backend(narrow)


PREPARED = text("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'tsg_%'")


def test_a_statement_is_prepared_once_for_a_connection(narrow: Database) -> None:
    added = Prepared(One, text("SELECT CAST(:one AS bigint) + :other AS value"))
    with narrow.read() as connection:
        assert [added.one(connection, {"one": number, "other": 40}) for number in (1, 2)] == [(41,), (42,)]
        assert connection.execute(PREPARED).scalar_one() == 1


def test_a_prepared_statement_that_is_lost_costs_nobody_an_answer(narrow: Database) -> None:
    """As behind a pooler that gives each statement another connection: it is not there, or another's."""
    for loss in ("DEALLOCATE ALL", None):
        given = Prepared(One, text("SELECT CAST(:number AS bigint) AS value"))
        with narrow.read() as connection:
            assert given.one(connection, {"number": 1}) == (1,)
            if loss:
                connection.exec_driver_sql(loss)
            else:
                driver: Any = connection.connection
                driver.info.clear()
            assert [given.one(connection, {"number": number}) for number in (2, 3)] == [(2,), (3,)]


def deallocate(connection: Connection) -> None:
    connection.exec_driver_sql("DEALLOCATE ALL")


def forget(connection: Connection) -> None:
    info = connection.connection.info
    for name in [name for name in info if name.startswith("EXECUTE ")]:
        del info[name]


@pytest.mark.parametrize("lose", [deallocate, forget], ids=["gone", "of another"])
def test_a_transaction_whose_prepared_statement_is_lost_is_run_again(narrow: Database, lose: Callable[[Connection], None]) -> None:
    """As behind a pooler that gives each transaction another connection."""
    given = Prepared(One, text("SELECT CAST(:number AS bigint) AS value"))
    prepared: list[int] = []

    def work(connection: Connection) -> One | None:
        prepared.append(connection.execute(PREPARED).scalar_one())
        return given.one(connection, {"number": len(prepared)})

    assert [narrow.transact(work) for _ in range(2)] == [(1,), (2,)]
    assert prepared == [0, 1]
    narrow.transact(lose)
    assert [narrow.transact(work) for _ in range(2)] == [(4,), (5,)], "the third run was rolled back"


NAME = "Größe 大 \N{GRINNING FACE}"


def test_any_name_and_time_come_back_whatever_the_environment_and_the_database_ask_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGTZ", "Pacific/Kiritimati")
    database.transact(lambda connection: connection.exec_driver_sql("ALTER ROLE postgres SET client_encoding = 'SQL_ASCII'"))
    database.transact(lambda connection: connection.exec_driver_sql("ALTER ROLE postgres SET timezone = 'Pacific/Kiritimati'"))
    try:
        opened = db.connect(database.engine.url, pool_size=1)
        for lent in (opened.read(), opened.engine.connect()):
            with lent as connection:
                assert connection.execute(text("SELECT CAST(:name AS text), length(:name)"), {"name": NAME}).one() == (NAME, len(NAME))
                # The last that Python knows; its day is over there.
                assert connection.execute(text("SELECT CAST('9999-12-31 23:59:59Z' AS timestamptz)")).scalar_one().year == 9999
        opened.close()
    finally:
        database.transact(lambda connection: connection.exec_driver_sql("ALTER ROLE postgres RESET client_encoding"))
        database.transact(lambda connection: connection.exec_driver_sql("ALTER ROLE postgres RESET timezone"))


@pytest.fixture
def database_in(postgres: Postgres) -> Iterator[Callable[[str], str]]:
    """Makes a database of another encoding, and gives its URL."""
    made = []

    def make(encoding: str) -> str:
        made.append(f"in_{encoding.lower()}")
        with create_engine(postgres.url("postgres"), isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {made[-1]} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
            connection.engine.dispose()
        return postgres.url(made[-1])

    yield make
    for name in made:
        postgres.drop_database(name)


def test_a_database_that_keeps_bytes_keeps_any_name(database_in: Callable[[str], str]) -> None:
    environ = {"TSG_DATABASE_URL": database_in("SQL_ASCII")}
    assert run_here(admin.main, ["db", "upgrade"], environ).returncode == admin.DONE
    opened = db.connect(settings.load(environ, needs_keys=False).database_url, pool_size=1)
    account = opened.transact(lambda connection: accounts.insert_account(connection, NAME, str(uuid.uuid4())))
    with opened.read() as connection:
        assert accounts.get_by_triton_uuid(connection, account.triton_uuid) == account
    assert account.name == NAME
    opened.close()


def test_a_database_that_cannot_hold_unicode_is_refused_before_anything_is_done(database_in: Callable[[str], str]) -> None:
    environ = {"TSG_DATABASE_URL": database_in("LATIN1")}
    done = run_here(admin.main, ["db", "upgrade"], environ)
    assert done.returncode == admin.IN_THE_WAY
    assert "ENCODING 'UTF8'" in done.stderr
    chosen = settings.load(environ, needs_keys=False)
    report = health_of(chosen, chosen.database_url, needed={health.DATABASE}).report()
    assert (report.is_ready, report.checks[health.DATABASE]) == (False, health.NOT_UTF8)
    opened = db.connect(chosen.database_url, pool_size=1)
    with opened.read() as connection:
        assert not inspect(connection).get_table_names()
    opened.close()
