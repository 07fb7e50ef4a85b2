"""Key pairs, fingerprints, and the sealing of private keys at rest.

Sealed material reads `v1.<key id>.<base64 of nonce and ciphertext>`: AES-256-GCM under one of `TSG_SECRET_KEYS`, bound to the row it
belongs to, so that material copied into another row does not open. What the 2018 service stored is PEM in clear text.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: Bits. CloudAPI takes any size; 2018's keys had 1024.
RSA_BITS = 2048
#: AES-GCM's own size of nonce, in bytes.
NONCE_BYTES = 12

_VERSION = "v1"
_CLEAR = "-----BEGIN "


def is_clear(material: str) -> bool:
    """Is this a private key as the 2018 service stored it?"""
    return material.startswith(_CLEAR)


class SealError(Exception):
    """Material that does not open: no key of this service sealed it, it was changed, or it belongs to another row."""


class KeyPair(NamedTuple):
    """A private key as PEM, its public half as an OpenSSH line without comment, and that half's MD5 fingerprint."""

    private_pem: str
    public_line: str
    fingerprint: str

    def __repr__(self) -> str:
        return f"KeyPair({self.fingerprint})"


def generate() -> KeyPair:
    """A new RSA key pair."""
    return of_private_key(rsa.generate_private_key(public_exponent=65537, key_size=RSA_BITS))


def of_private_key(private: rsa.RSAPrivateKey) -> KeyPair:
    """The pair that belongs to a private key."""
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    line = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return KeyPair(pem.decode(), line, fingerprint(line))


def of_pem(private_pem: str) -> KeyPair:
    """The pair that belongs to a private key in PEM. `SealError` for anything that is not an RSA key."""
    try:
        # What we sealed ourselves needs no proof of its primes: that would take 36 ms of every pass, 1000 times the rest.
        private = serialization.load_pem_private_key(private_pem.encode(), password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError):
        raise SealError("the material is not a private key") from None
    if not isinstance(private, rsa.RSAPrivateKey):
        raise SealError("the material is not an RSA key")
    return of_private_key(private)


def fingerprint(public_line: str) -> str:
    """The MD5 fingerprint of an OpenSSH public key, in CloudAPI's form: lower-case hex with colons."""
    return fingerprint_of(base64.b64decode(public_line.split()[1]))


def fingerprint_of(blob: bytes) -> str:
    """The same, of the key as it is inside of its line."""
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def sha256_fingerprint(public_line: str) -> str:
    """The fingerprint of an OpenSSH public key as newer tools print it: `SHA256:` and base64 without padding. Empty for no key."""
    try:
        blob = base64.b64decode(public_line.split()[1], validate=True)
    except (ValueError, IndexError):
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def make_secret_key() -> str:
    """A new value for `TSG_SECRET_KEYS`."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


class Sealer:
    """Seals and opens private keys. The first of `secret_keys` seals, all of them open."""

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        self._keys = {_key_id(key): AESGCM(key) for key in reversed(secret_keys)}
        self._first = _key_id(secret_keys[0]) if secret_keys else None

    def seal(self, material: str, *, row: str) -> str:
        """Seal `material` for the row named `row`. `SealError` when there is no key to seal with."""
        if self._first is None:
            raise SealError("there is no key in TSG_SECRET_KEYS to seal with")
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._keys[self._first].encrypt(nonce, material.encode(), _bound_to(row))
        return f"{_VERSION}.{self._first}.{base64.b64encode(nonce + sealed).decode()}"

    @property
    def can_seal(self) -> bool:
        return self._first is not None

    def is_under_first(self, sealed: str) -> bool:
        """Was this sealed under the key that seals now? It is not tried whether it opens."""
        return sealed.startswith(f"{_VERSION}.{self._first}.")

    def open(self, sealed: str, *, row: str) -> str:
        """What was sealed for that row; clear text from 2018 as it is. `SealError` when it does not open."""
        if is_clear(sealed):
            return sealed
        version, _, rest = sealed.partition(".")
        key_id, _, text = rest.partition(".")
        if version != _VERSION:
            raise SealError("the material is neither sealed nor a private key")
        if key_id not in self._keys:
            raise SealError(f"no key in TSG_SECRET_KEYS has the id {key_id}, under which the material was sealed")
        try:
            raw = base64.b64decode(text, validate=True)
            return self._keys[key_id].decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _bound_to(row)).decode()
        except (InvalidTag, ValueError):
            raise SealError("the sealed material was changed, or belongs to another row") from None


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"tsg-key-id" + key).hexdigest()[:8]


def _bound_to(row: str) -> bytes:
    return f"tsg_keys|{row}|{_VERSION}".encode()
