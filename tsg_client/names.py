"""Which object a person means: by its id, its name, or its short id, in this order, as `triton` has it."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from tsg_client.errors import Misconfigured, NotFound

#: Characters of an id that `triton` shows, and takes for the whole.
SHORT = 8

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)
_SHORT = re.compile(rf"[0-9a-f-]{{{SHORT},36}}\Z", re.IGNORECASE)

T = TypeVar("T")


class Ambiguous(Misconfigured):
    """More than one object begins so."""

    code = "Ambiguous"


def is_uuid(text: str) -> bool:
    """Is it a whole id?"""
    return bool(_UUID.match(text))


def short(text: str) -> str:
    """The short form of an id."""
    return text[:SHORT]


def pick(kind: str, text: str, objects: Iterable[T], *, name: Callable[[T], str]) -> T:
    """The one object that is meant. `NotFound` for none, `Ambiguous` for several."""
    by_id: list[T] = []
    for one in objects:
        if name(one) == text:
            return one
        if _SHORT.match(text) and _id(one).startswith(text.lower()):
            by_id.append(one)
    if len(by_id) > 1:
        raise Ambiguous(f'"{text}" is an ambiguous short id: {", ".join(_id(one) for one in by_id)}')
    if not by_id:
        raise NotFound(f'no {kind} with name or short id "{text}" was found')
    return by_id[0]


def _id(one: Any) -> str:
    return str(one["id"] if isinstance(one, Mapping) else one.id)
