"""The status of an HTTP/1 answer, from its first bytes: all that is read where a stranger answers, who may send anything for ever."""

import re

#: Bytes in which the status must have come, after any informational responses (RFC 9110, 15.2).
MOST_BYTES = 16 << 10

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9]\d\d)(?: [^\r\n]*)?\r?\n")
_BEGINNING = b"HTTP/1."
_SWITCHED = 101


def status_of(got: bytes) -> int | None:
    """The status that a server has sent, past the informational ones; None while it has not come.

    `ValueError` when this is not HTTP/1, or the status should have come by now.
    """
    most = len(got) > MOST_BYTES
    while found := _STATUS_LINE.match(got):
        status = int(found[1])
        if status >= 200 or status == _SWITCHED:
            return status
        _, end, got = got.partition(b"\r\n\r\n")
        if not end:
            break
    else:
        if b"\n" in got or got[: len(_BEGINNING)] != _BEGINNING[: len(got)]:
            raise ValueError("the answer is not HTTP/1")
    if most:
        raise ValueError(f"no status in {MOST_BYTES} bytes")
    return None
