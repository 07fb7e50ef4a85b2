"""A connection whose request may be answered later, or piece by piece, and keeps no thread meanwhile.

Later: `tsg_api.http.waiting`. Piece by piece: `tsg_api.http.streaming`. waitress runs a request in one go, and has its thread wait for a
caller that reads slowly. Here a thread leaves a request that has nothing to do now, and a thread comes back to it.
"""

import socket
import time
from typing import Any

from waitress.channel import HTTPChannel
from waitress.task import WSGITask

from tsg_api.http.streaming import REST
from tsg_api.http.waiting import Parked

#: Bytes that are still to be sent when the next piece is made.
LOW = 65_536
#: Seconds for which a caller may read nothing of a long answer.
STALL_SECONDS = 30.0


class _Interrupted(BaseException):
    """A piece of the answer was written, and there is more. waitress answers every `Exception`, and lets this one pass."""


class _Task(WSGITask):  # type: ignore[misc] # waitress has no types
    """A request. It may be run several times: it goes on where it was left, with the same environment."""

    environ: dict[str, Any] | None

    def get_environment(self) -> Any:
        if self.environ is None:
            self.environ = {**super().get_environment(), REST: None}
        return self.environ

    def execute(self) -> None:
        if not self.wrote_header:
            super().execute()
        elif (piece := next(self._rest, None)) is not None:
            self.write(piece)
        else:
            return
        if self._rest is not None:
            # A buffer of waitress's forgets nothing that was sent: the next piece begins another one.
            self.channel.current_outbuf_count = self.channel.adj.outbuf_high_watermark
            raise _Interrupted

    def end(self) -> None:
        """Nothing more is sent, whether it was all or not."""
        if self._rest is not None:
            self._rest.close()

    @property
    def _rest(self) -> Any:
        """The pieces that follow, None for an answer in one."""
        return self.environ and self.environ[REST]


def _task_of(channel: Any, request: Any) -> _Task:
    if not hasattr(request, "task"):
        request.task = _Task(channel, request)
    found: _Task = request.task
    return found


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection. A request that was left stays its first one, so that nothing else is read from it meanwhile."""

    task_class = staticmethod(_task_of)
    #: A piece was written, and the next one is made when most of it is sent.
    _is_streaming = False

    def service(self) -> None:
        request = self.requests[0]
        try:
            super().service()
        except Parked as parked:
            parked.begin(self._run_again, self._has_hung_up)
            return
        except _Interrupted:
            self._is_streaming = True
            if self.total_outbufs_len <= LOW:
                self._go_on()
            else:
                self.server.pull_trigger()
            return
        if (task := vars(request).pop("task", None)) is not None:
            task.end()

    def readable(self) -> Any:
        # Asked before each wait for the sockets, once a second at least.
        if (self._is_streaming or self.total_outbufs_len > LOW) and time.time() - self.last_activity > STALL_SECONDS:
            self.handle_close()
            return False
        return super().readable()

    def handle_write(self) -> None:
        super().handle_write()
        if self._is_streaming and self.total_outbufs_len <= LOW:
            self._go_on()

    def handle_close(self) -> None:
        super().handle_close()
        # Its thread notices that the caller has gone.
        self._go_on()

    def _go_on(self) -> None:
        with self.outbuf_lock:
            was_streaming, self._is_streaming = self._is_streaming, False
        if was_streaming:
            self._run_again()

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
