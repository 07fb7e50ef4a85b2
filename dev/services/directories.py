"""Directories for servers: ours, and where root starts PostgreSQL, the unprivileged user's to work in."""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.processes import Account

#: The user that PostgreSQL runs as when we are root.
UNPRIVILEGED = "nobody"


class ServiceError(Exception):
    """A server cannot be had or cannot work on the directory it was given; the message says what to do."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary directory that PostgreSQL can work in even when we are root (pytest's tmp_path is closed to all but root)."""
    directory = Path(tempfile.mkdtemp(prefix="tsg-"))
    if os.geteuid() == 0:
        directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def copy_of(data_dir: Path, to: Path) -> Path:
    """A stopped server's directory copied, with its owner, which is not us when we are root; the copy."""
    subprocess.run(["cp", "-a", data_dir, to], check=True)
    return to


def own_directory(path: Path, name: str, account: Account | None) -> None:
    """Makes `path` a directory that only we and `account` can enter."""
    _check_the_way_to(path, account)
    path.mkdir(parents=True, exist_ok=True)
    _check_the_way_to(path, account)  # a umask may have closed what was just made
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise ServiceError(f"{path} belongs to {user_name(owner)}: run as its owner, or choose another directory")
    if not (path / "lock").exists() and any(path.iterdir()):
        raise ServiceError(f"{path} is neither empty nor the directory of a {name} that was started here: choose another directory")
    if account:
        give(path, account, uid=-1)
    path.chmod(0o710 if account else 0o700)


def _check_the_way_to(path: Path, account: Account | None) -> None:
    for parent in reversed(path.resolve().parents):
        if account and parent.exists() and not _can_enter(parent, account):
            raise ServiceError(
                f"{account.name}, whom PostgreSQL runs as when root starts it, cannot enter {parent}: "
                "choose a directory elsewhere (under /var/lib, say), or run as an ordinary user"
            )


def give(path: Path, account: Account, *, uid: int | None = None) -> None:
    try:
        os.chown(path, account.uid if uid is None else uid, account.gid)
    except OSError as error:
        raise ServiceError(f"cannot give {path} to {account.name}: {error.strerror}. Run as an ordinary user") from None


def _can_enter(directory: Path, account: Account) -> bool:
    status = directory.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def unprivileged() -> Account | None:
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise ServiceError(f"PostgreSQL refuses to run as root, and there is no user {UNPRIVILEGED} to run it as") from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
