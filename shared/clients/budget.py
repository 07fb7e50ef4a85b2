"""What may be asked of CloudAPI for one account: a token bucket, as CloudAPI's own throttle is (10 requests a second, 30 at once)."""

import math
import threading
import time
from collections.abc import Callable

from shared import metrics


class Budget:
    """`rate` requests a second, and `burst` at once. Thread-safe.

    `left` and `age` carry over what the account's last holder left, and how many seconds ago. `now` and `sleep` are the time it goes by,
    in seconds.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        *,
        left: float | None = None,
        age: float | None = None,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._left = self._burst if left is None else min(self._burst, left + max(0.0, age or 0.0) * rate)
        self._now = now
        self._sleep = sleep
        self._at = now()
        self._lock = threading.Lock()

    def take(self, *, within: float = math.inf) -> bool:
        """Take one request, waiting until there is one. False, and nothing taken, when that would be more than `within` seconds."""
        with self._lock:
            self._refill()
            # Below zero is a place in the queue: each waits for its own.
            wait = max(0.0, (1 - self._left) / self._rate)
            if wait > within:
                return False
            self._left -= 1
        metrics.budget_seconds.observe(wait)
        if wait > 0:
            self._sleep(wait)
        return True

    def drain(self) -> None:
        """CloudAPI counted more than we did: begin again from nothing."""
        with self._lock:
            self._refill()
            self._left = min(self._left, 0.0)

    @property
    def left(self) -> float:
        with self._lock:
            self._refill()
            return self._left

    def _refill(self) -> None:
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
