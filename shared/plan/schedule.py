"""When to look at a group again. Pure, but for the random spread."""

import random
from datetime import datetime

from shared.backoff import backoff
from shared.plan.census import Census
from shared.plan.limits import Limits
from shared.plan.outcome import Outcome
from shared.plan.steps import Limit, Plan
from shared.reasons import Reason
from shared.state.feeds import LONGEST_WATCHED
from shared.state.group_state import DueGroup

#: Seconds between looks while something is moving: a quarter of the time it has been moving for, within these bounds.
SOONEST, LATEST = 1.0, 15.0
#: Seconds: the longest pause after CloudAPI's own failures. One that works again is noticed within it.
CLOUDAPI_AGAIN = 15.0
#: Reasons that say nothing against the group, its template or its account.
OF_CLOUDAPI = frozenset({Reason.CLOUDAPI_UNAVAILABLE, Reason.THROTTLED})
#: A deleted group that is empty is looked at this many seconds later, then after four times as long, until it has been empty for that long.
LATE_LOOK, LATE_LOOKS_END = 300.0, 43_200.0


def pause_after(failures: int, reason: Reason | None) -> float:
    """Seconds until the next look after checks in a row that ran into trouble."""
    return backoff(failures, CLOUDAPI_AGAIN) if reason in OF_CLOUDAPI else backoff(failures)


def failures_before(group: DueGroup, reason: Reason | None) -> int:
    """Checks in a row that ran into trouble of the same kind: CloudAPI's own failures do not count against a group that it refuses."""
    return group.failures if (group.reason in OF_CLOUDAPI) == (reason in OF_CLOUDAPI) or reason is None else 0


def failures_in_a_row(group: DueGroup, plan: Plan, outcome: Outcome) -> int:
    """How often it went wrong in a row. Errors beside successes are CloudAPI's bad minute and count as one."""
    before = failures_before(group, outcome.reason)
    if plan.census.never_ran and not plan.census.came_up:
        return before + 1
    if outcome.errors:
        return 1 if plan.census.came_up or outcome.launched or outcome.deleted or outcome.changed else before + 1
    return 0 if plan.census.came_up or plan.settled else before


def next_look(
    plan: Plan, outcome: Outcome, failures: int, interval: float, now: datetime, *, spread: float, resume_at: datetime | None
) -> float:
    """Seconds until the group is to be looked at again: never more than its interval."""
    usual = usual_look(interval, spread)
    if outcome.errors:
        return min(usual, pause_after(failures, outcome.reason))
    if outcome.unfinished or plan.census.unsure:
        # CloudAPI says no to more than we count, or nothing could be done: it is given time.
        got_on = (outcome.launched or outcome.deleted or outcome.changed) and outcome.reason != Reason.THROTTLED
        return 0.0 if got_on else SOONEST
    if outcome.launched or outcome.deleted or outcome.changed:
        # A rollout goes on, or ends, with what is gone or changed; only what boots takes time.
        if plan.rollout is not None and not outcome.launched:
            return 0.0
        quickest = plan.census.quickest_boot if outcome.launched else plan.census.quickest_deletion
        return SOONEST if quickest is None else min(SOONEST, quickest.total_seconds())
    looks = [usual]
    if plan.next_at is not None:
        looks.append(max(0.0, (plan.next_at - now).total_seconds()))
    moving_since = plan.census.moving_since
    if moving_since is not None:
        looks.append(_look_at_movement(plan.census, now, (now - moving_since).total_seconds()))
    # Once the pause is over, what is held is held by the launch that is under way.
    if plan.held_by(Limit.BACKOFF) and resume_at is not None and (resume_at > now or not plan.moving):
        looks.append(max(0.0, (resume_at - now).total_seconds()))
    return min(looks)


def _look_at_movement(census: Census, now: datetime, seconds: float) -> float:
    """Seconds until the next look at what has been moving for so long. It waits for an end that is near, or came since the last look."""
    pause = min(LATEST, max(SOONEST, seconds / 4))
    ends_at = census.ends_at
    if ends_at is None:
        return pause
    ends_in = max(0.0, (ends_at - now).total_seconds())
    return ends_in if ends_in < 2 * pause else pause


def usual_look(interval: float, spread: float) -> float:
    """Seconds until the next look at a group at rest."""
    return interval * random.uniform(1.0 - spread, 1.0)


def interval_of(group: DueGroup, limits: Limits, *, settled: bool) -> float:
    """Seconds between the checks of a group: more than its owner chose while nothing can happen to it unseen."""
    if not (group.is_watched and settled):
        return group.interval
    return max(group.interval, min(group.interval * limits.watched_factor, LONGEST_WATCHED))


def late_look(emptied_for: float | None) -> float | None:
    """Seconds until a deleted group that is empty is looked at for machines that turned up late; None when it has been empty for long."""
    age = emptied_for or 0.0
    return None if age > LATE_LOOKS_END else max(LATE_LOOK, 3 * age)
