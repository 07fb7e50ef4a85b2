"""Requests that wait for a group to settle or to change: one thread looks for all of them, and none of them keeps a thread.

A resource raises `Parked`. The server (`tsg_api.server.channel`) then leaves the connection as it is and its thread to others, and runs
the request again once `resume` was called: with the same environment, in which `WAITED` holds the first run's context.
"""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from shared import log

_log = log.get(__name__)

#: The name in a WSGI environment of the context of a request that was parked.
WAITED = "tsg.waited"

#: Seconds between two looks at a group, and until the first; and for each group that is watched, so that many are looked at less often.
PAUSE, LOOK_SECONDS = 0.1, 0.01
#: Seconds between two rounds, at least.
ROUND = 0.01

K = TypeVar("K", bound=Hashable)

Resume = Callable[[], None]
IsGone = Callable[[], bool]


class Parked(BaseException):
    """No error: the request is answered later. Falcon answers every `Exception`, and lets this one pass.

    `begin` is for the server to call: with what runs the request again, and what tells whether its caller has hung up.
    """

    def __init__(self, begin: Callable[[Resume, IsGone], None]) -> None:
        super().__init__()
        self.begin = begin


class _Waiter(NamedTuple):
    deadline: float
    resume: Resume
    is_gone: IsGone


class _Watch:
    """The requests that wait for one thing, and when to look at it again."""

    def __init__(self) -> None:
        self.waiters: list[_Waiter] = []
        self.due = 0.0

    def add(self, waiter: _Waiter, now: float) -> None:
        self.waiters.append(waiter)
        self.due = now + PAUSE

    def take(self, now: float, *, over: bool, pause: float) -> list[_Waiter]:
        """Those that have waited long enough; the rest is looked for again later."""
        waiters, taken = self.waiters, list[_Waiter]()
        self.waiters = []
        for one in waiters:
            (taken if over or one.deadline <= now or one.is_gone() else self.waiters).append(one)
        self.due = min([now + pause, *(one.deadline for one in self.waiters)])
        return taken


class Watcher(Generic[K]):
    """Looks at groups for all requests that wait for them, in a thread that lives as long as there are any. Thread-safe.

    `is_over` says of what a request waits for whether there is nothing to wait for any more. Once `stopping` is set nobody waits.
    """

    def __init__(self, is_over: Callable[[K], bool], stopping: threading.Event) -> None:
        self._is_over = is_over
        self._stopping = stopping
        self._watches: dict[K, _Watch] = {}
        self._is_running = False
        self._lock = threading.Lock()

    def add(self, awaited: K, seconds: float, resume: Resume, is_gone: IsGone) -> None:
        """Call `resume` when `awaited` is over, the seconds are over, or the caller has hung up. Called once, whatever fails."""
        now = time.monotonic()
        with self._lock:
            self._watches.setdefault(awaited, _Watch()).add(_Waiter(now + seconds, resume, is_gone), now)
            was_running, self._is_running = self._is_running, True
        if not was_running:
            threading.Thread(target=self._watch, name="watcher", daemon=True).start()

    def wait(self, awaited: K, seconds: float) -> None:
        """The same, in the thread that calls it."""
        over = threading.Event()
        self.add(awaited, seconds, over.set, lambda: False)
        over.wait()

    def _watch(self) -> None:
        pause = PAUSE
        while True:
            self._stopping.wait(pause)
            now = time.monotonic()
            with self._lock:
                due = [awaited for awaited, watch in self._watches.items() if watch.due <= now or self._stopping.is_set()]
            for awaited in due:
                self._look(awaited)
            with self._lock:
                if not self._watches:
                    self._is_running = False
                    return
                # A new one is due a pause from now, so this is never too long.
                next_at = min(watch.due for watch in self._watches.values())
            pause = min(PAUSE, max(ROUND, next_at - time.monotonic()))

    def _look(self, awaited: K) -> None:
        try:
            over = self._stopping.is_set() or self._is_over(awaited)
        except Exception as error:  # noqa: BLE001 - the request itself runs into it, and is answered accordingly
            _log.debug("watch_failed", awaited=awaited, error=str(error))
            over = True
        with self._lock:
            watch = self._watches[awaited]
            taken = watch.take(time.monotonic(), over=over, pause=max(PAUSE, LOOK_SECONDS * len(self._watches)))
            if not watch.waiters:
                del self._watches[awaited]
        for waiter in taken:
            try:
                waiter.resume()
            except Exception as error:  # noqa: BLE001 - one whose connection is no more must not cost the others their answers
                _log.warning("resume_failed", awaited=awaited, exc_info=error)
