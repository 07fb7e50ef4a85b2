"""What the server refuses before there is a request: broken HTTP, and what is larger than it takes in. Answered like any other error."""

import uuid
from typing import Any

from waitress.task import ErrorTask

from shared import log, metrics
from tsg_api.http.address import canonical
from tsg_api.http.errors import code_of
from tsg_api.schema import render
from tsg_api.server import parking

_log = log.get(__name__)


class _Refusal(ErrorTask):  # type: ignore[misc] # waitress has no types
    def execute(self) -> None:
        error, request_id = self.request.error, str(uuid.uuid4())
        why = f"{error.reason}: {error.body.rstrip('.')}."
        body = render.to_json(render.error_body(code_of(error.code), why)).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.extend([("Content-Type", render.JSON), ("X-Request-Id", request_id)])
        self.content_length = len(body)
        self.set_close_on_finish()
        metrics.http_requests.labels("other", "other", error.code).inc()
        peer = canonical(self.channel.addr[0])
        _log.info("request_refused", status=error.code, why=why, peer=peer, request_id=request_id)
        self.write(body)


class Channel(parking.Channel):
    """A connection whose requests can be parked, and whose refusals have the form of the API's errors."""

    error_task_class = _Refusal


def install(sockets: dict[int, Any]) -> None:
    """Have the servers of a waitress answer so. `sockets` is the map that they were made with."""
    for one in sockets.values():
        if hasattr(one, "channel_class"):
            one.channel_class = Channel
