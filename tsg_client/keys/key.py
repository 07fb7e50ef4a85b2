"""A key that signs: one whose private half was read, or one that an ssh-agent holds."""

from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from shared.clients import keys
from tsg_client.errors import NoKey


class Key(Protocol):
    """What a signer needs of a key."""

    @property
    def fingerprint(self) -> str:
        """MD5, as hex with colons: what goes over the wire."""

    @property
    def algorithm(self) -> str:
        """HTTP Signature's name of what `sign` does."""

    def sign(self, text: bytes) -> bytes:
        """The signature over `text`. `NoKey` where an agent refuses."""


class IsEncrypted(NoKey):
    """It needs a passphrase, or another one."""


#: The hash of each curve, as triton-go has them: CloudAPI takes no SHA-384.
_OF_CURVE: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "secp256r1": ("ecdsa-sha256", hashes.SHA256()),
    "secp384r1": ("ecdsa-sha512", hashes.SHA512()),
    "secp521r1": ("ecdsa-sha512", hashes.SHA512()),
}
_Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class PrivateKey:
    """A private key: RSA, ECDSA on the curves of NIST, or Ed25519."""

    def __init__(self, private: _Private) -> None:
        line = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
        self._private = private
        self.public_line = line
        self.fingerprint = keys.fingerprint(line)

    @property
    def algorithm(self) -> str:
        if isinstance(self._private, rsa.RSAPrivateKey):
            return "rsa-sha256"
        if isinstance(self._private, ed25519.Ed25519PrivateKey):
            return "ed25519-sha512"
        return _OF_CURVE[self._private.curve.name][0]

    def sign(self, text: bytes) -> bytes:
        if isinstance(self._private, rsa.RSAPrivateKey):
            return self._private.sign(text, padding.PKCS1v15(), hashes.SHA256())
        if isinstance(self._private, ed25519.Ed25519PrivateKey):
            return self._private.sign(text)
        return self._private.sign(text, ec.ECDSA(_OF_CURVE[self._private.curve.name][1]))


def read(text: str, passphrase: str | None = None) -> PrivateKey:
    """The key of a text: PEM (PKCS#1, SEC1, PKCS#8) or OpenSSH's own form. `NoKey` for anything else."""
    load = serialization.load_ssh_private_key if "BEGIN OPENSSH PRIVATE KEY" in text else serialization.load_pem_private_key
    try:
        private = load(text.encode(), passphrase.encode() if passphrase else None)
    except TypeError:  # protected and no passphrase, or the other way round
        if passphrase:
            return read(text)
        raise IsEncrypted("the key is protected by a passphrase") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        if passphrase:
            raise IsEncrypted("the passphrase is wrong") from None
        raise NoKey(f"this is no private key in PEM or OpenSSH's form: {error}") from None
    is_usable = isinstance(private, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) or (
        isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _OF_CURVE
    )
    if not is_usable:
        raise NoKey("the key is neither RSA, nor ECDSA (nistp256, nistp384, nistp521), nor Ed25519")
    return PrivateKey(private)  # type: ignore[arg-type]
