"""How many wake-ups a queue has room for. Pure.

Workers take wake-ups in the order in which they were sent. So a long queue keeps a user's change waiting, and what waits for longer than
`work.WAKE_AGAIN` is sent once more, and answered twice. After a long stop, when all is due, both would grow with all that is due.
"""

#: Wake-ups that may always wait, and that may wait at most.
LEAST, MOST = 64, 1000
#: Seconds for which workers have enough to do, as fast as they were since the last look: until the next, and as long again.
ENOUGH = 2.0


class Room:
    """Of one kind of work: how many wake-ups may wait in its queues."""

    def __init__(self) -> None:
        self._left, self._at = 0, 0.0

    def count(self, waiting: int, at: float) -> int:
        """How many more to send, where so many wait now. `at`: seconds, by any clock."""
        taken = max(0, self._left - waiting) / max(at - self._at, 0.01)
        return max(0, min(MOST, max(LEAST, int(taken * ENOUGH))) - waiting)

    def sent(self, waiting: int, at: float) -> None:
        """So many wait now that all were sent."""
        self._left, self._at = waiting, at
