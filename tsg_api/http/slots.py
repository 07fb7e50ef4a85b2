"""Slots: how many requests may wait for one thing at once, so that what is slow does not take every thread, nor one owner every slot."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tsg_api.http.errors import Unavailable

#: Seconds in which a CloudAPI in good health answers all that one request asks of it: five requests for the first one of an account.
PATIENCE = 5.0
#: Requests parked while their group settles, and those of one account: they cost a connection each, and no thread.
PARKED, PARKED_OF_ONE = 400, 100
#: Long lists that are sent at once, and those of one account: each keeps about half a megabyte while its caller reads.
LISTS, LISTS_OF_ONE = 64, 16


class Slots:
    """`most` requests at once, and of one owner at most `of_one`, those in the queue included. Thread-safe.

    A request without a slot queues while that is of use: until the oldest holder has had its slot for `patience` seconds, and not at
    all once one had it for as long. So a service that answers soon is waited for, and one that hangs keeps its slots and no thread
    besides. A free slot goes to the owner that holds fewest, and then to the request that came first. `spare` slots are never given to an
    owner that holds all the others: where each is held for long, there would not be one free for anybody else at the moment of asking.
    """

    def __init__(self, most: int, *, of_one: float = math.inf, spare: int = 0, patience: float = 0.0) -> None:
        self._most = most
        self._of_one = of_one
        self._holds_at_most = max(1, most - spare)
        self._patience = patience
        self._changed = threading.Condition()
        #: Owner of each slot that is taken, and when it was taken, the oldest first.
        self._held: list[tuple[str, float]] = []
        #: Owners that queue, in the order of their arrival.
        self._queue: list[list[str]] = []
        #: Seconds for which the slot released last was held.
        self._last_seconds = 0.0

    def acquire(self, owner: str = "") -> bool:
        """Take a slot, to be released; False when there is none."""
        with self._changed:
            if owner and self._count(owner) >= self._of_one:
                return False
            ticket = [owner]
            self._queue.append(ticket)
            has_slot = self._changed.wait_for(lambda: self._is_next(ticket), timeout=self._patience_left())
            self._queue = [other for other in self._queue if other is not ticket]
            if has_slot:
                self._held.append((owner, time.monotonic()))
            # Another request may be next now.
            self._changed.notify_all()
            return has_slot

    def release(self, owner: str = "") -> None:
        """Give back the oldest slot of an owner."""
        with self._changed:
            place = next(number for number, (holder, _) in enumerate(self._held) if holder == owner)
            _, since = self._held.pop(place)
            self._last_seconds = time.monotonic() - since
            self._changed.notify_all()

    def acquire_or_refuse(self, owner: str, why: str) -> None:
        """Take a slot, to be released. `Unavailable` with `why` when there is none."""
        if not self.acquire(owner):
            raise Unavailable(why)

    @contextmanager
    def of_cloudapi(self, owner: str = "") -> Iterator[None]:
        """A slot for as long as CloudAPI is asked, or `Unavailable`."""
        self.acquire_or_refuse(owner, "CloudAPI is slow, and too many requests wait for it; try again.")
        try:
            yield
        finally:
            self.release(owner)

    @property
    def held(self) -> int:
        """Slots that are taken."""
        return len(self._held)

    @property
    def queued(self) -> int:
        """Requests that queue for a slot."""
        return len(self._queue)

    def _count(self, owner: str) -> int:
        return self._holds(owner) + sum(ticket[0] == owner for ticket in self._queue)

    def _holds(self, owner: str) -> int:
        return sum(holder == owner for holder, _ in self._held)

    def _is_next(self, ticket: list[str]) -> bool:
        if len(self._held) >= self._most or self._holds(ticket[0]) >= self._holds_at_most:
            return False
        return min(self._queue, key=lambda one: self._holds(one[0])) is ticket

    def _patience_left(self) -> float:
        now = time.monotonic()
        oldest = self._held[0][1] if self._held else now
        return max(0.0, self._patience - max(self._last_seconds, now - oldest))


class AllSlots(NamedTuple):
    """The slots of a process, by what is waited for."""

    #: For a group to settle, by account.
    settling: Slots
    #: For CloudAPI to vouch for a key, by address.
    keys: Slots
    #: For CloudAPI's list of machines, by account.
    machines: Slots
    #: For the caller to read a long list, by account.
    lists: Slots


def slots_of(threads: int, *, parks: bool, patience: float = PATIENCE) -> AllSlots:
    """The slots of a process with `threads` threads: of four or more, one at least is in none of them.

    `parks`: the server can park a request (`tsg_api.http.waiting`). Elsewhere one that waits for its group keeps its thread.
    """
    quarter = max(1, threads // 4)
    rest = max(0, threads - 2 * quarter - 1)
    return AllSlots(
        settling=Slots(PARKED, of_one=PARKED_OF_ONE) if parks else Slots(rest, of_one=(rest + 1) // 2),
        keys=Slots(quarter, spare=1, patience=patience),
        machines=Slots(quarter, of_one=2 * quarter, spare=1, patience=patience),
        lists=Slots(LISTS, of_one=LISTS_OF_ONE),
    )
