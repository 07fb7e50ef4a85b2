"""tsg-api: settings -> a port, and processes: database, CloudAPI, queue -> app -> waitress. The environment is read here only."""

import argparse
import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from waitress.server import create_server

from shared import log, metrics
from shared.runtime import diagnostics, flags, monitor, program
from shared.runtime.port import shown
from shared.runtime.settings import Settings
from shared.runtime.signals import on_signal
from tsg_api.server import drain, processes, refusals
from tsg_api.server.share import Share, shares
from tsg_api.wiring import assembled

_log = log.get(__name__)

#: Bytes that waitress takes in before the app refuses what is over its own limit, with a proper answer.
TAKEN_IN = 16 * 1024 * 1024
#: Seconds that a process may take to end once its requests are answered.
LAST_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tsg-api", description="Serve the HTTP API of Triton Service Groups.")
    flags.add(parser)
    parser.add_argument("--bind", metavar="ADDRESS", dest="TSG_HTTP_BIND", help="address to listen on (TSG_HTTP_BIND)")
    parser.add_argument("--port", metavar="PORT", dest="TSG_HTTP_PORT", help="port to listen on, 0 for a free one (TSG_HTTP_PORT)")
    parser.add_argument("--processes", metavar="N", dest="TSG_HTTP_PROCESSES", help="processes that serve the port (TSG_HTTP_PROCESSES)")
    return serve(program.begin(parser.prog, parser.parse_args(arguments)))


def serve(chosen: Settings) -> int:
    """Serve until a signal comes, in as many processes as the settings say."""
    try:
        listeners = processes.listen(chosen.http_bind, chosen.http_port)
    except OSError as error:
        print(f"tsg-api: cannot listen on {shown(chosen.http_bind, chosen.http_port)}: {error.strerror}", file=sys.stderr)
        return 1
    # One port, whichever process answers.
    monitored = monitor.listen_or_exit("tsg-api", chosen)
    if chosen.dev_mode:
        _log.warning("development_mode", meaning="every request is the seeded account's, whoever sends it")

    def started() -> None:
        url = f"http://{shown(chosen.http_bind, listeners[0].getsockname()[1])}"
        _log.info("listening", url=url, processes=chosen.http_processes, threads=chosen.http_threads)

    on_cores = processes.cores(chosen.http_processes, pin=chosen.http_pin)
    if len(on_cores) > 1:
        crew = processes.Crew(
            lambda share: work(chosen, listeners, monitored, share, _process_started),
            on_cores,
            shared=[*listeners, *([monitored] if monitored else [])],
            stop_within=chosen.drain_seconds + chosen.stop_seconds + LAST_SECONDS,
        )
        with metrics.added_up():
            return crew.keep(started)
    processes.settle(on_cores[0])
    return work(chosen, listeners, monitored, shares(1)[0], started)


def _process_started() -> None:
    _log.info("process_started", process=os.getpid())


def work(
    chosen: Settings, listeners: Sequence[socket.socket], monitored: socket.socket | None, share: Share, started: Callable[[], None]
) -> int:
    """Serve what comes to the sockets until a signal comes: one process's work. Limits hold for all processes together."""
    stop = threading.Event()
    with assembled(chosen, stop) as (app, healthy):
        on_signal(healthy.drain, stop.set)
        doors = diagnostics.start(chosen, "tsg-api")
        with monitor.serving(monitored, healthy):
            run(app, listeners, chosen, share, stop, started)
        doors.stop()
    _log.info("stopped")
    return 0


def run(
    app: Callable[..., Any],
    listeners: Sequence[socket.socket],
    chosen: Settings,
    share: Share,
    stop: threading.Event,
    started: Callable[[], None],
) -> None:
    """Have waitress serve an app until `stop`, and let the requests under way finish."""
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
        max_request_body_size=TAKEN_IN,
        expose_tracebacks=False,
        # Whose address a request comes from is told by `tsg_api.http.address`: waitress takes ::ffff:192.0.2.1 for host ::ffff and a port.
        clear_untrusted_proxy_headers=False,
    )
    refusals.install(sockets)
    started()
    if not drain.run(server, sockets, share, stop, drain_seconds=chosen.drain_seconds, stop_seconds=chosen.stop_seconds):
        _log.warning("requests_cut_off", after=chosen.stop_seconds)


if __name__ == "__main__":
    sys.exit(main())
