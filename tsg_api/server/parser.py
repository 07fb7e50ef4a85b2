"""What waitress takes in of one request, signed or not: it costs little memory and time until the app has it.

waitress bounds headers and bodies. It does not bound what surrounds the bytes of a body in chunks, blank lines, and requests that are sent
before others are answered; and two of its regular expressions take up to a minute for a header of 16 kB that is made for them. So a header
is put before them in a form that they read in one go.
"""

import re
from typing import Any

from waitress.parser import HTTPRequestParser, ParsingError, TransferEncodingNotImplemented
from waitress.utilities import Error

from tsg_api.http.hooks import is_hook

#: Bytes of a body that is taken from a request without an Authorization header. It is refused anyway, once it has come.
UNSIGNED_BODY = 8192
#: Bytes that may surround a body in chunks (their sizes, extensions and trailers), besides as many as the body has.
FRAMING = 16_384
#: Bytes of blank lines that may stand before a request: a client of HTTP/1.0 may send one after a body.
BLANK = 64

#: Of a header, nothing but text and tabs.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_ENCODED = b"\r\ntransfer-encoding:"
_FIRST_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [^ ]+ HTTP/1\.(?P<minor>[01])")

_UNSIGNED = "Requests must be signed: they need a Date and an Authorization header."


class Refused(Error):  # type: ignore[misc] # waitress has no types
    """Why a request is not taken in: the status, and a sentence for the caller."""

    def __init__(self, code: int, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.reason = reason


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """One request. `max_body` are the bytes that its body may have, `signs` says whether it needs a signature.

    With `refused` it is not read at all.
    """

    completed: bool

    def __init__(self, adj: Any, *, max_body: int, signs: bool, refused: Refused | None = None) -> None:
        super().__init__(adj)
        self._max_body = max_body
        self._signs = signs
        self._refused = refused

    def received(self, data: bytes) -> int:
        """Take in what belongs to this request; how many bytes did. A refused request takes them all, since the connection ends with it."""
        if self.completed:
            return 0
        try:
            self.error = self._refused
            taken = 0 if self.error else self._received(data)
        except ValueError:  # a number of thousands of digits, an address that is none
            self.error = Refused(400, "Bad Request", "The request is malformed.")
        if self.error is None:
            self.error = self._over_a_bound()
        if self.error is None:
            return taken
        self.completed = True
        self.expect_continue = False
        return len(data)

    def _received(self, data: bytes) -> int:
        if self.body_rcv is not None or self.header_plus:
            return int(super().received(data))
        rest = data.lstrip(b"\r\n")
        blank = len(data) - len(rest)
        if blank > BLANK:
            self.error = Refused(400, "Bad Request", "There are too many blank lines before the request.")
        elif rest:
            return blank + int(super().received(rest))
        else:
            self.empty = self.completed = True
        return blank

    def parse_header(self, header_plus: bytes) -> None:
        first, *lines = header_plus.split(b"\r\n")
        start = _FIRST_LINE.fullmatch(first.rstrip())
        if start is None:
            raise ParsingError("Start line is invalid")
        if _CONTROL.search(first + b"".join(lines)):
            raise ParsingError("Control characters are not allowed in a header")
        if b"\r\n " in header_plus or b"\r\n\t" in header_plus:
            raise ParsingError("A header must not go on in the next line")
        plain = [first]
        for line in lines:
            name, colon, value = line.partition(b":")
            plain.append(name + colon + value.strip(b" \t"))
        header = b"\r\n".join(plain)
        if _ENCODED in header.lower():
            _check_framing(plain[1:], is_old=start["minor"] == b"0")
        super().parse_header(header)
        if self.body_rcv is None:
            # There is nothing to wait for. waitress would go on with this request, and add the next one's headers to it.
            self.expect_continue = False

    def _over_a_bound(self) -> Refused | None:
        if self.body_rcv is None:
            return None
        held = len(self.body_rcv)
        size = max(self.content_length, held)
        if size > self._max_body:
            return Refused(413, "Request Entity Too Large", f"The body is larger than {self._max_body} bytes.")
        if size > UNSIGNED_BODY and self._signs and "AUTHORIZATION" not in self.headers and not is_hook(self.path):
            return Refused(401, "Unauthorized", _UNSIGNED)
        if self.chunked and self.body_bytes_received > 2 * held + FRAMING:
            return Refused(400, "Bad Request", "The chunks of the body have more around them than in them.")
        return None


def _check_framing(headers: list[bytes], *, is_old: bool) -> None:
    """Where a body with an encoding ends must be beyond doubt: a proxy may read it otherwise, and take a body for a request.

    RFC 9112, sections 6.1 to 6.3. waitress passes over an encoding of HTTP/1.0, an empty one, one given twice, and a length beside it.
    """
    named = [(name, value) for name, _, value in (header.lower().partition(b":") for header in headers)]
    if [value for name, value in named if name == b"transfer-encoding"] != [b"chunked"]:
        raise TransferEncodingNotImplemented("Transfer-Encoding requested is not supported.")
    if is_old or any(name == b"content-length" for name, _ in named):
        raise ParsingError("Transfer-Encoding goes with HTTP/1.1, and without a Content-Length")
