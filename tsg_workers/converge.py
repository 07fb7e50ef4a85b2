"""Bring an account's groups to their capacity: look once, plan each due group, act in parallel, say when to look again.

Level, not edge: nothing here asks what happened. It may be run at any time, by several at once (the lease lets one in), and be killed
anywhere: what it was about is in the rows, and the next one goes on.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import chain, zip_longest

from structlog.contextvars import bound_contextvars

from shared import log, metrics
from shared.clients import cloudapi
from shared.clients.budget import Budget
from shared.clients.cloudapi import Client, CloudAPI, CloudAPIError
from shared.clients.keys import Sealer
from shared.clients.management import NoManagementKey, client_for, forget_registration
from shared.reasons import Reason
from shared.state import accounts, activities, instances, leases, looks, templates
from shared.state.instances import Instance
from shared.state.leases import Lease, LeaseLost
from shared.state.looks import Look, Work
from shared.state.templates import Template
from shared.store.db import Database, is_unavailable
from tsg_workers.backoff import backoff
from tsg_workers.lease import Keeper
from tsg_workers.observe import PARALLEL, Observer
from tsg_workers.outcome import Outcome, reason_of
from tsg_workers.pacing import Pacing
from tsg_workers.plan import Limits, Plan, pacing_of, plan
from tsg_workers.scribe import Audit, Scribe
from tsg_workers.when import failures_in_a_row, late_look, next_look

_log = log.get(__name__)

#: Groups that one pass takes up; the rest are due still, and come next.
GROUPS_A_PASS = 1000
#: Launches that one pass begins for one group: more than its time and the budget allow.
LAUNCHES_A_PASS = 1000
#: Seconds after which a pass begins nothing new.
PASS_SECONDS = 10.0
#: Seconds for which one call of `converge` goes on making passes before it lets other accounts have the thread.
TURN_SECONDS = 20.0

#: Why an instance goes, as the metrics have it, and in words.
STILLBORN, UNHEALTHY, SURPLUS = "stillborn", "unhealthy", "surplus"
WHY = {STILLBORN: "never came to run", UNHEALTHY: "does not run any more", SURPLUS: "was one too many"}
OF_DELETED = "is of a deleted group"


def unheard(*_told: str) -> None:
    """The audit of those who keep none besides the activities."""


@dataclass(frozen=True)
class Pace:
    """The settings of converging. Seconds, but for the budget."""

    rate: float
    burst: int
    lease_seconds: int
    limits: Limits
    #: By this share of its interval a group may be looked at early, so that groups made together are not checked together for ever.
    spread: float = 0.1


class Converger:
    """Converges accounts. One for a process; thread-safe. Once `stop` is set, passes begin nothing more and hand back what is left."""

    def __init__(
        self,
        database: Database,
        clouds: CloudAPI,
        sealer: Sealer,
        pace: Pace,
        *,
        owner: str,
        audit: Audit = unheard,
        stop: threading.Event | None = None,
    ) -> None:
        self._db = database
        self._clouds = clouds
        self._sealer = sealer
        self._pace = pace
        self._owner = owner
        self._audit = audit
        self._stop = stop or threading.Event()
        self._held: dict[Lease, Budget] = {}
        #: Of each account, the machines of no group of ours that the log has told of.
        self._reported: dict[str, set[str]] = {}

    def converge(self, account_id: str) -> bool:
        """Work on the account's due groups until none is due, or for `TURN_SECONDS`. True when some are due still.

        Returns at once when another worker holds the account's lease.
        """
        if self._stop.is_set():
            return False
        taken_at = time.monotonic()
        with self._db.read() as connection:
            lease = leases.take(connection, account_id, self._owner, seconds=self._pace.lease_seconds)
        if lease is None:
            metrics.lease_waits.inc()
            _log.debug("lease_is_taken", account_id=account_id)
            return False
        budget = Budget(self._pace.rate, self._pace.burst, left=lease.budget_left, age=lease.budget_age)
        with (
            bound_contextvars(account_id=account_id),
            Keeper(self._db, lease, seconds=self._pace.lease_seconds, taken_at=taken_at, stop=self._stop) as keeper,
        ):
            self._held[lease] = budget
            try:
                return self._turn(lease, keeper, budget, until=taken_at + TURN_SECONDS)
            finally:
                del self._held[lease]
                with self._db.read() as connection:
                    leases.release(connection, lease, budget_left=budget.left)

    def hand_back(self) -> int:
        """Give back the leases of passes that have not come to their end in time; how many. Their launches are in the rows."""
        held = list(self._held.items())
        with self._db.read() as connection:
            for lease, budget in held:
                leases.release(connection, lease, budget_left=budget.left)
        return len(held)

    def _turn(self, lease: Lease, keeper: Keeper, budget: Budget, *, until: float) -> bool:
        while keeper.holds:
            with self._db.read() as connection:
                due = looks.due(connection, lease.account_id, limit=GROUPS_A_PASS)
                account = accounts.get(connection, lease.account_id) if due else None
            if not due:
                return False
            if time.monotonic() > until:
                return True
            scribe = Scribe(self._db, lease.account_id, account.name if account else "", self._owner, self._audit)
            if account is None:
                self._put_off(scribe, lease, keeper, due, "The account is disabled.", Reason.ACCOUNT_REJECTED)
                return False
            try:
                client = client_for(self._db, self._clouds, self._sealer, account, budget, lambda: keeper.holds)
                with metrics.passes.time():
                    strangers = _Pass(self._db, client, lease, keeper, self._pace, scribe).run(due)
                self._report(account.id, strangers)
            except LeaseLost:
                keeper.lost()
            except Exception as error:
                if is_unavailable(error):
                    raise  # nothing can be noted now: the clock rings again
                self._put_off(scribe, lease, keeper, due, *_account_problem(error))
                if isinstance(error, cloudapi.Unauthorized):
                    forget_registration(self._db, account)
        return False

    def _put_off(self, scribe: Scribe, lease: Lease, keeper: Keeper, due: Sequence[Work], problem: str, reason: Reason) -> None:
        """Nothing can be done for any of these groups now."""
        _log.warning("groups_put_off", groups=len(due), error=problem, reason=reason)
        if not scribe.checked(lease, [put_off(group, problem, reason) for group in due]):
            keeper.lost()

    def _report(self, account_id: str, strangers: Collection[str]) -> None:
        """Say once of each machine with our tags that it is of no group we know: another installation's, or nobody's. It is left alone."""
        new = set(strangers) - self._reported.get(account_id, set())
        self._reported[account_id] = set(strangers)
        if new:
            _log.warning("machines_of_no_group_of_ours", account_id=account_id, machines=len(new), machine_ids=sorted(new)[:10])


class _Pass:
    """One look at an account's machines, and what follows from it for its due groups."""

    def __init__(self, database: Database, client: Client, lease: Lease, keeper: Keeper, pace: Pace, scribe: Scribe) -> None:
        self._db = database
        self._client = client
        self._lease = lease
        self._keeper = keeper
        self._limits = pace.limits
        self._spread = pace.spread
        self._scribe = scribe
        self._deadline = time.monotonic() + PASS_SECONDS

    def run(self, due: Sequence[Work]) -> Collection[str]:
        """Do it; the machines that carry this service's tags and are nobody's."""
        began = time.monotonic()
        outcomes = {group.id: Outcome() for group in due}

        def failed(instance: Instance, error: CloudAPIError) -> None:
            about = {"group_id": instance.group_id, "machine_id": instance.machine_id}
            self._failed("look_failed", outcomes[instance.group_id], error, Reason.CLOUDAPI_UNAVAILABLE, **about)

        observer = Observer(self._db, self._client, self._lease, self._limits, may_ask=self._may_ask, failed=failed, tell=self._scribe.seen)
        seen = observer.look(due)
        for group_id in seen.misled:
            problem = "CloudAPI's list lacks machines that it has, and not all could be asked for one by one."
            outcomes[group_id].failed(problem, Reason.CLOUDAPI_UNAVAILABLE)
        plans: dict[str, Plan] = {}
        for group in due:
            with _sparing_others(group, outcomes[group.id]):
                planned = plan(group, seen.sights[group.id], seen.now, self._limits)
                self._scribe.planned(group, seen.sights[group.id], planned)
                plans[group.id] = planned
        self._act([group for group in due if group.id in plans], plans, outcomes)
        # The database's time, whatever this machine's clock says.
        now = seen.now + timedelta(seconds=time.monotonic() - began)
        concluded = [self._concluded(group, plans.get(group.id), outcomes[group.id], now) for group in due]
        if not self._scribe.checked(self._lease, [look for look in concluded if look is not None]):
            self._keeper.lost()
        return seen.strangers

    # What to do about it

    def _act(self, due: Sequence[Work], plans: Mapping[str, Plan], outcomes: Mapping[str, Outcome]) -> None:
        """Carry the plans out, in parallel, going round the groups: a large one keeps no small one waiting."""
        with self._db.read() as connection:
            made_from = templates.by_ids(connection, {group.template_id for group in due if plans[group.id].launches})
        by_group = [self._actions(group, plans[group.id], outcomes[group.id], made_from) for group in due]
        in_turn = [action for action in chain.from_iterable(zip_longest(*by_group)) if action is not None]
        if in_turn:
            with ThreadPoolExecutor(min(PARALLEL, len(in_turn))) as pool:
                for done in [pool.submit(action) for action in in_turn]:
                    done.result()

    def _actions(self, group: Work, planned: Plan, outcome: Outcome, made_from: Mapping[str, Template]) -> list[Callable[[], None]]:
        template, launches = made_from.get(group.template_id), planned.launches
        if launches and (template is None or template.unreadable):
            # A database of 2018 may lack the reference that keeps it, or hold what a person wrote into it.
            problem = f"is unreadable: {', '.join(template.unreadable)}" if template else "is not there"
            outcome.failed(f"The group's template {group.template_id} {problem}.", Reason.TEMPLATE_REJECTED)
            launches = 0
        doomed = ((planned.stillborn, STILLBORN), (planned.unhealthy, UNHEALTHY), (planned.surplus, SURPLUS))
        actions = [partial(self._delete, group, instance, why, outcome) for those, why in doomed for instance in those]
        if template is not None:
            # A row may have any number in it.
            actions += [partial(self._launch, group, template, outcome)] * min(launches, LAUNCHES_A_PASS)
        return [_sparing_others(group, outcome)(action) for action in actions]

    def _may_ask(self) -> bool:
        """Wait for the budget; False when the pass should begin nothing more."""
        return self._keeper.holds and self._client.turn(within=self._deadline - time.monotonic())

    def _may_go_on(self, outcome: Outcome) -> bool:
        """`_may_ask` on behalf of one group."""
        if not outcome.unfinished and not self._may_ask():
            outcome.unfinished = True
        return not outcome.unfinished

    def _launch(self, group: Work, template: Template, outcome: Outcome) -> None:
        with bound_contextvars(group_id=group.id, request_id=group.request_id):
            if outcome.refused or not self._may_go_on(outcome):
                return
            with self._db.read() as connection:
                launch_id = instances.launch(connection, self._lease, group)
            if launch_id is None:
                outcome.unfinished = True
                return
            tags = cloudapi.instance_tags(group_name=group.name, group_id=group.id, template_id=template.id, launch_id=launch_id)
            began = time.monotonic()
            try:
                machine = self._client.create_machine(template.spec, name=cloudapi.instance_name(template.id), tags=tags)
            except cloudapi.AnswerLost as error:
                # It may have been made: the launch goes on counting until a list shows it, or time shows that it was not.
                outcome.failed(str(error), Reason.CLOUDAPI_UNAVAILABLE)
                outcome.failed_launches += 1
                metrics.launches.labels("answer_lost").inc()
                _log.warning("launch_answer_lost", launch_id=launch_id, error=str(error))
                self._scribe.note(
                    group,
                    activities.LAUNCH_ERROR,
                    "a launch was not answered, and is looked for",
                    took=time.monotonic() - began,
                    error=error,
                )
            except CloudAPIError as error:
                end = instances.doubted if isinstance(error, cloudapi.Broken) else instances.refused
                with self._db.read() as connection:
                    end(connection, launch_id)
                outcome.refused |= isinstance(error, cloudapi.Rejected)
                metrics.launches.labels("failed").inc()
                self._failed("launch_failed", outcome, error, Reason.TEMPLATE_REJECTED, launch_id=launch_id)
                if outcome.errors:
                    outcome.failed_launches += 1
                    self._scribe.note(group, activities.LAUNCH_ERROR, "a launch failed", took=time.monotonic() - began, error=error)
            else:
                outcome.launched += 1
                metrics.launches.labels("launched").inc()
                _log.info("instance_launched", launch_id=launch_id, machine_id=machine.id)
                # Told before it is noted: a worker that is killed in between leaves it to be found, and told twice rather than never.
                took = time.monotonic() - began
                self._scribe.note(group, activities.LAUNCH, f"launched {machine.id}", took=took, machine_id=machine.id)
                with self._db.read() as connection:
                    instances.acknowledged(connection, launch_id, machine.id, machine.state)

    def _delete(self, group: Work, instance: Instance, why: str, outcome: Outcome) -> None:
        machine_id = instance.machine_id or ""
        with bound_contextvars(group_id=group.id, request_id=group.request_id, machine_id=machine_id):
            if not self._may_go_on(outcome):
                return
            with self._db.read() as connection:
                if not instances.may_delete(connection, self._lease, group):
                    outcome.unfinished = True
                    return
            began = time.monotonic()
            try:
                self._client.delete_machine(machine_id)
            except CloudAPIError as error:
                metrics.deletions.labels("failed").inc()
                self._failed("deletion_failed", outcome, error, Reason.DELETION_REJECTED)
                if outcome.errors:
                    told = f"deleting {machine_id} failed"
                    self._scribe.note(
                        group, activities.TERMINATE_ERROR, told, took=time.monotonic() - began, machine_id=machine_id, error=error
                    )
            else:
                outcome.deleted += 1
                outcome.failed_launches += why == STILLBORN
                metrics.deletions.labels(why).inc()
                _log.info("instance_deleted", why=why, was=instance.state)
                told = f"deleted {machine_id}, which {OF_DELETED if group.archived else WHY[why]} ({instance.state})"
                self._scribe.note(group, activities.TERMINATE, told, took=time.monotonic() - began, machine_id=machine_id)
                with self._db.read() as connection:
                    instances.deleting(connection, instance.id)

    def _failed(self, event: str, outcome: Outcome, error: CloudAPIError, refusal: Reason, **fields: object) -> None:
        """`refusal` is what it means when CloudAPI says that the request will not do."""
        if isinstance(error, cloudapi.Withheld):
            outcome.unfinished = True
        elif isinstance(error, cloudapi.Throttled):
            outcome.left(Reason.THROTTLED)
        else:
            outcome.failed(str(error), reason_of(error, refusal=refusal))
        _log.warning(event, error=str(error), status=error.status, code=error.code, cloudapi_request_id=error.request_id, **fields)

    # When to look again

    def _concluded(self, group: Work, planned: Plan | None, outcome: Outcome, now: datetime) -> Look | None:
        """When to look at the group again, and why; None when it is over. A group that had no plan is put off."""
        if planned is not None:
            with _sparing_others(group, outcome):
                if not (group.archived and planned.empty):
                    return self._conclude(group, planned, outcome, now)
                self._emptied(group)
                return None
        return put_off(group, outcome.errors[-1], Reason.SERVICE_FAILED)

    def _emptied(self, group: Work) -> None:
        if not self._scribe.emptied(self._lease, group, after=late_look(group.emptied_for)):
            self._keeper.lost()
        elif group.emptied_for is None:
            metrics.checks.labels(Reason.DELETED).inc()
            _log.info("group_emptied", group_id=group.id, request_id=group.request_id)

    def _conclude(self, group: Work, planned: Plan, outcome: Outcome, now: datetime) -> Look:
        pacing = self._paced(group, planned, outcome, now)
        failures = failures_in_a_row(group.failures, planned, outcome)
        after = next_look(planned, outcome, failures, group.interval, now, spread=self._spread, resume_at=pacing.resume_at)
        error = outcome.error_after(planned, group)
        reason = outcome.reason_after(planned, group, is_open=pacing.is_open(self._limits.breaker))
        metrics.checks.labels(reason).inc()
        if outcome.launched or outcome.deleted or outcome.errors:
            _log.info(
                "group_checked",
                group_id=group.id,
                request_id=group.request_id,
                wanted=group.wanted,
                launched=outcome.launched,
                deleted=outcome.deleted,
                errors=len(outcome.errors),
                held=planned.held,
                waiting=len(planned.waiting),
                next_look=round(after, 1),
            )
        return Look(group, after=after, failures=failures, error=error, reason=reason)

    def _paced(self, group: Work, planned: Plan, outcome: Outcome, now: datetime) -> Pacing:
        """Note how the group's launches went."""
        before, breaker = pacing_of(group), self._limits.breaker
        failed = outcome.failed_launches + planned.lost
        after = Pacing() if planned.settled else before.after(succeeded=planned.came_up, failed=failed, now=now, breaker=breaker)
        if (before, group.replacing) != (after, planned.replacing):
            stands = group._replace(launch_failures=after.failures, launch_window=after.window, launch_at=after.resume_at)
            with self._db.read() as connection:
                looks.paced(connection, self._lease, stands._replace(replacing=planned.replacing))
        if after.is_open(breaker) and not before.is_open(breaker):
            _log.warning("circuit_opened", group_id=group.id, failures=after.failures)
        elif before.is_open(breaker) and not after.is_open(breaker):
            _log.info("circuit_closed", group_id=group.id)
        return after


@contextmanager
def _sparing_others(group: Work, outcome: Outcome) -> Iterator[None]:
    """A fault of ours with one group costs the others nothing."""
    try:
        yield
    except Exception as error:
        if is_unavailable(error):
            raise
        _log.error("group_failed", group_id=group.id, exc_info=error)
        problem = f"The service failed on this group ({type(error).__name__}); its log says how."
        outcome.failed(problem, Reason.SERVICE_FAILED)


def _account_problem(error: Exception) -> tuple[str, Reason]:
    """What keeps a whole account back, and the word for it. A fault of ours too must not be tried again all the time."""
    if isinstance(error, NoManagementKey):
        return str(error), Reason.ACCOUNT_REJECTED
    if isinstance(error, CloudAPIError):
        return str(error), reason_of(error)
    _log.error("pass_failed", exc_info=error)
    return f"The service failed on this account ({type(error).__name__}); its log says how.", Reason.SERVICE_FAILED


def put_off(group: Work, problem: str, reason: Reason) -> Look:
    """Nothing can be done for the group now."""
    metrics.checks.labels(reason).inc()
    failures = group.failures + 1
    return Look(group, after=backoff(failures), failures=failures, error=problem, reason=reason)
