"""The simulator inside a test: `with Simulator() as sim: requests.get(sim.url + "/v1/status/leader")`."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import falcon

from dev.sim.common.server import THREADS, Server
from dev.sim.nomad.app import create_app
from dev.sim.nomad.cluster import Cluster
from dev.sim.nomad.job import Node
from dev.sim.nomad.knobs import Knobs


class Simulator(Server):
    """Serves from the moment it is made, until `close()`, which ends the tasks. Knobs may be given by name; `knobs` turns them later."""

    cluster: Cluster

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

        Raises Unwanted, OSError when the address can't be bound, and OSError or ValueError when the state file can't be read.
        """
        self.knobs = Knobs()
        self.knobs.turn(knobs)

        def make_app() -> falcon.App[falcon.Request, falcon.Response]:
            self.cluster = Cluster(Node(datacenter, role), self.knobs, node_env=node_env or {}, now=now, state=state)
            return create_app(self.cluster, token)

        super().__init__(make_app, host=host, port=port, threads=threads)

    def close(self) -> None:
        """End the tasks, let the handlers finish, then close every socket. Twice is once."""
        self.cluster.close()
        super().close()
