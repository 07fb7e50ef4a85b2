"""The rule that replaces what does not work. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from shared.plan.census import Census
from shared.plan.disruption import Disruption
from shared.plan.steps import Delete, Hold, Limit, Why
from shared.state.group_state import DueGroup

#: CloudAPI gives a deletion up after 180 s, and says nothing.
DELETE_AGAIN = timedelta(seconds=200)


def repair(census: Census, group: DueGroup, disruption: Disruption, now: datetime) -> Iterator[Delete | Hold]:
    """Delete what never ran, a share of what ran and does not any more, and again what was not deleted in time.

    Unhealthy machines that are too many anyway go first and cost no disruption: nothing replaces them.
    """
    yield from (Delete(sight.instance, Why.NEVER_RAN) for sight in census.never_ran)
    unhealthy = [sight.instance for sight in census.unhealthy]
    needless = min(max(0, len(census.known) + len(unhealthy) - group.desired), len(unhealthy))
    allowed = needless + disruption.take(len(unhealthy) - needless)
    yield from (Delete(instance, Why.UNHEALTHY) for instance in unhealthy[:allowed])
    if allowed < len(unhealthy):
        yield Hold(len(unhealthy) - allowed, Why.UNHEALTHY, Limit.DISRUPTION)
    yield from (Delete(sight.instance, Why.STUCK) for sight in census.deleting if now - sight.instance.state_since > DELETE_AGAIN)
