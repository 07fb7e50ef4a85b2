"""Development mode: nobody signs anything."""

import ipaddress
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
BY_A_NAME = (
    "In development mode requests are not signed, so none is taken by another name than localhost, an IP address, and that of"
    " TSG_HTTP_PUBLIC_URL: a page of another site may have its name lead here."
)


class DevelopmentMode:
    """Every request is the seeded account's, unless a browser sends it for a page that came from elsewhere.

    `public_url` is where users find the service, "" if nobody said.
    """

    def __init__(self, db: Database, public_url: str = "") -> None:
        self._db = db
        self._own_name = urlsplit(public_url).hostname
        #: The account, and until when (by the steady clock) its row is taken as read.
        self._known: tuple[Account, float] | None = None

    def __call__(self, req: falcon.Request) -> Account:
        self._check(req.get_header("Host"), req.get_header("Origin"))
        known = self._known
        if known and time.monotonic() < known[1]:
            return known[0]
        with self._db.read() as connection:
            account = accounts.get(connection, seed.ACCOUNT_ID)
        account = account or self._db.transact(seed.account)
        self._known = (account, time.monotonic() + ROW_SECONDS)
        return account

    def _check(self, host: str | None, origin: str | None) -> None:
        """A browser always names the host; a program of HTTP/1.0 need not."""
        if host is not None and not self._leads_here(host):
            raise NotAuthorized(BY_A_NAME)
        if origin is not None and not _is_of_this_machine(origin, host):
            raise NotAuthorized(FROM_A_PAGE)

    def _leads_here(self, host: str) -> bool:
        """A page keeps the name that it was loaded by, so an address is always this server's own (no DNS rebinding)."""
        with suppress(ValueError):
            name = urlsplit(f"//{host}").hostname or ""
            return name in {"localhost", self._own_name} or bool(ipaddress.ip_address(name))
        return False


def _is_of_this_machine(origin: str, host: str | None) -> bool:
    """Browsers name the page's site with everything that changes something (Fetch, section 3.2), if with `null`."""
    with suppress(ValueError):
        site = urlsplit(origin)
        return is_loopback(site.hostname or "") or (bool(site.netloc) and site.netloc == host)
    return False
