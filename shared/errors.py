"""What the state modules of this package refuse, named by what the caller must do.

    ServiceError
      NotFound          there is no such thing in this account
      Conflict          something else is in the way: change that first
      Refused           the request can never be carried out as it stands
        Invalid         one or more of its fields are wrong; `fields` says which
      OtherRelease      another release of this service wrote what is stored: ask one of that release

The clients of other services have trees of their own (`shared.clients.cloudapi`).
"""

from collections.abc import Sequence
from typing import NamedTuple

#: What is wrong with a field, in one word, as CloudAPI has it.
MISSING, INVALID = "Missing", "Invalid"


class FieldError(NamedTuple):
    """What is wrong with one field of a request."""

    field: str
    message: str
    code: str = INVALID


class ServiceError(Exception):
    """Something was asked that can't be done. The text is meant for the one who asked."""


class NotFound(ServiceError):
    """There is no such object in the caller's account."""


class Conflict(ServiceError):
    """Another object stands in the way."""


class Refused(ServiceError):
    """The request contradicts what is stored."""


class Invalid(Refused):
    """Fields are wrong: all of them are named at once."""

    def __init__(self, fields: Sequence[FieldError]) -> None:
        self.fields = list(fields)
        super().__init__("; ".join(dict.fromkeys(error.message for error in self.fields)))


class OtherRelease(ServiceError):
    """What is stored was written by another release of this service, and can't be read by this one."""

    def __init__(self, what: str) -> None:
        """`what`: "the settings of a group"."""
        super().__init__(f"Another release of this service wrote {what}, which this one can't read: ask the service's operator.")
