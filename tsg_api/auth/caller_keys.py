"""Keys of callers that were seen to be good, for a while: so that CloudAPI is asked once for a key, not once for a request."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from shared.clients.signature import MAX_SKEW, PublicKey
from shared.state.accounts import Account

#: Keys remembered; the one that was used longest ago is forgotten first.
MOST = 10_000
#: Pairs of headers remembered, the newest: some 2 kB each.
MOST_PAIRS = 5_000
#: Seconds after which no Date will do any more that did when it came, however far ahead it was.
PAIR_SECONDS = 2.0 * MAX_SKEW
#: Seconds for which an account's row is taken as read.
ACCOUNT_SECONDS = 5.0
#: Seconds for which a header that CloudAPI refused is refused without asking: a key may be added at any time.
REFUSED_SECONDS = 5.0

#: Account, user and key, as the caller names them.
Identity = tuple[str, str | None, str]


class Verified(NamedTuple):
    """Whose a pair of headers is, and the key that it was verified with."""

    identity: Identity
    public: PublicKey


class VerifiedHeaders:
    """Pairs of Authorization and Date whose signature was seen to be good. Thread-safe.

    A Date goes by the second, so whoever sends many requests sends the same pair with many of them: it is read and verified once. That
    the key is known still, and the Date not too old, is for the caller to see each time.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        #: With the time until which it is of use, the oldest first.
        self._pairs: OrderedDict[tuple[str, str], tuple[Verified, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pairs)

    def get(self, authorization: str, date: str) -> Verified | None:
        verified, _ = self._pairs.get((authorization, date), (None, 0.0))
        return verified

    def put(self, authorization: str, date: str, verified: Verified) -> None:
        now = self._now()
        with self._lock:
            self._pairs[authorization, date] = (verified, now + PAIR_SECONDS)
            while len(self._pairs) > MOST_PAIRS or next(iter(self._pairs.values()))[1] <= now:
                self._pairs.popitem(last=False)


class Known(NamedTuple):
    """A key, whose it is, and until when (by the steady clock) that is believed."""

    public: PublicKey
    account: Account
    until: float
    account_until: float


class Keyring:
    """Known keys by identity. Thread-safe. Nothing outlives its `seconds`."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._known: OrderedDict[Identity, Known] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        self._asking: dict[Identity, tuple[threading.Lock, int]] = {}
        self._lock = threading.Lock()

    def get(self, identity: Identity) -> Known | None:
        """The key, if it is known and its time is not up."""
        with self._lock:
            known = self._known.get(identity)
            if known is None:
                return None
            if known.until <= self._now():
                del self._known[identity]
                return None
            self._known.move_to_end(identity)
            return known

    def put(self, identity: Identity, public: PublicKey, account: Account) -> Known:
        """Remember a key that was seen to be good just now."""
        now = self._now()
        return self._store(identity, Known(public, account, now + self._seconds, now + ACCOUNT_SECONDS))

    def is_account_fresh(self, known: Known) -> bool:
        """Was the account's row read a short while ago?"""
        return self._now() < known.account_until

    def refresh_account(self, identity: Identity, known: Known, account: Account) -> Known:
        """Remember the account's row anew; the key's own time stays what it was."""
        return self._store(identity, known._replace(account=account, account_until=self._now() + ACCOUNT_SECONDS))

    def refuse(self, authorization: str, date: str, reason: str) -> None:
        """Remember for `REFUSED_SECONDS` that CloudAPI did not accept this very pair of headers."""
        with self._lock:
            self._refused[_digest(authorization, date)] = (reason, self._now() + REFUSED_SECONDS)
            while len(self._refused) > MOST:
                self._refused.popitem(last=False)

    def refused(self, authorization: str, date: str) -> str | None:
        """Why CloudAPI did not accept this very pair of headers a moment ago."""
        digest = _digest(authorization, date)
        with self._lock:
            reason, until = self._refused.get(digest, ("", 0.0))
            if reason and until <= self._now():
                del self._refused[digest]
                return None
        return reason or None

    def forget(self, identity: Identity) -> None:
        with self._lock:
            self._known.pop(identity, None)

    @contextmanager
    def asking(self, identity: Identity) -> Iterator[None]:
        """One at a time asks CloudAPI about an identity: whoever comes later finds what the first has learned."""
        with self._lock:
            lock, waiting = self._asking.get(identity, (threading.Lock(), 0))
            self._asking[identity] = (lock, waiting + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, waiting = self._asking[identity]
                if waiting == 1:
                    del self._asking[identity]
                else:
                    self._asking[identity] = (lock, waiting - 1)

    def _store(self, identity: Identity, known: Known) -> Known:
        with self._lock:
            self._known[identity] = known
            self._known.move_to_end(identity)
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        return known


def _digest(authorization: str, date: str) -> bytes:
    # No header holds a line feed.
    return hashlib.sha256(f"{authorization}\n{date}".encode()).digest()
