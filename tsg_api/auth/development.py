"""Development mode: nobody signs anything."""

import time
from contextlib import suppress
from urllib.parse import urlsplit

import falcon

from shared.cli import seed
from shared.runtime.values import is_loopback
from shared.state import accounts
from shared.state.accounts import Account
from shared.store.db import Database
from tsg_api.auth.tenants import ROW_SECONDS
from tsg_api.http.errors import NotAuthorized

FROM_A_PAGE = "In development mode requests are not signed, so none is taken from a page of another machine that a browser here has open."


class DevelopmentMode:
    """Every request is the seeded account's, unless a browser sends it for a page that came from elsewhere."""

    def __init__(self, db: Database) -> None:
        self._db = db
        #: The account, and until when (by the steady clock) its row is taken as read.
        self._known: tuple[Account, float] | None = None

    def __call__(self, req: falcon.Request) -> Account:
        origin = req.get_header("Origin")
        if origin is not None and not _is_of_this_machine(origin):
            raise NotAuthorized(FROM_A_PAGE)
        known = self._known
        if known and time.monotonic() < known[1]:
            return known[0]
        with self._db.read() as connection:
            account = accounts.get(connection, seed.ACCOUNT_ID)
        account = account or self._db.transact(seed.account)
        self._known = (account, time.monotonic() + ROW_SECONDS)
        return account


def _is_of_this_machine(origin: str) -> bool:
    """Browsers name the page's site with everything that changes something (Fetch, section 3.2), if with `null`."""
    with suppress(ValueError):
        return is_loopback(urlsplit(origin).hostname or "")
    return False
