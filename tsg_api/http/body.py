"""The body of a request, read once and within the limit."""

import falcon

from tsg_api.http.errors import TooLarge


def read_raw(req: falcon.Request, most: int) -> bytes:
    """The body's bytes, at most `most` of them: `TooLarge` for more. Can be asked for twice."""
    if "body" not in req.context:
        if (req.content_length or 0) > most:
            raise TooLarge(f"The body is larger than {most} bytes.")
        data = req.bounded_stream.read(most + 1)
        if len(data) > most:
            raise TooLarge(f"The body is larger than {most} bytes.")
        req.context.body = data
    body: bytes = req.context.body
    return body
