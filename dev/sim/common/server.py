"""A web application on a port of this machine, in a thread: the real thing but for the process."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from waitress import wasyncore
from waitress.channel import ClientDisconnected
from waitress.server import create_server

#: Handlers sleep when a knob says so, so there must be more threads than a test holds up at once.
THREADS = 32


class Server:
    """Serves from the moment it is made, until `close()`."""

    def __init__(self, make_app: Callable[[], Any], *, host: str = "127.0.0.1", port: int = 0, threads: int = THREADS) -> None:
        """The application is made when the port is taken. Raises OSError when the address can't be bound."""
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            app = make_app()
        except BaseException:
            listener.close()
            raise
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self.sockets: dict[int, Any] = {}
        self._stopping = threading.Event()
        self._server = create_server(
            app,
            map=self.sockets,
            sockets=[listener],
            threads=threads,
            connection_limit=2000,
            ident=None,
            outbuf_overflow=64 << 20,  # a page of a thousand machines is over the default, and would go through a temporary file
            outbuf_high_watermark=64 << 20,
        )
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, name=f"server of {self.url}", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        """waitress's own `run()` has no end that another thread could ask for without a race."""
        while not self._stopping.is_set():
            wasyncore.loop(map=self.sockets, use_poll=True, count=1)

    def close(self) -> None:
        """Let the handlers finish, then close every socket. Twice is once."""
        if self._stopping.is_set():
            return
        self._server.task_dispatcher.shutdown()
        self._stopping.set()
        self._server.pull_trigger()
        self._thread.join()
        wasyncore.close_all(self.sockets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def take_socket(environ: dict[str, Any]) -> socket.socket:
    """The connection of a request, for what goes on with it when the application has answered with `cut_connection`.

    waitress closes its own descriptor then, and reads nothing meanwhile. It names its channel nowhere but by this method.
    """
    taken: socket.socket = environ["waitress.client_disconnected"].__self__.socket.dup()
    return taken


def cut_connection() -> Iterator[bytes]:
    """A body that makes waitress close the socket before a single byte of the answer is sent."""
    raise ClientDisconnected
    yield b""
