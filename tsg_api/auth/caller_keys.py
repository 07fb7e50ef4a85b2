"""Keys of callers that CloudAPI vouched for: it is asked for a key once in a while, not for each request."""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from cachetools import FIFOCache, LRUCache

from shared.clients.cloudapi import TritonAccount
from shared.clients.signature import Credentials, PublicKey, load_public

#: Keys remembered; the one that was used longest ago is forgotten first.
MOST = 10_000
#: Pairs of headers remembered, the newest: some 2 kB each.
MOST_PAIRS = 5_000
#: The part of its time after which a key that is in use is asked for again, behind the requests' back.
REFRESH_AFTER = 0.75
#: Seconds between attempts to do so.
RETRY_SECONDS = 5.0

#: Account, user and key, as the caller names them.
Identity = tuple[str, str | None, str]


class Claim(NamedTuple):
    """What a request says of its sender, and the text that its signature covers."""

    credentials: Credentials
    date: str
    text: bytes
    #: Where it came from.
    address: str

    @property
    def identity(self) -> Identity:
        return (self.credentials.account, self.credentials.user, self.credentials.key)


class Known(NamedTuple):
    """A key that CloudAPI vouched for, and the account of Triton whose it is. Times are those of the steady clock."""

    public: PublicKey
    #: In OpenSSH's form.
    line: str
    owner: TritonAccount
    refresh_at: float
    #: After that it proves nothing any more: CloudAPI must be asked first.
    until: float
    #: Its user may change something, and not only look.
    may_write: bool


class CallerKeys:
    """Known keys by the names that callers give them. Thread-safe.

    No key is believed for more than `seconds` after CloudAPI was asked. It is kept for longer: a signature that it verifies is not a
    stranger's, and CloudAPI is asked for such a one whatever strangers do.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.now = now
        self._known: LRUCache[Identity, Known] = LRUCache(MOST)
        self._pairs: FIFOCache[tuple[str, str], tuple[Claim, PublicKey]] = FIFOCache(MOST_PAIRS)
        self._lock = threading.Lock()

    def get(self, identity: Identity) -> Known | None:
        """The key, even one that is not believed any more: see `is_believed`."""
        with self._lock:
            return self._known.get(identity)

    def is_believed(self, known: Known) -> bool:
        """May the key prove who calls?"""
        return self.now() < known.until

    def is_due(self, known: Known) -> bool:
        """Should CloudAPI be asked for the key again?"""
        return self.now() >= known.refresh_at

    def put(self, identity: Identity, line: str, owner: TritonAccount, *, at: float, seconds: float, may_write: bool) -> Known:
        """Remember a key that CloudAPI vouched for at the time `at`, for `seconds` at most. `SignatureError` when it is no key."""
        believed = min(self.seconds, seconds)
        with self._lock:
            before = self._known.get(identity)
            # The same object, so that pairs of headers that it verified need not be verified again.
            public = before.public if before and before.line == line else load_public(line)
            known = Known(public, line, owner, at + REFRESH_AFTER * believed, at + believed, may_write)
            self._known[identity] = known
        return known

    def postpone(self, identity: Identity) -> None:
        """Somebody asks for the key again at this moment: nobody else need do so for some seconds."""
        with self._lock:
            known = self._known.get(identity)
            if known is not None:
                self._known[identity] = known._replace(refresh_at=self.now() + RETRY_SECONDS)

    def forget(self, identity: Identity) -> None:
        with self._lock:
            self._known.pop(identity, None)

    # Headers. A Date goes by the second, so a client that sends many requests sends the same pair of headers with many of them: it is
    # read and verified once.

    def remember(self, authorization: str, claim: Claim, known: Known) -> None:
        """Remember a pair of Authorization and Date whose signature the key verified. It must cover the Date alone."""
        with self._lock:
            self._pairs[authorization, claim.date] = (claim, known.public)

    def recognize(self, authorization: str, date: str) -> tuple[Claim, Known] | None:
        """The same pair of headers, if the key is believed still and the same. Whether the Date is too old by now is not looked at."""
        try:
            with self._lock:
                claim, public = self._pairs[authorization, date]
                known = self._known[claim.identity]
        except KeyError:
            return None
        return (claim, known) if known.public is public and self.is_believed(known) else None
