"""Target tracking: as many instances as keep the measure at its target. Pure.

The rules are those of Kubernetes' autoscaler: a ratio, a tolerance, and the highest recommendation of a window on the way down. The members
that the measure comes from are those that are available; what is coming is capacity already.
"""

import math
from datetime import datetime, timedelta
from typing import NamedTuple

from shared.policies.seen import Members, Value
from shared.policies.verdict import Result
from shared.spec.policy import Progress
from shared.spec.policy_settings import StepSize, TargetSettings

#: Instances: beyond all capacities, and a number that a row can have.
MOST = 1e9
#: A ratio this close to a whole number of instances is that number: floats are not exact.
EXACT = 1e-9


class Proposal(NamedTuple):
    """What a policy that measures would have: `wanted` instances, after a `recommended` number; None: it says nothing."""

    wanted: int | None
    recommended: int | None
    #: What it is when `wanted` is the capacity that there is.
    result: Result
    message: str
    progress: Progress
    next_at: datetime | None = None


def propose(settings: TargetSettings, value: Value, members: Members, capacity: int, then: tuple[Progress, datetime]) -> Proposal:
    """What the target asks for at a capacity. `then` is what the policy has behind it, and the time."""
    progress, now = then
    progress = progress._replace(failures=0)
    of_group = settings.per == "group"
    if not of_group and not members.available:
        if not capacity:
            text = "with no instance there is no average: set min_capacity to 1, or measure the whole group (per: group)"
            return Proposal(None, None, Result.HELD, text, progress)
        return Proposal(capacity, None, Result.CONVERGING, "no instance is available yet", progress)
    load = value.value / settings.target
    exact = max(0.0, min(MOST, load if of_group else members.available * load))
    recommended = max(0, math.ceil(exact - EXACT))
    ratio = exact / capacity if of_group and capacity else load
    said = f"the measure is {value.value:g}, the target {settings.target:g}"
    if abs(ratio - 1) <= settings.tolerance + EXACT and (capacity or not of_group):
        kept = progress._replace(history=_remember(settings, progress, now, capacity))
        return Proposal(capacity, capacity, Result.TOLERANCE, f"{said}: within the tolerance", kept)
    progress = progress._replace(history=_remember(settings, progress, now, recommended))
    said = f"{said}: {_instances(recommended)} would carry it"
    if recommended <= capacity and ratio > 1 and not of_group:
        text = f"{said}, and {capacity - members.available} of {capacity} are not available yet"
        return Proposal(capacity, recommended, Result.CONVERGING, text, progress)
    return _stabilized(settings, recommended, capacity, (progress, now), said)


def _stabilized(settings: TargetSettings, recommended: int, capacity: int, then: tuple[Progress, datetime], said: str) -> Proposal:
    progress, now = then
    lowest = min(_held_since(progress.history, now - timedelta(seconds=settings.stabilization.out_seconds)))
    highest = max(_held_since(progress.history, now - timedelta(seconds=settings.stabilization.in_seconds)))
    if lowest > capacity:
        return Proposal(_limited(capacity, lowest, settings), recommended, Result.HELD, said, progress)
    if highest < capacity:
        return Proposal(_limited(capacity, highest, settings), recommended, Result.HELD, said, progress)
    if recommended == capacity:
        return Proposal(capacity, recommended, Result.HELD, said, progress)
    seconds = settings.stabilization.out_seconds if recommended > capacity else settings.stabilization.in_seconds
    other = highest if recommended < capacity else lowest
    kept = f"{said}, but it was {_instances(other)} within the last {seconds} s"
    return Proposal(capacity, recommended, Result.HELD, kept, progress, _settles_at(progress.history, capacity, seconds))


def _limited(capacity: int, wanted: int, settings: TargetSettings) -> int:
    out, back = settings.max_step.out, settings.max_step.in_
    if wanted > capacity:
        return wanted if out is None else min(wanted, capacity + _size(out, capacity))
    return wanted if back is None else max(wanted, capacity - _size(back, capacity))


def _size(step: StepSize, capacity: int) -> int:
    """Per cent are rounded up, and are one instance at least."""
    return step if isinstance(step, int) else max(1, -(-capacity * int(step[:-1]) // 100))


def _remember(settings: TargetSettings, progress: Progress, now: datetime, recommended: int) -> tuple[tuple[datetime, int], ...]:
    """The history with what is recommended now: each entry held until the next, so only a change is one."""
    history = progress.history
    if not history or history[-1][1] != recommended:
        history = (*history, (now, recommended))
    since = now - timedelta(seconds=max(settings.stabilization.out_seconds, settings.stabilization.in_seconds))
    # The last one before the window holds at its beginning.
    first = max((place for place, (at, _) in enumerate(history) if at <= since), default=0)
    return history[first:]


def _held_since(history: tuple[tuple[datetime, int], ...], since: datetime) -> list[int]:
    """What was recommended at any time after `since`."""
    ends = [at for at, _ in history[1:]]
    found = [number for (_, number), end in zip(history, ends, strict=False) if end > since]
    return [*found, history[-1][1]]


def _settles_at(history: tuple[tuple[datetime, int], ...], capacity: int, seconds: int) -> datetime | None:
    """When the recommendations that hold the newest one back leave the window, if none like them comes."""
    shrinks = history[-1][1] < capacity
    ends = [at for at, _ in history[1:]]
    holding = [end for (_, number), end in zip(history, ends, strict=False) if (number >= capacity if shrinks else number <= capacity)]
    return max(holding) + timedelta(seconds=seconds) if holding else None


def _instances(number: int) -> str:
    return f"{number} instance{'' if number == 1 else 's'}"
