"""Run waitress until the process is told to stop, and then until what is under way is answered."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from waitress import wasyncore
from waitress.channel import HTTPChannel

from tsg_api.server.share import Share

#: Seconds between looks while nothing happens.
LOOK = 1.0


def run(server: Any, sockets: dict[int, Any], share: Share, stop: threading.Event, *, drain_seconds: float, stop_seconds: float) -> bool:
    """Serve until `stop`, then go on for `drain_seconds`, listen no more, and answer what has come in, for `stop_seconds` at most.

    False when something was under way still. `sockets` is the map that the server was made with.
    """
    share.watch(sockets)

    def wake() -> None:
        stop.wait()
        with suppress(OSError):  # it noticed by itself, and is done
            share.wake()

    threading.Thread(target=wake, name="stop-waiter", daemon=True).start()
    while not stop.is_set():
        share.turn(LOOK)
    _until(share, time.monotonic() + drain_seconds, lambda: False)
    share.close()
    finished = _until(share, time.monotonic() + stop_seconds, lambda: not any(map(_is_busy, list(sockets.values()))))
    server.task_dispatcher.shutdown(timeout=LOOK if finished else 0)
    wasyncore.close_all(sockets, ignore_all=True)
    return finished


def _until(share: Share, deadline: float, done: Callable[[], bool]) -> bool:
    while not done():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        share.turn(min(left, LOOK))
    return True


def _is_busy(connection: Any) -> bool:
    """Is a request being received, carried out or answered on it?"""
    return isinstance(connection, HTTPChannel) and bool(connection.request or connection.requests or connection.total_outbufs_len)
