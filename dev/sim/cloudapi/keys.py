"""SSH public keys as CloudAPI keeps them."""

import base64
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True)
class Key:
    name: str
    fingerprint: str  #: MD5, lower-case hex with colons, no prefix: the only form CloudAPI knows
    openssh: str
    public: PublicKey

    def answers_to(self, name_or_fingerprint: str) -> bool:
        return name_or_fingerprint in (self.name, self.fingerprint)

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "fingerprint": self.fingerprint, "key": self.openssh}


def read_key(line: str, name: str | None = None) -> Key:
    """The key of an OpenSSH public key line. ValueError when it isn't one.

    CloudAPI: the name defaults to the key's comment, else to the literal `(unnamed)`.
    """
    kind_blob_comment = line.strip().split(None, 2)
    if len(kind_blob_comment) < 2:
        raise ValueError("not an OpenSSH public key line")
    try:
        public = load_ssh_public_key(" ".join(kind_blob_comment[:2]).encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    if not isinstance(public, PublicKey):
        raise ValueError(f"{kind_blob_comment[0]} keys are not supported")  # noqa: TRY004 - the text is wrong, not its type
    comment = kind_blob_comment[2] if len(kind_blob_comment) == 3 else "(unnamed)"
    return Key(name or comment, _md5_fingerprint(kind_blob_comment[1]), line.strip(), public)


def _md5_fingerprint(blob: str) -> str:
    digest = hashlib.md5(base64.b64decode(blob), usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, 32, 2))
