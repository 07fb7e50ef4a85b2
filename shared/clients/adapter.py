"""Connections whose read timeout bounds the whole beginning of an answer: status and headers.

The socket's own timeout begins anew with each byte, and http.client passes over any number of `100 Continue`: a server that dribbles would
be waited for without end, by a thread that holds its account's lease.
"""

import http.client
import io
import socket
import time
from typing import Any

import urllib3.connection
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool


class _Incoming(io.RawIOBase):
    """What comes on a socket; before `until`, by the monotonic clock, where there is such a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self.until: float | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.until is not None:
            left = self.until - time.monotonic()
            if left <= 0:
                raise TimeoutError("the headers did not come in time")
            self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp.close()
        self._sock, self._incoming = sock, _Incoming(sock)
        self.fp = io.BufferedReader(self._incoming)

    def begin(self) -> None:
        seconds = self._sock.gettimeout()
        self._incoming.until = None if seconds is None else time.monotonic() + seconds
        super().begin()
        self._incoming.until = None
        self._sock.settimeout(seconds)


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _Response


class _TlsConnection(urllib3.connection.HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class TlsPool(HTTPSConnectionPool):
    """The connections to one server, for those who use urllib3 alone."""

    ConnectionCls = _TlsConnection


class Adapter(HTTPAdapter):
    """requests' own, with such connections, to a proxy too; at most `connections` of them are kept open."""

    def __init__(self, connections: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = _POOLS
        return manager


_POOLS = {"http": _Pool, "https": TlsPool}
