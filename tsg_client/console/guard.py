"""Who may use the proxy: the browser that was given the address with the token, for pages of the proxy itself.

The proxy signs what it forwards, so each request must prove two things. The cookie proves the browser. `Host` and `Origin` prove the page:
a name of another site that resolves to this machine (DNS rebinding), a form of another site, and a page of another local server all differ
in one of them.
"""

import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple

#: Methods that change nothing: a browser sends them without `Origin`.
SAFE = frozenset({"GET", "HEAD"})
#: Values of Sec-Fetch-Site, which browsers set themselves: a page of the proxy, or an address that a person typed.
_OWN_SITES = frozenset({"same-origin", "none"})


class Refused(Exception):
    """The request is not one of the page's own. The text says why."""


class Guard(NamedTuple):
    """What a request must have. `port` is the proxy's."""

    token: str
    port: int

    @classmethod
    def of_port(cls, port: int) -> "Guard":
        """With a new token of 256 bits."""
        return cls(secrets.token_urlsafe(32), port)

    @property
    def cookie_name(self) -> str:
        """Cookies are for all ports of a host: each proxy has its own."""
        return f"tsg_console_{self.port}"

    @property
    def cookie(self) -> str:
        """The header that gives a browser the token; no script can read it, and no other site's request carries it."""
        return f"{self.cookie_name}={self.token}; Path=/; HttpOnly; SameSite=Strict"

    def is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())

    def check_host(self, headers: Mapping[str, str]) -> None:
        """`Refused` unless the browser means this very server."""
        if headers.get("host") not in self._hosts:
            raise Refused("The Host header is not this console's address.")

    def check_page(self, method: str, headers: Mapping[str, str]) -> None:
        """`Refused` unless a page of this server sends it. `headers` by names in lower case."""
        origin = headers.get("origin")
        if origin is None and method not in SAFE:
            raise Refused("A request that changes something needs an Origin header.")
        if origin is not None and origin != f"http://{headers.get('host')}":
            raise Refused("The request comes from a page of another site.")
        if headers.get("sec-fetch-site", "same-origin") not in _OWN_SITES:
            raise Refused("The request comes from a page of another site.")

    def check_session(self, headers: Mapping[str, str]) -> None:
        """`Refused` without the cookie."""
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie_name)
        except CookieError:
            found = None
        if found is None or not self.is_token(found.value):
            raise Refused("Open the address that tsg console printed: it has the token that this browser lacks.")

    @property
    def _hosts(self) -> frozenset[str]:
        return frozenset({f"127.0.0.1:{self.port}", f"localhost:{self.port}"})
