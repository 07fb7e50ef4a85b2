"""What a running process is doing, for whoever looks at night: the pprof pages over HTTP and the gops agent over TCP.

Both are off unless a setting turns them on, listen on loopback unless told otherwise, and ask for no password: whoever reaches the
port reads stacks and source positions (never values) and can slow the process down a little. Nothing here stops a process: what
cannot be served is told in the log.
"""

import ipaddress
import socket
import socketserver
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from shared import log
from shared.settings import Settings

_log = log.get(__name__)

#: Connections to one door that are answered at once; the next are closed.
MOST = 8


class Door(socketserver.ThreadingTCPServer):
    """A listening socket with a thread for each of a few connections."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, handler: type[socketserver.BaseRequestHandler], bind: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        self._places = threading.BoundedSemaphore(MOST)
        super().__init__((bind, port), handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, _request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):  # who hung up, or was too slow, is no news
            _log.error("diagnostics_not_answered", client=str(client_address), exc_info=True)


class Diagnostics:
    """The doors that are open. `stop` closes them."""

    def __init__(self) -> None:
        self.doors: list[Door] = []
        self._closers: list[Callable[[], None]] = []

    def open(self, kind: str, handler: type[socketserver.BaseRequestHandler], bind: str, port: int) -> Door | None:
        """Listen on a port, or on a free one where it is taken: several processes of one machine share their settings."""
        try:
            door = _listen(handler, bind, port)
        except OSError as error:
            _log.error("diagnostics_unavailable", kind=kind, bind=bind, port=port, error=error.strerror or str(error))
            return None
        if door.port != port and port:
            _log.warning("diagnostics_port_taken", kind=kind, wanted=port, port=door.port)
        if not _is_loopback(bind):
            _log.warning("diagnostics_open_to_the_network", kind=kind, bind=bind, meaning="whoever reaches the port is answered")
        _log.info("diagnostics_listening", kind=kind, address=f"{f'[{bind}]' if ':' in bind else bind}:{door.port}")
        threading.Thread(target=door.serve_forever, name=f"diagnostics-{kind}", daemon=True).start()
        self.doors.append(door)
        return door

    def at_the_end(self, close: Callable[[], None]) -> None:
        self._closers.append(close)

    def stop(self) -> None:
        for door in self.doors:
            door.shutdown()
            door.server_close()
        for close in self._closers:
            with suppress(OSError):
                close()


def start(chosen: Settings, program: str) -> Diagnostics:
    """Open what the settings ask for. Never raises. What they do not ask for is not imported: most processes have no door open."""
    diagnostics = Diagnostics()
    if chosen.pprof_enable:
        from shared.diagnostics import pprof  # noqa: PLC0415

        diagnostics.open("pprof", pprof.handler(program), chosen.pprof_bind, chosen.pprof_port)
    if chosen.gops_enable:
        from shared.diagnostics import gops  # noqa: PLC0415

        door = diagnostics.open("gops", gops.handler(program), chosen.gops_bind, chosen.gops_port)
        if door:
            diagnostics.at_the_end(gops.announce(door.port))
    return diagnostics


def _listen(handler: type[socketserver.BaseRequestHandler], bind: str, port: int) -> Door:
    try:
        return Door(handler, bind, port)
    except OSError:
        if not port:
            raise
        return Door(handler, bind, 0)


def _is_loopback(bind: str) -> bool:
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"
