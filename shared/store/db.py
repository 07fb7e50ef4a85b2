"""The engine, and `transact`: begin, run, commit; and once more from the start when the database says so."""

import hashlib
import math
import random
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

import psycopg2
import psycopg2.extensions
import sqlalchemy.exc
from psycopg2 import errors
from sqlalchemy import Connection, Dialect, Engine, Select, TextClause, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, PoolProxiedConnection

from shared import log

_log = log.get(__name__)

T = TypeVar("T")

#: SQLSTATEs that mean "nothing happened, try again": serialization failure and deadlock.
RETRY_STATES = frozenset({"40001", "40P01"})
#: Tries of one transaction, pauses between 10 ms and 1 s.
TRIES = 10

#: Seconds to wait for a TCP connection, and for a server that hangs in the middle of an answer.
CONNECT_TIMEOUT = 5

#: Seconds to wait for a connection while all are in use.
POOL_TIMEOUT = 30

#: Seconds between looks for a database that is not there yet, when its kind must be found out.
WAIT_PAUSE = 1.0


class AnswerLost(sqlalchemy.exc.OperationalError):
    """The database went away during a commit: what was to be stored may be, or may not."""


class Database:
    """Rows in, rows out: reads in autocommit, writes through `transact`.

    A read takes one round trip instead of three: measured, 213 us against 366.
    """

    def __init__(self, engine: Engine, reader: Engine, *, most: int) -> None:
        self.engine = engine
        # Connections of their own: to change one's isolation at each use costs time, and fails where the server has gone meanwhile.
        self._reader = reader
        self._readers = _Open(reader, most)

    def transact(self, work: Callable[[Connection], T], *, alone: bool = False) -> T:
        """Run `work` in a transaction of its own and commit. `alone`: it is one statement, which is a transaction by itself.

        `work` is run again, in a new transaction, when the database refuses to order it among the others (SQLSTATE 40001, 40P01), and
        once when its connection breaks before the commit; so it must have no effect outside the database. Anything else it raises is
        rolled back and passed on. `AnswerLost` when nobody knows whether it was committed.
        """
        for attempt in range(1, TRIES + 1):
            may_be_stored = False
            try:
                with self.read() if alone else self.engine.begin() as connection:
                    may_be_stored = alone
                    done = work(connection)
                    may_be_stored = True
                return done
            except sqlalchemy.exc.DBAPIError as error:
                state = getattr(error.orig, "pgcode", None)
                if may_be_stored and _was_cut_off(error):
                    raise AnswerLost("COMMIT", None, error.orig or error) from error
                broke = error.connection_invalidated and attempt == 1
                if attempt == TRIES or not (broke or state in RETRY_STATES):
                    raise
                _log.debug("transaction_retried", attempt=attempt)
                time.sleep(random.uniform(0.5, 1.0) * min(1.0, 0.01 * 2**attempt))
        raise AssertionError("unreachable")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection on which each statement stands for itself: for reads, and for writes that are one statement."""
        driver = self._readers.take()
        try:
            yield Connection(self._reader, driver)
        finally:
            self._readers.give_back(driver)

    def close(self) -> None:
        self.engine.dispose()
        self._readers.close()


class _Open:
    """At most so many connections, opened as they are needed and kept open. Thread-safe.

    SQLAlchemy's own pool takes as much CPU to lend a connection as a SELECT by its key takes, and more where threads wait for one another.
    """

    def __init__(self, engine: Engine, most: int) -> None:
        self._engine = engine
        #: Those that nobody uses. The one that was used last is lent first: its server process is the one that is warm.
        self._idle: list[PoolProxiedConnection] = []
        #: As many as may be lent still.
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(most):
            self._places.put(None)

    def take(self) -> PoolProxiedConnection:
        """One that is alive. Waits for one; raises what SQLAlchemy's pool would raise."""
        try:
            self._places.get(timeout=POOL_TIMEOUT)
        except Empty:
            raise sqlalchemy.exc.TimeoutError(f"no connection to the database was free for {POOL_TIMEOUT} s") from None
        try:
            driver = self._last()
            if driver is not None:
                if not _is_dead(driver):
                    return driver
                driver.invalidate()
            return self._engine.connect().connection  # raw_connection() would raise what the driver raises
        except BaseException:
            self._places.put(None)
            raise

    def give_back(self, driver: PoolProxiedConnection) -> None:
        # One that broke was made invalid by what noticed it.
        if driver.is_valid:
            self._idle.append(driver)
        self._places.put(None)

    def close(self) -> None:
        """Close those that nobody uses."""
        while (driver := self._last()) is not None:
            driver.close()

    def _last(self) -> PoolProxiedConnection | None:
        with suppress(IndexError):
            return self._idle.pop()
        return None


def connect(url: URL, *, pool_size: int, patience: float = math.inf) -> Database:
    """A database with at most `pool_size` connections for reading, and half as many for transactions.

    None is opened yet for PostgreSQL. A `cockroachdb` URL may lead to either kind of server (the `TSG_CRDB_*` variables of 2018 do not
    say which), so that server is waited for and asked; for `patience` seconds, and then `OperationalError` says which was not reached.
    """
    options = {"connect_timeout": CONNECT_TIMEOUT, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    if url.get_backend_name() == "cockroachdb":
        url = _as_found(url, patience)

    def engine(**more: Any) -> Engine:
        made = create_engine(url, hide_parameters=True, connect_args=options, **more)
        event.listen(made, "connect", _leave_uuids_as_text)
        return made

    # Transactions are short, and wait for one another anyway.
    pooled = engine(pool_size=(pool_size + 1) // 2, max_overflow=0, pool_timeout=POOL_TIMEOUT, pool_recycle=1800)
    event.listen(pooled, "checkout", _refuse_the_dead)
    return Database(pooled, engine(isolation_level="AUTOCOMMIT", poolclass=NullPool), most=pool_size)


#: A prepared statement is not there, is another's, or does not fit the tables any more. Nothing was done.
_LOST = (errors.InvalidSqlStatementName, errors.DuplicatePreparedStatement, errors.FeatureNotSupported)


class Written(NamedTuple):
    """A statement in one dialect: as it is, and in two parts, of which a connection needs the first one once."""

    plain: str
    prepare: str
    execute: str


class Prepared:
    """A statement of one row at most that requests ask for all the time. SQLAlchemy writes it, once; the driver runs it, and each
    connection has it prepared.

    Measured with eight threads on a core: 70 us of CPU for a SELECT, against 125 where SQLAlchemy runs it. The server needs 85 us for it,
    against 170 where it reads and plans it each time.

    In a transaction it is run as it is, and so it is everywhere once it was lost: a pooler may send each statement over another connection.
    """

    def __init__(self, statement: Select[Any] | TextClause) -> None:
        self._statement = statement
        #: By the name of the dialect.
        self._written: dict[str, Written] = {}
        self._is_lost = False

    def one(self, connection: Connection, parameters: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Its row, or None. Raises what SQLAlchemy would raise."""
        dialect = connection.dialect
        written = self._written.get(dialect.name) or self._write(dialect)
        driver: Any = connection.connection
        try:
            with driver.cursor() as cursor:
                if self._is_lost or not self._execute(written, cursor, driver, parameters):
                    cursor.execute(written.plain, parameters)
                found: tuple[Any, ...] | None = cursor.fetchone()
                return found
        except psycopg2.Error as error:
            was_cut_off = dialect.is_disconnect(error, driver, None)  # type: ignore[arg-type]
            if was_cut_off:
                connection.invalidate(error)
            raise sqlalchemy.exc.DBAPIError.instance(
                written.plain, None, error, psycopg2.Error, hide_parameters=True, connection_invalidated=was_cut_off, dialect=dialect
            ) from error

    def _execute(self, written: Written, cursor: Any, driver: Any, parameters: Mapping[str, Any]) -> bool:
        """Run what was prepared. False, and nothing done, when that can't be had."""
        try:
            if written.execute not in driver.info:
                if not driver.autocommit:
                    return False
                cursor.execute(written.prepare)
                driver.info[written.execute] = True
            cursor.execute(written.execute, parameters)
        except _LOST as error:
            self._is_lost = True
            _log.warning("statement_lost", error=str(error).strip(), meaning="it is not prepared any more, and costs the database more")
        return not self._is_lost

    def _write(self, dialect: Dialect) -> Written:
        numbered = self._statement.compile(dialect=type(dialect)(paramstyle="numeric_dollar"))  # type: ignore[call-arg]
        text = str(numbered)
        # A pooler's connections may outlive this program, and the next one's statement be another.
        name = f"tsg_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        values = ", ".join(f"%({parameter})s" for parameter in numbered.positiontup or ())
        execute = f"EXECUTE {name}" + (f" ({values})" if values else "")
        written = Written(str(self._statement.compile(dialect=dialect)), f"PREPARE {name} AS {text}", execute)
        self._written[dialect.name] = written
        return written


#: OID of `uuid` in PostgreSQL and CockroachDB.
_UUID = psycopg2.extensions.new_type((2950,), "UUID", lambda value, _cursor: value)


def _leave_uuids_as_text(connection: Any, _record: ConnectionPoolEntry) -> None:
    """Ids are text here. SQLAlchemy has psycopg2 make UUIDs of them, only to make text of those."""
    psycopg2.extensions.register_type(_UUID, connection)


def _refuse_the_dead(connection: Any, _record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
    """A restarted database must cost nobody an answer: a dead connection is noticed before it is used, and another one opened.

    A server that is gone has closed its end, and an idle connection has nothing else to be read: to look costs a microsecond, to ask
    the server (`pool_pre_ping`) a round trip.
    """
    if _is_dead(connection):
        raise sqlalchemy.exc.DisconnectionError("the server has closed the connection")


def _is_dead(connection: Any) -> bool:
    look = select.poll()
    look.register(connection.fileno(), select.POLLIN)
    return bool(look.poll(0))


def is_unavailable(error: Exception) -> bool:
    """Is this the database being away, as against a mistake of ours?"""
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return True
    if not isinstance(error, sqlalchemy.exc.DBAPIError):
        return False
    state = getattr(error.orig, "pgcode", None) or ""
    # 08: connection, 53: out of resources, 57: operator intervention (shutdown); 40: still no order after all tries
    return isinstance(error, sqlalchemy.exc.OperationalError) or error.connection_invalidated or state[:2] in {"08", "40", "53", "57"}


def _was_cut_off(error: sqlalchemy.exc.DBAPIError) -> bool:
    """Did the connection end before an answer came? What the server itself refused is not stored."""
    state = getattr(error.orig, "pgcode", None) or ""
    return is_unavailable(error) and (state[:2] in {"", "08", "57"} or state == "40003")  # 40003: CockroachDB does not know either


def _as_found(url: URL, patience: float) -> URL:
    """The URL with the dialect of the server that answers there, waiting for as long as it takes it to come up."""
    # All that the URL says: it may name several hosts, and certificates.
    plain = url.set(drivername="postgresql+psycopg2")
    _, options = plain.get_dialect()().create_connect_args(plain)
    until = time.monotonic() + patience
    while True:
        try:
            connection = psycopg2.connect(**{"connect_timeout": CONNECT_TIMEOUT, **options})
        except psycopg2.OperationalError as error:
            _log.warning("waiting_for_database", url=url.render_as_string(), error=str(error).strip())
            if time.monotonic() + WAIT_PAUSE > until:
                raise sqlalchemy.exc.OperationalError("CONNECT", None, error) from error
            time.sleep(WAIT_PAUSE)
            continue
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT version()")
            (version,) = cursor.fetchone() or ("",)
        connection.close()
        return url if "CockroachDB" in version else plain
