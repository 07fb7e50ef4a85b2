"""Requests that are answered later (`tsg_api.http.waiting`): their connections wait, and their threads are free."""

import socket
from typing import Any

from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from tsg_api.http.waiting import Parked


class _Task(WSGITask):  # type: ignore[misc] # waitress has no types
    """One run of a request. The next one has the same environment."""

    def get_environment(self) -> Any:
        if not hasattr(self.request, "environ"):
            self.request.environ = super().get_environment()
        return self.request.environ


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection whose request may be parked: it stays the first of its connection, so that nothing else is read meanwhile."""

    task_class = _Task

    def service(self) -> None:
        try:
            super().service()
        except Parked as parked:
            parked.begin(self._run_again, self._has_hung_up)

    def _run_again(self) -> None:
        self.server.add_task(self)

    def _has_hung_up(self) -> bool:
        """Has the caller closed its end? waitress reads nothing from a connection whose request is under way."""
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"")
        except BlockingIOError:
            return False
        except OSError:
            return True
