"""What fields of JSON may hold, in pydantic's terms, with the words of a refusal and the same rule in JSON Schema."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

#: The type of an error whose message is complete.
COMPLETE = "contract"
#: The end of a text in Python's patterns; in JSON Schema's it is a dollar sign, which means something else here.
END = r"\Z"

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")

#: A text without NUL, which neither PostgreSQL nor CloudAPI takes.
NOT_NUL = "[^\\u0000]*"


def storable(text: str) -> str:
    """Without what JSON can say and no column of text takes: zero bytes, and halves of characters."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "").encode(errors="replace").decode()


def is_storable(text: str) -> bool:
    """Can a column of text have it as it is?"""
    return storable(text) == text


def is_uuid(text: str) -> bool:
    """A UUID in its plain form: no braces, no `urn:`."""
    return _UUID.match(text) is not None


def documented(pattern: str | None = None, **schema: Any) -> Any:
    """What a validator in Python asks for, in the words of JSON Schema: for the API's own description."""
    return Field(json_schema_extra=schema if pattern is None else {**schema, "pattern": f"^{pattern.removesuffix(END)}$"})


def refuse(message: str) -> PydanticCustomError:
    """To be raised by a validator. A message that begins with "cannot" or "must" gets the field's name before it."""
    # The text may hold braces of the user's: it goes in as a value, not as a format.
    return PydanticCustomError(COMPLETE, "{message}", {"message": message})


def uuid(called: str) -> AfterValidator:
    """The rule for a UUID that messages call so."""

    def check(value: str) -> str:
        if not is_uuid(value):
            raise refuse(f"{called} must be a valid UUID")
        return value

    return AfterValidator(check)


def one_of(called: str, known: tuple[str, ...]) -> Any:
    """The type of a word out of these."""

    def check(value: str) -> str:
        if value not in known:
            raise refuse(f"{called} must be one of: {', '.join(known)}")
        return value

    return Annotated[str, AfterValidator(check), documented(enum=list(known))]


def not_nul(value: str) -> str:
    """The rule of `Text`."""
    if "\0" in value:
        raise refuse("cannot contain a NUL character")
    return value


def at_most(called: str, most: int, *, least: int = 0) -> AfterValidator:
    """The rule for the length of an array."""

    def check(value: list[Any]) -> list[Any]:
        if len(value) > most:
            raise refuse(f"{called} cannot have more than {most} elements")
        if len(value) < least:
            raise refuse(f"{called} must have at least {least} element")
        return value

    return AfterValidator(check)


#: The form of a UUID in JSON Schema.
UuidForm = documented(_UUID.pattern, format="uuid")
#: Any text that can be stored.
Text = Annotated[str, AfterValidator(not_nul), documented(NOT_NUL)]
