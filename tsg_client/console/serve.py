"""The proxy on this machine's own address, in a thread."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from waitress import wasyncore
from waitress.server import create_server

from tsg_client.console import pages
from tsg_client.console.guard import Guard
from tsg_client.console.proxy import MAX_BODY, THREADS, Proxy, Upstream

HOST = "127.0.0.1"


@contextmanager
def serving(upstream: Upstream, *, port: int = 0) -> Iterator[str]:
    """Serve the console in a thread; the address with the token, to be opened in a browser. OSError when the port is taken."""
    # Neither a full queue nor a page that still waits at the end is news.
    logging.getLogger("waitress").setLevel(logging.ERROR)
    listener = socket.create_server((HOST, port))
    guard = Guard.of_port(listener.getsockname()[1])
    proxy = Proxy(upstream, guard)
    sockets: dict[int, Any] = {}
    server = create_server(
        proxy,
        map=sockets,
        sockets=[listener],
        threads=THREADS,
        ident=None,
        max_request_header_size=16_384,
        max_request_body_size=MAX_BODY,
        clear_untrusted_proxy_headers=True,
    )
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            wasyncore.loop(map=sockets, use_poll=True, count=1)

    thread = threading.Thread(target=serve, name="console", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{guard.port}{pages.BASE}?token={guard.token}"
    finally:
        stopping.set()
        server.pull_trigger()
        thread.join()
        wasyncore.close_all(sockets)
        server.task_dispatcher.shutdown(cancel_pending=True, timeout=1)
        proxy.close()
