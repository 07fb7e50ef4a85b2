"""Which of several machines go first: a chain of sort keys. Pure."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shared.plan.census import Sight

#: The smaller, the sooner the machine goes.
Key = Callable[[Sight], Any]


def protection(sight: Sight) -> bool:
    """What CloudAPI protects against deletion goes last."""
    return sight.protected


def age(sight: Sight) -> tuple[str, str]:
    """The oldest goes first, by CloudAPI's time of creation; of two of one age it is always the same one."""
    return (sight.created or sight.instance.launched_at.isoformat(), sight.instance.id)


#: Of machines that are too many.
SURPLUS: Sequence[Key] = (protection, age)


def victims(candidates: Iterable[Sight], count: int, keys: Sequence[Key] = SURPLUS) -> list[Sight]:
    """The `count` machines that go first; the first key decides, and each later one between those that are alike by then."""
    return sorted(candidates, key=lambda sight: tuple(key(sight) for key in keys))[: max(0, count)]
