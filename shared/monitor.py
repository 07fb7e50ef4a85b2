"""A port beside the main job, for those who look after the process: `/metrics`, `/healthz` and `/readyz`.

It has no authentication, and is bound to loopback unless `TSG_METRICS_BIND` says otherwise.
"""

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from shared import log, metrics
from shared.health import Health, Report
from shared.settings import Settings

_log = log.get(__name__)

JSON = "application/json; charset=utf-8"
#: Seconds that somebody who connects has to send a request.
PATIENCE = 5.0
#: Connections that are answered at once; the next are closed.
MOST = 16


class PortTaken(Exception):
    """The monitor can't listen where it was told to."""


class Answer(NamedTuple):
    """Status, type and body of an answer."""

    status: int
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[], Answer]]


def alive() -> Answer:
    """`/healthz`: the process answers, so it is alive. Nobody is asked."""
    return Answer(200, JSON, b'{"status":"alive"}')


def ready(report: Report) -> Answer:
    """`/readyz`: 503 when requests had better go elsewhere."""
    body = json.dumps({"status": report.status, "checks": report.checks}, separators=(",", ":"))
    return Answer(200 if report.is_ready else 503, JSON, body.encode())


def counted() -> Answer:
    """`/metrics`, for Prometheus."""
    return Answer(200, metrics.CONTENT_TYPE, metrics.page())


def listen(chosen: Settings) -> socket.socket | None:
    """The monitor's port, as the settings have it; None when there is to be none. `PortTaken` when it can't be had."""
    if not chosen.metrics_enable:
        return None
    address = (chosen.metrics_bind, chosen.metrics_port)
    try:
        listener = socket.create_server(address, family=socket.AF_INET6 if ":" in chosen.metrics_bind else socket.AF_INET)
    except OSError as error:
        why = os.strerror(error.errno or 0)  # its own text repeats the address
        raise PortTaken(f"cannot listen on {address[0]}:{address[1]} (TSG_METRICS_PORT): {why}") from None
    # Several processes may share it: the one that comes too late for a connection must not wait for the next.
    listener.setblocking(False)
    host, port = listener.getsockname()[:2]
    _log.info("monitoring", monitor_url=f"http://{f'[{host}]' if ':' in host else host}:{port}")
    return listener


@contextmanager
def serving(listener: socket.socket | None, health: Health) -> Iterator[None]:
    """The monitor, for as long as the context lasts."""
    if listener is None:
        yield
        return
    pages: Pages = {"/metrics": counted, "/healthz": alive, "/readyz": lambda: ready(health.report())}
    server = _Server(listener, pages)
    threading.Thread(target=server.serve_forever, name="monitor", daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, pages: Pages) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.pages = pages
        self._places = threading.BoundedSemaphore(MOST)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, _request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):  # who hung up, or was too slow, is no news
            _log.error("monitor_not_answered", client=str(client_address), exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE
    server: _Server
    #: What the library itself refuses.
    server_version, sys_version = "tsg", ""
    error_content_type, error_message_format = JSON, '{"code":"BadRequest","message":"%(message)s."}'

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        status, content_type, body = page() if page else Answer(404, JSON, b'{"code":"ResourceNotFound","message":"No such page."}')
        self.send_response_only(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_told: object) -> None:
        """Nothing: these come every second."""
