"""The columns of 2018: how each says a field's value.

Where a column can't say the value as it is, it has what it can, for programs of an earlier release, and the document has the value.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Column(NamedTuple):
    """A column that has the name of its field. `read` raises `ValueError` for what it can't read."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    #: Its size is not known beforehand.
    is_long: bool = False


def _join_ids(networks: Sequence[Any]) -> str:
    return ",".join(one["ipv4_uuid"] if isinstance(one, dict) else one for one in networks)


def _split_ids(text: str | None) -> list[str]:
    return [network for network in (text or "").split(",") if network]


def _write_pairs(pairs: Mapping[str, Any] | None) -> str | None:
    if pairs is None:
        return None
    return json.dumps({key: value if isinstance(value, str) else json.dumps(value) for key, value in pairs.items()})


def _read_pairs(text: str | None) -> dict[str, Any] | None:
    """The 2018 service left NULL, nothing or `null` where there was nothing."""
    pairs = json.loads(text) if text else None
    if pairs and r"\ud" in str(text).lower():
        # Half a character, which Go let through and no UTF-8 can say; or a whole one, which stays as it is.
        halved = json.dumps(pairs, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
        pairs = json.loads(halved.decode("utf-16-le", "replace"))
    if pairs is not None and not isinstance(pairs, dict):
        raise ValueError
    return pairs


def _same(value: Any) -> Any:
    return value


#: A text of moderate length; one of any length; a boolean; UUIDs joined by commas; strings by name, in JSON.
TEXT = Column(_same, _same)
LONG_TEXT = Column(_same, lambda text: text or "", is_long=True)
BOOLEAN = Column(_same, bool)
IDS = Column(_join_ids, _split_ids, is_long=True)
PAIRS = Column(_write_pairs, _read_pairs, is_long=True)
