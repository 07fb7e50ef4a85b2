"""Who takes a connection in, of processes that listen on one socket."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from waitress import wasyncore
from waitress.server import create_server

from tsg_api.server import processes, share
from tsg_api.server.share import Share


class Process:
    """What one of the processes does, turn by turn."""

    def __init__(self, listener: socket.socket, its_share: Share) -> None:
        self.sockets: dict[int, Any] = {}
        self.server = create_server(lambda _environ, _start: [], map=self.sockets, sockets=[listener.dup()], threads=1)
        self.share = its_share
        self.share.watch(self.sockets)
        self.before = len(self.sockets)

    def turn(self) -> int:
        """The connections it has after one."""
        self.share.turn(0)
        return len(self.sockets) - self.before


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    (listener,) = processes.listen("127.0.0.1", 0)
    with listener:
        yield listener


@pytest.fixture
def two(listener: socket.socket) -> Iterator[list[Process]]:
    both = [Process(listener, its_share) for its_share in share.shares(2)]
    yield both
    for one in both:
        one.server.task_dispatcher.shutdown()
        wasyncore.close_all(one.sockets)


@pytest.fixture
def connect(listener: socket.socket) -> Iterator[Any]:
    made: list[socket.socket] = []
    yield lambda: made.append(socket.create_connection(listener.getsockname()))
    for one in made:
        one.close()


def test_a_connection_is_left_to_the_process_that_has_fewer(two: list[Process], connect: Any) -> None:
    one, other = two
    assert (one.turn(), other.turn()) == (0, 0)
    connect()
    assert one.turn() == 1
    connect()
    assert one.turn() == 1
    assert other.turn() == 1
    connect()
    assert other.turn() == 2


def test_a_process_that_hangs_keeps_nobody_waiting(two: list[Process], connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(share, "PATIENCE", 0.0)
    one, hanging = two
    hanging.turn()
    for number in (1, 2, 3):
        connect()
        while one.turn() < number:
            pass


def test_to_a_process_that_is_gone_nothing_is_left(two: list[Process], connect: Any) -> None:
    one, other = two
    assert (one.turn(), other.turn()) == (0, 0)
    other.share.close()
    for number in (1, 2, 3):
        connect()
        assert one.turn() == number
