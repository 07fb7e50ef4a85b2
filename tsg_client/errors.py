"""What can go wrong, by what the caller must do about it."""

from collections.abc import Sequence
from typing import NamedTuple


class FieldProblem(NamedTuple):
    """What is wrong with one field of a request."""

    field: str
    code: str
    message: str


class TsgError(Exception):
    """Any of them. `code` is the service's word for it, or this library's; `request_id` is in the service's log."""

    code = "Error"

    def __init__(self, message: str, *, code: str | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        if code:
            self.code = code
        self.request_id = request_id


class Misconfigured(TsgError):
    """Correct the profile, the environment or the options: no request was sent."""

    code = "Config"


class NoKey(TsgError):
    """Provide the key that the profile names: it is nowhere, or can't be read. No request was sent."""

    code = "Signing"


class TryLater(TsgError):
    """Send it again later: the service, or what it needs, can't be reached, or asks to wait. It was repeated already."""

    code = "Unreachable"

    def __init__(self, message: str, *, retry_after: float | None = None, code: str | None = None, request_id: str | None = None) -> None:
        super().__init__(message, code=code, request_id=request_id)
        #: Seconds, where the service says so.
        self.retry_after = retry_after


class Unauthenticated(TsgError):
    """Sign with a key of the account, by a correct clock (401)."""


class Forbidden(TsgError):
    """Ask the operator to enable the account, or the account's owner for the right (403)."""


class NotFound(TsgError):
    """Look for the right name or id: the account has no such object (404)."""

    code = "ResourceNotFound"


class Conflict(TsgError):
    """Remove what is in the way: another object contradicts the request (400, 409)."""


class Changed(TsgError):
    """Read the object again: it is not the one that was read (412)."""


class Invalid(TsgError):
    """Correct the request (413, 415, 422). `fields` says which of its fields, all at once."""

    def __init__(
        self, message: str, *, fields: Sequence[FieldProblem] = (), code: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message, code=code, request_id=request_id)
        self.fields = tuple(fields)


class ServiceFailed(TsgError):
    """Give the operator the `request_id`: the service has a fault, or it is not this service that answers."""

    code = "InternalError"


class NotSettled(TsgError):
    """Read the message: the group needs a change, or more time."""

    code = "Timeout"
