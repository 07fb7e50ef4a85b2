"""When a schedule's time comes: cron in an IANA time zone, or one moment. Pure.

A local time that does not exist (the clocks go forward) runs at the next that does; one that comes twice (they go back) runs the first
time alone.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, CroniterError, croniter

#: Years in which a cron expression must come: February 29 comes twice in any 12.
YEARS = 12
#: Occurrences that come at one moment, at most: those of the minutes that a change of the clocks leaves out, or repeats.
AT_ONCE = 3 * 24 * 60


class When(NamedTuple):
    """A schedule's times: those of `cron` on the clocks of a time zone, or the one moment `at`."""

    cron: str | None = None
    time_zone: str = "UTC"
    at: datetime | None = None


def next_after(when: When, moment: datetime) -> datetime | None:
    """The first time after a moment; None when there is no more."""
    return next(iter(upcoming(when, moment)), None)


def upcoming(when: When, moment: datetime) -> Iterator[datetime]:
    """All times after a moment, in UTC, the soonest first."""
    if when.at is not None:
        if when.at > moment:
            yield when.at
        return
    zone = ZoneInfo(when.time_zone)
    last = moment.astimezone(UTC)
    for local in _walk(when.cron or "", _local(moment, zone), forward=True):
        found = as_utc(local, zone)
        if found > last:
            yield found
            last = found


def last_until(when: When, moment: datetime) -> datetime | None:
    """The last time at or before a moment; None when there was none."""
    if when.at is not None:
        return when.at if when.at <= moment else None
    zone = ZoneInfo(when.time_zone)
    local = moment.astimezone(zone)
    # In the second pass of an hour that comes twice, later times of the first pass are over.
    repeated = (
        (local.replace(fold=0).utcoffset() or timedelta()) - (local.replace(fold=1).utcoffset() or timedelta()) if local.fold else None
    )
    start = _local(moment, zone) + (repeated or timedelta()) + timedelta(microseconds=1)
    for found in islice(_walk(when.cron or "", start, forward=False), AT_ONCE):
        then = as_utc(found, zone)
        if then <= moment:
            return then
    return None


def as_utc(local: datetime, zone: ZoneInfo) -> datetime:
    """A time on the wall's clock as a moment: the next one that exists, and the first one of two."""
    first = local.replace(tzinfo=zone, fold=0)
    moment = first.astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == local:
        return moment
    # Between these two the clocks went forward.
    before, after = local.replace(tzinfo=zone, fold=1).astimezone(UTC), moment
    offset = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after.replace(microsecond=0)


def comes(cron: str) -> bool:
    """Does the expression ever come? `0 0 31 2 *` does not. `ValueError` for what is no expression."""
    try:
        return next(_walk(cron, datetime(2024, 1, 1), forward=True), None) is not None  # noqa: DTZ001 - the wall's clock
    except CroniterError as error:
        raise ValueError(str(error)) from None


def _local(moment: datetime, zone: ZoneInfo) -> datetime:
    """What the wall's clock shows."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _walk(cron: str, start: datetime, *, forward: bool) -> Iterator[datetime]:
    """The expression's times on a clock that never changes, from `start` on."""
    found = croniter(cron, start, max_years_between_matches=YEARS)
    try:
        while True:
            yield found.get_next(datetime) if forward else found.get_prev(datetime)
    except CroniterBadDateError:
        return
