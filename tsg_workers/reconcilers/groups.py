"""Bring an account's groups to their desired capacity: observe once, plan each due group, act in parallel, note when to check again.

Level-triggered: it compares what is with what should be, and does not ask what happened. It may run at any time, several at once (one gets
the lease), and be killed anywhere: what it was doing is in the rows, and the next run goes on.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from shared import log, metrics
from shared.clients import cloudapi
from shared.clients.budget import Budget
from shared.clients.cloudapi import Client, CloudAPI, CloudAPIError
from shared.clients.keys import Sealer
from shared.clients.queue import CONVERGE
from shared.errors import OtherRelease
from shared.management.access import NoManagementKey, client_for, forget_registration
from shared.plan.conclusion import conclude, put_off, rolled
from shared.plan.limits import Limits
from shared.plan.outcome import Done, Trouble, crash, outcome_of
from shared.plan.planner import make_plan
from shared.plan.rolling import rolling_of
from shared.plan.schedule import late_look
from shared.plan.steps import Launch, Plan, Update
from shared.reasons import Reason
from shared.spec.rollout import Rollout
from shared.spec.spec import Spec
from shared.state import accounts, group_state, leases, rollouts, templates
from shared.state.group_state import Check, DueGroup
from shared.state.leases import Lease, LeaseLost
from shared.state.templates import Template
from shared.state.work import ACCOUNT
from shared.store.db import Database, is_unavailable
from tsg_workers.cloud.act import Assignment, Hands
from tsg_workers.cloud.allowance import Allowance
from tsg_workers.cloud.observe import Observed, observe
from tsg_workers.cloud.problem import reason_of
from tsg_workers.cloud.record import Audit, Recorder, no_audit
from tsg_workers.runner import After, Keeper, Reconciler, Result

_log = log.get(__name__)

#: The management key is gone from CloudAPI, or was replaced there.
KEY_REFUSED = (
    "CloudAPI does not accept this service's key of the account: somebody removed it there, most likely. Send the service one request of "
    "the account's owner that signs the Date header alone; the service puts its key back and goes on. CloudAPI: {error}"
)
#: Groups of one pass. The rest stay due, and come next.
GROUPS_A_PASS = 1000
#: Seconds for which one call of `reconcile` goes on making passes before it lets other accounts have the thread.
TURN_SECONDS = 20.0


@dataclass(frozen=True)
class Pace:
    """The settings of reconciling. Seconds, but for the budget."""

    rate: float
    burst: int
    lease_seconds: int
    limits: Limits
    #: Each part of a pass (to ask, to act) begins nothing new after so long.
    part_seconds: float = 10.0


@dataclass(frozen=True)
class Claimed:
    """The lease on an account, and the account's budget of requests, which goes from one holder to the next."""

    lease: Lease
    budget: Budget


class GroupReconciler(Reconciler[Claimed]):
    """Reconciles the groups of an account; a subject is an account's id. One for a process; thread-safe."""

    kind = ACCOUNT
    queues = (CONVERGE,)

    def __init__(self, database: Database, clouds: CloudAPI, sealer: Sealer, pace: Pace, *, owner: str, audit: Audit = no_audit) -> None:
        self._db = database
        self._clouds = clouds
        self._sealer = sealer
        self._pace = pace
        self.claim_seconds = pace.lease_seconds
        self._owner = owner
        self._audit = audit
        #: Of each account, the orphans that the log has named.
        self._reported: dict[str, set[str]] = {}

    @classmethod
    def claim_due(cls, connection: Connection, *, limit: int, late: float = 0) -> list[tuple[str, str]]:
        """Accounts with a due group."""
        return [(CONVERGE, account_id) for account_id in leases.claim_due(connection, limit=limit, late=late)]

    def claim(self, connection: Connection, subject: str, owner: str) -> Claimed | None:
        lease = leases.claim(connection, subject, owner, seconds=self._pace.lease_seconds)
        if lease is None:
            metrics.lease_waits.inc()
            return None
        return Claimed(lease, Budget(self._pace.rate, self._pace.burst, left=lease.budget_left, age=lease.budget_age))

    def renew(self, connection: Connection, claimed: Claimed) -> bool:
        return leases.renew(connection, claimed.lease, seconds=self._pace.lease_seconds)

    def give_back(self, connection: Connection, claimed: Claimed, result: Result) -> bool:
        """When the account is due again, and what failed, stands in the state of its groups."""
        del result
        return leases.release(connection, claimed.lease, budget_left=claimed.budget.left)

    def reconcile(self, claimed: Claimed, keeper: Keeper) -> Result:
        """Work on the account's due groups until none is due, or for `TURN_SECONDS`."""
        with bound_contextvars(account_id=claimed.lease.account_id):
            self._turn(claimed.lease, keeper, claimed.budget, until=time.monotonic() + TURN_SECONDS)
        return After(None)

    def _turn(self, lease: Lease, keeper: Keeper, budget: Budget, *, until: float) -> None:
        while keeper.holds:
            with self._db.read() as connection:
                due = group_state.list_due(connection, lease.account_id, limit=GROUPS_A_PASS)
                account = accounts.get(connection, lease.account_id) if due else None
            if not due or time.monotonic() > until:
                return
            recorder = Recorder(self._db, lease, account.name if account else "", self._owner, self._audit)
            if account is None:
                self._put_off(recorder, keeper, due, Trouble("The account is disabled.", Reason.ACCOUNT_REJECTED))
                return
            try:
                client = client_for(self._db, self._clouds, self._sealer, account, budget, lambda: keeper.holds)
                with metrics.passes.time():
                    orphans = _Pass(self._db, client, lease, keeper, self._pace, recorder).run(due)
                self._report(account.id, orphans)
            except LeaseLost:
                keeper.lost()
            except Exception as error:
                if is_unavailable(error):
                    raise  # nothing can be noted now: the scheduler sends another wake-up
                self._put_off(recorder, keeper, due, _account_trouble(error))
                if isinstance(error, cloudapi.Unauthorized):
                    forget_registration(self._db, account)

    def _put_off(self, recorder: Recorder, keeper: Keeper, due: Sequence[DueGroup], trouble: Trouble) -> None:
        """Nothing can be done for any of these groups now."""
        _log.warning("groups_put_off", groups=len(due), error=trouble.problem, reason=trouble.reason)
        if not recorder.checked([put_off(group, trouble) for group in due]):
            keeper.lost()

    def _report(self, account_id: str, orphans: Collection[str]) -> None:
        """Log each orphan once: a machine with our tags and an unknown group, of another installation perhaps. It is left alone."""
        new = set(orphans) - self._reported.get(account_id, set())
        self._reported[account_id] = set(orphans)
        if new:
            _log.warning("unknown_tagged_machines", account_id=account_id, machines=len(new), machine_ids=sorted(new)[:10])


class _Pass:
    """One look at an account's machines, and what is done for its due groups."""

    def __init__(self, database: Database, client: Client, lease: Lease, keeper: Keeper, pace: Pace, recorder: Recorder) -> None:
        self._db = database
        self._client = client
        self._lease = lease
        self._keeper = keeper
        self._limits = pace.limits
        self._part_seconds = pace.part_seconds
        self._rollouts: Mapping[str, Rollout] = {}
        self._recorder = recorder

    def run(self, due: Sequence[DueGroup]) -> Collection[str]:
        """Observe, plan, act, conclude. The account's orphans."""
        began = time.monotonic()
        allowance = Allowance(self._client, self._keeper, seconds=self._part_seconds)
        observed = observe(self._db, self._client, self._lease, allowance, self._recorder, self._limits, due)
        plans = self._plan(due, observed)
        hands = Hands(self._db, self._client, self._lease, allowance, self._recorder)
        done = hands.carry_out(self._assignments(due, plans, observed.troubles))
        # The database's time, whatever this machine's clock says.
        now = observed.now + timedelta(seconds=time.monotonic() - began)
        checks = [self._conclude(group, plans.get(group.id), observed, done.get(group.id, []), now) for group in due]
        if not self._recorder.checked([check for check in checks if check is not None]):
            self._keeper.lost()
        return observed.orphans

    def _plan(self, due: Sequence[DueGroup], observed: Observed) -> dict[str, Plan]:
        """The plan of each group; a group over which the planner fails has none."""
        plans = {}
        members = {group.id: {sight.instance.template_id for sight in observed.sights[group.id]} for group in due if group.rollout_id}
        specs = self._under_way(members) if members else {}
        for group in due:
            with _sparing_others(group, observed.troubles[group.id]):
                rolling = None
                if (rollout := self._rollouts.get(group.id)) is not None:
                    rolling = rolling_of(rollout, {one: specs[one] for one in {*members[group.id], rollout.target_id} if one in specs})
                plan = make_plan(group, observed.sights[group.id], observed.now, self._limits, rolling)
                self._recorder.planned(group, plan)
                plans[group.id] = plan
        return plans

    def _under_way(self, members: Mapping[str, Collection[str | None]]) -> dict[str, Spec]:
        """Read the rollouts of these groups, and what their templates and those of the members say."""
        with self._db.read() as connection:
            self._rollouts = rollouts.list_under_way(connection, list(members))
            wanted = {rollout.target_id for rollout in self._rollouts.values()}
            known = templates.get_by_ids(connection, {one for of_group in members.values() for one in of_group if one} | wanted)
        return {template.id: template.spec for template in known.values() if not template.unreadable}

    def _assignments(self, due: Sequence[DueGroup], plans: Mapping[str, Plan], troubles: Mapping[str, list[Trouble]]) -> list[Assignment]:
        """The steps of each group that has a plan. No launches without a template to launch from."""
        with self._db.read() as connection:
            needed = templates.get_by_ids(
                connection, {one for group in due if group.id in plans for one in _templates(group, plans[group.id])}
            )
        assignments = []
        for group in due:
            if (plan := plans.get(group.id)) is None:
                continue
            acts = plan.acts
            if _templates(group, plan) and (trouble := _unusable(group, needed.get(group.template_id))) is not None:
                troubles[group.id].append(trouble)
                acts = tuple(step for step in acts if not isinstance(step, Launch | Update))
            put_off = any(trouble.put_off for trouble in troubles[group.id])
            makes_room = bool(plan.census.deleting or plan.deletions)
            is_rolling = plan.rolling is not None
            assignments.append(Assignment(group, acts, needed, stopped=put_off, makes_room=makes_room, in_order=is_rolling))
        return assignments

    def _conclude(self, group: DueGroup, plan: Plan | None, observed: Observed, done: Sequence[Done], now: datetime) -> Check | None:
        """What the pass means for the group; None when the group is over. A group without a plan is put off."""
        troubles = observed.troubles[group.id]
        if plan is not None:
            with _sparing_others(group, troubles):
                if group.archived and plan.empty:
                    if not self._recorder.emptied(group, after=late_look(group.emptied_for)):
                        self._keeper.lost()
                    return None
                outcome = outcome_of(troubles, done, slowest=observed.slowest)
                check = conclude(group, plan, outcome, now, self._limits)
                self._recorder.concluded(check, plan, outcome, breaker=self._limits.breaker)
                if (rollout := self._rollouts.get(group.id)) is not None:
                    return check._replace(rolled=rolled(group, rollout, plan, done, now))
                return check
        return put_off(group, troubles[-1])


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


def _account_trouble(error: Exception) -> Trouble:
    """What keeps a whole account back. A fault of this service is not tried again all the time either."""
    if isinstance(error, NoManagementKey):
        return Trouble(str(error), Reason.ACCOUNT_REJECTED)
    if isinstance(error, cloudapi.Unauthorized):
        return Trouble(KEY_REFUSED.format(error=error), Reason.ACCOUNT_REJECTED)
    if isinstance(error, CloudAPIError):
        return Trouble(str(error), reason_of(error))
    _log.error("pass_failed", exc_info=error)
    return crash(error, "account")
