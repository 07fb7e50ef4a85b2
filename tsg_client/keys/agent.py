"""The keys of an ssh-agent, by the little of its protocol that signing needs (draft-miller-ssh-agent)."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from shared.clients import keys
from tsg_client.errors import NoKey

#: Seconds for an answer: a person may have to confirm it (ssh-add -c).
PATIENCE = 60.0
#: Bytes of an answer, at most.
MOST = 262_144

_LIST, _KEYS, _SIGN, _SIGNATURE = 11, 12, 13, 14
_RSA_SHA256 = 2

#: By the agent's name of the key: HTTP Signature's name of what the agent does, and the flags that it does it by.
_ALGORITHMS = {
    "ssh-rsa": ("rsa-sha256", _RSA_SHA256),
    "ecdsa-sha2-nistp256": ("ecdsa-sha256", 0),
    "ecdsa-sha2-nistp384": ("ecdsa-sha384", 0),
    "ecdsa-sha2-nistp521": ("ecdsa-sha512", 0),
    "ssh-ed25519": ("ed25519-sha512", 0),
}


class AgentKey:
    """A key that an agent holds. The agent signs."""

    def __init__(self, path: Path, blob: bytes, comment: str) -> None:
        self._path = path
        self.blob = blob
        self.comment = comment
        self.kind = _Reader(blob).string().decode("ascii", "replace")
        self.fingerprint = keys.fingerprint_of(blob)

    @property
    def algorithm(self) -> str:
        return _ALGORITHMS[self.kind][0]

    def sign(self, text: bytes) -> bytes:
        flags = _ALGORITHMS[self.kind][1]
        answer = _ask(self._path, bytes([_SIGN]) + _string(self.blob) + _string(text) + struct.pack(">I", flags))
        if answer[:1] != bytes([_SIGNATURE]):
            raise NoKey(f"the ssh-agent refused to sign with the key {self.fingerprint}")
        signature = _Reader(_Reader(answer[1:]).string())
        kind, raw = signature.string(), signature.string()
        if kind.startswith(b"ecdsa-"):
            numbers = _Reader(raw)
            return encode_dss_signature(numbers.integer(), numbers.integer())
        if self.kind == "ssh-rsa" and kind != b"rsa-sha2-256":
            raise NoKey("the ssh-agent is too old: it signs by SHA-1 alone")
        return raw


def held(path: Path) -> Iterator[AgentKey]:
    """The keys of the agent that listens at `path`: of those kinds that sign requests. `NoKey` when it can't be asked."""
    answer = _ask(path, bytes([_LIST]))
    if answer[:1] != bytes([_KEYS]):
        raise NoKey(f"the ssh-agent at {path} does not list its keys")
    reader = _Reader(answer[1:])
    for _ in range(reader.number()):
        blob, comment = reader.string(), reader.string().decode("utf-8", "replace")
        key = AgentKey(path, blob, comment)
        if key.kind in _ALGORITHMS:
            yield key


def _ask(path: Path, request: bytes) -> bytes:
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(PATIENCE)
            agent.connect(str(path))
            agent.sendall(_string(request))
            (size,) = struct.unpack(">I", _read(agent, 4))
            if size > MOST:
                raise NoKey(f"what listens at {path} is no ssh-agent")
            return _read(agent, size)
    except OSError as error:
        raise NoKey(f"the ssh-agent at {path} (SSH_AUTH_SOCK) can't be asked: {error.strerror or error}") from None


def _read(agent: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = agent.recv(size - len(found))
        if not part:
            raise NoKey("the ssh-agent hung up")
        found += part
    return found


def _string(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


class _Reader:
    """Reads the parts of a message of ssh one after the other. `NoKey` when it ends too soon."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def number(self) -> int:
        return int.from_bytes(self._take(4))

    def string(self) -> bytes:
        return self._take(self.number())

    def integer(self) -> int:
        return int.from_bytes(self.string(), signed=True)

    def _take(self, size: int) -> bytes:
        part = self._content[self._at : self._at + size]
        if len(part) < size:
            raise NoKey("the ssh-agent's answer is cut short")
        self._at += size
        return part
