"""A change of a capacity as text: `+2`, `-1`, `+20%`, `=5`. Pure."""

import re
from typing import NamedTuple

#: The largest number in a change.
MOST = 10_000

_CHANGE = re.compile(r"([+-])(\d{1,5})(%?)\Z|=(\d{1,5})\Z")


class Change(NamedTuple):
    """`exactly` a number, or a number more (fewer when negative), or a number of per cent."""

    exactly: int | None = None
    by: int = 0
    percent: int = 0

    def of(self, capacity: int) -> int:
        """The capacity after it. Per cent are rounded away from zero, and are one instance at least."""
        if self.exactly is not None:
            return self.exactly
        if self.percent:
            whole = -(-capacity * abs(self.percent) // 100)
            return capacity + (max(1, whole) if self.percent > 0 else -max(1, whole))
        return capacity + self.by


def read(given: str | int) -> Change:
    """`ValueError` for what is no change."""
    text = f"{given:+d}" if isinstance(given, int) else given
    found = _CHANGE.match(text)
    if found is None or int(found[2] or found[4]) > MOST:
        raise ValueError(f"{text!r} is no change")
    if found[4] is not None:
        return Change(exactly=int(found[4]))
    number = int(found[1] + found[2])
    if number == 0:
        raise ValueError("a change of nothing")
    return Change(percent=number) if found[3] else Change(by=number)
