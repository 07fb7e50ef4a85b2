"""Run waitress until the process is told to stop, and then until what is under way is answered."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from waitress import wasyncore
from waitress.channel import HTTPChannel

#: Seconds between looks while nothing happens.
LOOK = 1.0


def run(server: Any, sockets: dict[int, Any], stop: threading.Event, *, drain_seconds: float, stop_seconds: float) -> bool:
    """Serve until `stop`, then go on for `drain_seconds`, listen no more, and answer what has come in, for `stop_seconds` at most.

    False when something was under way still. `sockets` is the map that the server was made with.
    """
    listeners = [one for one in sockets.values() if getattr(one, "accepting", False)]

    def wake() -> None:
        stop.wait()
        with suppress(OSError):  # it noticed by itself, and is done
            listeners[0].pull_trigger()

    threading.Thread(target=wake, name="stop-waiter", daemon=True).start()
    while not stop.is_set():
        _turn(sockets, LOOK)
    _until(sockets, time.monotonic() + drain_seconds, lambda: False)
    for listener in listeners:
        listener.del_channel()
        listener.socket.close()
    finished = _until(sockets, time.monotonic() + stop_seconds, lambda: not any(map(_is_busy, list(sockets.values()))))
    server.task_dispatcher.shutdown(timeout=LOOK if finished else 0)
    wasyncore.close_all(sockets, ignore_all=True)
    return finished


def _until(sockets: dict[int, Any], deadline: float, done: Callable[[], bool]) -> bool:
    while not done():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        _turn(sockets, min(left, LOOK))
    return True


def _turn(sockets: dict[int, Any], seconds: float) -> None:
    wasyncore.loop(timeout=seconds, use_poll=True, map=sockets, count=1)


def _is_busy(connection: Any) -> bool:
    """Is a request being received, carried out or answered on it?"""
    return isinstance(connection, HTTPChannel) and bool(connection.request or connection.requests or connection.total_outbufs_len)
