"""What a check means for its group: what it waits for, how its launches go on, and when the next check is. Pure."""

import zlib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from shared.plan.limits import Limits
from shared.plan.outcome import Done, Outcome, Result, Trouble
from shared.plan.pacing import Pacing, pacing_of
from shared.plan.rollout import REJECTED, fail, failures_of, rejection_of
from shared.plan.schedule import failures_before, failures_in_a_row, interval_of, next_look, pause_after, usual_look
from shared.plan.steps import IN_PAST, Plan, Why
from shared.reasons import Reason
from shared.spec.rollout import ENDED, Rolled, Rollout
from shared.state.group_state import Check, DueGroup, Paced

#: Seconds for which CloudAPI is left alone at most, when it asks for that: one that works again is noticed within it.
LONGEST_LEFT_ALONE = 60.0
#: Seconds for which settled groups are not planned anew, at most, while CloudAPI's list stays the same.
LONGEST_REST = 3600


def conclude(group: DueGroup, plan: Plan, outcome: Outcome, now: datetime, limits: Limits) -> Check:
    """The check of a group whose plan was carried out."""
    interval = interval_of(group, limits, settled=plan.settled)
    pacing = _pacing(group, plan, outcome, now, limits)
    failures = failures_in_a_row(group, plan, outcome)
    return Check(
        group,
        after=next_look(plan, outcome, failures, interval, now, spread=limits.spread, resume_at=pacing.resume_at),
        failures=failures,
        error=outcome.error_after(plan, group),
        reason=outcome.reason_after(plan, group, is_open=pacing.is_open(limits.breaker)),
        paced=Paced(pacing.failures, pacing.window, pacing.resume_at, plan.replacing),
    )


def may_rest(account_id: str, due: Sequence[DueGroup], listing: str, now: datetime) -> bool:
    """Need nothing be planned for an account's due groups, since CloudAPI's list says what it said at their last checks?

    Once in `LONGEST_REST` they are planned all the same, each account's at a time of its own.
    """
    part = zlib.crc32(account_id.encode()) % LONGEST_REST

    def turn(at: datetime) -> float:
        return (at.timestamp() + part) // LONGEST_REST

    return all(group.listing == listing and group.checked_at is not None and turn(group.checked_at) == turn(now) for group in due)


def rest(group: DueGroup, limits: Limits) -> Check:
    """The check of a settled group that may rest."""
    return Check(
        group,
        after=usual_look(interval_of(group, limits, settled=True), limits.spread),
        failures=group.failures,
        error=group.last_error,
        reason=Reason.SETTLED,
        listing=group.listing,
    )


def rolled(group: DueGroup, before: Rollout, plan: Plan, done: Sequence[Done], now: datetime) -> Rolled | None:
    """What came of the rollout in this pass; None when nothing did."""
    if plan.rollout is None:
        return None
    failures = plan.rollout.failures + failures_of(plan, done, group.settings)
    after = plan.rollout._replace(failures=failures, counts=plan.rollout.counts._replace(failed=failures))
    if (rejection := rejection_of(done)) is not None and after.state not in ENDED:
        after = fail(after, REJECTED, rejection, now)
    counts = Counter(IN_PAST[type(one.step)] for one in done if one.result == Result.DONE and one.step.why == Why.OUTDATED)
    wave = ", ".join(f"{verb} {count}" for verb, count in sorted(counts.items())) or None
    return Rolled(before, after, wave) if after != before or wave else None


def put_off(group: DueGroup, trouble: Trouble) -> Check:
    """The check of a group for which nothing can be done now."""
    failures = failures_before(group, trouble.reason) + 1
    return Check(group, after=pause_after(failures, trouble.reason), failures=failures, error=trouble.problem, reason=trouble.reason)


def put_off_together(due: Sequence[DueGroup], trouble: Trouble) -> list[Check]:
    """The checks of an account's due groups for which nothing can be done now. They wait equally long.

    What another trouble has kept one of them back for does not count.
    """
    failures = 1 + max((group.failures for group in due if group.reason == trouble.reason), default=0)
    pause = max(pause_after(failures, trouble.reason), min(trouble.retry_after, LONGEST_LEFT_ALONE))
    return [Check(group, after=pause, failures=failures, error=trouble.problem, reason=trouble.reason) for group in due]


def _pacing(group: DueGroup, plan: Plan, outcome: Outcome, now: datetime, limits: Limits) -> Pacing:
    if plan.settled:
        return Pacing()
    return pacing_of(group).after(succeeded=plan.census.came_up, failed=outcome.failed_launches, now=now, breaker=limits.breaker)
