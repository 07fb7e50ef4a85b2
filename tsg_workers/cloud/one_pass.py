"""One pass over an account's due groups: observe once, plan each group, act in parallel, conclude."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from shared import log
from shared.clients.cloudapi import Client
from shared.errors import OtherRelease
from shared.plan.census import Sight
from shared.plan.conclusion import conclude, may_rest, put_off, rest, rolled
from shared.plan.limits import Limits
from shared.plan.outcome import Done, Trouble, crash, outcome_of
from shared.plan.planner import make_plan
from shared.plan.rolling import Rolling, rolling_of
from shared.plan.schedule import late_look
from shared.plan.steps import Launch, Plan, Update
from shared.reasons import Reason
from shared.spec.rollout import Rollout
from shared.spec.spec import Spec
from shared.state import rollouts, templates
from shared.state.group_state import Check, DueGroup
from shared.state.templates import Template
from shared.store.db import Database, is_unavailable
from tsg_workers.cloud.act import Assignment, Executor
from tsg_workers.cloud.allowance import Allowance
from tsg_workers.cloud.list import Listing
from tsg_workers.cloud.observe import Observed, observe
from tsg_workers.cloud.record import Recorder
from tsg_workers.runner import Keeper

_log = log.get(__name__)


@dataclass(frozen=True)
class Pace:
    """The settings of reconciling. Seconds, but for the budget."""

    rate: float
    burst: int
    lease_seconds: int
    limits: Limits
    #: Each part of a pass (to ask, to act) begins nothing new after so long.
    part_seconds: float = 10.0


class Rollouts(NamedTuple):
    """The rollouts under way of the groups of a pass, and what their templates and those of the members say."""

    #: By the group's id.
    under_way: Mapping[str, Rollout] = MappingProxyType({})
    #: By the template's id.
    specs: Mapping[str, Spec] = MappingProxyType({})

    def of_group(self, group_id: str, sights: Sequence[Sight]) -> Rolling | None:
        """The group's rollout as the planner takes it. `OtherRelease` where another one wrote it."""
        rollout = self.under_way.get(group_id)
        if rollout is None:
            return None
        concerned = {rollout.target_id, *(sight.instance.template_id for sight in sights)}
        return rolling_of(rollout, {template_id: spec for template_id, spec in self.specs.items() if template_id in concerned})


class Pass:
    """One look at an account's machines, and what is done for its due groups."""

    def __init__(self, database: Database, client: Client, keeper: Keeper, recorder: Recorder, pace: Pace) -> None:
        self._db = database
        self._client = client
        self._keeper = keeper
        self._recorder = recorder
        self._limits = pace.limits
        self._part_seconds = pace.part_seconds
        self._rollouts = Rollouts()

    def run(self, due: Sequence[DueGroup]) -> Collection[str] | None:
        """List, and where that brings news: observe, plan, act, conclude. The account's orphans; None where all groups rest."""
        listing = Listing(self._client)
        if may_rest(self._recorder.lease.account_id, due, listing.digest, datetime.now(UTC)):
            self._mark_checked([rest(group, self._limits) for group in due])
            return None
        began = time.monotonic()
        allowance = Allowance(self._client, self._keeper, seconds=self._part_seconds)
        observed = observe(self._db, self._client, allowance, self._recorder, self._limits, due, listing)
        self._rollouts = _read_rollouts(self._db, due, observed.sights)
        plans = self._plan(due, observed)
        executor = Executor(self._db, self._client, allowance, self._recorder)
        done = executor.carry_out(_assignments(self._db, due, plans, observed.troubles))
        # The database's time, whatever this machine's clock says.
        now = observed.now + timedelta(seconds=time.monotonic() - began)
        checks = [self._conclude(group, plans.get(group.id), observed, done.get(group.id, []), now) for group in due]
        self._mark_checked([check for check in checks if check is not None])
        return observed.orphans

    def _mark_checked(self, checks: Sequence[Check]) -> None:
        if not self._recorder.mark_checked(checks):
            self._keeper.lost()

    def _plan(self, due: Sequence[DueGroup], observed: Observed) -> dict[str, Plan]:
        """The plan of each group; a group over which the planner fails has none."""
        plans = {}
        for group in due:
            sights = observed.sights[group.id]
            with _sparing_others(group, observed.troubles[group.id]):
                plan = make_plan(group, sights, observed.now, self._limits, self._rollouts.of_group(group.id, sights))
                self._recorder.note_plan(group, plan)
                plans[group.id] = plan
        return plans

    def _conclude(self, group: DueGroup, plan: Plan | None, observed: Observed, done: Sequence[Done], now: datetime) -> Check | None:
        """What the pass means for the group; None when the group is over. A group without a plan is put off."""
        troubles = observed.troubles[group.id]
        if plan is not None:
            with _sparing_others(group, troubles):
                if group.archived and plan.empty:
                    if not self._recorder.mark_emptied(group, after=late_look(group.emptied_for)):
                        self._keeper.lost()
                    return None
                outcome = outcome_of(troubles, done, slowest=observed.slowest)
                check = conclude(group, plan, outcome, now, self._limits)
                self._recorder.log_check(check, plan, outcome, breaker=self._limits.breaker)
                if (rollout := self._rollouts.under_way.get(group.id)) is not None:
                    return check._replace(rolled=rolled(group, rollout, plan, done, now))
                can_rest = check.reason == Reason.SETTLED and plan.next_at is None
                return check._replace(listing=observed.listing) if can_rest else check
        return put_off(group, troubles[-1])


def _read_rollouts(database: Database, due: Sequence[DueGroup], sights: Mapping[str, Sequence[Sight]]) -> Rollouts:
    rolling = [group.id for group in due if group.rollout_id is not None]
    if not rolling:
        return Rollouts()
    with database.read() as connection:
        under_way = rollouts.list_under_way(connection, rolling)
        concerned = {sight.instance.template_id for group_id in rolling for sight in sights[group_id]}
        concerned |= {rollout.target_id for rollout in under_way.values()}
        known = templates.get_by_ids(connection, {one for one in concerned if one is not None})
    return Rollouts(under_way, {template.id: template.spec for template in known.values() if not template.unreadable})


def _assignments(
    database: Database, due: Sequence[DueGroup], plans: Mapping[str, Plan], troubles: Mapping[str, list[Trouble]]
) -> list[Assignment]:
    """The steps of each group that has a plan. No launches without a template to launch from."""
    with database.read() as connection:
        needed = templates.get_by_ids(connection, {one for group in due if group.id in plans for one in _templates(group, plans[group.id])})
    assignments = []
    for group in due:
        if (plan := plans.get(group.id)) is None:
            continue
        acts = plan.acts
        if _templates(group, plan) and (trouble := _unusable(group, needed.get(group.template_id))) is not None:
            troubles[group.id].append(trouble)
            acts = tuple(step for step in acts if not isinstance(step, Launch | Update))
        is_put_off = any(trouble.put_off for trouble in troubles[group.id])
        makes_room = bool(plan.census.deleting or plan.deletions)
        is_rolling = plan.rolling is not None
        assignments.append(Assignment(group, acts, needed, stopped=is_put_off, makes_room=makes_room, in_order=is_rolling))
    return assignments


@contextmanager
def _sparing_others(group: DueGroup, troubles: list[Trouble]) -> Iterator[None]:
    """What this service fails on, or cannot read, costs its own group alone."""
    try:
        yield
    except OtherRelease as error:
        _log.warning("group_put_off", group_id=group.id, error=str(error))
        troubles.append(Trouble(str(error), Reason.SERVICE_FAILED))
    except Exception as error:
        if is_unavailable(error):
            raise
        _log.error("group_failed", group_id=group.id, exc_info=error)
        troubles.append(crash(error))


def _templates(group: DueGroup, plan: Plan) -> set[str]:
    """The templates that the plan needs: to launch from, and of instances that are updated."""
    updated = {step.instance.template_id or "" for step in plan.steps if isinstance(step, Update)}
    return {*updated, group.template_id} if updated or plan.launches else set()


def _unusable(group: DueGroup, template: Template | None) -> Trouble | None:
    """A database of 2018 may lack the reference that keeps a template, or hold what a person wrote into it."""
    if template is not None and not template.unreadable:
        return None
    problem = f"is unreadable: {', '.join(template.unreadable)}" if template else "is not there"
    return Trouble(f"The group's template {group.template_id} {problem}.", Reason.TEMPLATE_REJECTED)
