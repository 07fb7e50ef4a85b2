"""Holding an account's lease while working: a thread renews it, and whoever is about to act asks whether it still holds."""

import threading
import time
from types import TracebackType
from typing import Self

import sqlalchemy.exc

from shared import log
from shared.state import leases
from shared.state.leases import Lease
from shared.store.db import Database

_log = log.get(__name__)


class Keeper:
    """A context in which a lease is renewed, three times in its term. Once `stop` is set, nothing is begun under it any more."""

    def __init__(self, database: Database, lease: Lease, *, seconds: int, taken_at: float, stop: threading.Event | None = None) -> None:
        self._database = database
        self._lease = lease
        self._seconds = seconds
        self._until = taken_at + seconds
        self._stop = stop or threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{lease.account_id[:8]}", daemon=True)

    @property
    def holds(self) -> bool:
        """Is the lease certainly ours, and are we to go on? By this machine's steady clock, counted from before it was last renewed."""
        return time.monotonic() < self._until and not self._stop.is_set()

    def lost(self) -> None:
        """The database says that the lease is another's: it is over at once, and not when it was to be renewed."""
        if self.holds:
            _log.warning("lease_lost", account_id=self._lease.account_id)
        self._until = 0.0
        self._done.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _renew(self) -> None:
        while not self._done.wait(self._seconds / 3):
            asked_at = time.monotonic()
            try:
                with self._database.read() as connection:
                    renewed = leases.renew(connection, self._lease, seconds=self._seconds)
            except sqlalchemy.exc.SQLAlchemyError as error:
                _log.warning("lease_not_renewed", account_id=self._lease.account_id, error=str(error))
                continue
            if not renewed:
                self.lost()
                return
            self._until = asked_at + self._seconds
