"""HTTP Signature, both directions: what a caller's Authorization header says, and our own for CloudAPI.

Two forms are in use. Modern (draft-cavage): `Signature keyId="...",algorithm="...",headers="...",signature="<base64>"`, which covers
lines of `name: value`. Legacy, the one of the curl function: the base64 follows the parameters after a space, and covers the bare value of
the Date. It covers no names, so a value that was signed for one header would pass for that of any other: it proves the Date alone.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

#: Bytes. A longer Authorization header is refused unread: a signature by RSA 8192 and a long keyId fit.
MAX_HEADER = 4096
#: Characters of a Date; every form has fewer. Dates are remembered before it is known whose they are.
MAX_DATE = 64
#: Seconds by which a Date may be off, as in CloudAPI.
MAX_SKEW = 300

#: The 2018 service's names of accounts and users, and with them the hyphen and account UUIDs.
_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.@-]{2,254}"
_WHOLE_NAME = re.compile(rf"{_NAME}\Z", re.ASCII)
#: Half of all SHA-256 fingerprints have a slash in their base64.
_KEY = r"SHA256:[A-Za-z0-9+/]{43}|[^/\"\x00-\x20\x7f]{1,512}"
_KEY_ID = re.compile(rf"/(?P<account>{_NAME})(?:/users/(?P<user>{_NAME}))?/keys/(?P<key>{_KEY})\Z", re.ASCII)
_FINGERPRINT = re.compile(r"(?:(?:MD5:)?[0-9a-f]{2}(?::[0-9a-f]{2}){15}|SHA256:[A-Za-z0-9+/]{43})\Z", re.ASCII)
_PARAMETER = re.compile(r'([a-zA-Z]+)="([^"]*)"', re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}\Z", re.ASCII)


#: Bits. Shorter RSA keys can be broken.
MIN_RSA_BITS = 1024

_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),  # noqa: S303 - what clients of 2018 sign with
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
#: What CloudAPI takes of each kind of key, and SHA-384 for the curve whose default it is.
_ALGORITHMS = {
    **{f"rsa-{name}": ("rsa", name) for name in ("sha1", "sha256", "sha512")},
    **{f"ecdsa-{name}": ("ecdsa", name) for name in ("sha256", "sha384", "sha512")},
    "ed25519-sha512": ("ed25519", "sha512"),
}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class SignatureError(ValueError):
    """The header, or the Date, is not what a signed request has. The text says what is wrong and holds nothing secret."""


class Credentials(NamedTuple):
    """What an Authorization header says."""

    account: str
    user: str | None
    key: str
    algorithm: str
    #: Names of what is signed, in lower case.
    headers: tuple[str, ...]
    signature: bytes
    legacy: bool

    @property
    def signs_only_date(self) -> bool:
        """Such a header can be passed on to CloudAPI: it holds for any request of its time."""
        return self.headers == ("date",)

    @property
    def names_fingerprint(self) -> bool:
        """The key is named by what it is, not by a name that another key may have tomorrow."""
        return _FINGERPRINT.match(self.key) is not None

    @property
    def dated_by(self) -> str:
        """The header whose time is signed; `SignatureError` when none is, since such a signature would hold for ever."""
        for name in ("date", "x-date"):
            if name in self.headers:
                return name
        raise SignatureError("the signature must cover the Date header")


def is_name(text: str) -> bool:
    """May an account or a user be called so?"""
    return _WHOLE_NAME.match(text) is not None


def parse(header: str) -> Credentials:
    """Read an Authorization header, or raise `SignatureError`."""
    if len(header) > MAX_HEADER:
        raise SignatureError(f"the Authorization header is longer than {MAX_HEADER} bytes")
    scheme, _, rest = header.partition(" ")
    if scheme != "Signature":
        raise SignatureError("the Authorization header must use the scheme Signature")
    parameters, legacy_signature = _parameters(rest)
    legacy = legacy_signature is not None
    if legacy and "signature" in parameters:
        raise SignatureError("the Authorization header holds two signatures")
    for name in ("keyId", "algorithm"):
        if not parameters.get(name):
            raise SignatureError(f"the Authorization header has no {name}")
    text = legacy_signature if legacy_signature is not None else parameters.get("signature", "")
    key_id = _KEY_ID.match(parameters["keyId"])
    if key_id is None:
        raise SignatureError("keyId must read /ACCOUNT/keys/FINGERPRINT or /ACCOUNT/users/USER/keys/FINGERPRINT")
    if key_id["key"] in {".", ".."}:
        raise SignatureError("the keyId names no key")
    headers = tuple(parameters.get("headers", "date").lower().split())
    if legacy and headers != ("date",):
        raise SignatureError(
            'this form of the Authorization header signs the Date alone: send what signs more with signature="BASE64" as a parameter'
        )
    return Credentials(
        account=key_id["account"],
        user=key_id["user"],
        key=key_id["key"],
        algorithm=parameters["algorithm"].lower(),
        headers=headers,
        signature=_decode(text),
        legacy=legacy,
    )


@lru_cache(4096)
def parse_date(text: str) -> datetime:
    """The time of a Date header: RFC 1123 in GMT or UTC, or ISO 8601. `SignatureError` for anything else."""
    if len(text) > MAX_DATE:
        raise SignatureError("the Date header is not a date")
    is_iso = text[:1].isdigit()
    try:
        when = datetime.fromisoformat(text) if is_iso else parsedate_to_datetime(text)
        # RFC 5322 gives -0000 to a time in UTC whose zone says nothing; an ISO date without a zone says too little.
        if when.tzinfo is not None:
            return when.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        raise SignatureError("the Date header is not a date") from None
    if is_iso:
        raise SignatureError("the Date header has no time zone")
    return when.replace(tzinfo=UTC)


def check_skew(text: str, now: datetime) -> None:
    """Refuse a Date more than `MAX_SKEW` seconds off."""
    skew = abs((now - parse_date(text)).total_seconds())
    if skew > MAX_SKEW:
        raise SignatureError(f"the Date header is {skew:.0f} s off; at most {MAX_SKEW} s are allowed: set your clock")


def load_public(line: str) -> PublicKey:
    """A public key in OpenSSH's form. `SignatureError` for what is no key, or of no kind that signs requests."""
    try:
        public = serialization.load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureError("the key can't be read") from None
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < MIN_RSA_BITS:
        raise SignatureError(f"the key has fewer than {MIN_RSA_BITS} bits")
    if isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        return public
    raise SignatureError("the key is neither RSA, nor ECDSA, nor Ed25519")


def signed_text(credentials: Credentials, method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """What the signature covers. `target` is the path with its query as it came over the wire; `headers` by names in lower case."""
    lines = []
    for name in credentials.headers:
        if name == "(request-target)":
            value = f"{method.lower()} {target}"
        elif name in headers:
            value = headers[name]
        else:
            raise SignatureError(f"the signed header {name} is not in the request")
        lines.append(value if credentials.legacy else f"{name}: {value}")
    return "\n".join(lines).encode("latin-1", "replace")


def verify(credentials: Credentials, public: PublicKey, text: bytes) -> None:
    """Check the signature over `text`. `SignatureError` when it is another's, or not of the kind that `algorithm` says."""
    family, hash_name = _ALGORITHMS.get(credentials.algorithm, ("", ""))
    if not family:
        raise SignatureError("the algorithm is not supported")
    digest = _HASHES[hash_name]
    try:
        if family == "rsa" and isinstance(public, rsa.RSAPublicKey):
            public.verify(credentials.signature, text, padding.PKCS1v15(), digest)
        elif family == "ecdsa" and isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(credentials.signature, text, ec.ECDSA(digest))
        elif family == "ed25519" and isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(credentials.signature, text)
        else:
            raise SignatureError("the algorithm does not fit the key")
    except (InvalidSignature, UnsupportedAlgorithm):
        raise SignatureError("the signature does not match") from None


def check_digest(credentials: Credentials, headers: Mapping[str, str], body: bytes) -> None:
    """Where the body's digest is signed, see that it is this body's: `Digest` (RFC 3230, SHA-256 or SHA-512) and `Content-MD5`."""
    if "content-md5" in credentials.headers:
        given = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        if headers.get("content-md5", "").strip() != given:
            raise SignatureError("Content-MD5 is not that of the body")
    if "digest" in credentials.headers:
        kind, _, value = headers.get("digest", "").partition("=")
        name = {"sha-256": "sha256", "sha-512": "sha512"}.get(kind.strip().lower())
        if name is None or value.strip() != base64.b64encode(hashlib.new(name, body).digest()).decode():
            raise SignatureError("Digest is not that of the body, or of a kind other than SHA-256 and SHA-512")


def passed_on(credentials: Credentials) -> str:
    """The Authorization header for CloudAPI of a caller's signature over the Date alone.

    Written anew, so that CloudAPI reads what was read here and nothing else; the signature covers none of it. CloudAPI takes an MD5
    fingerprint without its prefix only (node-ufds: getKey).
    """
    user = f"/users/{credentials.user}" if credentials.user else ""
    key_id = f"/{credentials.account}{user}/keys/{credentials.key.removeprefix('MD5:')}"
    parameters = f'keyId="{key_id}",algorithm="{credentials.algorithm}",headers="date"'
    signature = base64.b64encode(credentials.signature).decode()
    return f"Signature {parameters} {signature}" if credentials.legacy else f'Signature {parameters},signature="{signature}"'


class Signer:
    """Signs requests to CloudAPI with one RSA key, in the modern form, over the request line and the date."""

    def __init__(self, account: str, fingerprint: str, private_pem: str) -> None:
        # The key is our own: see `keys.of_pem`.
        private = serialization.load_pem_private_key(private_pem.encode(), password=None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(private, rsa.RSAPrivateKey):
            raise SignatureError("the management key is not an RSA key")
        self._private = private
        self.fingerprint = fingerprint
        self._key_id = f"/{account}/keys/{fingerprint}"

    def headers(self, method: str, path: str, now: datetime) -> dict[str, str]:
        """Date and Authorization for one request. `path` is what goes over the wire, with its query."""
        date = format_datetime(now.astimezone(UTC), usegmt=True)
        text = f"(request-target): {method.lower()} {path}\ndate: {date}"
        signed = self._private.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
        # CloudAPI: commas without a space after them.
        authorization = (
            f'Signature keyId="{self._key_id}",algorithm="rsa-sha256",headers="(request-target) date",'
            f'signature="{base64.b64encode(signed).decode()}"'
        )
        return {"Date": date, "Authorization": authorization}


def _parameters(text: str) -> tuple[dict[str, str], str | None]:
    """The `name="value"` parameters, and what follows them after a space (None when nothing does)."""
    parameters: dict[str, str] = {}
    at = 0
    while match := _PARAMETER.match(text, at):
        name = match[1]
        if name in parameters:
            raise SignatureError(f"the Authorization header has {name} twice")
        parameters[name] = match[2]
        at = match.end()
        if text[at : at + 1] != ",":
            break
        at += 1
    rest = text[at:]
    ends_in_comma = text[at - 1 : at] == ","
    if not rest and not ends_in_comma:
        return parameters, None
    if not parameters or ends_in_comma or not rest.startswith(" "):
        raise SignatureError('the parameters of the Authorization header must read name="value", with commas and no spaces between')
    return parameters, rest[1:]


def _decode(text: str) -> bytes:
    if not _BASE64.match(text):
        raise SignatureError("the signature is not base64")
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SignatureError("the signature is not base64") from None
