"""What a check means for its group: what it waits for, how its launches go on, and when the next check is. Pure."""

from datetime import datetime

from shared.plan.limits import Limits
from shared.plan.outcome import Outcome, Trouble
from shared.plan.pacing import Pacing, pacing_of
from shared.plan.schedule import failures_before, failures_in_a_row, interval_of, next_look, pause_after
from shared.plan.steps import Plan
from shared.state.group_state import Check, DueGroup, Paced


def conclude(group: DueGroup, plan: Plan, outcome: Outcome, now: datetime, limits: Limits) -> Check:
    """The check of a group whose plan was carried out."""
    pacing = _pacing(group, plan, outcome, now, limits)
    failures = failures_in_a_row(group, plan, outcome)
    return Check(
        group,
        after=next_look(plan, outcome, failures, interval_of(group, plan, limits), now, spread=limits.spread, resume_at=pacing.resume_at),
        failures=failures,
        error=outcome.error_after(plan, group),
        reason=outcome.reason_after(plan, group, is_open=pacing.is_open(limits.breaker)),
        paced=Paced(pacing.failures, pacing.window, pacing.resume_at, plan.replacing),
    )


def put_off(group: DueGroup, trouble: Trouble) -> Check:
    """The check of a group for which nothing can be done now."""
    failures = failures_before(group, trouble.reason) + 1
    return Check(group, after=pause_after(failures, trouble.reason), failures=failures, error=trouble.problem, reason=trouble.reason)


def _pacing(group: DueGroup, plan: Plan, outcome: Outcome, now: datetime, limits: Limits) -> Pacing:
    if plan.settled:
        return Pacing()
    return pacing_of(group).after(succeeded=plan.census.came_up, failed=outcome.failed_launches, now=now, breaker=limits.breaker)
