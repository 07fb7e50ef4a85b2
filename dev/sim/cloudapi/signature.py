"""HTTP signatures, the server's side: read an Authorization header, then check it with a key.

CloudAPI reads two forms:

    modern   Signature keyId="…",algorithm="…",headers="…",signature="<base64>"    signs `name: value` lines
    legacy   Signature keyId="…",algorithm="…",headers="…" <base64>               signs the header values alone

The modern form is tried first; when both fail, the message is always about the modern one.
"""

import base64
import binascii
import email.utils
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from dev.sim.cloudapi.keys import PublicKey

MAX_SKEW_SECONDS = 300

#: CloudAPI: `*-sha384`, `ecdsa-sha1`, `hs2019` and `hmac-*` are refused as unsupported. DSA is read, but no key here can match it.
MODERN_ALGORITHMS = frozenset(["rsa-sha1", "rsa-sha256", "rsa-sha512", "ecdsa-sha256", "ecdsa-sha512", "ed25519-sha512", "dsa-sha1"])
LEGACY_ALGORITHMS = frozenset(["rsa-sha1", "rsa-sha256", "rsa-sha512", "dsa-sha1"])

_HASHES: dict[str, hashes.HashAlgorithm] = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha512": hashes.SHA512()}

# CloudAPI: a bare comma separates parameters; a space after it is refused. Only `created` and `expires` go unquoted.
_PARAMS = r'(?:[A-Za-z]+="[^"]*"|(?:created|expires)=\d+)(?:,(?:[A-Za-z]+="[^"]*"|(?:created|expires)=\d+))*'
_PARAM = re.compile(r'([A-Za-z]+)=(?:"([^"]*)"|(\d+))')
_MODERN = re.compile(rf"Signature ({_PARAMS})")
_LEGACY = re.compile(rf"Signature ({_PARAMS}) ([A-Za-z0-9+/=]+)")


class HeaderError(Exception):
    """The Authorization header can't be read, or its date is too far off: the reason."""


@dataclass(frozen=True)
class Request:
    """What a signature may cover. `target` is the raw path with its query, exactly as sent."""

    method: str
    target: str
    headers: Mapping[str, str]  #: lower-case names
    now: float  #: seconds since 1970


@dataclass(frozen=True)
class Claim:
    """The sender of this says that `key_id` signed `signed_text`."""

    key_id: str
    algorithm: str
    signed_text: bytes
    signature: bytes


def read(authorization: str, request: Request) -> Claim:
    """The claim made in an Authorization header of the Signature scheme. Raises HeaderError."""
    try:
        return _read_modern(authorization, request)
    except HeaderError as modern:
        try:
            return _read_legacy(authorization, request)
        except HeaderError:
            raise modern from None


def holds(claim: Claim, key: PublicKey) -> bool:
    """Whether the key made the signature. A key of another family than the algorithm's didn't."""
    family, hash_name = claim.algorithm.split("-")
    try:
        if isinstance(key, RSAPublicKey) and family == "rsa":
            key.verify(claim.signature, claim.signed_text, PKCS1v15(), _HASHES[hash_name])
        elif isinstance(key, EllipticCurvePublicKey) and family == "ecdsa":
            key.verify(claim.signature, claim.signed_text, ECDSA(_HASHES[hash_name]))
        elif isinstance(key, Ed25519PublicKey) and family == "ed25519":
            key.verify(claim.signature, claim.signed_text)
        else:
            return False
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=1024)
def read_date(text: str) -> float | None:
    """Seconds since 1970 of a Date header: `… GMT`, `… UTC` (Go sends it) or ISO 8601. None for anything else."""
    for parse in (email.utils.parsedate_to_datetime, datetime.fromisoformat):
        try:
            moment = parse(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return None


def _read_modern(authorization: str, request: Request) -> Claim:
    if not authorization.startswith("Signature "):
        raise HeaderError('scheme was not "Signature"')
    match = _MODERN.fullmatch(authorization)
    if not match:
        raise HeaderError("bad param format")
    params = _params(match[1])
    if "signature" not in params:
        raise HeaderError("signature was not specified")
    return _claim(params, params["signature"], MODERN_ALGORITHMS, request, _modern_line)


def _read_legacy(authorization: str, request: Request) -> Claim:
    match = _LEGACY.fullmatch(authorization)
    if not match:
        raise HeaderError("bad param format")
    return _claim(_params(match[1]), match[2], LEGACY_ALGORITHMS, request, _legacy_line)


def _params(text: str) -> dict[str, str]:
    return {name: quoted or number for name, quoted, number in _PARAM.findall(text)}


def _claim(
    params: dict[str, str],
    signature: str,
    algorithms: frozenset[str],
    request: Request,
    line: Callable[[str, dict[str, str], Request], str],
) -> Claim:
    for name in ("keyId", "algorithm"):
        if not params.get(name):
            raise HeaderError(f"{name} was not specified")
    algorithm = params["algorithm"].lower()
    if algorithm not in algorithms:
        raise HeaderError(f"{algorithm} is not supported")
    date_name = "x-date" if "x-date" in request.headers else "date"
    signed = params.get("headers", date_name).lower().split()
    signed_text = "\n".join(line(name, params, request) for name in signed)
    _check_skew(request.headers.get(date_name), request.now)
    if date_name not in signed:
        raise HeaderError(f"{date_name} was not a signed header")
    return Claim(params["keyId"], algorithm, signed_text.encode("latin-1"), _decode(signature))


def _check_skew(date: str | None, now: float) -> None:
    """CloudAPI lets an unparseable date pass (a NaN comparison); a signature that never expires is refused here."""
    if date is None:
        return
    sent = read_date(date)
    if sent is None:
        raise HeaderError("date header is not a date")
    skew = abs(now - sent)
    if skew > MAX_SKEW_SECONDS:
        raise HeaderError(f"clock skew of {skew:.3f}s was greater than {MAX_SKEW_SECONDS}s")


def _modern_line(name: str, params: dict[str, str], request: Request) -> str:
    if name == "request-line":
        return _request_line(request)
    if name == "(request-target)":
        return f"(request-target): {request.method.lower()} {request.target}"
    if name in ("(keyid)", "(algorithm)", "(created)", "(expires)", "(opaque)"):
        param = "keyId" if name == "(keyid)" else name[1:-1]
        if param not in params:
            raise HeaderError(f"{param} was not in the request")
        return f"{name}: {params[param]}"
    return f"{name}: {_header(name, request)}"


def _legacy_line(name: str, _params: dict[str, str], request: Request) -> str:
    return _request_line(request) if name == "request-line" else _header(name, request)


def _request_line(request: Request) -> str:
    return f"{request.method} {request.target} HTTP/1.1"


def _header(name: str, request: Request) -> str:
    if name not in request.headers:
        raise HeaderError(f"{name} was not in the request")
    return request.headers[name]


def _decode(signature: str) -> bytes:
    """A broken base64 text is a wrong signature, not a wrong header."""
    try:
        return base64.b64decode(signature)
    except binascii.Error:
        return b""
