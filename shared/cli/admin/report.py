"""What a command tells: lines for people, or the same as JSON for programs."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from shared.lines import printable


class Report(NamedTuple):
    """The outcome of a command."""

    text: str
    #: The same for programs.
    data: Any
    #: The exit code.
    code: int = 0

    def as_json(self) -> str:
        """ASCII, so that it is JSON in every locale."""
        return json.dumps(self.data, indent=2, default=_plain)


def for_terminal(text: str) -> str:
    """The text with control characters as escapes: CloudAPI's words, and names of 2018, may hold some."""
    return printable(text, keep="\n")


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns under their titles. None is a dash."""
    lines = [list(titles), *([_word(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """One fact to a line."""
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name.ljust(width)}  {_word(value)}" for name, value in pairs)


def _word(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    return "-" if value is None else printable(str(value))  # one that is in a line makes no other


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
