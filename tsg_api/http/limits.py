"""How much one caller may ask: token buckets by address and by account, within one process."""

import threading
import time
from collections.abc import Callable

import falcon
from cachetools import LRUCache

from shared.clients.token_bucket import TokenBucket
from tsg_api.http.address import block
from tsg_api.http.errors import TooMany
from tsg_api.http.waiting import WAITED

#: Callers remembered; the one that asked longest ago is forgotten first, and begins with a full bucket again.
MOST = 10_000
#: Seconds' worth of requests that a bucket holds.
BURST_SECONDS = 5


class Buckets:
    """`rate` requests a second for each caller, and some seconds' worth at once. A rate of 0 lets everything pass. Thread-safe."""

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._now = now
        self._buckets: LRUCache[str, TokenBucket] = LRUCache(MOST)
        self._lock = threading.Lock()

    def take(self, caller: str) -> None:
        """Count one request, or raise `TooMany`."""
        with self._lock:
            excess = self._excess(caller)
            if excess is None and self._rate:
                self._bucket(caller).take()
        if excess is not None:
            raise excess

    def excess(self, caller: str) -> TooMany | None:
        """What the caller's next request would be refused with; None when it may come."""
        with self._lock:
            return self._excess(caller)

    def _excess(self, caller: str) -> TooMany | None:
        wait = self._bucket(caller).wait_seconds if self._rate else 0.0
        return TooMany(f"You have exceeded your request rate of {self._rate:g} r/s.", after=wait) if wait > 0 else None

    def charge(self, caller: str) -> None:
        """Count one request."""
        if self._rate:
            with self._lock:
                self._bucket(caller).take()

    def _bucket(self, caller: str) -> TokenBucket:
        found = self._buckets.get(caller)
        if found is None:
            found = self._buckets[caller] = TokenBucket(self._rate, max(1.0, self._rate * BURST_SECONDS), now=self._now)
        return found


#: A load balancer may ask as often as it likes how the service is: the answer costs next to nothing.
UNLIMITED = {"/healthz", "/readyz"}


class LimitAddresses:
    """Middleware, before authentication: what one address (of IPv6: one /64) may ask without proof of who it is.

    A request counts once it was answered, unless an account was found to have sent it: callers with a good key do not pay for strangers
    behind the same address. Over the limit a key that is known and verified passes, and nothing else is looked up (`Signed`).
    """

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        if req.path in UNLIMITED or WAITED in req.env:
            return
        req.context.excess = self._buckets.excess(block(req.remote_addr))
        if req.context.excess is not None and req.get_header("Authorization") is None:
            raise req.context.excess

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, resource: object, _params: object) -> None:
        if getattr(resource, "public", False) and req.context.get("excess") is not None:
            raise req.context.excess

    def process_response(self, req: falcon.Request, _resp: falcon.Response, _resource: object, _succeeded: bool) -> None:
        if "excess" in req.context and req.context.excess is None and "account" not in req.context:
            self._buckets.charge(block(req.remote_addr))


class LimitAccounts:
    """Middleware, after authentication: what one account may ask, from wherever."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, _resource: object, _params: object) -> None:
        account = req.context.get("account")
        if account is not None and WAITED not in req.env:
            self._buckets.take(account.id)
