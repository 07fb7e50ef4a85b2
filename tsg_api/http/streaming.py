"""Long answers, sent piece by piece: each piece is made when the one before it is nearly sent.

So neither a long list nor a slow reader takes much memory. Our server (`tsg_api.server.channel`) keeps no thread between the pieces.
"""

from collections.abc import Callable, Iterator
from itertools import chain

import falcon

from tsg_api.http.slots import Slots
from tsg_api.schema.render import JSON

#: The name in a WSGI environment of the `Pieces` that follow the first one, where the server asks for them; None until there are any.
REST = "tsg.rest"


class Pieces:
    """The pieces of a body. Their reader calls `close` at the end, or when the rest is not wanted."""

    def __init__(self, made: Iterator[bytes], close: Callable[[], None]) -> None:
        self._made = made
        self._close = close
        self._is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._made)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._close()


def answer(req: falcon.Request, resp: falcon.Response, pieces: Iterator[bytes], slots: Slots, owner: str) -> None:
    """Answer with a JSON body in pieces. `Unavailable` when the owner reads too many such answers already.

    What fails before the first piece is answered as an error. Later failures cut the connection, so that no half is taken for a whole.
    """
    resp.content_type = JSON
    if req.method == "HEAD":
        resp.stream = iter(())  # without this Falcon would answer a Content-Length of 0
        return
    slots.acquire_or_refuse(owner, "Too many long lists are read at once; try again.")
    try:
        first = next(pieces)
    except BaseException:
        slots.release(owner)
        raise
    if REST in req.env:
        resp.stream = iter([first])
        req.env[REST] = Pieces(pieces, lambda: slots.release(owner))
    else:
        resp.stream = Pieces(chain([first], pieces), lambda: slots.release(owner))
