"""When schedules come: time zones, changes of the clocks, February 29."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.spec import times
from shared.spec.times import When

VIENNA, NEW_YORK = "Europe/Vienna", "America/New_York"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def coming(cron: str, zone: str, after: str, count: int) -> list[str]:
    found = islice(times.upcoming(When(cron, zone), at(after)), count)
    return [moment.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes") for moment in found]


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # A day in the week, through both seasons.
        ("0 8 * * mon-fri", VIENNA, "2026-03-27T12:00Z", ["2026-03-30T08:00+02:00", "2026-03-31T08:00+02:00"]),
        ("0 8 * * mon-fri", VIENNA, "2026-10-23T12:00Z", ["2026-10-26T08:00+01:00", "2026-10-27T08:00+01:00"]),
        # Spring: 02:30 does not exist, and the next that does is 03:00.
        ("30 2 * * *", VIENNA, "2026-03-28T12:00Z", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("30 2 * * *", NEW_YORK, "2026-03-07T12:00Z", ["2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"]),
        # Several times of the hour that is left out are one.
        ("0,20,40 2 * * *", VIENNA, "2026-03-28T12:00Z", ["2026-03-29T03:00+02:00", "2026-03-30T02:00+02:00"]),
        # Autumn: 02:30 comes twice, and runs the first time.
        ("30 2 * * *", VIENNA, "2026-10-24T12:00Z", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 1 * * *", NEW_YORK, "2026-10-31T12:00Z", ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]),
        # Asked between the two.
        ("30 2 * * *", VIENNA, "2026-10-25T02:45+01:00", ["2026-10-26T02:30+01:00", "2026-10-27T02:30+01:00"]),
        ("0 0 29 2 *", VIENNA, "2025-01-01T00:00Z", ["2028-02-29T00:00+01:00", "2032-02-29T00:00+01:00"]),
        ("0 12 29 2 *", "UTC", "2096-03-01T00:00Z", ["2104-02-29T12:00+00:00", "2108-02-29T12:00+00:00"]),
    ],
)
def test_a_cron_expression_comes_by_the_clocks_of_its_zone(cron: str, zone: str, after: str, expected: list[str]) -> None:
    assert coming(cron, zone, after, 2) == expected


@pytest.mark.parametrize(
    ("cron", "zone", "moment", "expected"),
    [
        ("30 2 * * *", VIENNA, "2026-03-29T03:10+02:00", "2026-03-29T03:00+02:00"),
        ("50 2 * * *", VIENNA, "2026-10-25T02:10+01:00", "2026-10-25T02:50+02:00"),
        ("0 8 * * *", VIENNA, "2026-10-25T07:59+01:00", "2026-10-24T08:00+02:00"),
        ("0 8 * * *", VIENNA, "2026-10-25T08:00+01:00", "2026-10-25T08:00+01:00"),
    ],
)
def test_the_last_time_before_a_moment(cron: str, zone: str, moment: str, expected: str) -> None:
    found = times.last_until(When(cron, zone), at(moment))
    assert found is not None
    assert found.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes") == expected


def test_one_moment_comes_once() -> None:
    when = When(at=at("2026-12-24T18:00Z"))
    assert times.next_after(when, at("2026-12-24T17:59Z")) == when.at
    assert times.next_after(when, at("2026-12-24T18:00Z")) is None
    assert times.last_until(when, at("2026-12-24T17:59Z")) is None
    assert times.last_until(when, at("2026-12-24T18:00Z")) == when.at


def test_what_never_comes_is_found_out() -> None:
    assert not times.comes("0 0 31 2 *")
    assert times.comes("0 0 29 2 *")
    with pytest.raises(ValueError):
        times.comes("61 * * * *")


CRONS = st.sampled_from(["*/5 * * * *", "30 2 * * *", "0,30 1-3 * * *", "15 */2 * * sun", "0 0 1 * *", "59 23 * * *"])
ZONES = st.sampled_from([VIENNA, NEW_YORK, "UTC", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns"])
MOMENTS = st.integers(0, 6 * 365 * 86_400).map(lambda seconds: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds))


@given(cron=CRONS, zone=ZONES, moment=MOMENTS)
def test_times_ascend_and_the_last_and_the_next_are_neighbours(cron: str, zone: str, moment: datetime) -> None:
    when = When(cron, zone)
    found = list(islice(times.upcoming(when, moment), 5))
    assert found == sorted(set(found))
    assert found[0] > moment
    last = times.last_until(when, moment)
    assert last is not None
    assert last <= moment
    assert times.next_after(when, last) == found[0]
    assert times.last_until(when, found[0]) == found[0]
    assert times.last_until(when, found[1] - timedelta(microseconds=1)) == found[0]
