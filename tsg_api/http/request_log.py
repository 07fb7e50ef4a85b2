"""What is seen of a request from outside: its id, and one line in the log."""

import random
import re
import time
import uuid
from functools import lru_cache

import falcon
from prometheus_client import Counter, Histogram
from structlog.contextvars import bind_contextvars, clear_contextvars

from shared import log, metrics
from tsg_api.http.hooks import without_token
from tsg_api.http.waiting import WAITED

_log = log.get("tsg_api.access")

_SANE = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")


METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}


class Observe:
    """Middleware, the outermost."""

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        clear_contextvars()
        if (before := req.env.get(WAITED)) is not None:
            req.context = before
        else:
            self._name(req)
        resp.set_header("X-Request-Id", req.context.request_id)
        bind_contextvars(request_id=req.context.request_id)

    def _name(self, req: falcon.Request) -> None:
        given = req.get_header("X-Request-Id") or ""
        # As good as uuid4() where nobody has to be kept from guessing, and without a call of the system.
        req.context.request_id = given if _SANE.match(given) else str(uuid.UUID(int=random.getrandbits(128), version=4))
        req.context.started = time.perf_counter()

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: object, _succeeded: bool) -> None:
        if "started" not in req.context:  # Falcon refuses some methods before any middleware sees them
            self.process_request(req, resp)
        took = time.perf_counter() - req.context.started
        # What has no route has any path and any method.
        route = req.uri_template or "other"
        method = req.method if req.method in METHODS else "other"
        requests, seconds = _counters(method, route, resp.status_code)
        requests.inc()
        seconds.observe(took)
        account = req.context.get("account")
        tell = _log.debug if getattr(resource, "quiet", False) else _log.info
        tell(
            "request",
            method=req.method,
            path=without_token(req.path),
            status=resp.status_code,
            ms=round(took * 1000, 1),
            account=account.name if account else None,
            peer=req.remote_addr,
        )


@lru_cache(maxsize=4096)
def _counters(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """To find them by their labels takes longer than to count."""
    return metrics.http_requests.labels(method, route, status), metrics.http_seconds.labels(route)
