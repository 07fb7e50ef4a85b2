"""What a running process is doing, for an operator at night: the pprof pages over HTTP and the gops agent over TCP.

Both are off unless a setting turns them on, listen on loopback unless set otherwise, and ask for no password: everybody who reaches the
port reads stacks and source positions (never values) and can slow the process down a little. Nothing here stops a process: what
cannot be served is in the log.
"""

import ipaddress
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress

from shared import log
from shared.runtime.port import Port, listener, shown
from shared.runtime.settings import Settings

_log = log.get(__name__)

#: Connections to one port that are answered at once; the next are closed.
MOST = 8


class Diagnostics:
    """The ports that are open. `stop` closes them."""

    def __init__(self) -> None:
        self.ports: list[Port] = []
        self._closers: list[Callable[[], None]] = []

    def open(self, kind: str, handler: type[socketserver.BaseRequestHandler], bind: str, wanted: int) -> int | None:
        """Listen on a port, or on a free one where it is taken: several processes of one machine share their settings. Which it is."""
        try:
            found = _listener(bind, wanted)
        except OSError as error:
            _log.error("diagnostics_unavailable", kind=kind, bind=bind, port=wanted, error=error.strerror)
            return None
        port: int = found.getsockname()[1]
        if port != wanted and wanted:
            _log.warning("diagnostics_port_taken", kind=kind, wanted=wanted, port=port)
        if not _is_loopback(bind):
            _log.warning("diagnostics_open_to_the_network", kind=kind, bind=bind, meaning="everybody who reaches the port is answered")
        _log.info("diagnostics_listening", kind=kind, address=shown(bind, port))
        served = Port(found, handler, most=MOST, unanswered="diagnostics_not_answered")
        threading.Thread(target=served.serve_forever, name=f"diagnostics-{kind}", daemon=True).start()
        self.ports.append(served)
        return port

    def at_the_end(self, close: Callable[[], None]) -> None:
        self._closers.append(close)

    def stop(self) -> None:
        for served in self.ports:
            served.shutdown()
            served.server_close()
        for close in self._closers:
            with suppress(OSError):
                close()


def start(chosen: Settings, program: str) -> Diagnostics:
    """Open what the settings ask for. Never raises. What they do not ask for is not imported: most processes have none open."""
    diagnostics = Diagnostics()
    if chosen.pprof_enable:
        from shared.runtime.diagnostics import pprof  # noqa: PLC0415

        diagnostics.open("pprof", pprof.handler(program), chosen.pprof_bind, chosen.pprof_port)
    if chosen.gops_enable:
        from shared.runtime.diagnostics import gops  # noqa: PLC0415

        port = diagnostics.open("gops", gops.handler(program), chosen.gops_bind, chosen.gops_port)
        if port:
            diagnostics.at_the_end(gops.announce(port))
    return diagnostics


def _listener(bind: str, port: int) -> socket.socket:
    try:
        return listener(bind, port)
    except OSError:
        if not port:
            raise
        return listener(bind, 0)


def _is_loopback(bind: str) -> bool:
    try:
        return ipaddress.ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"
