"""Cron expressions as Nomad reads them: 5 fields, 6 with a year at the end, or 7 with seconds at the front as well.

Lists, ranges, steps, names of months and days, `?` and the @ aliases are read; `L`, `W` and `#`, which Nomad knows too, are refused.
Times are wall-clock times of the job's zone. Where a clock is set back, the hour that comes twice counts once.
"""

from __future__ import annotations

import bisect
import calendar
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

_ALIASES = {
    "@yearly": "0 0 0 1 1 * *",
    "@annually": "0 0 0 1 1 * *",
    "@monthly": "0 0 0 1 * * *",
    "@weekly": "0 0 0 * * 0 *",
    "@daily": "0 0 0 * * * *",
    "@hourly": "0 0 * * * * *",
}


def zone(name: str) -> tzinfo:
    """UTC also where the machine knows no time zones. Raises KeyError, ValueError or OSError for an unknown one."""
    return UTC if name in ("", "UTC") else ZoneInfo(name)


class CronError(ValueError):
    """The message is Nomad's."""


@dataclass(frozen=True)
class _Part:
    name: str
    first: int
    last: int
    names: dict[str, int]

    def number(self, text: str) -> int | None:
        """None when it is no value of this field."""
        if text in self.names:
            return self.names[text]
        if not re.fullmatch(r"\d{1,2}|\d{4}", text):
            return None
        return int(text) if self.first <= int(text) <= self.last else None


def _names(words: list[str], first: int) -> dict[str, int]:
    full = {word.lower(): number for number, word in enumerate(words, first)}
    return full | {word[:3]: number for word, number in full.items()}


_SECOND = _Part("second", 0, 59, {})
_MINUTE = _Part("minute", 0, 59, {})
_HOUR = _Part("hour", 0, 23, {})
_DAY = _Part("day-of-month", 1, 31, {})
_MONTH = _Part("month", 1, 12, _names(list(calendar.month_name)[1:], 1))
_WEEKDAY = _Part("day-of-week", 0, 6, {"7": 0} | _names([calendar.day_name[(day + 6) % 7] for day in range(7)], 0))
_YEAR = _Part("year", 1970, 2099, {})


def _read(part: _Part, text: str) -> tuple[list[int], bool]:
    """The values in order, and whether the field leaves everything open."""
    values: set[int] = set()
    is_open = False
    for entry in filter(None, text.lower().split(",")):
        span, slash, step_text = entry.partition("/")
        step = _step(part, entry, step_text) if slash else 1
        if span in ("*", "?"):
            is_open = is_open or not slash
            low, high = part.first, part.last
        else:
            low, high = _span(part, span, entry, is_stepped=bool(slash))
        values.update(range(low, high + 1, step))
    if not values and not text.strip(","):
        raise CronError(f"{part.name} field: missing directive")
    return sorted(values), is_open


def _step(part: _Part, entry: str, text: str) -> int:
    if not text.isdigit():
        raise CronError(f"syntax error in {part.name} field: '{entry}'")
    if not 1 <= int(text) <= min(part.last, 59):
        raise CronError(f"invalid interval {entry}")
    return int(text)


def _span(part: _Part, span: str, entry: str, *, is_stepped: bool) -> tuple[int, int]:
    low_text, dash, high_text = span.partition("-")
    low = part.number(low_text)
    high = part.number(high_text) if dash else (part.last if is_stepped else low)
    if low is None or high is None:
        raise CronError(f"syntax error in {part.name} field: '{entry}'")
    if dash and part is _WEEKDAY and high == 0:
        high = 6  # MON-SUN
    return low, high


class Cron:
    def __init__(self, text: str) -> None:
        """Raises CronError."""
        fields = _ALIASES.get(text.strip(), text).split()[:7]
        if len(fields) < 5:
            raise CronError("missing field(s)")
        if len(fields) < 7:
            fields.insert(0, "0")
        if len(fields) < 7:
            fields.append("*")
        self._seconds, _ = _read(_SECOND, fields[0])
        self._minutes, _ = _read(_MINUTE, fields[1])
        self._hours, _ = _read(_HOUR, fields[2])
        self._days, self._any_day = _read(_DAY, fields[3])
        self._months, _ = _read(_MONTH, fields[4])
        self._weekdays, self._any_weekday = _read(_WEEKDAY, fields[5])
        self._years, _ = _read(_YEAR, fields[6])

    def next(self, after: datetime) -> datetime | None:
        """The first time after an aware one, in its zone; None when there is none before 2100."""
        found = self._next_on_the_wall(after.replace(tzinfo=None, microsecond=0) + timedelta(seconds=1))
        while found is not None:
            due = found.replace(tzinfo=after.tzinfo)
            if due.astimezone(UTC) > after.astimezone(UTC):
                # a time that the zone's clock jumps over becomes one that it shows
                return due.astimezone(UTC).astimezone(after.tzinfo)
            found = self._next_on_the_wall(found + timedelta(seconds=1))
        return None

    def _next_on_the_wall(self, start: datetime) -> datetime | None:
        for day, is_first in self._days_from(start):
            for hour in self._from(self._hours, start.hour if is_first else 0):
                same_hour = is_first and hour == start.hour
                for minute in self._from(self._minutes, start.minute if same_hour else 0):
                    same_minute = same_hour and minute == start.minute
                    for second in self._from(self._seconds, start.second if same_minute else 0):
                        return day.replace(hour=hour, minute=minute, second=second)
        return None

    def _days_from(self, start: datetime):
        for year in self._from(self._years, start.year):
            for month in self._from(self._months, start.month if year == start.year else 1):
                same_month = (year, month) == (start.year, start.month)
                for number in range(start.day if same_month else 1, calendar.monthrange(year, month)[1] + 1):
                    day = datetime(year, month, number)  # noqa: DTZ001 - a date on the wall, whose zone is put on later
                    if self._is_due_on(day):
                        yield day, same_month and number == start.day

    def _is_due_on(self, day: datetime) -> bool:
        by_day, by_weekday = day.day in self._days, day.isoweekday() % 7 in self._weekdays
        if self._any_day or self._any_weekday:
            return by_day and by_weekday
        return by_day or by_weekday  # cron: with both restricted, either will do

    @staticmethod
    def _from(values: list[int], start: int) -> list[int]:
        return values[bisect.bisect_left(values, start) :]
