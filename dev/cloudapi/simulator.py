"""The simulator inside a test: `with Simulator(provision_seconds=0.2) as sim: requests.get(sim.url + "/--ping")`."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from waitress import wasyncore
from waitress.server import create_server

from dev.cloudapi.app import create_app
from dev.cloudapi.cloud import Cloud
from dev.cloudapi.knobs import Knobs

#: Handlers sleep when a knob says so, so there must be more threads than a test holds up at once.
THREADS = 32


class Simulator:
    """Serves from the moment it is made, until `close()`. Knobs may be given by name; `knobs` turns them later."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        datacenter: str = "us-east-1",
        now: Callable[[], float] = time.time,
        seed: int | None = None,
        threads: int = THREADS,
        rows: Mapping[str, Any] | None = None,
        **knobs: Any,
    ) -> None:
        """`rows` are of a cloud before. Raises KnobError, OSError when the address can't be bound, and what `Cloud.load` raises."""
        self.cloud = Cloud(datacenter, now=now, seed=seed)
        self.knobs: Knobs = self.cloud.knobs
        self.knobs.turn(knobs)
        if rows:
            self.cloud.load(rows)
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._sockets: dict[int, Any] = {}
        self._stopping = threading.Event()
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._server = create_server(
            create_app(self.cloud),
            map=self._sockets,
            sockets=[listener],
            threads=threads,
            connection_limit=2000,
            ident=None,
            outbuf_overflow=64 << 20,  # a page of a thousand machines is over the default, and would go through a temporary file
            outbuf_high_watermark=64 << 20,
        )
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, name="cloudapi-simulator", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        """waitress's own `run()` has no end that another thread could ask for without a race."""
        while not self._stopping.is_set():
            wasyncore.loop(map=self._sockets, use_poll=True, count=1)

    def close(self) -> None:
        """Let the handlers finish, then close every socket. Twice is once."""
        if self.cloud.closing.is_set():
            return
        self.cloud.closing.set()
        self._server.task_dispatcher.shutdown()
        self._stopping.set()
        self._server.pull_trigger()
        self._thread.join()
        wasyncore.close_all(self._sockets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
