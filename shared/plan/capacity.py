"""The rules that bring a group to its desired number of instances: shrink and grow. Pure."""

from collections.abc import Iterator
from datetime import datetime

from shared.plan.census import Census
from shared.plan.pacing import Pacing
from shared.plan.steps import Delete, Hold, Launch, Limit, Why
from shared.plan.victims import victims
from shared.reasons import Reason
from shared.state.group_state import DueGroup

#: Launches that one pass begins for one group: more than its time and the budget allow. A row may have any number in it.
LAUNCHES_A_PASS = 1000


def shrink(census: Census, group: DueGroup) -> Iterator[Delete]:
    """Delete what is too many. A launch without an answer may come to nothing: no machine goes for it."""
    why = Why.DELETED_GROUP if group.archived else Why.SURPLUS
    yield from (Delete(sight.instance, why) for sight in victims(census.known, len(census.known) - group.desired))


def grow(census: Census, group: DueGroup, pacing: Pacing, now: datetime, *, waiting: int) -> Iterator[Launch | Hold]:
    """Launch what is missing, as fast as the group's launches are allowed to go.

    The `waiting` machines are unhealthy and will be replaced later: nothing is launched in their place yet.
    """
    missing = max(0, group.desired - len(census.counted) - waiting)
    allowed = pacing.allowed(missing, sum(sight.instance.ran_at is None for sight in census.on_the_way), now)
    most, limit = (1, Limit.CLOUDAPI) if _cloudapi_fails(group) else (LAUNCHES_A_PASS, Limit.BATCH)
    launches = min(allowed, most)
    yield from [Launch(Why.MISSING)] * launches
    if allowed > launches:
        yield Hold(allowed - launches, Why.MISSING, limit)
    if missing > allowed:
        yield Hold(missing - allowed, Why.MISSING, Limit.BACKOFF)


def _cloudapi_fails(group: DueGroup) -> bool:
    """Has CloudAPI itself failed at looks in a row, and nothing come of them? Errors beside successes count as one failure."""
    return group.reason == Reason.CLOUDAPI_UNAVAILABLE and group.failures > 1
