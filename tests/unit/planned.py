"""A plan in numbers: how many steps of which kind, and for what reason."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from shared.plan.census import Sight
from shared.plan.limits import Limits
from shared.plan.planner import make_plan
from shared.plan.steps import Delete, Hold, Launch, Limit, Plan, Why
from shared.state.group_state import DueGroup
from shared.state.instances import Instance


class Planned(NamedTuple):
    """Each step of the plan is in one of these."""

    plan: Plan
    launches: int
    held: int
    never_ran: list[Instance]
    unhealthy: list[Instance]
    waiting: int
    surplus: list[Instance]

    @property
    def settled(self) -> bool:
        return self.plan.settled


def planned(group: DueGroup, sights: Sequence[Sight], now: datetime, limits: Limits) -> Planned:
    plan = make_plan(group, sights, now, limits)

    def deleted(*why: Why) -> list[Instance]:
        return [step.instance for step in plan.steps if isinstance(step, Delete) and step.why in why]

    def held(why: Why, limit: Limit) -> int:
        return sum(step.count for step in plan.steps if isinstance(step, Hold) and (step.why, step.limit) == (why, limit))

    found = Planned(
        plan,
        launches=sum(step == Launch(Why.MISSING) for step in plan.steps),
        held=held(Why.MISSING, Limit.BACKOFF),
        never_ran=deleted(Why.NEVER_RAN),
        unhealthy=deleted(Why.UNHEALTHY, Why.STUCK),
        waiting=held(Why.UNHEALTHY, Limit.DISRUPTION),
        surplus=deleted(Why.SURPLUS, Why.DELETED_GROUP),
    )
    holds = (found.held > 0) + (found.waiting > 0)
    assert found.launches + len([*found.never_ran, *found.unhealthy, *found.surplus]) + holds == len(plan.steps), plan.steps
    return found
