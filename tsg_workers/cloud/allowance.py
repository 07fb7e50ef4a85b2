"""Leave to begin one more request to CloudAPI in this pass."""

import time

from shared.clients.cloudapi import Client
from tsg_workers.lease import Keeper


class Allowance:
    """Ends when the pass's time is over or its lease is lost. Thread-safe."""

    def __init__(self, client: Client, keeper: Keeper, *, seconds: float) -> None:
        self._client = client
        self._keeper = keeper
        self._until = time.monotonic() + seconds

    def take(self) -> bool:
        """Wait for one request of the account's budget; False when the pass must begin nothing more."""
        return self._keeper.holds and self._client.turn(within=self._until - time.monotonic())
