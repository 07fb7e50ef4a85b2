"""Connections: what they take in, and how the server itself refuses what never becomes a request. Answered like any other error."""

import socket
import uuid
from functools import partial
from typing import Any

from waitress.task import ErrorTask

from shared import log, metrics
from tsg_api.http.address import canonical
from tsg_api.http.errors import code_of
from tsg_api.schema import render
from tsg_api.server import channel
from tsg_api.server.parser import Parser, Refused

_log = log.get(__name__)

#: Requests of one connection that may wait for their turn.
WAITING = 16
#: Bytes that are thrown away of what comes after a refusal, so that a client which sends first and reads then gets to read it.
THROWN_AWAY = 1 << 20


class _Refusal(ErrorTask):  # type: ignore[misc] # waitress has no types
    def execute(self) -> None:
        error, request_id = self.request.error, str(uuid.uuid4())
        why = error.body if isinstance(error, Refused) else f"{error.reason}: {error.body.rstrip('.')}."
        body = render.to_json(render.error_body(code_of(error.code), why)).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.extend([("Content-Type", render.JSON), ("X-Request-Id", request_id)])
        if error.code == 401:
            self.response_headers.append(("WWW-Authenticate", "Signature"))
        self.content_length = len(body)
        self.set_close_on_finish()
        self.channel.is_refused = True
        metrics.http_requests.labels("other", "other", error.code).inc()
        peer = canonical(self.channel.addr[0])
        _log.info("request_refused", status=error.code, why=why, peer=peer, request_id=request_id)
        self.write(body)


class Channel(channel.Channel):
    """A connection, whose requests may be parked or answered in pieces. `max_body` and `signs` are those of its requests."""

    error_task_class = _Refusal
    #: A refusal was its last answer.
    is_refused = False
    #: Bytes that are thrown away still, once what comes is.
    _left = 0

    def __init__(self, *arguments: Any, max_body: int, signs: bool, **keywords: Any) -> None:
        self._new_parser = partial(Parser, max_body=max_body, signs=signs)
        super().__init__(*arguments, **keywords)

    def parser_class(self, adj: Any) -> Parser:
        """What waitress makes the next request with."""
        too_many = f"More than {WAITING} requests of this connection wait; send the next when one is answered."
        return self._new_parser(adj, refused=Refused(400, "Bad Request", too_many) if len(self.requests) >= WAITING else None)

    def handle_write(self) -> None:
        if not (self.is_refused and self.close_when_flushed):
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if self.socket is None:  # the caller had reset the connection: it is closed
            return
        if self.will_close:
            self.handle_close()
        elif not self.total_outbufs_len:
            self._say_no_more()

    def _throw_away(self) -> None:
        try:
            self._left -= len(self.recv(self.adj.recv_bytes))
        except OSError:
            self._left = 0
        if self._left <= 0:
            self.handle_close()

    def _say_no_more(self) -> None:
        """To close now, with bytes unread, would reset the connection: the client might lose the answer. So it hears the end first."""
        self.close_when_flushed = False
        self._left, self.handle_read = THROWN_AWAY, self._throw_away
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.handle_close()


def install(sockets: dict[int, Any], *, max_body: int, signs: bool) -> None:
    """Have the servers of a waitress take in and answer so. `sockets` is the map that they were made with.

    `max_body` are the bytes that a body may have; `signs` says whether requests need a signature.
    """
    for one in sockets.values():
        if hasattr(one, "channel_class"):
            one.channel_class = partial(Channel, max_body=max_body, signs=signs)
