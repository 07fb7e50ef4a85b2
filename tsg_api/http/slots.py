"""Threads that wait for somebody else: so many at once and no more, since whoever waits keeps a thread of the server from all others."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tsg_api.http.errors import Unavailable

#: Seconds in which a CloudAPI in good health answers all that one request asks of it: five requests for the first one of an account.
PATIENCE = 5.0


class Places:
    """So many may wait for one thing at once. Thread-safe.

    Who finds no place free waits for one while there is hope: until the oldest of those inside has been there for `patience` seconds,
    and not at all once one of them took as long. So a service that answers soon is waited for, and one that hangs keeps its places
    and no thread besides.
    """

    def __init__(self, most: int, *, patience: float = 0.0) -> None:
        self._most = most
        self._patience = patience
        self._changed = threading.Condition()
        #: When each of those inside came.
        self._inside: list[float] = []
        #: Seconds that the last one was inside.
        self._last = 0.0

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """A place; False when there is none."""
        with self._changed:
            has_place = self._changed.wait_for(lambda: len(self._inside) < self._most, timeout=self._hope())
            came = time.monotonic()
            if has_place:
                self._inside.append(came)
        try:
            yield has_place
        finally:
            if has_place:
                with self._changed:
                    self._inside.remove(came)
                    self._last = time.monotonic() - came
                    self._changed.notify()

    @contextmanager
    def of_cloudapi(self) -> Iterator[None]:
        """A place for as long as CloudAPI is asked, or `Unavailable`."""
        with self.turn() as has_place:
            if not has_place:
                raise Unavailable("CloudAPI is slow, and too many requests wait for it; try again.")
            yield

    def _hope(self) -> float:
        now = time.monotonic()
        return max(0.0, self._patience - max(self._last, now - min(self._inside, default=now)))


class Rooms(NamedTuple):
    """What requests wait for, and their places."""

    #: For a group to settle.
    settling: Places
    #: For CloudAPI to vouch for a key.
    keys: Places
    #: For CloudAPI's list of machines.
    machines: Places


def shared_out(threads: int, *, patience: float = PATIENCE) -> Rooms:
    """The places of a process with so many threads: of four or more, one at least is in none of them."""
    quarter = max(1, threads // 4)
    return Rooms(
        settling=Places(max(0, threads - 2 * quarter - 1)),
        keys=Places(quarter, patience=patience),
        machines=Places(quarter, patience=patience),
    )
