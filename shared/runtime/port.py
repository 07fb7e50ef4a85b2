"""A port beside a process's main job, for a few callers: the monitor's, and those of the diagnostics."""

import os
import socket
import socketserver
import sys
import threading
from typing import Any

from shared import log

_log = log.get(__name__)


class Port(socketserver.ThreadingTCPServer):
    """Serves a listening socket, with a thread for each connection; `most` are answered at once, and the next are closed.

    `unanswered` is what the log says when a connection ended in a fault of this service.
    """

    daemon_threads = True

    def __init__(self, listener: socket.socket, handler: type[socketserver.BaseRequestHandler], *, most: int, unanswered: str) -> None:
        super().__init__(listener.getsockname()[:2], handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._places = threading.BoundedSemaphore(most)
        self._unanswered = unanswered

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
            _log.error(self._unanswered, client=str(client_address), exc_info=True)


def listener(bind: str, port: int) -> socket.socket:
    """A socket that listens there (`::`: IPv4 too), on a free port when it is 0. Raises `OSError`, whose `strerror` says why."""
    try:
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        return socket.create_server((bind, port), family=family, dualstack_ipv6=bind == "::")
    except socket.gaierror:
        raise  # no number of the system's
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0)) from None  # its own text repeats the address


def shown(host: str, port: int) -> str:
    """Host and port, as one writes them in a URL."""
    return f"{f'[{host}]' if ':' in host else host}:{port}"
