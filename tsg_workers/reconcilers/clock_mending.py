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

#: Seconds between corrections while the clock is not seen to go back.
EVERY = 600.0


class ClockWatch:
    """Corrects the times at its first look, when it sees the clock go back, and every `EVERY` seconds."""

    def __init__(self, now: Callable[[Connection], datetime] = clock.get_now) -> None:
        self._now = now
        self._seen: tuple[datetime, float] | None = None
        self._mended_at = -math.inf

    def mend(self, database: Database) -> bool:
        """Look at the clock once. Always complete."""
        with database.read() as connection:
            self.look(connection)
        return True

    def look(self, connection: Connection) -> None:
        """Compare the database's clock with this machine's steady one."""
        found, at = self._now(connection), time.monotonic()
        is_back = self._seen is not None and (found - self._seen[0]).total_seconds() < at - self._seen[1] - clock.SLACK
        if is_back or at - self._mended_at > EVERY:
            if changed := clock.bring_back(connection):
                _log.warning("database_clock_was_set_back", times=changed, meaning="what lay too far ahead is due now")
            self._mended_at = at
        self._seen = (found, at)
