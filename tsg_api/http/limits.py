"""How much one caller may ask: token buckets by address and by account, within one process."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

import falcon

from tsg_api.http.address import block
from tsg_api.http.errors import TooMany
from tsg_api.http.waiting import WAITED

#: Callers remembered; the one that asked longest ago is forgotten first, and begins with a full bucket again.
MOST = 10_000
#: A bucket holds so many seconds' worth of requests.
BURST_SECONDS = 5


class Buckets:
    """`rate` requests a second for each caller, and some seconds' worth at once. A rate of 0 lets everything pass. Thread-safe."""

    def __init__(self, rate: float, now: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = max(1.0, rate * BURST_SECONDS)
        self._now = now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, caller: str) -> None:
        """Count one request, or raise `TooMany`."""
        if not self._rate:
            return
        now = self._now()
        with self._lock:
            left, at = self._left.get(caller, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._rate)
            passes = left >= 1
            self._left[caller] = (left - 1 if passes else left, now)
            self._left.move_to_end(caller)
            if len(self._left) > MOST:
                self._left.popitem(last=False)
        if not passes:
            raise TooMany(f"You have exceeded your request rate of {self._rate:g} r/s.", after=(1 - left) / self._rate)


#: A load balancer may ask as often as it likes how the service is: the answer costs next to nothing.
UNLIMITED = {"/healthz", "/readyz"}


class LimitAddresses:
    """Middleware, before authentication: what one address (of IPv6: one /64) may ask, whoever it is."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        if req.path not in UNLIMITED and WAITED not in req.env:
            self._buckets.take(block(req.remote_addr))


class LimitAccounts:
    """Middleware, after authentication: what one account may ask, from wherever."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, _resource: object, _params: object) -> None:
        account = req.context.get("account")
        if account is not None and WAITED not in req.env:
            self._buckets.take(account.id)
