"""What is there, against what its owner asks for: rows in, steps out. Pure."""

from collections.abc import Sequence
from datetime import datetime

from shared.plan.capacity import grow, shrink
from shared.plan.census import Census, Sight, take_census
from shared.plan.disruption import disruption_of
from shared.plan.limits import Limits
from shared.plan.pacing import Pacing, pacing_of
from shared.plan.repair import repair
from shared.plan.steps import Hold, Plan
from shared.state.group_state import DueGroup


def make_plan(group: DueGroup, sights: Sequence[Sight], now: datetime, limits: Limits) -> Plan:
    """Count what is there and what is coming, and close the difference.

    Counted as capacity: machines that run or are on their way there. Not counted: failed, stopped, or on the way for longer than
    `provision_timeout`; those are replaced, of those that ever ran only a share at a time. What nobody is sure of, a launch without an
    answer too, counts as there before anything is launched, and as gone before anything is deleted.
    """
    census = take_census(sights, now, limits)
    disruption = disruption_of(group, census, limits)
    repairs = list(repair(census, group, disruption, now))
    waiting = sum(step.count for step in repairs if isinstance(step, Hold))
    launches = grow(census, group, _pacing(group, census, now, limits), now, waiting=waiting)
    return Plan(census, (*repairs, *shrink(census, group), *launches), replacing=disruption.under_way)


def _pacing(group: DueGroup, census: Census, now: datetime, limits: Limits) -> Pacing:
    """Where the group's launches stand after what was just seen of them."""
    pacing = pacing_of(group).after(succeeded=census.came_up, failed=0, now=now, breaker=limits.breaker)
    if census.never_ran or census.failed_launches:
        pacing = pacing._replace(window=max(1, census.came_up))
    return pacing
