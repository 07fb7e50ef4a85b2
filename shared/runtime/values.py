"""What the value of a setting may be: its words for the documentation, and how a text becomes the value."""

import base64
import binascii
import re
import ssl
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import psycopg2
from marshmallow import ValidationError
from marshmallow.validate import Length, OneOf, Range, Regexp
from psycopg2.extensions import make_dsn
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from shared.clients import redis_client

LEVELS = ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL")
#: AES-256: bytes in a key of TSG_SECRET_KEYS.
SECRET_KEY_BYTES = 32
HOW_TO_MAKE_A_KEY = "make one with: tsg-admin keys generate"

_DRIVERS = {"postgres": "postgresql", "postgresql": "postgresql", "cockroachdb": "cockroachdb", "cockroach": "cockroachdb"}
#: The beginning of a URL, several hosts as libpq takes them, and the rest.
_SEVERAL_HOSTS = re.compile(r"([\w+]+://(?:[^@?]*@)?)([^/?@]*,[^/?@]*)(.*)", re.DOTALL)


class Form(NamedTuple):
    """A kind of value."""

    #: environs' method that reads it.
    method: str
    words: str
    #: The value as it is used, or `ValidationError`. An empty text is a setting that is not set.
    read: Callable[[Any], Any]


def whole(least: int, most: int) -> Form:
    return Form("int", f"whole number, {least:,} to {most:,}", Range(least, most))


def number(least: float, most: float) -> Form:
    return Form("float", f"number, {least:,} to {most:,}", Range(least, most))


def choice(*words: str) -> Form:
    return Form("str", ", ".join(words), OneOf(words))


def like(pattern: str) -> Form:
    return Form("str", f"text like `{pattern}`", Regexp(rf"{pattern}\Z"))


def is_loopback(address: str) -> bool:
    """Does nobody but this machine reach this address? A name other than localhost may be anybody's."""
    if address.lower() == "localhost":
        return True
    try:
        parsed = ip_address(address.strip("[]"))
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def bracketed(host: str) -> str:
    """An IPv6 address as a URL has it; any other host as it is."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def _level(text: str) -> str:
    if text.upper() not in LEVELS:
        raise ValidationError("must be one of: " + ", ".join(LEVELS))
    return text.upper()


def _address(text: str) -> str:
    """A host as it is; an IP address without the brackets that it has in URLs, in its one spelling."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        found = ip_address(bare)
    except ValueError:
        return text
    return str((found.ipv4_mapped if isinstance(found, IPv6Address) else None) or found)


def _bind(text: str) -> str:
    return _address(str(Length(min=1)(text)))


def _proxy(text: str) -> str:
    address = _address(text)
    if address not in {"", "*"}:
        try:
            ip_address(address)
        except ValueError:
            raise ValidationError("must be the IP address of a proxy, or *") from None
    return address


def _file(text: str) -> Path | None:
    try:
        if text:
            Path(text).open("rb").close()
    except OSError as error:
        raise ValidationError(f"{text} cannot be read: {error.strerror}") from None
    return Path(text) if text else None


def _authorities(text: str) -> Path | None:
    if not text or Path(text).is_dir():
        return Path(text) if text else None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(_file(text))
    except ssl.SSLError:
        raise ValidationError(f"{text} holds no certificates in PEM") from None
    return Path(text)


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if text and (not sound or parts.query or parts.fragment or parts.username):
        raise ValidationError("must be an http:// or https:// address")
    return text.rstrip("/")


def _host_or_http_url(text: str) -> str:
    if "://" in text:
        return _http_url(text)
    if text and not re.fullmatch(r"[A-Za-z0-9_.-]+", text):
        try:
            ip_address(text.strip("[]"))
        except ValueError:
            raise ValidationError("must be a host (its port is TSG_NOMAD_PORT's), or a whole http:// or https:// address") from None
    return text


def _redis_url(text: str) -> str:
    if not text.startswith(("redis://", "rediss://", "unix://", "sentinel://", "sentinels://")):
        raise ValidationError("must begin with redis://, rediss://, unix://, sentinel:// or sentinels://")
    try:
        redis_client.check(text)
    except ValueError as error:
        raise ValidationError(f"is not a Redis URL: {error}") from None
    return text


def _database_url(text: str) -> URL | None:
    if not text:
        return None
    try:
        url = _with_hosts_in_query(text)
    except (ArgumentError, ValueError):
        raise ValidationError("is not a database URL") from None
    backend, _, driver = url.drivername.partition("+")
    if backend not in _DRIVERS or driver not in {"", "psycopg2"}:
        raise ValidationError("must begin with postgresql:// or cockroachdb://")
    url = url.set(drivername=f"{_DRIVERS[backend]}+psycopg2")
    try:
        make_dsn(**url.get_dialect()().create_connect_args(url)[1])
    except (ArgumentError, ValueError):
        raise ValidationError("is not a database URL: its hosts and ports do not fit together") from None
    except psycopg2.ProgrammingError as error:
        raise ValidationError(f"is not a database URL: {str(error).strip()}") from None
    return url


def _with_hosts_in_query(text: str) -> URL:
    """A URL that may name several hosts as libpq's do (`HOST:PORT,HOST:PORT`), which SQLAlchemy takes in the query alone."""
    found = _SEVERAL_HOSTS.fullmatch(text)
    if not found:
        return make_url(text)
    hosts, ports = [], []
    for one in found[2].split(","):
        parts = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]*))(?::(\d*))?", one)
        if not parts or int(parts[3] or 1) not in range(1, 65_536):
            raise ArgumentError(f"{one} is not HOST:PORT")
        hosts.append(unquote(parts[1] or parts[2]))
        ports.append(parts[3] or "")
    url = make_url(found[1] + found[3])
    if "host" in url.query or "port" in url.query:
        raise ArgumentError("hosts are named twice")
    return url.update_query_dict({"host": ",".join(hosts), "port": ",".join(ports)})


def _secret_keys(text: str) -> tuple[bytes, ...]:
    keys = []
    for position, part in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
        try:
            key = base64.b64decode(part, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != SECRET_KEY_BYTES:
            raise ValidationError(f"key {position} is not base64 of {SECRET_KEY_BYTES} bytes; {HOW_TO_MAKE_A_KEY}")
        keys.append(key)
    return tuple(keys)


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(part) for part in (part.strip() for part in text.split(",")) if part)
    except ValueError as error:
        raise ValidationError(f"must be networks such as 10.0.0.0/8, with commas between: {error}") from None


TEXT = Form("str", "text", str)
NAME = Form("str", "text", Length(min=1))
YES_NO = Form("bool", "true or false", bool)
LEVEL = Form("str", ", ".join(LEVELS), _level)
PORT = Form("int", "whole number, 1 to 65,535", Range(1, 65535, error="must be a port, 1 to 65535"))
PORT_OR_FREE = Form("int", "whole number, 0 to 65,535", Range(0, 65535, error="must be a port, 0 to 65535 (0: a free one)"))
BIND = Form("str", "text", _bind)
PROXY = Form("str", "IP address or *", _proxy)
FILE = Form("str", "file", _file)
AUTHORITIES = Form("str", "file, or directory", _authorities)
HTTP_URL = Form("str", "http(s) URL", _http_url)
HOST_OR_HTTP_URL = Form("str", "host or http(s) URL", _host_or_http_url)
REDIS_URL = Form("str", "URL", _redis_url)
DATABASE_URL = Form("str", "URL", _database_url)
NETWORKS = Form("str", "networks such as 10.0.0.0/8, ...", _networks)
SECRET_KEYS = Form("str", "base64 of 32 bytes, ...", _secret_keys)
