"""Child processes: started in a session of their own, logged to a file, waited for, and ended by the pid that was started.

A child does not outlive us. On Linux the kernel signals it when the thread that started it ends, so a child that is asked for
on any but the main thread is started by one lasting thread instead. macOS has nothing like it: there, a child does outlive a
parent that was killed with SIGKILL.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

#: The top of the checkout: from here, a child finds the modules of dev.
TOP = Path(__file__).parent.parent
#: Lines of its log that an error about a child carries.
TAIL = 20

#: Runs in the child, in the place of its program, which it then becomes: enters a network and gives up root where that was asked
#: for, and asks the kernel for a signal at our death. Another program instead of a preexec_fn, which may deadlock in a process with
#: threads; it costs 15 ms. The order matters: a change of user takes the request back.
_LEASH = """
import ctypes, os, sys
parent, signum, uid, gid = map(int, sys.argv[1:5])
network = sys.argv[5]
if network:
    CLONE_NEWNET = 0x40000000
    if ctypes.CDLL(None).setns(os.open(network, os.O_RDONLY), CLONE_NEWNET):
        sys.exit(f"cannot enter {network}")
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signum))
    if os.getppid() != parent:
        sys.exit("the process that started this one is gone")
try:
    os.execv(sys.argv[6], sys.argv[6:])
except OSError as error:
    sys.exit(f"cannot run {sys.argv[6]}: {error.strerror}")
"""

_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class ChildError(Exception):
    """A child did not become ready; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Account:
    """A user of this machine, for root to run a child as."""

    name: str
    uid: int
    gid: int


class Child:
    """One running program. `log` is appended to; `keep` are descriptors it inherits; `orphaned` is the signal it gets when we die.

    `network` is the file of a network namespace that it runs in, where that is not ours.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path = TOP,
        account: Account | None = None,
        keep: Sequence[int] = (),
        orphaned: signal.Signals = signal.SIGTERM,
        network: Path | None = None,
    ) -> None:
        self.name = Path(command[0]).name
        self.log = log
        # found here: the child may have given up the right to read what Python searches PATH with
        program = shutil.which(command[0], path=env.get("PATH") if env else None) or command[0]
        uid, gid = (account.uid, account.gid) if account else (-1, -1)
        leash = [sys.executable, "-I", "-S", "-c", _LEASH, *map(str, (os.getpid(), int(orphaned), uid, gid, network or ""))]

        def spawn() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [*leash, str(program), *map(str, command[1:])],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                pass_fds=keep,
                start_new_session=True,
            )

        with log.open("ab") as out:
            self._log_start = out.tell()
            on_main_thread = threading.current_thread() is threading.main_thread()
            self._process = spawn() if on_main_thread else _spawner.submit(spawn).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def status(self) -> int | None:
        """None while it runs, then its exit status (-9: killed by signal 9)."""
        return self._process.poll()

    def wait_until(self, ready: Callable[[], bool], *, seconds: float = 30) -> None:
        """Waits until ready() is true. Raises ChildError when the child ends before that, or the time does."""

        def ready_or_ended() -> bool:
            return self.status is not None or ready()

        in_time = wait_for(ready_or_ended, seconds=seconds)
        if self.status is not None:
            raise ChildError(self._story(f"ended with status {self.status} before it was ready"))
        if not in_time:
            raise ChildError(self._story(f"was not ready after {seconds:g} seconds"))

    def wait_for_line(self, pattern: str, *, seconds: float = 30) -> str:
        """What the pattern's one group stands for in the last such line that it writes. Raises ChildError as `wait_until`."""
        found: list[str] = []

        def is_written() -> bool:
            found[:] = re.findall(pattern, self.tail(1000))
            return bool(found)

        self.wait_until(is_written, seconds=seconds)
        return found[-1]

    def send(self, signum: signal.Signals) -> None:
        """Signals the child alone, not what it started. Nothing happens when it has ended."""
        self._process.send_signal(signum)

    def stop(self, signum: signal.Signals = signal.SIGTERM, *, seconds: float = 15) -> None:
        """Asks the child to end, waits, and kills it when it does not."""
        self.send(signum)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kills the child and all that it started in its session's first process group, and waits for the child's end."""
        if self.status is None:  # not reaped yet, so its number is still its own
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
        self._process.wait()

    def tail(self, lines: int = TAIL) -> str:
        """The last lines that this child, not an earlier one with the same log, has written."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def _story(self, what_happened: str) -> str:
        return f"{self.name} (pid {self.pid}) {what_happened}. The end of {self.log}:\n{self.tail() or '(nothing)'}"


def stop_on_signals() -> None:
    """Have SIGINT, SIGTERM and SIGHUP raise `KeyboardInterrupt`. For the main thread.

    SIGINT also where it is ignored, as it is for a program that a script starts with `&`; SIGHUP not: that is what `nohup` is for.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def wait_for(condition: Callable[[], bool], *, seconds: float, longest_pause: float = 0.05) -> bool:
    """Asks again and again, at first every 5 ms and later every `longest_pause`, until the condition or the time is up; says which."""
    deadline = time.monotonic() + seconds
    pause = 0.005
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, longest_pause)
    return True


def wait_or_fail(what: str, condition: Callable[[], bool], *, seconds: float, longest_pause: float = 0.25) -> None:
    """Wait for what has to come. Raises TimeoutError."""
    if not wait_for(condition, seconds=seconds, longest_pause=longest_pause):
        raise TimeoutError(f"not within {seconds:g} s: {what}")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago. Another program may take it first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
