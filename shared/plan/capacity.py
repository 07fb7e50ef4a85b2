"""The rules that bring a group to its desired number of instances: shrink and grow. Pure."""

from collections.abc import Iterator

from shared.plan.census import Sight
from shared.plan.pacing import Pacing
from shared.plan.steps import Delete, Drain, Hold, Launch, Limit, Undrain, Why
from shared.plan.victims import victims
from shared.plan.view import View
from shared.reasons import Reason
from shared.state.group_state import DueGroup

#: Launches that one pass begins for one group: more than its time and the budget allow. A row may have any number in it.
LAUNCHES_A_PASS = 1000


def let_go(view: View, sight: Sight, why: Why) -> Delete | Drain:
    """Delete an instance, or begin its drain."""
    drain = view.drain_of(sight)
    return (
        Delete(sight.instance, why) if drain is None else Drain(sight.instance, why, drain.seconds, leaves_dns=drain.cns and sight.has_dns)
    )


def shrink(view: View, candidates: list[Sight], surplus: int) -> Iterator[Delete | Drain | Hold]:
    """Delete `surplus` of the candidates. Protected ones stay, unless the group is deleted."""
    if surplus <= 0:
        return
    why = Why.DELETED_GROUP if view.group.archived else Why.SURPLUS
    if not view.may_terminate:
        yield Hold(surplus, why, Limit.SUSPENDED)
        return
    free = [sight for sight in candidates if view.group.archived or not sight.instance.is_protected]
    yield from (let_go(view, sight, why) for sight in victims(view, free, surplus))
    if surplus > len(free) and len(candidates) > len(free):
        yield Hold(min(surplus, len(candidates)) - len(free), why, Limit.PROTECTED)


def take_back(view: View, missing: int) -> Iterator[Undrain]:
    """Take draining instances back rather than launch others: those whose drain would be over last."""
    back = [
        sight
        for sight in view.census.leaving
        if view.works(sight) and not sight.instance.is_unwanted and (view.rolling is None or view.is_new(sight))
    ]
    back.sort(key=lambda sight: (sight.instance.drained_at or view.now, sight.instance.id), reverse=True)
    dns = view.settings.drain is None or view.settings.drain.cns
    for sight in back[: max(0, missing)]:
        yield Undrain(sight.instance, Why.MISSING, joins_dns=dns and sight.has_dns)


def grow(view: View, pacing: Pacing, missing: int, surge: int) -> Iterator[Launch | Hold]:
    """Launch what is missing, and `surge` for a rollout, as fast as the group's launches are allowed to go."""
    wanted = [Launch(Why.MISSING)] * max(0, missing) + [Launch(Why.OUTDATED)] * max(0, surge)
    if not wanted:
        return
    why = wanted[0].why
    if not view.may_launch:
        yield Hold(len(wanted), why, Limit.SUSPENDED)
        return
    under_way = sum(sight.instance.ran_at is None for sight in view.census.on_the_way)
    allowed = pacing.allowed(len(wanted), under_way, view.now)
    most, limit = (1, Limit.CLOUDAPI) if _cloudapi_fails(view.group) else (LAUNCHES_A_PASS, Limit.BATCH)
    launches = min(allowed, most)
    yield from wanted[:launches]
    if allowed > launches:
        yield Hold(allowed - launches, why, limit)
    if len(wanted) > allowed:
        yield Hold(len(wanted) - allowed, why, Limit.BACKOFF)


def _cloudapi_fails(group: DueGroup) -> bool:
    """Has CloudAPI itself failed at checks in a row, and nothing come of them? Errors beside successes count as one failure."""
    return group.reason == Reason.CLOUDAPI_UNAVAILABLE and group.failures > 1
