"""A token bucket: `rate` tokens a second, and at most `burst` at once. What CloudAPI throttles by, and what we limit callers by."""

import time
from collections.abc import Callable


class TokenBucket:
    """Not thread-safe: its owner has a lock. `now` is the time it goes by, in seconds; `left` the tokens to begin with."""

    def __init__(self, rate: float, burst: float, *, left: float | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst if left is None else min(burst, left)
        self._now = now
        self._at = now()

    @property
    def left(self) -> float:
        """Tokens now. Below zero each missing one is a place in the queue."""
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left

    @property
    def wait_seconds(self) -> float:
        """Seconds until there is a token; 0 when there is one."""
        return max(0.0, (1 - self.left) / self._rate)

    def take(self) -> None:
        """Take a token, whether there is one or not."""
        self._left = self.left - 1

    def drain(self) -> None:
        """Leave none."""
        self._left = min(self.left, 0.0)
