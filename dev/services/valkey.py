"""Valkey, or Redis."""

import signal
import socket
from contextlib import suppress
from urllib.parse import quote

from dev.processes import Account, Child
from dev.services.directories import ServiceError
from dev.services.programs import valkey_program
from dev.services.server import Server


class Valkey(Server):
    """A Valkey (or Redis) on `data_dir`: append-only file synced every second, nothing evicted, a unix socket only."""

    name = "valkey"
    socket_name = "valkey.sock"
    farewell = signal.SIGTERM

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}?db=0"

    def flush(self) -> None:
        """Forgets everything."""
        answer = self._ask("FLUSHALL")
        if answer != "+OK":
            raise ServiceError(f"valkey would not forget: {answer}")

    def _launch(self, account: Account | None, lock: int) -> Child:
        return Child(
            [
                valkey_program(),
                *("--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700", "--dir", self.data_dir),
                *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"),
                *("--daemonize", "no"),
            ],
            log=self.log,
            account=account,
            keep=[lock],
            orphaned=self.farewell,
        )

    def _ready(self) -> bool:
        with suppress(OSError):
            return self._ask("PING") == "+PONG"  # while it loads its data: -LOADING
        return False

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self._socket))
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(1024).decode().strip()

    def _settle(self) -> None: ...
