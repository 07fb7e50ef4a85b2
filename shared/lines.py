"""Lines that never keep anybody waiting: a thread of its own writes them, and what cannot be written is counted.

A disk may be full, a reader dead, a pipe stalled or non-blocking. A request is answered and a group looked at all the same.
"""

import atexit
import os
import select
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

#: Characters that wait to be written, at most; what would be more is lost.
MOST = 4_000_000
#: Seconds between writes: what is logged in them goes out together, by one call of the system.
GAP = 0.01
#: Seconds that a process which ends has for its last lines.
LAST_SECONDS = 1.0
#: Seconds between looks at a non-blocking descriptor that takes nothing.
LOOK = 1.0

#: Called with the number of lines that were lost, as they are lost.
_counters: list[Callable[[int], None]] = []


def count_lost(count: Callable[[int], None]) -> None:
    """Have `count` called with each number of lines that is lost from now on, whatever they were written to."""
    _counters.append(count)


#: Writes one line.
Write = Callable[[str], None]


def writer(out: TextIO | None, recovered: Callable[[int], None] = lambda _lost: None) -> Write:
    """What writes lines to a stream: one with a descriptor is never waited for, one in memory is written at once, None takes nothing.

    `recovered` is called by the writing thread with the number of lines that were lost, once lines can be written again.
    """
    if out is None:  # it was closed before we began
        return Lines(-1, recovered).write
    try:
        return Lines(out.fileno(), recovered).write
    except (OSError, ValueError, AttributeError):
        return lambda line: print(line, file=out)


def flush(seconds: float = LAST_SECONDS) -> None:
    """Wait until all lines are written, for so long at most: for a process that ends without saying so to Python (`os._exit`)."""
    for lines in list(_all):
        lines.flush(seconds)


class Lines:
    """Lines to one descriptor, or to nowhere when it is negative. Thread-safe."""

    def __init__(self, descriptor: int, recovered: Callable[[int], None]) -> None:
        # A descriptor of our own: the number of one that somebody closes may be a database's connection the next moment.
        self._descriptor = os.dup(descriptor) if descriptor >= 0 else descriptor
        self._recovered = recovered
        #: Lines lost since lines could be written last.
        self._lost = 0
        #: The last line was written in part.
        self._torn = False
        self.begin()
        _all.add(self)

    def begin(self) -> None:
        """Begin with nothing to write, as in the child of a fork: threads are not forked, and its parent writes what waited."""
        # Reentrant: the garbage collector may run something here that logs.
        self._lock = threading.RLock()
        self._waiting: list[str] = []
        self._size = 0
        self._ready = threading.Event()
        self._hurry = threading.Event()
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Have a line written soon. One that finds no room is lost."""
        if self._descriptor < 0 or self._size > MOST:
            self._lose(1)
            return
        with self._lock:
            self._waiting.append(line)
            self._size += len(line)
            if len(self._waiting) == 1:
                self._idle.clear()
                self._ready.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="lines", daemon=True)
                self._thread.start()

    def flush(self, seconds: float) -> bool:
        """Wait until all is written, for so long at most. False when something is left."""
        self._hurry.set()
        try:
            return self._idle.wait(seconds)
        finally:
            self._hurry.clear()

    def _write(self) -> None:
        while True:
            self._ready.wait()
            with self._lock:
                lines, self._waiting, self._size = self._waiting, [], 0
                self._ready.clear()
            lost = self._lost
            if self._put("".join(f"{line}\n" for line in lines).encode(errors="backslashreplace")) and lost:
                self._lost -= lost
                self._recovered(lost)
            with self._lock:
                if not self._waiting:
                    self._idle.set()
            self._hurry.wait(GAP)

    def _put(self, data: bytes) -> bool:
        """Write all of it; False when some was lost."""
        whole = b"\n" + data if self._torn else data
        left = memoryview(whole)
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    look = select.poll()
                    look.register(self._descriptor, select.POLLOUT)
                    look.poll(LOOK * 1000)
        except OSError:
            written = len(whole) - len(left)
            self._lose(data.count(b"\n", max(0, len(data) - len(left))))
            if written:
                self._torn = whole[written - 1 : written] != b"\n"
            return False
        self._torn = False
        return True

    def _lose(self, lines: int) -> None:
        self._lost += lines
        for count in _counters:
            count(lines)


_all: "weakref.WeakSet[Lines]" = weakref.WeakSet()
atexit.register(flush)


def _begin_again() -> None:
    for lines in list(_all):
        lines.begin()


os.register_at_fork(after_in_child=_begin_again)


def say(text: str) -> None:
    """A program's last words, to standard error. Nobody may be there to hear them."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(printable(text, keep="\n") + "\n")
            sys.stderr.flush()


def printable(text: str, *, keep: str = "") -> str:
    """The text with an escape for each character that is not seen, but for those of `keep`: controls, and what turns the direction.

    A terminal obeys such characters, and names, paths and the words of other services may hold them.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else one.encode("unicode_escape").decode() for one in text)
