"""A connection whose last answer is a refusal."""

import socket
import struct
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from waitress.adjustments import Adjustments

from tsg_api.server.refusals import Channel


@pytest.fixture
def pair() -> Iterator[tuple[Channel, socket.socket]]:
    """A refused connection with an answer that waits to be sent, and its caller's end."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as caller:
        accepted, address = listener.accept()
        server = SimpleNamespace(active_channels={})
        channel = Channel(server, accepted, address, Adjustments(), map={}, max_body=100, signs=True)
        channel.is_refused = channel.close_when_flushed = True
        channel.outbufs[-1].append(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        channel.total_outbufs_len = 28
        yield channel, caller
        channel.handle_close()


def test_a_caller_that_reset_the_connection_is_answered_no_more(pair: tuple[Channel, socket.socket]) -> None:
    channel, caller = pair
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.close()
    channel.handle_write()
    assert not channel.connected
    assert channel.total_outbufs_len == 0


def test_a_caller_reads_the_refusal_and_then_the_end(pair: tuple[Channel, socket.socket]) -> None:
    channel, caller = pair
    channel.handle_write()
    caller.settimeout(10)
    assert caller.recv(100) == b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert caller.recv(100) == b""
    assert channel.connected, "what it still sends is thrown away"
