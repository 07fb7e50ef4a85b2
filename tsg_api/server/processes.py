"""Several processes that serve one port: a parent binds it, starts them, and replaces those that die.

Each process is bound to a core where the system can do that: the threads of one Python process take turns anyway, and to hand
them from core to core costs more than they do.
"""

import errno
import os
import random
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from shared import log
from tsg_api.server.share import Share, shares

_log = log.get(__name__)

#: Connections that may wait to be accepted.
BACKLOG = 1024
#: Seconds that a process must live for its death to count as the first in a row.
SOUND = 10.0
#: Seconds before a process is started again: twice as long with each death in a row, from and to.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
#: Deaths in a row, each soon after its start, after which the parent gives up.
GIVE_UP = 8


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on all addresses that `host` stands for (`::`: IPv4 too), on one free port when it is 0. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    for family, *_, address in dict.fromkeys(found):
        chosen = listeners[0].getsockname()[1] if listeners else port
        try:
            at, takes_ipv4_too = (address[0], chosen, *address[2:]), address[0] == "::"
            listeners.append(socket.create_server(at, family=family, backlog=BACKLOG, dualstack_ipv6=takes_ipv4_too))
        except OSError as error:
            # socket.create_server adds the address to the text.
            error.strerror = os.strerror(error.errno or 0)
            # A name may stand for an address of a protocol that this machine does not speak.
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT} or (len(found) == 1 and not listeners):
                raise
    if not listeners:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return listeners


def settle(core: int | None) -> None:
    """Keep this process on one core; where that can't be had, let its threads take turns oftener."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    else:
        sys.setswitchinterval(0.001)


def cores(count: int, *, pin: bool) -> list[int | None]:
    """A core for each of so many processes, in turn, from any one on: other programs on this machine may choose so too."""
    if not pin or not hasattr(os, "sched_getaffinity"):
        return [None] * count
    allowed = sorted(os.sched_getaffinity(0))
    first = random.randrange(len(allowed))
    return [allowed[(first + number) % len(allowed)] for number in range(count)]


class Crew:
    """The parent of processes that all do the same `work`, each with its share of the connections, which returns an exit status.

    `shared` are sockets that they inherit. Those that are told to stop and do not in `stop_within` seconds are killed.
    """

    def __init__(
        self,
        work: Callable[[Share], int],
        on_cores: Sequence[int | None],
        *,
        shared: Sequence[socket.socket] = (),
        stop_within: float = 30.0,
    ) -> None:
        self._shared = shared
        self._stop_within = stop_within
        self._work = work
        self._cores = on_cores
        self._shares = shares(len(on_cores))
        #: Process id -> its place among the cores, and when it was started.
        self._running: dict[int, tuple[int, float]] = {}
        #: Places without a process, and when each is to have one again.
        self._due: dict[int, float] = dict.fromkeys(range(len(on_cores)), 0.0)
        self._deaths = 0
        self._stopping = False

    def keep(self, started: Callable[[], None]) -> int:
        """Keep them up until SIGTERM or SIGINT, then have them finish what is under way: 0, or 1 when they can't be kept up.

        `started` is called when all have been started for the first time.
        """
        # A process whose parent is gone sees the end of this pipe, and stops.
        self._orphaned, alive = os.pipe()
        self._alive = alive
        woken, wake = os.pipe()
        for end in (woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        self._start_due()
        started()
        while self._running or not (self._stopping or self._has_given_up()):
            select.select([woken], [], [], self._pause())
            with suppress(BlockingIOError):
                os.read(woken, 4096)
            self._bury()
            if self._has_given_up() and not self._stopping:
                _log.error("processes_keep_dying", deaths=self._deaths, meaning="what they logged before says why")
                self._stop()
            if self._stopping:
                # A socket that one process has open goes on taking connections in, for nobody.
                for one in self._shared:
                    one.close()
                self._kill_the_late()
            else:
                self._start_due()
        return 1 if self._has_given_up() else 0

    def _has_given_up(self) -> bool:
        return self._deaths >= GIVE_UP

    def _pause(self) -> float | None:
        """Seconds until there is something to do, unless a signal comes."""
        if self._stopping:
            return max(0.0, self._stop_by - time.monotonic())
        return max(0.0, min(self._due.values()) - time.monotonic()) if self._due else None

    def _stop(self, *_signal: object) -> None:
        self._stopping = True
        self._stop_by = time.monotonic() + self._stop_within
        for process in self._running:
            os.kill(process, signal.SIGTERM)

    def _kill_the_late(self) -> None:
        if time.monotonic() >= self._stop_by:
            for process in self._running:
                _log.error("process_killed", process=process, meaning=f"it had not stopped in {self._stop_within:g} s")
                os.kill(process, signal.SIGKILL)
            self._stop_by += self._stop_within

    def _bury(self) -> None:
        """Take note of those that have ended."""
        while self._running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            place, since = self._running.pop(process)
            self._shares[place].end()
            if self._stopping:
                continue
            now = time.monotonic()
            self._deaths = 1 if now - since > SOUND else self._deaths + 1
            pause = 0.0 if self._deaths == 1 else min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self._deaths - 2))
            self._due[place] = now + pause
            _log.error("process_ended", process=process, status=os.waitstatus_to_exitcode(status), again_in=pause)

    def _start_due(self) -> None:
        for place, when in list(self._due.items()):
            if when <= time.monotonic():
                del self._due[place]
                self._start(place)

    def _start(self, place: int) -> None:
        # No signal may come to the child before it has handlers of its own, nor to us before the child is in the book.
        signals = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        if not self._stopping:
            process = os.fork()
            if not process:
                self._become(place, signals)
            self._running[process] = (place, time.monotonic())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    def _become(self, place: int, signals: set[signal.Signals]) -> NoReturn:
        """The child's part: work, and end without what the parent would do at its end."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # A terminal sends Ctrl-C to parent and children: the parent tells its children, once.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            os.close(self._alive)
            threading.Thread(target=self._stop_when_orphaned, name="parent", daemon=True).start()
            settle(self._cores[place])
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            status = self._work(self._shares[place])
        except (KeyboardInterrupt, SystemExit):
            status = 0
        except BaseException as error:  # noqa: BLE001 - nothing may leave the child but its status
            _log.error("process_failed", exc_info=error)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _stop_when_orphaned(self) -> None:
        os.read(self._orphaned, 1)
        os.kill(os.getpid(), signal.SIGTERM)
