"""Webhooks out, as the Standard Webhooks specification has them: signed, to an address that is not the operator's own."""

import base64
import hashlib
import hmac
import ipaddress
import secrets
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from shared.clients.public import is_public
from shared.clients.status_line import status_of

PREFIX = "whsec_"
SECRET_BYTES = 32
#: Seconds to wait for a connection, and for the status of an answer. Nothing else is read of it.
CONNECT, READ = 3.0, 5.0
PIECE_BYTES = 4096
#: What a URL may hold as it stands (RFC 3986): the rest of it is encoded.
_SAFE = "%/?:@-._~!$&'()*+,;=[]"
#: Statuses of success.
DONE = range(200, 300)
#: The receiver wants no more.
GONE = 410


class Refused(Exception):
    """Nothing is sent to this address. The text says why."""


class Failed(Exception):
    """The receiver did not take it: the text says why, `status` what it answered."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Rules(NamedTuple):
    """What the operator lets users reach: addresses that are not public, and plain HTTP."""

    private: bool = False
    http: bool = False


def make_secret() -> str:
    """A new secret, as receivers' libraries take it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def sign(message_id: str, timestamp: int, body: bytes, signing: Sequence[str]) -> str:
    """The header `webhook-signature`: one signature for each secret that is valid."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = [hmac.digest(base64.b64decode(secret.removeprefix(PREFIX)), signed, hashlib.sha256) for secret in signing]
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def problem(url: str, rules: Rules) -> str | None:
    """What is wrong with a URL as it stands, before anything is looked up; None when nothing is."""
    try:
        place = urlsplit(url)
        host, _ = place.hostname or "", place.port
    except ValueError:
        return "must be a URL"
    if place.scheme not in ({"https", "http"} if rules.http else {"https"}):
        return "must begin with https://"
    if not host or place.username or place.password or place.fragment or not url.isascii() or not url.isprintable() or " " in url:
        return "must be a URL with a host, and without user, password, fragment and blanks"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return None if rules.private or is_public(address) else f"must not lead to {host}, which is not a public address"


class Sender:
    """Sends webhooks. Thread-safe; keeps no connections: receivers are many, and seldom told something."""

    def __init__(self, rules: Rules, authorities: str | None = None) -> None:
        self._rules = rules
        self._context = ssl.create_default_context(cafile=authorities)

    def send(self, url: str, message_id: str, body: bytes, signing: Sequence[str]) -> int:
        """The status of a receiver that took it. `Refused`, `Failed`. The name is looked up once, and what was checked is connected to."""
        if wrong := problem(url, self._rules):
            raise Refused(f"url {wrong}")
        place = urlsplit(url)
        host, is_tls = place.hostname or "", place.scheme == "https"
        port = place.port or (443 if is_tls else 80)
        timestamp = int(time.time())
        headers = {
            "Host": place.netloc,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "User-Agent": "tsg",
            "Connection": "close",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(message_id, timestamp, body, signing),
        }
        target = quote((place.path or "/") + (f"?{place.query}" if place.query else ""), safe=_SAFE)
        head = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        address = self._address(host, port)
        try:
            with self._connected(address, port, host if is_tls else None) as connection:
                connection.sendall("\r\n".join(head).encode("ascii") + body)
                status = _status(connection)
        except (OSError, ValueError) as error:
            raise Failed(f"the receiver did not answer: {type(error).__name__}") from None
        if status not in DONE:
            raise Failed(f"the receiver answered {status}", status)
        return status

    def _connected(self, address: str, port: int, tls_name: str | None) -> socket.socket:
        connection = socket.create_connection((address, port), CONNECT)
        if tls_name is None:
            return connection
        with closing(connection):  # unless TLS has taken it over
            return self._context.wrap_socket(connection, server_hostname=tls_name)

    def _address(self, host: str, port: int) -> str:
        try:
            found = [str(place[4][0]) for place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError):  # a name that no DNS can have
            raise Failed(f"the name {host} is not known") from None
        for one in found:
            if not self._rules.private and not is_public(ipaddress.ip_address(one.partition("%")[0])):
                raise Refused(f"{host} is at an address that is not public")
        return found[0]


def _status(connection: socket.socket) -> int:
    """The receiver's status, within `READ` in all: a limit for each piece would never end. `OSError`, `ValueError`."""
    until, got = time.monotonic() + READ, b""
    while (status := status_of(got)) is None:
        connection.settimeout(max(0.001, until - time.monotonic()))
        piece = connection.recv(PIECE_BYTES)
        if not piece:
            raise ConnectionError("the connection was closed without an answer")
        got += piece
        if time.monotonic() > until:
            raise TimeoutError
    return status
