"""A server, whichever it is: from its directory to its end."""

import fcntl
import os
import shutil
import signal
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from dev.processes import Account, Child, wait_for
from dev.services.directories import ServiceError, give, own_directory

#: The longest path of a unix socket, in bytes: 108 on Linux and 104 on macOS, with a zero at its end.
SOCKET_PATH_MAX = 103
#: Where the sockets go when their path would be longer. Not $TMPDIR, which may be long itself.
SHORT_TMP = Path("/tmp")
#: Seconds for a server to answer (after a crash it first recovers), to end, and for the one of a killed parent to leave.
START_SECONDS, END_SECONDS, LEAVE_SECONDS = 60, 60, 10


class Server(ABC):
    """What both have in common: a directory, a lock on it, a child, and the ways of its end."""

    name: ClassVar[str]
    socket_name: str
    #: Asks the server to end in good order; the kernel sends it when we die.
    farewell: ClassVar[signal.Signals]
    _child: Child | None = None

    def __init__(self, data_dir: Path, *, network: Path | None = None) -> None:
        self.data_dir = data_dir.absolute()
        self.network = network
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
        own_directory(self.data_dir, self.name, account)
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

    def _spawn(self, command: Sequence[str | Path], account: Account | None, lock: int, **more: Any) -> Child:
        """The server as a child that ends with us and holds the lock for as long as it lives."""
        return Child(command, log=self.log, account=account, keep=[lock], orphaned=self.farewell, network=self.network, **more)

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
            give(directory, account)
        for left in directory.iterdir():
            left.unlink()

    def _forget_short_run(self) -> None:
        if self._short_run:
            shutil.rmtree(self._short_run, ignore_errors=True)
            self._short_run = None


def _fits_a_socket(path: Path) -> bool:
    """Short enough, and without the comma that separates libpq's hosts."""
    return len(os.fsencode(path)) <= SOCKET_PATH_MAX and "," not in str(path)
