"""Development mode: nobody signs anything."""

import time

import falcon

from shared.cli import seed
from shared.state import accounts
from shared.state.accounts import Account
from shared.store.db import Database
from tsg_api.auth.tenants import ROW_SECONDS


class DevelopmentMode:
    """Every request, whatever its headers, is the seeded account's."""

    def __init__(self, db: Database) -> None:
        self._db = db
        #: The account, and until when (by the steady clock) its row is taken as read.
        self._known: tuple[Account, float] | None = None

    def __call__(self, req: falcon.Request) -> Account:  # noqa: ARG002 - whatever it says
        known = self._known
        if known and time.monotonic() < known[1]:
            return known[0]
        with self._db.read() as connection:
            account = accounts.get(connection, seed.ACCOUNT_ID)
        account = account or self._db.transact(seed.account)
        self._known = (account, time.monotonic() + ROW_SECONDS)
        return account
