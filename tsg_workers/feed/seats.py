"""Which of the `tsg-feed` that run watches which account. Pure."""

import hashlib
from collections.abc import Iterable, Sequence


def accounts_of(watcher: str, watchers: Sequence[str], accounts: Iterable[str]) -> set[str]:
    """The accounts of one watcher: each account goes to the one whose hash with it is the highest.

    So all agree without asking one another, shares are about equal, and a watcher that comes or goes moves no other's accounts.
    """
    return {account for account in accounts if max(watchers, key=lambda one: _weight(one, account), default=None) == watcher}


def _weight(watcher: str, account: str) -> bytes:
    return hashlib.blake2b(f"{watcher} {account}".encode(), digest_size=8).digest()
