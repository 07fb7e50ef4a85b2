"""What is there, against what its owner asks for: rows in, steps out. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from shared.plan.capacity import grow, shrink, take_back
from shared.plan.census import Sight, take_census
from shared.plan.disruption import Disruption, disruption_of
from shared.plan.limits import Limits
from shared.plan.notice import notice_of, until
from shared.plan.pacing import Pacing, pacing_of
from shared.plan.repair import finish, repair
from shared.plan.rolling import Rolling
from shared.plan.rollout import Members, Wave, advance, moments, next_wave, to_roll
from shared.plan.steps import Delete, Hold, Limit, Plan, Step
from shared.plan.view import View
from shared.spec.rollout import ENDED, State
from shared.state.group_state import DueGroup


def make_plan(group: DueGroup, sights: Sequence[Sight], now: datetime, limits: Limits, rolling: Rolling | None = None) -> Plan:
    """Count what is there and what is coming, and close the difference.

    Counted as capacity: machines that run or are on their way there. Not counted: failed, stopped, unhealthy, or on the way for longer than
    `provision_timeout`; those are replaced, of those that ever ran only a share at a time. What nobody is sure of, a launch without an
    answer too, counts as there before anything is launched, and as gone before anything is deleted.
    """
    census = take_census(sights, now, limits, group.settings)
    view = View(group, census, now, limits, rolling)
    if rolling is not None:
        before = rolling.rollout
        rolling = replace(rolling, rollout=advance(view, rolling))
        view = replace(view, rolling=rolling)
        if rolling.rollout.state == State.ROLLING_BACK and before.state != State.ROLLING_BACK:
            # The group gets its former template first. Then all is looked at anew.
            return Plan(census, replacing=group.replacing, rolling=rolling, next_at=now)
    disruption = disruption_of(view)
    members = Members(view, rolling) if rolling else None
    steps = tuple(_steps(view, members, disruption))
    return Plan(census, steps, disruption.under_way, rolling, _next_at(view, members, steps), notice_of(view, steps))


def _steps(view: View, members: Members | None, disruption: Disruption) -> Iterator[Step]:
    group, census = view.group, view.census
    repairs = list(repair(view, disruption, to_roll=to_roll(members) if members else 0))
    wave = next_wave(members) if members else Wave()
    held = sum(step.count for step in repairs if isinstance(step, Hold))
    missing = group.desired - len(census.counted) + len(wave.removed) - held
    back = list(take_back(view, missing))
    rest = [sight for sight in census.known if sight.instance.id not in wave.removed]
    shrunk = list(shrink(view, rest, len(rest) - group.desired - wave.waiting))
    finished = list(finish(view, {step.instance.id for step in back}))
    missing = max(0, missing - len(back))
    surge = 0
    if members is not None:
        gone = sum(isinstance(step, Delete) for step in (*wave.removals, *shrunk, *finished))
        room = max(0, group.desired + wave.surge - (len(census.counted) + len(census.leaving) + held - gone))
        missing = min(missing, room)
        surge = min(wave.lacking - missing - len(back), room - missing)
    yield from (*repairs, *finished, *back, *wave.updates, *wave.removals, *shrunk)
    yield from grow(view, _pacing(view), missing, surge)


def _pacing(view: View) -> Pacing:
    """Where the group's launches stand after what was just seen of them."""
    census, breaker = view.census, view.limits.breaker
    pacing = pacing_of(view.group).after(succeeded=census.came_up, failed=0, now=view.now, breaker=breaker)
    if census.never_ran or census.failed_launches:
        pacing = pacing._replace(window=max(1, census.came_up))
    return pacing


def _next_at(view: View, members: Members | None, steps: Sequence[Step]) -> datetime | None:
    """When time alone changes what is to be done."""
    if members is not None and members.rolling.rollout.state in ENDED:
        return view.now
    drained = (sight.instance.drained_at for sight in view.census.leaving)
    rolling = moments(members) if members is not None else ()
    is_held = any(isinstance(step, Hold) and step.limit == Limit.DISRUPTION for step in steps)
    proven = (view.proves_itself_until(sight) for sight in view.census.counted if is_held)
    return min((moment for moment in (*drained, *rolling, *proven, *until(view, steps)) if moment is not None), default=None)
