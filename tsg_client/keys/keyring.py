"""Finds the key of a fingerprint where Triton's own clients look: in ~/.ssh, in the ssh-agent, and in TRITON_KEY_MATERIAL.

A key that needs no passphrase goes before one that does, as in node-triton.
"""

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from shared.clients import keys
from tsg_client.errors import NoKey
from tsg_client.keys import agent
from tsg_client.keys.key import IsEncrypted, Key, PrivateKey, read

#: Bytes of a key's file, at most, as in node-smartdc-auth.
MOST_PUBLIC, MOST_PRIVATE = 65_536, 131_072
#: Tries of a passphrase.
TRIES = 3

#: Asks a person for the passphrase of the key with this name.
Ask = Callable[[str], str]

_MD5 = re.compile(r"(?:MD5:)?((?:[0-9a-f]{2}:){15}[0-9a-f]{2})\Z", re.IGNORECASE)
_SHA256 = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?\Z")
#: A private key without a public half beside it is looked into when its name has `id_` at the start of a word.
_LONE = re.compile(r"(?:^|[^a-zA-Z])id_")


class Found(NamedTuple):
    """A key, and where it was."""

    key: Key
    place: str


class Wanted:
    """The fingerprint of a key: MD5 as hex with colons, with or without `MD5:`, or `SHA256:` and base64. `NoKey` for anything else."""

    def __init__(self, text: str) -> None:
        md5 = _MD5.match(text.strip())
        if md5 is None and not _SHA256.match(text.strip()):
            raise NoKey(f"{text!r} is no fingerprint: print one by ssh-keygen -l -E md5 -f FILE")
        self._wanted = md5[1].lower() if md5 else text.strip().rstrip("=")
        self.text = text.strip()

    def is_of(self, blob: bytes) -> bool:
        """Is it the fingerprint of this public key?"""
        sha256 = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
        return self._wanted in (keys.fingerprint_of(blob), f"SHA256:{sha256}")


def find(
    fingerprint: str, *, material: str | None = None, home: Path | None = None, socket: Path | None = None, ask: Ask | None = None
) -> Found:
    """The key of a fingerprint. `material` is a key's text, or the path of its file; `home` and `socket` default to the user's own.

    `NoKey` says where it was looked for, and what was in the way.
    """
    wanted = Wanted(fingerprint)
    folder = home if home is not None else Path.home() / ".ssh"
    agent_socket = socket if socket is not None else _agent_socket()
    problems: list[str] = []
    locked: list[tuple[str, str]] = []
    for look in (_files(wanted, folder, problems, locked), _agents(wanted, agent_socket, problems), _given(wanted, material, locked)):
        for found in look:
            return found
    if locked and ask is not None:
        name, text = locked[0]
        return Found(_unlocked(name, text, ask), name)
    if locked:
        raise NoKey(f"the key {wanted.text} in {locked[0][0]} needs a passphrase, and there is no terminal to ask: ssh-add {locked[0][0]}")
    agents = "the ssh-agent" if agent_socket else "an ssh-agent (SSH_AUTH_SOCK is not set)"
    told = "".join(f"; {problem}" for problem in problems)
    also = ", nor in TRITON_KEY_MATERIAL" if material else ""
    where = f"neither in {folder} nor in {agents}{also}{told}"
    raise NoKey(f"the key {wanted.text} is {where}. Load it (ssh-add FILE), or name another one (-k)")


def _agent_socket() -> Path | None:
    path = os.environ.get("SSH_AUTH_SOCK")
    return Path(path) if path else None


def _files(wanted: Wanted, folder: Path, problems: list[str], locked: list[tuple[str, str]]) -> Iterator[Found]:
    for file in _private_files(wanted, folder, problems):
        try:
            text = _text(file, MOST_PRIVATE)
            key = read(text)
        except IsEncrypted:
            locked.append((str(file), text))
        except (OSError, NoKey) as error:
            problems.append(f"{file}: {error}")
        else:
            if wanted.is_of(_blob(key.public_line)):
                yield Found(key, str(file))


def _private_files(wanted: Wanted, folder: Path, problems: list[str]) -> Iterator[Path]:
    """Those that belong to a public key of the fingerprint, and those that may."""
    if not folder.is_dir():
        return
    names = {file.name for file in folder.iterdir() if file.is_file()}
    for name in sorted(names):
        file = folder / name
        if name.endswith(".pub"):
            try:
                is_it = wanted.is_of(_blob(_text(file, MOST_PUBLIC)))
            except (OSError, ValueError, IndexError):
                continue
            if is_it and name.removesuffix(".pub") in names:
                yield file.with_suffix("")
            elif is_it:
                problems.append(f"{file} is its public half alone")
        elif f"{name}.pub" not in names and _LONE.search(name):
            yield file


def _agents(wanted: Wanted, socket: Path | None, problems: list[str]) -> Iterator[Found]:
    if socket is None:
        return
    try:
        for key in agent.held(socket):
            if wanted.is_of(key.blob):
                yield Found(key, "the ssh-agent")
    except NoKey as error:
        problems.append(str(error))


def _given(wanted: Wanted, material: str | None, locked: list[tuple[str, str]]) -> Iterator[Found]:
    if not material:
        return
    text, place = material, "TRITON_KEY_MATERIAL"
    if "-----BEGIN" not in material:
        place = f"{material} (TRITON_KEY_MATERIAL)"
        try:
            text = _text(Path(material).expanduser(), MOST_PRIVATE)
        except (OSError, ValueError) as error:
            raise NoKey(f"TRITON_KEY_MATERIAL is neither a key nor the path of one: {error}") from None
    try:
        key = read(text)
    except IsEncrypted:
        locked.append((place, text))
        return
    except NoKey as error:
        raise NoKey(f"{place}: {error}") from None
    if not wanted.is_of(_blob(key.public_line)):
        raise NoKey(f"{place} has the key {key.fingerprint}, not {wanted.text}")
    yield Found(key, place)


def _unlocked(name: str, text: str, ask: Ask) -> PrivateKey:
    for _ in range(TRIES):
        try:
            return read(text, ask(name))
        except IsEncrypted:
            continue
    raise NoKey(f"no passphrase of {TRIES} opened {name}")


def _blob(public_line: str) -> bytes:
    return base64.b64decode(public_line.split()[1], validate=True)


def _text(file: Path, most: int) -> str:
    if file.stat().st_size > most:
        raise OSError("the file is too large for a key")
    return file.read_text("utf-8", "replace")
