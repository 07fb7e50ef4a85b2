"""What was raised, worded for the wire."""

import math
from collections.abc import Callable
from typing import Any

import falcon
import sqlalchemy.exc

from shared import log
from shared.clients.cloudapi import CloudAPIError
from shared.errors import Conflict, Invalid, NotFound, OtherRelease, Refused
from shared.store import db
from tsg_api.schema import render
from tsg_api.schema.parse import Unreadable

_log = log.get(__name__)

#: Seconds after which to try again what failed for want of a database or CloudAPI.
RETRY_AFTER = 5

_MAYBE = (
    "The database went away while the change was being stored: nobody knows whether it was."
    " Send it again if it had an Idempotency-Key; look first, if not."
)


class Unauthenticated(Exception):
    """401: the request does not prove who sent it."""


class NotAuthorized(Exception):
    """403: it is known who sent the request, and that they may not."""


class Unavailable(Exception):
    """503: something that the request needs is away."""


class TooMany(Exception):
    """429: more than the caller may ask. `after` seconds it may ask again."""

    def __init__(self, message: str, *, after: float = 1.0) -> None:
        super().__init__(message)
        self.after = after


class PreconditionFailed(Exception):
    """412: the object is not the one that the caller means."""


class TooLarge(Exception):
    """413: the body is over the limit."""


class UnsupportedEncoding(Exception):
    """415: the body has a Content-Encoding."""


#: Of what Falcon refuses without a word.
_WORDS = {
    404: "There is nothing here; /v1/tsg/openapi.json has all there is.",
    405: "This method is not served here; Allow has those that are.",
}

Params = dict[str, Any]
Handler = Callable[[falcon.Request, falcon.Response, Exception, Params], None]

_CODES = {
    400: "BadRequest",
    401: "InvalidCredentials",
    403: "NotAuthorized",
    404: "ResourceNotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    412: "PreconditionFailed",
    413: "PayloadTooLarge",
    415: "UnsupportedMediaType",
    422: "InvalidArgument",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


def code_of(status: int) -> str:
    """The contract's word for a status."""
    return _CODES.get(status, "BadRequest" if status < 500 else "InternalError")


def install(app: falcon.App[falcon.Request, falcon.Response]) -> None:
    """Have the app answer every error in the contract's form."""
    app.add_error_handler(Exception, _unexpected)
    app.add_error_handler(falcon.HTTPError, _http)
    for kind, status in {
        NotFound: falcon.HTTP_404,
        Conflict: falcon.HTTP_409,
        Refused: falcon.HTTP_400,
        NotAuthorized: falcon.HTTP_403,
        PreconditionFailed: falcon.HTTP_412,
        TooLarge: falcon.HTTP_413,
    }.items():
        app.add_error_handler(kind, _plain(status))
    app.add_error_handler(Invalid, _invalid)
    app.add_error_handler(Unauthenticated, _unauthenticated)
    app.add_error_handler(TooMany, _too_many)
    app.add_error_handler(UnsupportedEncoding, _unsupported_encoding)
    for away in (Unavailable, CloudAPIError, OtherRelease):
        app.add_error_handler(away, _unavailable)
    for failed in (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError):
        app.add_error_handler(failed, _database)


def _plain(status: str) -> Handler:
    code = _CODES[int(status[:3])]

    def handle(_req: falcon.Request, resp: falcon.Response, ex: Exception, _params: Params) -> None:
        render.error(resp, status, code, str(ex))

    return handle


def _invalid(_req: falcon.Request, resp: falcon.Response, ex: Invalid, _params: Params) -> None:
    code = "InvalidContent" if isinstance(ex, Unreadable) else "InvalidArgument"
    render.error(resp, falcon.HTTP_422, code, str(ex), ex.fields)


def _unauthenticated(_req: falcon.Request, resp: falcon.Response, ex: Exception, _params: Params) -> None:
    resp.set_header("WWW-Authenticate", "Signature")
    render.error(resp, falcon.HTTP_401, "InvalidCredentials", str(ex))


def _unsupported_encoding(_req: falcon.Request, resp: falcon.Response, ex: Exception, _params: Params) -> None:
    resp.set_header("Accept-Encoding", "identity")  # RFC 9110, section 12.5.3: what would be taken
    render.error(resp, falcon.HTTP_415, "UnsupportedMediaType", str(ex))


def _too_many(_req: falcon.Request, resp: falcon.Response, ex: TooMany, _params: Params) -> None:
    resp.set_header("Retry-After", str(math.ceil(ex.after)))
    render.error(resp, falcon.HTTP_429, "TooManyRequests", str(ex))


def _unavailable(_req: falcon.Request, resp: falcon.Response, ex: Exception, _params: Params) -> None:
    _log.warning("unavailable", error=str(ex))
    resp.set_header("Retry-After", str(RETRY_AFTER))
    render.error(resp, falcon.HTTP_503, "ServiceUnavailable", str(ex))


def _database(req: falcon.Request, resp: falcon.Response, ex: Exception, params: Params) -> None:
    if not db.is_unavailable(ex):
        _unexpected(req, resp, ex, params)
        return
    _log.error("database_unavailable", error=str(ex))
    resp.set_header("Retry-After", str(RETRY_AFTER))
    text = _MAYBE if isinstance(ex, db.AnswerLost) else "The database can't be reached now; nothing was changed."
    render.error(resp, falcon.HTTP_503, "ServiceUnavailable", text)


def _http(_req: falcon.Request, resp: falcon.Response, ex: falcon.HTTPError, _params: Params) -> None:
    """What Falcon itself refuses: unknown paths, wrong methods, broken requests."""
    status = falcon.code_to_http_status(ex.status_code)
    if ex.headers:
        resp.set_headers(ex.headers)
    render.error(resp, status, code_of(ex.status_code), ex.description or _WORDS.get(ex.status_code) or f"{ex.title}.")


def _unexpected(_req: falcon.Request, resp: falcon.Response, ex: Exception, _params: Params) -> None:
    _log.error("request_failed", exc_info=ex)
    render.error(resp, falcon.HTTP_500, "InternalError", "The service failed on this request; its log has the X-Request-Id.")
