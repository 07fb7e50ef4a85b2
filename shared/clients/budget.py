"""What may be asked of CloudAPI for one account: a token bucket, as CloudAPI's own throttle is (10 requests a second, 30 at once)."""

import math
import threading
import time
from collections.abc import Callable

from shared import metrics
from shared.clients.token_bucket import TokenBucket


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
        begun = None if left is None else left + max(0.0, age or 0.0) * rate
        self._bucket = TokenBucket(rate, float(burst), left=begun, now=now)
        self._sleep = sleep
        self._lock = threading.Lock()

    def take(self, *, within: float = math.inf) -> bool:
        """Take one request, waiting until there is one. False, and nothing taken, when that would be more than `within` seconds."""
        with self._lock:
            # Below zero is a place in the queue: each waits for its own.
            wait = self._bucket.wait_seconds
            if wait > within:
                return False
            self._bucket.take()
        metrics.budget_seconds.observe(wait)
        if wait > 0:
            self._sleep(wait)
        return True

    def drain(self) -> None:
        """CloudAPI counted more than we did: begin again from nothing."""
        with self._lock:
            self._bucket.drain()

    @property
    def left(self) -> float:
        with self._lock:
            return self._bucket.left
