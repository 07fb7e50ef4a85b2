"""Schedules: what is due, what is missed, and which windows are open. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from shared.spec import times
from shared.spec.policy import Policy
from shared.spec.policy_settings import ScheduleSettings

#: Seconds after its time at which a schedule with `misfire` = `skip` still runs: what the clock and the queue may take.
ON_TIME = 60.0


class Due(NamedTuple):
    """A time that has come, and whether it is too late for it."""

    policy: Policy
    at: datetime
    is_missed: bool


def list_due(policies: list[Policy], now: datetime) -> list[Due]:
    """The schedules without a window whose time has come, in its order. Of several times of one schedule the last counts."""
    return sorted(_due(policies, now), key=lambda due: due.at)


def _due(policies: list[Policy], now: datetime) -> Iterator[Due]:
    for policy in policies:
        settings = policy.settings
        if not isinstance(settings, ScheduleSettings) or settings.duration is not None:
            continue
        at = times.last_until(settings.schedule.when, now)
        if at is not None and (policy.progress.ran_until is None or at > policy.progress.ran_until):
            grace = settings.misfire_grace_seconds if settings.misfire == "run_once" else ON_TIME
            yield Due(policy, at, is_missed=now - at > timedelta(seconds=grace))


def open_until(settings: ScheduleSettings, now: datetime) -> datetime | None:
    """When the window that is open now closes; None when none is open."""
    if settings.duration is None:
        return None
    opened = times.last_until(settings.schedule.when, now)
    return opened + settings.duration if opened is not None and now < opened + settings.duration else None


def next_time(settings: ScheduleSettings, now: datetime) -> datetime | None:
    """When the schedule is to be looked at next: its next time, or the end of the window that is open."""
    coming = times.next_after(settings.schedule.when, now)
    moments = [moment for moment in (coming, open_until(settings, now)) if moment is not None]
    return min(moments, default=None)
