"""What a field of an admin route may be."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Unwanted(ValueError):
    """A field that doesn't exist, one that is missing, or a value it can't take; the message names the field."""


@dataclass(frozen=True)
class Wanted:
    """`text` completes the refusal: "capacity must be …"."""

    text: str
    accepts: Callable[[Any], bool]

    def or_null(self) -> "Wanted":
        return Wanted(f"{self.text}, or null", lambda value: value is None or self.accepts(value))

    def in_array(self, text: str) -> "Wanted":
        return Wanted(text, lambda value: isinstance(value, list) and all(map(self.accepts, value)))

    def in_object(self, text: str) -> "Wanted":
        return Wanted(text, lambda value: isinstance(value, dict) and all(map(self.accepts, value.values())))


def check(fields: Mapping[str, Any], wanted: Mapping[str, Wanted], *, what: str = "field here") -> None:
    """Every field is known and may be what it is. Raises Unwanted."""
    for name, value in fields.items():
        if name not in wanted:
            raise Unwanted(f"{name} is not a {what}; there are: {', '.join(sorted(wanted))}")
        if not wanted[name].accepts(value):
            raise Unwanted(f"{name} must be {wanted[name].text}")


def is_uuid(value: Any) -> bool:
    """CloudAPI's and Nomad's ids are lower-case UUIDs; upper case is not one."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


ANY_TEXT = Wanted("a text", lambda value: isinstance(value, str))
TEXT = Wanted("a non-empty text", lambda value: isinstance(value, str) and value != "")
FLAG = Wanted("true or false", lambda value: isinstance(value, bool))
UUID = Wanted("a lower-case UUID", is_uuid)
COUNT = Wanted("an integer, 0 or more", lambda value: _is_integer(value) and value >= 0)
POSITIVE_COUNT = Wanted("an integer, 1 or more", lambda value: _is_integer(value) and value >= 1)
SECONDS = Wanted("a number of seconds, 0 or more", lambda value: _is_number(value) and value >= 0)
RATE = Wanted("a number a second, above 0", lambda value: _is_number(value) and value > 0)
SHARE = Wanted("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
ERROR_STATUS = Wanted("an HTTP status from 400 to 599", lambda value: _is_integer(value) and 400 <= value <= 599)
OBJECT = Wanted("an object", lambda value: isinstance(value, dict))
