"""How fast a group may launch after launches that failed: a pause, a slow start, a breaker. Pure.

A launch failed when CloudAPI refused it, or when its machine never came to run. It succeeded when its machine runs. What CloudAPI itself
failed over, or did not answer, is neither: it says nothing of the template, and is tried again as soon as CloudAPI works.

What a group has behind it stands in its row, so that any worker goes on with it.
"""

import random
from datetime import datetime, timedelta
from typing import NamedTuple

from shared.backoff import backoff
from shared.state.group_state import DueGroup

#: Seconds between launches, at least, once the breaker is open.
PROBE_EVERY = 60.0


class Pacing(NamedTuple):
    """Where a group stands with its launches."""

    #: Attempts in a row that failed.
    failures: int = 0
    #: Launches that may be under way at once; None: as many as are missing.
    window: int | None = None
    #: Nothing is launched before. A change of the group takes it away, so that what its owner mended is tried at once.
    resume_at: datetime | None = None

    def is_open(self, breaker: int) -> bool:
        """Have enough attempts failed in a row that launches are tried one at a time?"""
        return self.failures >= breaker

    def allowed(self, missing: int, under_way: int, now: datetime) -> int:
        """How many of the missing may be launched, while `under_way` launches have not run yet."""
        if self.resume_at is not None and now < self.resume_at:
            return 0
        return missing if self.window is None else max(0, min(missing, self.window - under_way))

    def after(self, *, succeeded: int, failed: int, now: datetime, breaker: int) -> "Pacing":
        """After a number of launches that succeeded, and of others that failed.

        Each success lets one more be under way: one, two, four, eight. A failure lets no more be under way than succeeded beside it,
        and brings a pause of 1 to 2 seconds, 2 to 4, and so on up to 10 minutes; at least `PROBE_EVERY` once the breaker is open.
        """
        if failed:
            failures = 1 if succeeded else self.failures + 1
            pause = backoff(failures)
            if failures >= breaker:
                pause = max(pause, PROBE_EVERY * random.uniform(1.0, 1.2))
            return Pacing(failures, max(1, succeeded), now + timedelta(seconds=pause))
        if succeeded:
            return Pacing(0, None if self.window is None else self.window + succeeded, None)
        return self


def pacing_of(group: DueGroup) -> Pacing:
    """Where the group stands with its launches, as its row has it."""
    return Pacing(group.launch_failures, group.launch_window, group.launch_at)
