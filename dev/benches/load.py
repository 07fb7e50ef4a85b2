"""Requests as fast as they are answered: several connections to a process, each with one request under way.

Nothing but sockets and bytes made beforehand: the program that measures shares its cores with the one that is measured.
"""

import itertools
import multiprocessing
import selectors
import socket
import time
from array import array
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from dev.percentile import percentile

#: Seconds after which a server that does not answer ends the run.
PATIENCE = 30.0


class Load(NamedTuple):
    """What one process sends, over connections to each port in turn. `requests` are whole ones, sent over and over, or each `once`."""

    host: str
    ports: Sequence[int]
    requests: Sequence[bytes]
    connections: int
    seconds: float
    once: bool = False


class Answers(NamedTuple):
    """What came back: seconds each answer took, how many were no success, and seconds the whole took."""

    latencies: Sequence[float]
    wrong: int
    seconds: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds within which this share of the answers came."""
        return percentile(self.latencies, share) * 1000


class Senders:
    """Processes that send, kept for many runs."""

    def __init__(self, processes: int = 2) -> None:
        self._count = processes
        self._pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))

    def send(self, load: Load) -> Answers:
        """Send from as many processes as there are, or fewer when there are fewer connections."""
        count = min(self._count, load.connections)
        parts = [
            load._replace(
                # An odd connection of one sender goes to another port than that of the next.
                ports=[*load.ports[number % len(load.ports) :], *load.ports[: number % len(load.ports)]],
                connections=load.connections // count + (number < load.connections % count),
                requests=load.requests[number::count] if load.once else load.requests,
            )
            for number in range(count)
        ]
        answers = list(self._pool.map(send, parts))
        together = array("d", itertools.chain.from_iterable(part.latencies for part in answers))
        return Answers(together, sum(part.wrong for part in answers), max(part.seconds for part in answers))

    def close(self) -> None:
        self._pool.shutdown()


def send(load: Load) -> Answers:
    """One process's part."""
    return _Sender(load).run()


class _Sender:
    def __init__(self, load: Load) -> None:
        self._requests = iter(load.requests) if load.once else itertools.cycle(load.requests)
        self._selector = selectors.DefaultSelector()
        self._latencies = array("d")
        self._wrong = 0
        self._sent_at: dict[socket.socket, float] = {}
        self._pending: dict[socket.socket, bytes] = {}
        for _, port in zip(range(load.connections), itertools.cycle(load.ports)):
            connection = socket.create_connection((load.host, port), timeout=PATIENCE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(connection, selectors.EVENT_READ)
            self._sent_at[connection] = 0.0
        self._began = time.perf_counter()
        self._until = self._began + load.seconds

    def run(self) -> Answers:
        for connection in list(self._sent_at):
            self._send(connection, time.perf_counter())
        while self._sent_at:
            ready = self._selector.select(PATIENCE)
            if not ready:
                raise TimeoutError("the server does not answer")
            for key, _ in ready:
                self._receive(key.fileobj)
        return Answers(self._latencies, self._wrong, time.perf_counter() - self._began)

    def _send(self, connection: socket.socket, now: float) -> None:
        request = next(self._requests, None) if now < self._until else None
        if request is None:
            self._selector.unregister(connection)
            connection.close()
            del self._sent_at[connection]
        else:
            self._sent_at[connection] = now
            connection.sendall(request)

    def _receive(self, connection: socket.socket) -> None:
        data = connection.recv(262_144)
        if not data:
            raise ConnectionError("the server closed a connection")
        if connection in self._pending:
            data = self._pending.pop(connection) + data
        if not _is_whole(data):
            self._pending[connection] = data
            return
        now = time.perf_counter()
        self._latencies.append(now - self._sent_at[connection])
        self._wrong += data[9:10] != b"2"
        self._send(connection, now)


def _is_whole(answer: bytes) -> bool:
    """Is this a whole answer, to the length its header says? Answers in chunks end their connection, and are not for this bench."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    at = answer.find(b"Content-Length: ", 0, end)
    length = int(answer[at + 16 : answer.index(b"\r", at)]) if at > 0 else 0
    return len(answer) >= end + 4 + length
