"""Run waitress until a signal asks it to stop, and then until the requests under way are answered."""

import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from waitress import wasyncore
from waitress.channel import HTTPChannel

from tsg_api.server.listeners import BACKLOG

#: Seconds between looks while nothing happens.
LOOK = 1.0
#: Seconds for which the request of a connection that was just accepted may be on its way.
NEW = 1.0


def run(server: Any, sockets: dict[int, Any], stop: threading.Event, *, drain_seconds: float, stop_seconds: float) -> bool:
    """Serve until `stop`, then go on for `drain_seconds`, listen no more, and answer what has come in, for `stop_seconds` at most.

    False when a request was still under way. `sockets` is the map that the server was made with.
    """
    listeners = [one for one in sockets.values() if getattr(one, "accepting", False)]

    def wake() -> None:
        stop.wait()
        with suppress(OSError):  # the loop noticed by itself, and has ended
            listeners[0].pull_trigger()

    threading.Thread(target=wake, name="stop-waiter", daemon=True).start()
    while not stop.is_set():
        _turn(sockets, LOOK)
    _until(sockets, time.monotonic() + drain_seconds, lambda: False)
    for one in listeners:
        _close(one)
    finished = _until(sockets, time.monotonic() + stop_seconds, lambda: not any(map(_is_busy, list(sockets.values()))))
    server.task_dispatcher.shutdown(timeout=LOOK if finished else 0)
    wasyncore.close_all(sockets, ignore_all=True)
    return finished


def _turn(sockets: dict[int, Any], seconds: float) -> None:
    """Handle what happens on the sockets; wait for it for `seconds` at most."""
    wasyncore.loop(timeout=seconds, use_poll=True, map=sockets, count=1)


def _until(sockets: dict[int, Any], deadline: float, done: Callable[[], bool]) -> bool:
    while not done():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        _turn(sockets, min(left, LOOK))
    return True


def _close(listener: Any) -> None:
    """Listen no more. The system resets connections that wait at a closed listener, so they are accepted first."""
    for _ in range(BACKLOG):
        if not select.select([listener.socket], [], [], 0)[0]:
            break
        listener.handle_accept()
    listener.del_channel()
    listener.socket.close()


def _is_busy(connection: Any) -> bool:
    """Is a request being received, carried out or answered on it, or about to come?"""
    if not isinstance(connection, HTTPChannel):
        return False
    is_new = time.time() - connection.creation_time < NEW
    return bool(is_new or connection.request or connection.requests or connection.total_outbufs_len)
