"""A connection that waits is taken in by the process that has fewest.

All processes listen on the same socket. Left alone, whichever is awake first takes what comes: where clients and servers share the cores
that is the same one over and over, while the others' cores lie idle.
"""

import mmap
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from waitress import wasyncore

#: Seconds for which a process leaves a connection to one that has fewer. Then that one is busy, or hangs, and it takes one.
PATIENCE = 0.005
#: The count of a process that takes nothing in: nobody has more.
_GONE = 2**31 - 1


class Share:
    """The connections of one process, and the turns of its waitress."""

    def __init__(self, counts: memoryview, place: int) -> None:
        #: How many connections each process has.
        self._counts = counts
        self._place = place
        #: Until when a connection is left to others, by the steady clock; 0 when none is.
        self._left_until = 0.0
        #: One was left to others, and may be there still.
        self._has_waited = False
        self.end()

    def watch(self, sockets: dict[int, Any]) -> None:
        """From now on these are looked after: the map that a server was made with."""
        self._sockets = sockets
        self._not_connections = len(sockets)
        self._listeners = [one for one in sockets.values() if getattr(one, "accepting", False)]
        for one in self._listeners:
            one.handle_accept = partial(self._offered, one.handle_accept)
        #: For another thread: ends a turn that waits.
        self.wake = self._listeners[0].pull_trigger

    def turn(self, seconds: float) -> None:
        """See to what happens on the sockets, or wait for it, for so many seconds."""
        if self._listeners:
            self._counts[self._place] = len(self._sockets) - self._not_connections
            listens = time.monotonic() >= self._left_until
            self._has_waited = listens and self._left_until > 0
            if listens:
                self._left_until = 0.0
            else:
                seconds = min(seconds, PATIENCE)
            for one in self._listeners:
                one.accepting = listens
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._sockets, count=1)

    def close(self) -> None:
        """Listen no more."""
        self.end()
        for one in self._listeners:
            one.del_channel()
            one.socket.close()
        self._listeners = []

    def end(self) -> None:
        """Nobody leaves a connection to this process any more."""
        self._counts[self._place] = _GONE

    def _offered(self, accept: Callable[[], None]) -> None:
        """A connection waits."""
        if self._has_waited or self._counts[self._place] <= min(self._counts):
            accept()
        else:
            self._left_until = time.monotonic() + PATIENCE


def shares(processes: int) -> list[Share]:
    """One for each of so many processes, in memory that all of them see: to be made before they are forked."""
    counts = memoryview(mmap.mmap(-1, 4 * processes)).cast("i")
    return [Share(counts, place) for place in range(processes)]
