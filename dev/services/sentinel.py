"""Sentinel: watches a Valkey and its replicas, and makes one of them the primary when the primary is away."""

import signal
import socket
from contextlib import suppress
from pathlib import Path

from dev.processes import Account, Child
from dev.services.programs import valkey_program
from dev.services.server import Server
from dev.services.valkey import Address

#: The name under which the primary is watched.
NAME = "main"


class Sentinel(Server):
    """One of those that watch `primary`: `quorum` of them must miss it for `patience_ms` before it is replaced."""

    name = "sentinel"
    socket_name = "sentinel.sock"
    farewell = signal.SIGTERM

    def __init__(
        self,
        data_dir: Path,
        address: Address,
        *,
        primary: Address,
        quorum: int = 1,
        patience_ms: int = 1000,
        network: Path | None = None,
    ) -> None:
        super().__init__(data_dir, network=network)
        self._address = address
        self._primary = primary
        self._quorum = quorum
        self._patience_ms = patience_ms

    def _launch(self, account: Account | None, lock: int) -> Child:
        return self._spawn([valkey_program(), self._configuration(), "--sentinel"], account, lock)

    def _configuration(self) -> Path:
        """It keeps what it knows in this file."""
        file = self.data_dir / "sentinel.conf"
        if not file.exists():
            file.write_text(
                f"bind {self._address.host}\nport {self._address.port}\ndir {self.data_dir}\nprotected-mode no\n"
                f"sentinel monitor {NAME} {self._primary.host} {self._primary.port} {self._quorum}\n"
                f"sentinel down-after-milliseconds {NAME} {self._patience_ms}\n"
                f"sentinel failover-timeout {NAME} {10 * self._patience_ms}\n"
            )
        return file

    def _ready(self) -> bool:
        with suppress(OSError), socket.create_connection(self._address, timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(100).startswith(b"+PONG")
        return False

    def _settle(self) -> None: ...
