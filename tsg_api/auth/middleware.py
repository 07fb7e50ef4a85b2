"""Who is calling: a middleware finds `req.context.account` for everything that has a route."""

from functools import cache
from typing import Protocol

import falcon
from prometheus_client import Counter

from shared import metrics
from shared.state.accounts import Account
from tsg_api.http.errors import NotAuthorized, TooMany, Unauthenticated, Unavailable
from tsg_api.http.waiting import WAITED


class Authenticator(Protocol):
    """Tells whose request it is, or raises `Unauthenticated`, `NotAuthorized`, `TooMany` or `Unavailable`."""

    def __call__(self, req: falcon.Request) -> Account: ...


_RESULTS: dict[type[Exception], str] = {
    Unauthenticated: "refused",
    NotAuthorized: "not_enabled",
    Unavailable: "unavailable",
    TooMany: "too_many",
}


@cache
def _counter(result: str) -> Counter:
    return metrics.authentications.labels(result)


class Authenticate:
    """Middleware: everything that has a route is somebody's request, unless its resource says `public = True`."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, resource: object, _params: object) -> None:
        # One that was parked has its account.
        if not getattr(resource, "public", False) and WAITED not in req.env:
            result = "failed"
            try:
                req.context.account = self._authenticator(req)
                result = "accepted"
            except (Unauthenticated, NotAuthorized, Unavailable, TooMany) as error:
                result = _RESULTS[type(error)]
                raise
            finally:
                _counter(result).inc()
