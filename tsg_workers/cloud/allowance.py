"""Leave to begin one more request to CloudAPI in this pass."""

import time

from shared.clients.cloudapi import Client
from tsg_workers.runner import Keeper


class Allowance:
    """Ends `seconds` after the last `renew`, and when the lease is lost. Thread-safe.

    Each part of a pass renews it: what CloudAPI took to answer one part costs the next none of its time, so that every pass gets something
    done, however slow CloudAPI is.
    """

    def __init__(self, client: Client, keeper: Keeper, *, seconds: float) -> None:
        self._client = client
        self._keeper = keeper
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Another part of the pass begins."""
        self._until = time.monotonic() + self._seconds

    def take(self) -> bool:
        """Wait for one request of the account's budget; False when the pass must begin nothing more."""
        return self._keeper.holds and self._client.turn(within=self._until - time.monotonic())
