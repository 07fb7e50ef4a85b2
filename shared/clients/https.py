"""How this service speaks HTTP to CloudAPI and Nomad: whose certificates it takes, and through which proxy."""

import ssl
from http.cookiejar import DefaultCookiePolicy
from ipaddress import ip_address
from urllib.parse import urlsplit

import requests
import urllib3
from requests.utils import get_environ_proxies

from shared.clients.access import PUBLIC, Trust

#: What TLS says to a server that does not speak it, and to one without a version or cipher in common.
_NO_HANDSHAKE = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL", "SSLV3_ALERT_HANDSHAKE_FAILURE"}


def open_session(url: str, trust: Trust = PUBLIC) -> requests.Session:
    """The connections of one process to the server at `url`."""
    session = requests.Session()
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
    return f"{type(error).__name__}: {str(reason).rsplit(': ', 1)[-1]}"


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
