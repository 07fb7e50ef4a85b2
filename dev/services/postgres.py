"""PostgreSQL."""

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import psycopg2
from sqlalchemy import Connection, NullPool, create_engine, text

from dev.processes import Account, Child
from dev.services.directories import ServiceError, give, unprivileged, user_name
from dev.services.programs import postgres_environment, postgres_programs, run_as
from dev.services.server import Server

#: A part of the socket's name, and no more: it does not listen on TCP.
PORT = 5432


class Postgres(Server):
    """A PostgreSQL on `data_dir`, made where there is none, with a database `tsg` and the user `postgres`.

    It listens on a private unix socket, where it trusts everybody who gets there.
    `durable=False` is for tests: nothing is synced to the disk, so that a crash of the machine (not of the server) loses data.
    `listen` is an address that it listens on too; all in its network are trusted.
    """

    name = "postgres"
    socket_name = f".s.PGSQL.{PORT}"
    farewell = signal.SIGINT

    def __init__(self, data_dir: Path, *, durable: bool = True, listen: str = "", network: Path | None = None) -> None:
        super().__init__(data_dir, network=network)
        self._durable = durable
        self._listen = listen
        #: Its synchronous_standby_names, from the next start on: without one of these, nothing is committed.
        self.synchronous = ""
        self._primaries: Sequence[str] = ()
        self._cluster = self.data_dir / "data"

    def url(self, database: str = "tsg") -> str:
        return f"postgresql+psycopg2://postgres@/{database}?host={quote(str(self._socket.parent))}&port={PORT}"

    def become_standby(self, of: Sequence[str]) -> None:
        """Begin again at the next start, with a copy of the one of these hosts that takes writes, and follow that one, whichever it is."""
        shutil.rmtree(self._cluster, ignore_errors=True)
        self._primaries = of

    def is_standby(self) -> bool:
        return bool(self._ask("SELECT pg_is_in_recovery()"))

    def received(self) -> int:
        """Bytes that a standby has of the primary's log, since the beginning."""
        return int(self._ask("SELECT pg_last_wal_receive_lsn() - '0/0'::pg_lsn"))

    def promote(self) -> None:
        """Make a standby the primary."""
        if not self._ask("SELECT pg_promote()"):
            raise ServiceError(f"{self._cluster} is not promoted after a minute")

    def _ask(self, statement: str) -> Any:
        with self._administrator() as connection:
            return connection.exec_driver_sql(statement).scalar_one()

    def create_database(self, name: str, *, template: str | None = None) -> None:
        """Creates a database, a copy of `template` where that is given. One that exists is left as it is."""
        with self._administrator() as connection:
            found = connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name})
            if not found:
                quoted = connection.dialect.identifier_preparer.quote_identifier
                copy = f" TEMPLATE {quoted(template)}" if template else ""
                connection.exec_driver_sql(f"CREATE DATABASE {quoted(name)}{copy}")

    def drop_database(self, name: str) -> None:
        """Drops a database, with the connections to it. One that is not there is fine."""
        with self._administrator() as connection:
            quoted = connection.dialect.identifier_preparer.quote_identifier
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """The modes of pg_ctl: fast ends the sessions, smart waits for them (60 s), immediate leaves recovery to the next start."""
        self._end({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        self._forget_short_run()

    @contextmanager
    def _administrator(self) -> Iterator[Connection]:
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            yield connection

    def _account(self) -> Account | None:
        return unprivileged()

    def _launch(self, account: Account | None, lock: int) -> Child:
        programs, version = postgres_programs(account)
        self._init(programs, account)
        self._check(programs, version, account)
        self._forget_stale_pid()
        settings: dict[str, object] = {
            "unix_socket_directories": '"{}"'.format(str(self._socket.parent).replace('"', '""')),
            "unix_socket_permissions": "0700",
            "listen_addresses": self._listen,
            "synchronous_standby_names": self.synchronous,
            "port": PORT,
            "max_connections": 300,
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "logging_collector": "off",
        }
        if not self._durable:
            # not synchronous_commit=off: it saves nothing measurable once fsync is off, and loses commits when the server is killed
            settings |= {"fsync": "off", "full_page_writes": "off"}
        if self._listen:
            trusting = self.data_dir / "pg_hba.conf"
            trusting.write_text("local all all trust\nhost all all samenet trust\nhost replication all samenet trust\n")
            # A standby looks for a new primary at once, and 5 s after it last heard of one that went without a goodbye.
            settings |= {"hba_file": trusting, "wal_retrieve_retry_interval": "500ms", "wal_receiver_timeout": "5s"}
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        command = [programs / "postgres", "-D", self._cluster, *options]
        return self._spawn(command, account, lock, env=postgres_environment(), cwd=Path("/"))

    def _init(self, programs: Path, account: Account | None) -> None:
        """Makes the cluster, under another name until it is whole."""
        if self._cluster.exists():
            return
        unfinished = self.data_dir / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if account:
            give(unfinished, account)
        done = run_as(account, *self._maker(programs, unfinished), *(() if self._durable else ("--no-sync",)))
        if done.returncode:
            raise ServiceError(f"{self._cluster} could not be made:\n{done.stdout}")
        unfinished.rename(self._cluster)

    def _maker(self, programs: Path, directory: Path) -> Sequence[str | Path]:
        """The command that fills the directory of a cluster."""
        if self._primaries:
            # A standby does not heed connect_timeout: without the last one it tries a host that is gone for a minute and more.
            options = "user=postgres target_session_attrs=read-write connect_timeout=2 tcp_user_timeout=2000"
            source = f"host={','.join(self._primaries)} port={PORT} {options}"
            return programs / "pg_basebackup", "-D", directory, "--checkpoint=fast", "--write-recovery-conf", f"--dbname={source}"
        trust = ("--auth-local=trust", "--auth-host=scram-sha-256")
        return programs / "initdb", "-D", directory, "-U", "postgres", *trust, "--encoding=UTF8", "--locale=C", "--no-instructions"

    def _check(self, programs: Path, version: str, account: Account | None) -> None:
        owner, ours = self._cluster.stat().st_uid, account.uid if account else os.geteuid()
        if owner != ours:
            raise ServiceError(
                f"{self._cluster} belongs to {user_name(owner)}, and PostgreSQL would run as {user_name(ours)}: "
                "run as its owner, or choose another directory"
            )
        made_by = (self._cluster / "PG_VERSION").read_text().strip()
        if made_by != version:
            raise ServiceError(
                f"{self._cluster} was made by PostgreSQL {made_by}, and {programs} holds PostgreSQL {version}: "
                f"set TSG_POSTGRES_BIN to the bin directory of a PostgreSQL {made_by}, or choose another directory"
            )

    def _forget_stale_pid(self) -> None:
        """PostgreSQL takes any process with the number in its pid file for its predecessor, and refuses to start.

        After a crash in a container, that number may be anybody's, or a zombie's. We hold the lock, so no such server is alive; a
        postgres is one that somebody started by hand on our data.
        """
        pid_file = self._cluster / "postmaster.pid"
        with suppress(FileNotFoundError, ValueError, IndexError):
            if _program_of(int(pid_file.read_text().splitlines()[0])) != "postgres":
                pid_file.unlink()

    def _ready(self) -> bool:
        """What pg_ctl does: the server writes its state to the eighth line of its pid file."""
        with suppress(FileNotFoundError, IndexError):
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
            return lines[0] == str(self.pid) and lines[7].strip() == "ready"
        return False

    def _settle(self) -> None:
        self.create_database("tsg")


def execute(url: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Run one statement on the database at this URL (SQLAlchemy's or libpq's), and commit; its rows, if it has any."""
    connection = psycopg2.connect(url.replace("postgresql+psycopg2", "postgresql", 1))
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def _program_of(pid: int) -> str | None:
    """The name of a living process's program; "postgres" where that cannot be found out."""
    if sys.platform != "linux":
        return "postgres"
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()  # a zombie's is empty
        return Path(os.fsdecode(command.split(b"\0")[0])).name
    return None
