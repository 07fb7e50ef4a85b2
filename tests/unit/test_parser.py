"""What the server takes in of one request, counted in bytes: whatever is sent, and without end."""

import time
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import Any

import pytest
from waitress.adjustments import Adjustments

from tsg_api.server.parser import BLANK, FRAMING, UNSIGNED_BODY, Parser

#: Bytes that waitress reads at once.
PIECE = 8192
MAX_BODY = 100_000

HEAD = b"POST /v1/tsg/groups HTTP/1.1\r\nHost: tsg\r\n"
SIGNED = HEAD + b'Authorization: Signature keyId="/demo/keys/x"\r\n'
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def parser(*, signs: bool = True) -> Any:
    adj = Adjustments(max_request_header_size=16_384, max_request_body_size=1 << 62, inbuf_overflow=1 << 62)
    return Parser(adj, max_body=MAX_BODY, signs=signs)


def pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, as many at a time as waitress reads."""
    held = b""
    for part in parts:
        held += part
        while len(held) >= PIECE:
            yield held[:PIECE]
            held = held[PIECE:]
    if held:
        yield held


def feed(one: Any, *parts: bytes, then: Iterable[bytes] = ()) -> int:
    """Send parts, and what comes then, until the request is complete or refused; the bytes that were taken in."""
    taken = 0
    for piece in pieces(chain(parts, then)):
        while piece and not one.completed:
            count = one.received(piece)
            taken += count
            piece = piece[count:]  # noqa: PLW2901 - the rest of it
        if one.completed:
            return taken
    return taken


ENDLESS = {
    "a chunk's extension": (SIGNED + CHUNKED + b"5;", b"a" * 1000, 400),
    "a chunk's size": (SIGNED + CHUNKED, b"0" * 1000, 400),
    "one-byte chunks": (SIGNED + CHUNKED, b"1\r\nx\r\n", 400),
    "one-byte chunks with extensions": (SIGNED + CHUNKED, b"1;a=b\r\nx\r\n", 400),
    "empty lines for chunks": (SIGNED + CHUNKED, b"\r\n", 400),
    "trailers": (SIGNED + CHUNKED + b"1\r\nx\r\n0\r\n", b"x: y\r\n", 400),
    "one trailer": (SIGNED + CHUNKED + b"1\r\nx\r\n0\r\nx: ", b"y" * 1000, 400),
    "blank lines": (b"", b"\r\n", 400),
    "blank lines of other systems": (b"", b"\n", 400),
    "a first line": (b"GET /", b"x" * 1000, 431),
    "a header": (HEAD + b"X: ", b"x" * 1000, 431),
    "headers": (HEAD, b"a: b\r\n", 431),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_is_refused_before_much_of_it_is_taken_in(what: str) -> None:
    begin, more, status = ENDLESS[what]
    one = parser()
    # One-byte chunks may have as many bytes around them as the bound and as in them: one in six is in them.
    assert feed(one, begin, then=repeat(more)) <= len(begin) + 2 * FRAMING + PIECE
    assert one.error.code == status


@pytest.mark.parametrize("head", [HEAD, SIGNED])
def test_of_a_body_over_the_limit_nothing_is_stored_if_it_says_its_length(head: bytes) -> None:
    one = parser()
    taken = feed(one, head + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1), then=repeat(b"x" * 1000))
    assert one.error.code == 413
    assert taken <= PIECE
    assert len(one.body_rcv) == 0


def test_a_body_in_chunks_over_the_limit_is_stored_no_further() -> None:
    one = parser()
    feed(one, SIGNED + CHUNKED, then=repeat(b"3e8\r\n" + b"x" * 1000 + b"\r\n"))
    assert one.error.code == 413
    assert len(one.body_rcv) <= MAX_BODY + PIECE


def test_an_unsigned_body_is_not_stored_beyond_a_small_one() -> None:
    said, unsaid = parser(), parser()
    feed(said, HEAD + b"Content-Length: %d\r\n\r\n" % (UNSIGNED_BODY + 1), then=repeat(b"x" * 1000))
    assert (said.error.code, len(said.body_rcv)) == (401, 0)
    feed(unsaid, HEAD + CHUNKED, then=repeat(b"3e8\r\n" + b"x" * 1000 + b"\r\n"))
    assert unsaid.error.code == 401
    assert len(unsaid.body_rcv) <= UNSIGNED_BODY + PIECE
    for small in (b"Content-Length: %d\r\n\r\n%s" % (UNSIGNED_BODY, b"x" * UNSIGNED_BODY), CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"):
        one = parser()
        feed(one, HEAD + small)
        assert (one.completed, one.error) == (True, None), "it is refused by the app, in its own words"


def test_where_nobody_signs_any_body_is_taken_up_to_the_limit() -> None:
    one = parser(signs=False)
    feed(one, HEAD + b"Content-Length: %d\r\n\r\n" % MAX_BODY, b"x" * MAX_BODY)
    assert (one.completed, one.error, len(one.body_rcv)) == (True, None, MAX_BODY)


@pytest.mark.parametrize("size", [8, 100, 4096, MAX_BODY])
def test_a_body_at_the_limit_may_come_in_chunks_of_any_sensible_size(size: int) -> None:
    body = b"0123456789" * (MAX_BODY // 10)
    chunks = [b"%x\r\n%s\r\n" % (len(part), part) for part in (body[at : at + size] for at in range(0, MAX_BODY, size))]
    one = parser()
    feed(one, SIGNED + CHUNKED, *chunks, b"0\r\nTrailer: yes\r\n\r\n")
    assert (one.completed, one.error) == (True, None)
    assert one.get_body_stream().read() == body
    assert one.headers["CONTENT_LENGTH"] == str(MAX_BODY)


def test_a_blank_line_after_the_body_before_is_no_request_and_no_fault() -> None:
    one = parser()
    assert feed(one, b"\r\n" + HEAD + b"\r\n") == len(HEAD) + 4
    assert (one.completed, one.error, one.empty, one.path) == (True, None, False, "/v1/tsg/groups")
    alone = parser()
    assert feed(alone, b"\r\n" * (BLANK // 2)) == BLANK
    assert (alone.completed, alone.error, alone.empty) == (True, None, True)


def test_a_request_that_is_refused_is_not_told_to_go_on() -> None:
    expects = b"Expect: 100-continue\r\nContent-Length: "
    for length in (b"%d" % (MAX_BODY + 1), b"-5", b"9" * 5000):
        one = parser()
        feed(one, SIGNED + expects + length + b"\r\n\r\n")
        assert one.error.code in {400, 413}
        assert not one.expect_continue
    welcome = parser()
    feed(welcome, SIGNED + expects + b"5\r\n\r\n")
    assert welcome.expect_continue


def test_a_request_without_a_body_has_nothing_to_go_on_with() -> None:
    """waitress would say 100 Continue, and read the next request of the connection into this one."""
    one = parser()
    feed(one, HEAD + b"Expect: 100-continue\r\n\r\n")
    assert one.completed
    assert not one.expect_continue


#: Heads that others may read as the beginning of another body than we would: what came after it would be a request of somebody else's.
DOUBTFUL = {
    "two ends": (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked", 400),
    "two ends, the other way round": (b"POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\nCONTENT-LENGTH: 5", 400),
    "an encoding of HTTP/1.0": (b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked", 400),
    "chunks in chunks": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked", 501),
    "an encoding twice": (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 501),
    "an encoding after nothing": (b"POST / HTTP/1.1\r\nTransfer-Encoding: ,chunked", 501),
    "an encoding without a name": (b"POST / HTTP/1.1\r\nTransfer-Encoding:\r\nContent-Length: 2", 501),
    "the identity": (b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\nContent-Length: 2", 501),
    "another encoding": (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked", 501),
    "two lengths": (b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2", 400),
    "a version to come": (b"POST / HTTP/1.2\r\nTransfer-Encoding: chunked", 400),
    "HTTP/2": (b"PRI * HTTP/2.0", 400),
    "HTTP/0.9": (b"GET /", 400),
}


@pytest.mark.parametrize("what", DOUBTFUL)
def test_a_request_whose_end_others_may_see_elsewhere_is_refused(what: str) -> None:
    head, status = DOUBTFUL[what]
    one = parser()
    feed(one, head + b"\r\n\r\n")
    assert one.completed
    assert one.error.code == status


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://[ HTTP/1.1\r\nHost: tsg",
        b"GET / HTTP/1.1\r\nHost: tsg\r\nContent-Length: " + b"1" * 5000,
        b"GET / HTTP/1.1\r\nX: a\r\n folded",
        b"GET / HTTP/1.1\r\nX: a\x01b",
        b"GET / HTTP/1.1\r\nX: a\nY: b",
        b"GET / HTTP/1.1\r\n X: a",
        b"GET /\x7f HTTP/1.1\r\nX: a",
        b"GET / / HTTP/1.1",
        b"GET / HTTP/11",
        b"GET",
    ],
)
def test_a_malformed_head_is_400(head: bytes) -> None:
    one = parser()
    feed(one, head + b"\r\n\r\n")
    assert one.error.code == 400


def test_a_header_is_read_as_it_was() -> None:
    one = parser()
    feed(one, b"GET /a%20b?c=d HTTP/1.1\r\nHost:tsg \r\nX-Many:  a \t b  \r\nX-Many: c\r\nX-Empty:\r\nX-Latin: \xe9:\r\n\r\n")
    assert one.error is None
    assert one.headers == {"HOST": "tsg", "X_MANY": "a \t b, c", "X_EMPTY": "", "X_LATIN": "\xe9:"}
    assert (one.command, one.path, one.query, one.version) == ("GET", "/a b", "c=d", "1.1")


#: Made for regular expressions that go back and forth: read by waitress as they are, each takes seconds to a minute.
SLOW = {
    "digits for a port": b"GET a://" + b"1" * 15_000 + b" !",
    "digits for a port, and a version that is none": b"GET a://" + b"1" * 15_000 + b" HTTP/9x",
    "spaces before a control character": b"GET / HTTP/1.1\r\nX:" + b" " * 15_000 + b"\x01",
    "spaces before a value": b"GET / HTTP/1.1\r\nX:" + b" " * 15_000 + b"x",
    "tabs around a value": b"GET / HTTP/1.1\r\nX:" + b"\t" * 7_000 + b"x" + b"\t" * 7_000 + b"\x7f",
    "spaces between words": b"GET / HTTP/1.1\r\nX:" + b" x" * 7_000 + b"\x00",
    "one header over and over": b"GET / HTTP/1.1" + b"\r\na:" * 3_500,
    "a header in many lines": b"GET / HTTP/1.1\r\na:" + b"\r\n b" * 3_500,
}


@pytest.mark.parametrize("what", SLOW)
def test_no_header_takes_long(what: str) -> None:
    one = parser()
    began = time.process_time()
    feed(one, SLOW[what] + b"\r\n\r\n")
    assert one.completed
    assert time.process_time() - began < 1
