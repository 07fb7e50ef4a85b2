"""The simulator inside a test: `with Simulator() as sim: requests.get(sim.url + "/v1/status/leader")`."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from waitress import wasyncore
from waitress.server import create_server

from dev.nomad.app import create_app
from dev.nomad.cluster import Cluster
from dev.nomad.knobs import Knobs
from dev.nomad.placement import Node

#: Handlers sleep when a knob says so, so there must be more threads than a test holds up at once.
THREADS = 16


class Simulator:
    """Serves from the moment it is made, until `close()`, which ends the tasks. Knobs may be given by name; `knobs` turns them later."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        datacenter: str = "us-east-1",
        role: str | None = "automater",
        node_env: Mapping[str, str] | None = None,
        token: str | None = None,
        state: Path | None = None,
        now: Callable[[], float] = time.time,
        threads: int = THREADS,
        **knobs: Any,
    ) -> None:
        """`node_env` is what every task finds in its environment; `state` a file that keeps jobs over a restart.

        Raises KnobError, OSError when the address can't be bound, and OSError or ValueError when the state file can't be read.
        """
        self.knobs = Knobs()
        self.knobs.turn(knobs)
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            self.cluster = Cluster(Node(datacenter, role), self.knobs, node_env=node_env or {}, now=now, state=state)
        except BaseException:
            listener.close()
            raise
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._sockets: dict[int, Any] = {}
        self._stopping = threading.Event()
        self._server = create_server(create_app(self.cluster, token), map=self._sockets, sockets=[listener], threads=threads, ident=None)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, name="nomad-simulator", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        """waitress's own `run()` has no end that another thread could ask for without a race."""
        while not self._stopping.is_set():
            wasyncore.loop(map=self._sockets, use_poll=True, count=1)

    def close(self) -> None:
        """End the tasks, let the handlers finish, then close every socket. Twice is once."""
        if self._stopping.is_set():
            return
        self.cluster.close()
        self._server.task_dispatcher.shutdown()
        self._stopping.set()
        self._server.pull_trigger()
        self._thread.join()
        wasyncore.close_all(self._sockets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
