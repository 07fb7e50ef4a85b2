"""The simulator inside a test: `with Simulator(provision_seconds=0.2) as sim: requests.get(sim.url + "/--ping")`."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from dev.sim.cloudapi.app import create_app
from dev.sim.cloudapi.cloud import Cloud
from dev.sim.common.server import THREADS, Server


class Simulator(Server):
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
        """`rows` are of a cloud before. Raises Unwanted, OSError when the address can't be bound, and what `Cloud.load` raises."""
        self.cloud = Cloud(datacenter, now=now, seed=seed)
        self.knobs = self.cloud.knobs
        self.knobs.turn(knobs)
        if rows:
            self.cloud.load(rows)
        super().__init__(lambda: create_app(self.cloud), host=host, port=port, threads=threads)

    def close(self) -> None:
        """Wake the handlers that wait, let them finish, then close every socket. Twice is once."""
        self.cloud.closing.set()
        super().close()
        self.cloud.changefeed.close()
