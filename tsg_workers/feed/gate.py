"""How fast one process may open connections: CloudAPI's restart ends all of them at once, and must not bring all back at once."""

import asyncio

#: Connections a second, at least.
SLOWEST = 20.0
#: Seconds in which all of a process may be opened.
ALL_WITHIN = 50.0


class Gate:
    """For one event loop. Nobody waits while there are few."""

    def __init__(self) -> None:
        self._rate = SLOWEST
        self._next_at = 0.0

    def allow_for(self, connections: int) -> None:
        """Set the pace by how many connections there are."""
        self._rate = max(SLOWEST, connections / ALL_WITHIN)

    def slot(self, now: float) -> float:
        """Take the next moment at which one may be opened; it is `now` while there are few."""
        at = max(now, self._next_at)
        self._next_at = at + 1 / self._rate
        return at

    async def turn(self) -> None:
        """Wait until the next may be opened."""
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(self.slot(now) - now)
