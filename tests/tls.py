"""A server that speaks TLS under a certificate of a private authority, and a proxy: both pass bytes on to a server of the test."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from dev.deploy import prepare

#: A name that the certificate is for besides loopback's, and that only the proxy knows.
NAME = "cloudapi.example.test"


class _Relay:
    """Takes connections on loopback, opens each in its own way, and passes bytes both ways until one side ends."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._passing: list[threading.Thread] = []
        self._is_closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _address = self._listener.accept()
                self._open.append(accepted)
                self._passing.append(threading.Thread(target=self._pass_on, args=(accepted,), daemon=True))
                self._passing[-1].start()

    def _pass_on(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError):
            near, far = self.connect(accepted)
            self._open += [near, far]
            if self._is_closed:
                return
            back = threading.Thread(target=_copy, args=(far, near), daemon=True)
            back.start()
            _copy(near, far)
            back.join()

    def connect(self, accepted: socket.socket) -> tuple[socket.socket, socket.socket]:
        """The connection as it is read from here on, and the one to the server behind."""
        raise NotImplementedError

    def close(self) -> None:
        self._is_closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        _end(self._open)
        # One that is just connecting opens more.
        for thread in self._passing:
            thread.join()
        for one in self._open:
            one.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    _end((source, target))


def _end(connections: Iterable[socket.socket]) -> None:
    for one in connections:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


class Tls(_Relay):
    """TLS in front of the server at `url`, for loopback and `NAME`. `authority` is the file that vouches for it."""

    def __init__(self, url: str, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.authority = directory / "ca.pem"
        prepare._certificate(directory / "server.pem", self.authority, NAME)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(directory / "server.pem")
        self._behind = urlsplit(url)
        super().__init__()
        self.port = int(self.address.rpartition(":")[2])
        self.url = f"https://{self.address}"

    def connect(self, accepted: socket.socket) -> tuple[socket.socket, socket.socket]:
        # The handshake comes with the first byte that is read.
        near = self._context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        return near, socket.create_connection((str(self._behind.hostname), int(self._behind.port or 0)))


class Plain(_Relay):
    """A server that speaks no TLS, and says so at once."""

    def connect(self, accepted: socket.socket) -> tuple[socket.socket, socket.socket]:
        accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        raise ConnectionAbortedError


class Proxy(_Relay):
    """A proxy for TLS (CONNECT) that finds every name where `resolve` says; `asked` are the hosts that it was asked for."""

    def __init__(self, resolve: Callable[[str], int], *, answer: str = "200 Connection established") -> None:
        self.asked: list[str] = []
        self._resolve = resolve
        self._answer = answer
        super().__init__()
        self.url = f"http://{self.address}"

    def connect(self, accepted: socket.socket) -> tuple[socket.socket, socket.socket]:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (one := accepted.recv(1)):
                raise ConnectionAbortedError
            head += one
        host = head.split()[1].decode()
        self.asked.append(host)
        accepted.sendall(f"HTTP/1.1 {self._answer}\r\n\r\n".encode())
        if not self._answer.startswith("200"):
            accepted.shutdown(socket.SHUT_RDWR)
        return accepted, socket.create_connection(("127.0.0.1", self._resolve(host)))
