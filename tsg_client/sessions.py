"""Connections to servers: through the proxies of the environment, but never to this machine itself."""

from typing import Any

import requests
from requests.adapters import HTTPAdapter

#: How addresses of this machine itself begin.
LOOPBACK = tuple(f"{scheme}://{host}" for scheme in ("http", "https") for host in ("127.", "localhost:", "localhost/", "[::1]"))


class _Direct(HTTPAdapter):
    """Asks no proxy."""

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        return super().send(request, *arguments, **{**options, "proxies": {}})


def open_session(*, connections: int = 10) -> requests.Session:
    """A session that keeps as many `connections` to a server at most."""
    session = requests.Session()
    for begins in ("http://", "https://"):
        session.mount(begins, HTTPAdapter(pool_maxsize=connections))
    for begins in LOOPBACK:
        session.mount(begins, _Direct(pool_maxsize=connections))
    return session
