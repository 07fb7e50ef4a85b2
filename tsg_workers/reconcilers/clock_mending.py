"""Clock mending: correct times that were written before the database's clock was set back."""

import math
import time
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection

from shared import log
from shared.state import clock
from shared.store.db import Database

_log = log.get(__name__)

#: Seconds after which the times are corrected once more: what was under way when the clock went back has been written by then.
AGAIN = 600.0


class ClockWatch:
    """Corrects the times at its first look, and when it sees the clock go back.

    Not at other times: it reads whole tables.
    """

    def __init__(self, now: Callable[[Connection], datetime] = clock.get_now) -> None:
        self._now = now
        self._seen: tuple[datetime, float] | None = None
        self._due_at = -math.inf

    def mend(self, database: Database) -> bool:
        """Look at the clock once. Always complete."""
        with database.read() as connection:
            self.look(connection)
        return True

    def look(self, connection: Connection) -> None:
        """Compare the database's clock with this machine's steady one."""
        found, at = self._now(connection), time.monotonic()
        is_back = self._seen is not None and (found - self._seen[0]).total_seconds() < at - self._seen[1] - clock.SLACK
        if is_back or at >= self._due_at:
            if changed := clock.bring_back(connection):
                _log.warning("database_clock_was_set_back", rows=changed, meaning="what lay too far ahead is due now")
            self._due_at = at + AGAIN if is_back or self._seen is None else math.inf
        self._seen = (found, at)
