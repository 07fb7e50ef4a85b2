"""The rules that replace what does not work, and delete what is to go. Pure."""

from collections.abc import Iterator
from datetime import timedelta

from shared.plan.disruption import Disruption
from shared.plan.steps import Delete, Drain, Hold, Limit, Why
from shared.plan.view import View

#: CloudAPI gives a deletion up after 180 s, and says nothing.
DELETE_AGAIN = timedelta(seconds=200)


def repair(view: View, disruption: Disruption, *, to_roll: int) -> Iterator[Delete | Hold]:
    """Delete what never ran, a share of what ran and does not work any more, and again what was not deleted in time.

    Unhealthy machines that are too many anyway go first and cost no disruption: nothing replaces them. So do `to_roll` outdated ones, which
    a rollout would replace: a group that is broken must be able to take its fix.
    """
    census, group = view.census, view.group
    if not view.may_terminate:
        if held := len(census.never_ran) + len(census.unhealthy):
            yield Hold(held, Why.UNHEALTHY, Limit.SUSPENDED)
        return
    yield from (Delete(sight.instance, Why.NEVER_RAN) for sight in census.never_ran)
    # Outdated first: that brings the rollout on.
    unhealthy = sorted(census.unhealthy, key=view.is_new) if to_roll else list(census.unhealthy)
    needless = min(max(0, len(census.known) + len(unhealthy) - group.desired), len(unhealthy))
    free = max(needless, min(to_roll, sum(not view.is_new(sight) for sight in unhealthy)))
    allowed = free + disruption.take(len(unhealthy) - free) if view.may_replace else needless
    yield from (Delete(sight.instance, Why.UNHEALTHY) for sight in unhealthy[:allowed])
    if allowed < len(unhealthy):
        yield Hold(len(unhealthy) - allowed, Why.UNHEALTHY, Limit.DISRUPTION if view.may_replace else Limit.SUSPENDED)
    yield from (Delete(sight.instance, Why.STUCK) for sight in census.deleting if view.now - sight.instance.state_since > DELETE_AGAIN)


def finish(view: View, kept: set[str]) -> Iterator[Delete | Drain | Hold]:
    """Delete what has drained, and what its owner wants gone; but for the instances whose ids are in `kept`.

    What does not work goes at once. A drain that was begun, and that DNS does not know of yet, is begun again.
    """
    leaving = [sight for sight in view.census.leaving if sight.instance.id not in kept]
    if not view.may_terminate:
        if leaving:
            yield Hold(len(leaving), Why.SURPLUS, Limit.SUSPENDED)
        return
    for sight in leaving:
        instance = sight.instance
        why = Why.DELETED_GROUP if view.group.archived else Why.BY_HAND if instance.is_unwanted else Why.SURPLUS
        if why == Why.SURPLUS and view.rolling is not None and not view.is_new(sight):
            why = Why.OUTDATED
        drain = view.drain_of(sight)
        if drain is None or (instance.drained_at is not None and instance.drained_at <= view.now):
            yield Delete(instance, why)
        elif instance.drained_at is None:
            yield Drain(instance, why, drain.seconds, leaves_dns=drain.cns and sight.has_dns)
