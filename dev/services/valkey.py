"""Valkey, or Redis."""

import re
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from dev.processes import Account, Child
from dev.services.directories import ServiceError
from dev.services.programs import valkey_program
from dev.services.server import Server


class Address(NamedTuple):
    """Where others reach a server by TCP."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Valkey(Server):
    """A Valkey (or Redis) on `data_dir`: append-only file synced every second, nothing evicted.

    It listens on a unix socket, and at `address` where that is given, for everybody. `primary`: whose replica it is at first; later,
    what Sentinel has made of it.
    """

    name = "valkey"
    socket_name = "valkey.sock"
    farewell = signal.SIGTERM

    def __init__(
        self, data_dir: Path, *, address: Address | None = None, primary: Address | None = None, network: Path | None = None
    ) -> None:
        super().__init__(data_dir, network=network)
        self._address = address
        self._primary = primary

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}?db=0"

    def flush(self) -> None:
        """Forgets everything."""
        answer = self._ask("FLUSHALL")
        if answer != "+OK":
            raise ServiceError(f"valkey would not forget: {answer}")

    def replication(self) -> str:
        """What it says of itself: master, "slave up", "slave down"; or that it does not answer."""
        try:
            told = self._ask("INFO replication")
        except OSError as error:
            return str(error)
        found = dict(re.findall(r"^(role|master_link_status):(\w+)", told, re.MULTILINE))
        return " ".join(found.values())

    def _launch(self, account: Account | None, lock: int) -> Child:
        return self._spawn(
            [
                valkey_program(),
                self._configuration(),
                *("--unixsocket", self._socket, "--unixsocketperm", "700", "--dir", self.data_dir),
                *("--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--maxmemory-policy", "noeviction"),
                *("--daemonize", "no"),
            ],
            account,
            lock,
        )

    def _configuration(self) -> Path:
        """What Sentinel may change, in a file that the server writes anew then."""
        file = self.data_dir / "valkey.conf"
        if not file.exists():
            # A replica would have to wait 5 s, for others that may come.
            lines = ["repl-diskless-sync-delay 0"]
            lines += [f"bind {self._address.host}", f"port {self._address.port}", "protected-mode no"] if self._address else ["port 0"]
            lines += [f"replicaof {self._primary.host} {self._primary.port}"] if self._primary else []
            file.write_text("\n".join(lines) + "\n")
        return file

    def _ready(self) -> bool:
        with suppress(OSError):
            return self._ask("PING") == "+PONG"  # while it loads its data: -LOADING
        return False

    def _ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self._socket))
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(4096).decode().strip()

    def _settle(self) -> None: ...
