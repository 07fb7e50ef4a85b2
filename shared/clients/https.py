"""How this service speaks HTTP to other services: whose certificates it takes, through which proxy, and how large an answer may be."""

import json
import ssl
import time
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import certifi
import requests
import urllib3
from requests.utils import get_environ_proxies, select_proxy

from shared.clients.access import PUBLIC, Trust
from shared.clients.adapter import Adapter

#: What TLS says to a server that does not speak it, and to one without a version or cipher in common.
_NO_HANDSHAKE = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL", "SSLV3_ALERT_HANDSHAKE_FAILURE"}
#: Bytes of an answer that are read at once.
PIECE_BYTES = 1 << 16


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytearray

    def json(self) -> Any:
        """`ValueError` when the body is no JSON, or nested too deeply."""
        try:
            return json.loads(self.body)
        except RecursionError:
            raise ValueError("nested too deeply") from None


class _Session(requests.Session):
    """Takes a redirect for an answer like any other.

    requests looks where a redirect leads even when it is not to follow it: it reads all of the body for that, without any bound, and fails
    with a `ValueError` where the Location is no URL.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - requests' own name
        return None


def open_session(url: str, trust: Trust = PUBLIC, *, connections: int = 10) -> requests.Session:
    """The connections of one process to the server at `url`. `connections` are kept open at most."""
    session = _Session()
    adapter = Adapter(connections)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # A netrc file would replace the Authorization that is signed.
    session.trust_env = False
    # All accounts share it: what a server, or a gateway before it, remembers one by must not come with another's request.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.verify = not trust.skip_verify and (str(trust.authorities) if trust.authorities else True)
    session.proxies.update(_proxies(url))
    if trust.skip_verify:
        # Said once, when the program starts, and not with every request.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return session


def proxy_for(url: str) -> str | None:
    """The proxy for the server at `url`, or None."""
    return select_proxy(url, _proxies(url))


def tls_context(trust: Trust) -> ssl.SSLContext:
    """What `open_session` takes of certificates, for libraries that want it as a context of TLS. `OSError` when there is no such file."""
    if trust.authorities is None:
        context = ssl.create_default_context(cafile=certifi.where())
    elif trust.authorities.is_dir():
        context = ssl.create_default_context(capath=str(trust.authorities))
    else:
        context = ssl.create_default_context(cafile=str(trust.authorities))
    if trust.skip_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def read(response: requests.Response, most_bytes: int, *, seconds: float) -> Answer:
    """All of an answer that was asked for with `stream=True`, or a `RequestException`.

    requests itself would wait for it, and keep it, without any bound. `seconds` run from the answer's beginning, which may come as late as
    the read timeout has it.
    """
    until, body = time.monotonic() + seconds, bytearray()
    with response:
        try:
            while piece := response.raw.read1(PIECE_BYTES, decode_content=True):
                body += piece
                if len(body) > most_bytes:
                    raise requests.exceptions.ContentDecodingError(f"an answer of more than {most_bytes} bytes")
                if time.monotonic() > until:
                    raise requests.ReadTimeout(f"an answer that is not complete after {seconds:g} s")
        except urllib3.exceptions.HTTPError as error:
            raise requests.exceptions.ChunkedEncodingError(error) from error
    return Answer(response.status_code, response.headers, body)


def distrust(error: BaseException) -> str | None:
    """Why the server's certificate was not taken, in OpenSSL's words; None for any other error."""
    found = _tls_error(error)
    return found.verify_message if isinstance(found, ssl.SSLCertVerificationError) else None


def never_sent(error: requests.RequestException) -> bool:
    """Was there no connection that the request could have gone out on?"""
    if not isinstance(error, requests.ConnectionError):
        return False
    refused = isinstance(error, requests.exceptions.ProxyError) or any(
        name in repr(error) for name in ("NewConnectionError", "NameResolutionError")
    )
    found = _tls_error(error)
    return refused or isinstance(found, ssl.SSLCertVerificationError) or (found is not None and found.reason in _NO_HANDSHAKE)


def describe(error: Exception) -> str:
    """What went wrong, without the pool and the object addresses that urllib3 puts around it."""
    found = _tls_error(error)
    if found is not None and found.reason in _NO_HANDSHAKE:
        return f"{type(error).__name__}: no TLS connection ({found.reason}); is this an https:// address?"
    cause = error.args[0] if error.args else error
    reason = getattr(cause, "reason", cause)
    # A connection that broke: "Connection aborted." and the error of the socket.
    inner = next((one for one in getattr(reason, "args", ()) if isinstance(one, Exception)), reason)
    return f"{type(error).__name__}: {getattr(inner, 'strerror', None) or str(inner).rsplit(': ', 1)[-1].strip()}"


def _tls_error(error: BaseException) -> ssl.SSLError | None:
    """The error of TLS at the bottom of those that requests and urllib3 wrap around it."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None or isinstance(seen, ssl.SSLError):
            return seen
        inner = [seen.__cause__, getattr(seen, "reason", None), *seen.args[:1], seen.__context__]
        seen = next((one for one in inner if isinstance(one, BaseException)), None)
    return None


def _proxies(url: str) -> dict[str, str]:
    """Those of `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. Never to loopback: as the 2018 service, written in Go, had it."""
    host = urlsplit(url).hostname or ""
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    return {} if is_loopback else get_environ_proxies(url)
