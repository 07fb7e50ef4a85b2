"""Accept-Version: the npm ranges that CloudAPI clients send (`8`, `~9||~8`, `*`, `>=7.2`)."""

import re
from functools import lru_cache

Version = tuple[int, int, int]

OFFERED: tuple[Version, ...] = ((7, 0, 0), (7, 1, 0), (7, 2, 0), (7, 3, 0), (8, 0, 0), (9, 0, 0))

_COMPARATOR = re.compile(r"(~>?|\^|>=|<=|>|<|=|v)?\s*(\d+|[xX*])(?:\.(\d+|[xX*]))?(?:\.(\d+|[xX*]))?")


def text(version: Version) -> str:
    return ".".join(map(str, version))


@lru_cache(maxsize=256)
def best(wanted: str) -> Version | None:
    """The highest offered version in the range; None when there is none, or the range can't be read."""
    return max((version for version in OFFERED if admits(wanted, version)), default=None)


@lru_cache(maxsize=1024)
def admits(wanted: str, version: Version) -> bool:
    return any(_all_hold(part.strip(), version) for part in wanted.split("||"))


def _all_hold(part: str, version: Version) -> bool:
    comparators = re.sub(r"([~^<>=])\s+", r"\1", part).split()
    return all(_holds(comparator, version) for comparator in comparators)


def _holds(comparator: str, version: Version) -> bool:
    match = _COMPARATOR.fullmatch(comparator)
    if not match:
        return False
    given = []
    for number in match.groups()[1:]:
        if number is None or not number.isdigit():
            break
        given.append(int(number))
    low = [*given, 0, 0, 0][:3]
    operator = match[1] or "="
    if operator.startswith("~"):
        return _between(low, _next(given[:2]), version)
    if operator == "^":
        return _between(low, _next(given[:1]), version)
    if operator in ("=", "v"):
        return _between(low, _next(given), version)
    at_least = list(version) >= low
    below_next = _between([0, 0, 0], _next(given), version)
    return {">=": at_least, "<": not at_least, ">": not below_next, "<=": below_next}[operator]


def _next(given: list[int]) -> list[int]:
    """The first version past everything that begins with these numbers: [7, 1] -> [7, 2, 0]."""
    if not given:
        return [1 << 31, 0, 0]
    return [*given[:-1], given[-1] + 1, 0, 0, 0][:3]


def _between(low: list[int], high: list[int], version: Version) -> bool:
    return low <= list(version) < high
