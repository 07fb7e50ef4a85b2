"""The engine, and `transact`: begin, run, commit; and once more from the start when the database says so."""

import math
import os
import random
import select
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import psycopg2
import psycopg2.extensions
import sqlalchemy.exc
from sqlalchemy import Connection, Dialect, Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry, NullPool, PoolProxiedConnection

from shared import log, metrics

_log = log.get(__name__)

T = TypeVar("T")

#: SQLSTATEs that mean "nothing happened, try again": serialization failure and deadlock.
RETRY_STATES = frozenset({"40001", "40P01"})
#: Tries of one transaction, pauses between 10 ms and 1 s.
TRIES = 10

#: The SQLSTATE of a server that takes no writes, as a standby and a primary that was demoted. Nothing was done.
_READ_ONLY = "25006"
#: SQLSTATEs by which a server ends the session, or a pooler refuses to go on with it.
_ENDED = frozenset({"57P01", "57P02", "57P03", "57P04", "57P05"})

#: libpq's options, where the URL has no others. Without UTF-8 PGCLIENTENCODING, or what the database has, would decide which names can be
#: stored. A server that went without a goodbye is given up after `tcp_user_timeout` milliseconds while it is waited for, and after a minute
#: while it is not.
_OPTIONS = {
    "connect_timeout": 5,
    "client_encoding": "utf8",
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}

#: Seconds to wait for a connection while all are in use.
POOL_TIMEOUT = 30

#: Seconds after which a connection is replaced by another.
RECYCLE = 1800
#: Seconds between looks for a server that takes writes that cost all connections: while there is none, reads should not pay for each write.
GENERATION_SECONDS = 1.0

#: Seconds between looks for a database that is not there yet, when its kind must be found out.
WAIT_PAUSE = 1.0


class AnswerLost(sqlalchemy.exc.OperationalError):
    """The database went away during a commit: what was to be stored may be, or may not."""


class StatementLost(sqlalchemy.exc.DBAPIError):
    """A prepared statement was lost, and with it the transaction that needs it. The statement is run as it is from now on."""


class Database:
    """Rows in, rows out: reads in autocommit, writes through `transact`.

    A read takes one round trip instead of three: measured, 213 us against 366.
    """

    def __init__(self, writing: "_Pool", reading: "_Pool") -> None:
        # Connections of their own: to change one's isolation at each use costs time, and fails where the server has gone meanwhile.
        self._writing, self._reading = writing, reading
        self.engine, self.reader = writing.engine, reading.engine

    def transact(self, work: Callable[[Connection], T], *, alone: bool = False) -> T:
        """Run `work` in a transaction of its own and commit. `alone`: it is one statement, which is a transaction by itself.

        `work` is run again, in a new transaction, when the database refuses to order it among the others (SQLSTATE 40001, 40P01), when
        a prepared statement of it is lost, and once when its connection breaks before the commit; so it must have no effect outside the
        database. Anything else it raises is rolled back and passed on. `AnswerLost` when nobody knows whether it was committed.
        """
        for attempt in range(1, TRIES + 1):
            may_be_stored = False
            try:
                with self.read() if alone else self._begin() as connection:
                    may_be_stored = alone
                    done = work(connection)
                    may_be_stored = True
                return done
            except sqlalchemy.exc.DBAPIError as error:
                if may_be_stored and _was_cut_off(error):
                    raise AnswerLost("COMMIT", None, error.orig or error) from error
                broke, lost = error.connection_invalidated and attempt == 1, isinstance(error, StatementLost)
                # One statement alone has been tried often enough by its cursor.
                if not (broke or lost or (not alone and _is_refused(error.orig))) or attempt == TRIES:
                    raise
                _wait_to_try_again(attempt, error.orig)
        raise AssertionError("unreachable")

    def read(self) -> AbstractContextManager[Connection]:
        """A connection on which each statement stands for itself: for reads, and for writes that are one statement.

        A statement is run again when the database refuses to order it among the others, as a transaction is.
        """
        return self._reading.lend()

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        with self._writing.lend() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        self._writing.close()
        self._reading.close()


class _Alone(psycopg2.extensions.cursor):
    """Of a connection on which each statement stands for itself: what the database refuses to order among the others is run again."""

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - psycopg2's name for it
        for attempt in range(1, TRIES):
            try:
                return super().execute(query, vars)
            except psycopg2.Error as error:
                if not (self.connection.autocommit and _is_refused(error)):
                    raise
                _wait_to_try_again(attempt, error)
        return super().execute(query, vars)


def _is_refused(error: BaseException | None) -> bool:
    """Did the database refuse to order it among what others do at the same time? Nothing was done then."""
    return _state(error) in RETRY_STATES


def _wait_to_try_again(attempt: int, error: BaseException | None) -> None:
    """A pause that grows with the attempts. Refusals are counted."""
    if _is_refused(error):
        metrics.database_refusals.labels(_state(error)).inc()
    time.sleep(random.uniform(0.5, 1.0) * min(1.0, 0.01 * 2**attempt))


class _Pool:
    """At most `most` connections, opened as they are needed and kept open. The one that was used last is lent first: its server is warm.

    SQLAlchemy's pools keep what a Connection is made around, for each use anew: that takes longer than to run a SELECT by its key. And they
    would keep those that wait when a connection could not be opened.
    """

    def __init__(self, engine: Engine, sessions: "_Sessions", most: int) -> None:
        self.engine = engine
        self._sessions = sessions
        self._idle: list[Connection] = []
        #: As many as may be lent still. A semaphore takes ten times as long.
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(most):
            self._places.put(None)

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        """One of them, as soon as one is free."""
        try:
            self._places.get(timeout=POOL_TIMEOUT)
        except Empty:
            raise sqlalchemy.exc.TimeoutError(f"no connection to the database was free for {POOL_TIMEOUT} s") from None
        try:
            connection = self._last_used() or self.engine.connect()
            try:
                yield connection
            finally:
                self._take_back(connection)
        finally:
            self._places.put(None)

    def close(self) -> None:
        """Close those that are not lent."""
        while self._idle:
            self._idle.pop().close()

    def _last_used(self) -> Connection | None:
        """One that is of use still, so that a restarted database costs nobody an answer."""
        try:
            while not self._sessions.is_of_use((connection := self._idle.pop()).connection):
                connection.invalidate()
                connection.close()
            return connection
        except IndexError:
            return None

    def _take_back(self, connection: Connection) -> None:
        if connection.invalidated:
            connection.close()
        else:
            connection.rollback()  # SQLAlchemy begins a transaction by itself, which in autocommit is none
            self._idle.append(connection)


class _Sessions:
    """All connections of one `Database`, by whether they still lead where writes are taken.

    After a failover the sessions of the old primary go on answering reads. The first one that refuses a write ends all that were opened
    before: each is replaced when it would be used next, and libpq looks for the primary anew. So does the first one that breaks: where a
    machine has gone without a goodbye, each of the others would cost its caller as long (`tcp_user_timeout`).
    """

    def __init__(self) -> None:
        self._generation, self._since = 0, -math.inf

    def opened(self, connection: Any, record: ConnectionPoolEntry) -> None:
        # Ids are text here. SQLAlchemy has psycopg2 make UUIDs of them, only to make text of those.
        psycopg2.extensions.register_type(_UUID, connection)
        record.info.update({_SESSIONS: self, _GENERATION: self._generation, _UNTIL: time.monotonic() + RECYCLE})

    def is_of_use(self, connection: PoolProxiedConnection) -> bool:
        """May it be used once more: is it alive, not too old, and does it lead where writes are taken, as far as that is known?"""
        info = connection.info
        return info[_GENERATION] == self._generation and time.monotonic() < info[_UNTIL] and not _is_dead(connection)

    def failed(self, context: ExceptionContext) -> None:
        """SQLAlchemy is about to raise: an error of a server that can't be ours ends the connection, or comes while one is opened."""
        if context.connection is None or self.ended_by(context.original_exception, context.connection.connection):
            context.is_disconnect = True
        elif context.is_disconnect:
            self.replace(context.connection.connection)

    def ended_by(self, error: BaseException, connection: PoolProxiedConnection) -> bool:
        """Is this connection of no use any more, after this error? If its server takes no writes, neither are those as old as it."""
        if takes_no_writes(error, connection.dbapi_connection):
            if self.replace(connection):
                _log.warning(
                    "database_takes_no_writes", meaning="its connections are closed, and the server that takes writes is looked for"
                )
            return True
        return _state(error)[:2] == "08" or _state(error) in _ENDED

    def replace(self, connection: PoolProxiedConnection) -> bool:
        """Have all that are as old as this one replaced before they are used again; False if they are to be already."""
        is_new = connection.info.get(_GENERATION) == self._generation and time.monotonic() > self._since + GENERATION_SECONDS
        if is_new:
            self._generation, self._since = self._generation + 1, time.monotonic()
        return is_new


class _Hosts:
    """Several servers, the one first that was connected to last: each new connection would wait for one that is gone before it."""

    def __init__(self) -> None:
        self._last: tuple[str, str] | None = None

    def connect(self, _dialect: Dialect, _record: ConnectionPoolEntry, _args: object, options: dict[str, Any]) -> Any:
        """In the place of SQLAlchemy's own. libpq takes lists of hosts and ports."""
        hosts, ports = str(options["host"]).split(","), str(options.get("port", "")).split(",")
        servers = list(zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=True))
        servers.sort(key=lambda server: (server[0], server[1] or _PORT) != self._last)
        hosts, ports = [host for host, _ in servers], [port for _, port in servers]
        connection = psycopg2.connect(**{**options, "host": ",".join(hosts), "port": ",".join(ports)})
        self._last = connection.info.host, str(connection.info.port)
        return connection


#: PostgreSQL's port, where a URL has none.
_PORT = "5432"
#: Keys of a connection's `info`.
_SESSIONS, _GENERATION, _UNTIL = "tsg_sessions", "tsg_generation", "tsg_until"


def connect(url: URL, *, pool_size: int, patience: float = math.inf) -> Database:
    """A database with at most `pool_size` connections for reading, and half as many for transactions.

    None is opened yet for PostgreSQL. A `cockroachdb` URL may lead to either kind of server (the `TSG_CRDB_*` variables of 2018 do not
    say which), so that server is waited for and asked; for `patience` seconds, and then `OperationalError` says which was not reached.
    """
    os.environ["PGTZ"] = "UTC"  # libpq's. On the clocks of a zone in the east the year 9999 ends early, and Python knows no later one.
    if url.get_backend_name() == "cockroachdb":
        url = _as_found(url, patience)
    options = {**_OPTIONS, **({"target_session_attrs": "read-write"} if _has_several_hosts(url) else {})}
    sessions, hosts = _Sessions(), _Hosts()

    def engine(cursor: type[psycopg2.extensions.cursor] | None = None, **more: Any) -> Engine:
        made = create_engine(
            url,
            hide_parameters=True,
            connect_args={"cursor_factory": cursor, **{name: value for name, value in options.items() if name not in url.query}},
            poolclass=NullPool,
            **more,
        )
        event.listen(made, "connect", sessions.opened)
        event.listen(made, "handle_error", sessions.failed)
        if _has_several_hosts(url):
            event.listen(made, "do_connect", hosts.connect)
        return made

    reader = engine(_Alone, isolation_level="AUTOCOMMIT", skip_autocommit_rollback=True)
    # Transactions are short, and wait for one another anyway.
    return Database(_Pool(engine(), sessions, (pool_size + 1) // 2), _Pool(reader, sessions, pool_size))


#: OID of `uuid` in PostgreSQL and CockroachDB.
_UUID = psycopg2.extensions.new_type((2950,), "UUID", psycopg2.STRING)


def _is_dead(connection: Any) -> bool:
    look = select.poll()
    look.register(connection.fileno(), select.POLLIN)
    return bool(look.poll(0))


def is_writable(connection: Connection) -> bool:
    """Does the server at the other end take writes, or is it a standby, or its default to refuse them?"""
    return bool(connection.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "off")


def takes_no_writes(error: BaseException, driver: Any) -> bool:
    """Does the server at the other end refuse writes, as a standby does and a primary that was demoted?

    A standby says at once that it is one (PostgreSQL 14 or later), and refuses more than writes: serializable reads, for one.
    """
    return _state(error) == _READ_ONLY or (not driver.closed and driver.get_parameter_status("in_hot_standby") == "on")


def ends_session(error: psycopg2.Error, connection: Connection) -> bool:
    """Does an error that did not come by SQLAlchemy end its connection? It is closed then, as SQLAlchemy closes it."""
    driver: Any = connection.connection
    sessions: _Sessions = driver.info[_SESSIONS]
    is_over = sessions.ended_by(error, driver)
    if not is_over and connection.dialect.is_disconnect(error, driver, None):  # type: ignore[arg-type] # SQLAlchemy's own name for it
        is_over = True
        sessions.replace(driver)
    if is_over:
        connection.invalidate(error)
    return is_over


def is_unavailable(error: Exception) -> bool:
    """Is this the database being away, and not a mistake of this service?"""
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return True
    if not isinstance(error, sqlalchemy.exc.DBAPIError):
        return False
    state = _state(error.orig)
    # 08: connection, 53: out of resources, 57: operator intervention (shutdown); 40: still no order after all tries
    away = state == _READ_ONLY or state[:2] in {"08", "40", "53", "57"}
    return isinstance(error, sqlalchemy.exc.OperationalError) or error.connection_invalidated or away


def _was_cut_off(error: sqlalchemy.exc.DBAPIError) -> bool:
    """Did the connection end before an answer came? What the server itself refused is not stored."""
    state = _state(error.orig)
    return is_unavailable(error) and (state[:2] in {"", "08", "57"} or state == "40003")  # 40003: CockroachDB does not know either


def _state(error: BaseException | None) -> str:
    """The SQLSTATE of what the driver raised; nothing where the server sent none."""
    return getattr(error, "pgcode", None) or ""


def _has_several_hosts(url: URL) -> bool:
    hosts = url.query.get("host", "")
    return not isinstance(hosts, str) or "," in hosts or "," in (url.host or "")


def _as_found(url: URL, patience: float) -> URL:
    """The URL with the dialect of the server that answers there, waiting for as long as it takes it to come up."""
    # All that the URL says: it may name several hosts, and certificates.
    plain = url.set(drivername="postgresql+psycopg2")
    _, options = plain.get_dialect()().create_connect_args(plain)
    until = time.monotonic() + patience
    while True:
        try:
            connection = psycopg2.connect(**{**_OPTIONS, **options})
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
