"""A port beside the main job, for those who look after the process: `/metrics`, `/healthz` and `/readyz`.

It has no authentication, and is bound to loopback unless `TSG_METRICS_BIND` says otherwise.
"""

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple

from shared import log, metrics
from shared.runtime.health import Health, Report
from shared.runtime.port import Port, listener, shown
from shared.runtime.settings import Settings

_log = log.get(__name__)

JSON = "application/json; charset=utf-8"
#: Seconds that somebody who connects has to send a request.
PATIENCE = 5.0
#: Connections that are answered at once; the next are closed.
MOST = 16


class PortTaken(Exception):
    """The monitor can't listen where the settings say."""


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
    try:
        found = listener(chosen.metrics_bind, chosen.metrics_port)
    except OSError as error:
        raise PortTaken(
            f"cannot listen on {shown(chosen.metrics_bind, chosen.metrics_port)} (TSG_METRICS_PORT): {error.strerror}"
        ) from None
    # Several processes may share it: the one that comes too late for a connection must not wait for the next.
    found.setblocking(False)
    _log.info("monitoring", monitor_url=f"http://{shown(*found.getsockname()[:2])}")
    return found


def listen_or_exit(program: str, chosen: Settings) -> socket.socket | None:
    """The same for a program that does nothing without it: it exits with 1 when the port can't be had."""
    try:
        return listen(chosen)
    except PortTaken as error:
        sys.exit(f"{program}: {error}")


@contextmanager
def serving(at: socket.socket | None, health: Health) -> Iterator[None]:
    """The monitor, for as long as the context lasts."""
    if at is None:
        yield
        return
    pages: Pages = {"/metrics": counted, "/healthz": alive, "/readyz": lambda: ready(health.report())}
    server = _Server(at, pages)
    threading.Thread(target=server.serve_forever, name="monitor", daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Server(Port):
    def __init__(self, at: socket.socket, pages: Pages) -> None:
        super().__init__(at, _Handler, most=MOST, unanswered="monitor_not_answered")
        self.pages = pages


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
