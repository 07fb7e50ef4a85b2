"""tsg-api: settings -> a port; database, CloudAPI, queue -> app -> waitress. One program is one process."""

import argparse
import os
import random
import re
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from waitress.server import create_server

from shared import log
from shared.lines import say
from shared.runtime import diagnostics, flags, monitor, program
from shared.runtime.port import shown
from shared.runtime.settings import Settings
from shared.runtime.signals import on_signal
from tsg_api.server import drain, refusals
from tsg_api.server.listeners import listen
from tsg_api.wiring import assembled

_log = log.get(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tsg-api", description="Serve the HTTP API of Triton Service Groups.")
    flags.add(parser)
    parser.add_argument("--bind", metavar="ADDRESS", dest="TSG_HTTP_BIND", help="address to listen on (TSG_HTTP_BIND)")
    parser.add_argument("--port", metavar="PORT", dest="TSG_HTTP_PORT", help="port to listen on, 0 for a free one (TSG_HTTP_PORT)")
    shared_port = "share the port with other processes of tsg-api that were started with this flag (TSG_HTTP_REUSE_PORT)"
    parser.add_argument("--reuse-port", action="store_const", const="true", dest="TSG_HTTP_REUSE_PORT", help=shared_port)
    # Of earlier versions.
    parser.add_argument("--processes", dest="TSG_HTTP_PROCESSES", help=argparse.SUPPRESS)
    return serve(program.begin(parser.prog, parser.parse_args(arguments)))


def serve(chosen: Settings) -> int:
    """Serve until a signal comes."""
    try:
        listeners = listen(chosen.http_bind, chosen.http_port, reuse_port=chosen.http_reuse_port)
    except OSError as error:
        say(f"tsg-api: cannot listen on {shown(chosen.http_bind, chosen.http_port)}: {error.strerror}")
        return 1
    monitored = monitor.listen_or_exit("tsg-api", chosen)
    if chosen.dev_mode:
        _log.warning("development_mode", meaning="every request is taken for the seeded account's")

    def started() -> None:
        url = f"http://{shown(chosen.http_bind, listeners[0].getsockname()[1])}"
        _log.info("listening", url=url, threads=chosen.http_threads)

    settle(pin=chosen.http_pin)
    stop = threading.Event()
    with assembled(chosen, stop, parks=True) as (app, healthy):
        on_signal(healthy.drain, stop.set)
        debugging = diagnostics.start(chosen, "tsg-api")
        with monitor.serving(monitored, healthy):
            run(app, listeners, chosen, stop, started)
        debugging.stop()
    _log.info("stopped")
    return 0


def run(
    app: Callable[..., Any], listeners: Sequence[socket.socket], chosen: Settings, stop: threading.Event, started: Callable[[], None]
) -> None:
    """Have waitress serve an app until `stop`, and let the requests under way finish. `started` is called when it listens."""
    sockets: dict[int, Any] = {}
    server = create_server(
        app,
        map=sockets,
        sockets=list(listeners),
        threads=chosen.http_threads,
        ident=None,
        connection_limit=1000,
        channel_timeout=30,
        cleanup_interval=5,
        asyncore_use_poll=True,
        max_request_header_size=16_384,
        # Nothing of a request or an answer goes through a file. The bounds of bodies are those of `tsg_api.server.parser`.
        inbuf_overflow=sys.maxsize,
        outbuf_overflow=sys.maxsize,
        max_request_body_size=sys.maxsize,
        expose_tracebacks=False,
        # `tsg_api.http.address` finds the address that a request comes from: waitress takes ::ffff:192.0.2.1 for host ::ffff and a port.
        clear_untrusted_proxy_headers=False,
    )
    refusals.install(sockets, max_body=chosen.http_max_body, signs=not chosen.dev_mode)
    started()
    if not drain.run(server, sockets, stop, drain_seconds=chosen.drain_seconds, stop_seconds=chosen.stop_seconds):
        _log.warning("requests_cut_off", after=chosen.stop_seconds)


def settle(*, pin: bool) -> None:
    """Keep this process on one core; where that can't be had, let its threads take turns more often."""
    if pin and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {_free_core(os.sched_getaffinity(0))})
    else:
        sys.setswitchinterval(0.001)


def _free_core(allowed: set[int]) -> int:
    """Any of the cores that the fewest processes of this machine are bound to, so that several tsg-api take different ones."""
    bound: Counter[str] = Counter()
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):  # it has ended
            bound.update(re.findall(r"^Cpus_allowed_list:\t(\d+)$", status.read_text(), re.MULTILINE))
    fewest = min(bound[str(core)] for core in allowed)
    return random.choice([core for core in sorted(allowed) if bound[str(core)] == fewest])


if __name__ == "__main__":
    sys.exit(main())
