"""Bring an account's groups to their capacity: look once, plan each due group, act in parallel, say when to look again.

Level, not edge: nothing here asks what happened. It may be run at any time, by several at once (the lease lets one in), and be killed
anywhere: what it was about is in the rows, and the next one goes on.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, zip_longest

import sqlalchemy.exc
from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from shared import accounts, activities, cloudapi, groups, instances, leases, log, templates
from shared.accounts import Account
from shared.cloudapi import TAG_GROUP, TAG_LAUNCH, TAG_NAME, TAG_TEMPLATE, Budget, Client, CloudAPI, CloudAPIError, Machine
from shared.db import Database
from shared.groups import Work
from shared.instances import DELETING, GONE, LAUNCHING, Instance
from shared.keys import Sealer
from shared.leases import Lease
from shared.management import NoManagementKey, client_for
from shared.reasons import Reason
from shared.templates import Template
from tsg_workers.backoff import backoff
from tsg_workers.lease import Keeper
from tsg_workers.outcome import Outcome, reason_of
from tsg_workers.plan import Limits, Plan, Sight, is_lost, plan

_log = log.get(__name__)

#: Requests under way at once for one account. Creates take seconds in CloudAPI, and the budget is per second.
PARALLEL = 32
#: Groups that one pass takes up; the rest are due still, and come next.
GROUPS_A_PASS = 200
#: Seconds after which a pass begins nothing new.
PASS_SECONDS = 10.0
#: Seconds for which one call of `converge` goes on making passes before it lets other accounts have the thread.
TURN_SECONDS = 20.0
#: Seconds for which a machine that CloudAPI acknowledged may be missing from its list without being asked for.
LISTED_AFTER = 5.0

#: Seconds between looks while something is moving: a quarter of the time it has been moving for, within these bounds.
SOONEST, LATEST = 1.0, 15.0


#: Told of each launch and each deletion: kind (of `shared.activities`), account's name, group's name, status, description.
Audit = Callable[[str, str, str, str, str], None]


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
        self._held: dict[str, tuple[Lease, Budget]] = {}

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
            _log.debug("lease_is_taken", account_id=account_id)
            return False
        budget = Budget(self._pace.rate, self._pace.burst, left=lease.budget_left, age=lease.budget_age)
        with (
            bound_contextvars(account_id=account_id),
            Keeper(self._db, lease, seconds=self._pace.lease_seconds, taken_at=taken_at, stop=self._stop) as keeper,
        ):
            self._held[account_id] = (lease, budget)
            try:
                return self._turn(lease, keeper, budget, until=taken_at + TURN_SECONDS)
            finally:
                with self._db.read() as connection:
                    leases.release(connection, lease, budget_left=budget.left)
                del self._held[account_id]

    def hand_back(self) -> int:
        """Give back the leases of passes that have not come to their end in time; how many. Their launches are in the rows."""
        held = list(self._held.values())
        with self._db.read() as connection:
            for lease, budget in held:
                leases.release(connection, lease, budget_left=budget.left)
        return len(held)

    def _turn(self, lease: Lease, keeper: Keeper, budget: Budget, *, until: float) -> bool:
        while keeper.holds:
            with self._db.read() as connection:
                due = groups.due(connection, lease.account_id, limit=GROUPS_A_PASS)
                account = accounts.get(connection, lease.account_id) if due else None
            if not due:
                return False
            if time.monotonic() > until:
                return True
            if account is None:
                self._put_off(lease, keeper, due, "The account is disabled.", Reason.ACCOUNT_REJECTED)
                return False
            try:
                client = client_for(self._db, self._clouds, self._sealer, account, budget, lambda: keeper.holds)
                scribe = _Scribe(self._db, account, self._owner, self._audit)
                _Pass(self._db, client, lease, keeper, self._pace, scribe).run(due)
            except NoManagementKey as error:
                self._put_off(lease, keeper, due, str(error), Reason.ACCOUNT_REJECTED)
            except CloudAPIError as error:
                self._put_off(lease, keeper, due, str(error), reason_of(error))
                if isinstance(error, cloudapi.Unauthorized):
                    self._forget_registration(account)
            except sqlalchemy.exc.SQLAlchemyError:
                raise  # nothing can be noted now: the clock rings again
            except Exception as error:  # noqa: BLE001 - a fault of ours must not be tried again all the time
                _log.error("pass_failed", exc_info=error)
                problem = f"The service failed on this account ({type(error).__name__}); its log says how."
                self._put_off(lease, keeper, due, problem, Reason.SERVICE_FAILED)
        return False

    def _put_off(self, lease: Lease, keeper: Keeper, due: Sequence[Work], problem: str, reason: Reason) -> None:
        """Nothing can be done for any of these groups now."""
        _log.warning("groups_put_off", groups=len(due), error=problem, reason=reason)
        with self._db.read() as connection:
            for group in due:
                failures = group.failures + 1
                if not groups.checked(connection, lease, group, after=backoff(failures), failures=failures, error=problem, reason=reason):
                    keeper.lost()

    def _forget_registration(self, account: Account) -> None:
        """CloudAPI does not know the management key any more: the account's next request puts it there again."""
        with self._db.read() as connection:
            key = accounts.key_of(connection, account.id)
            if key is not None:
                accounts.mark_registered(connection, key.id, registered=False)


class _Scribe:
    """Writes down what is done for groups of one account."""

    def __init__(self, database: Database, account: Account, actor: str, audit: Audit) -> None:
        self._db = database
        self._account = account
        self._actor = actor
        self._audit = audit

    def note(self, group: Work, kind: str, description: str, *, machine_id: str | None = None, error: CloudAPIError | None = None) -> None:
        status = activities.FAILED if error else activities.DONE
        told = f"{description}: {error}" if error else description
        with self._db.read() as connection:
            activities.record(
                connection,
                account_id=self._account.id,
                group_id=group.id,
                kind=kind,
                status=status,
                description=told,
                machine_id=machine_id,
                error_code=(error.code or str(error.status or "")) if error else None,
                cloudapi_request_id=error.request_id if error else None,
                request_id=group.request_id,
                actor=self._actor,
            )
        self._audit(kind, self._account.name, group.name, status, told)


class _Pass:
    """One look at an account's machines, and what follows from it for its due groups."""

    def __init__(self, database: Database, client: Client, lease: Lease, keeper: Keeper, pace: Pace, scribe: _Scribe) -> None:
        self._db = database
        self._client = client
        self._lease = lease
        self._keeper = keeper
        self._limits = pace.limits
        self._spread = pace.spread
        self._scribe = scribe
        self._deadline = time.monotonic() + PASS_SECONDS

    def run(self, due: Sequence[Work]) -> None:
        machines = self._client.machines(**{f"tag.{TAG_NAME}": "*"})
        outcomes = {group.id: Outcome() for group in due}
        now, sights = self._observe(due, machines, outcomes)
        plans = {group.id: plan(group, sights[group.id], now, self._limits) for group in due}
        self._act(due, plans, outcomes)
        with self._db.read() as connection:
            for group in due:
                self._conclude(connection, group, plans[group.id], outcomes[group.id], sights[group.id], now)

    # What is

    def _observe(
        self, due: Sequence[Work], machines: Sequence[Machine], outcomes: Mapping[str, Outcome]
    ) -> tuple[datetime, dict[str, list[Sight]]]:
        """Lay the list beside the rows: each machine to its group, each row to its machine."""
        ids = {group.id for group in due}
        # Of two groups of one name, the machines are the living one's.
        by_name = {group.name: group.id for group in sorted(due, key=lambda group: not group.archived) if group.by_name}
        owned = {machine.id: (machine, owner) for machine in machines if (owner := machine.owner(ids, by_name)) is not None}
        with self._db.read() as connection:
            now, known = instances.of_groups(connection, ids)
        missing = [
            instance
            for instance in known
            if instance.machine_id is not None
            and instance.state != GONE
            and instance.machine_id not in owned
            and (now - instance.launched_at).total_seconds() > LISTED_AFTER
        ]
        looked = self._look(missing, outcomes)
        return now, self._db.transact(lambda connection: self._record(connection, ids, known, owned, looked, now))

    def _look(self, missing: Sequence[Instance], outcomes: Mapping[str, Outcome]) -> dict[str, Machine | None]:
        """Ask for each machine that the list does not have. None: it is gone. Not in the answer: it could not be asked for now."""

        def ask(instance: Instance) -> tuple[str, Machine | None] | None:
            machine_id, outcome = instance.machine_id or "", outcomes[instance.group_id]
            if not self._may_go_on(outcome):
                return None
            try:
                return machine_id, self._client.machine(machine_id)
            except CloudAPIError as error:
                self._failed("look_failed", outcome, error, Reason.CLOUDAPI_UNAVAILABLE, group_id=instance.group_id, machine_id=machine_id)
                return None

        with ThreadPoolExecutor(PARALLEL) as pool:
            return dict(filter(None, pool.map(ask, missing)))

    def _record(
        self,
        connection: Connection,
        ids: Iterable[str],
        known: Sequence[Instance],
        owned: Mapping[str, tuple[Machine, str]],
        looked: Mapping[str, Machine | None],
        now: datetime,
    ) -> dict[str, list[Sight]]:
        """Write down what was seen, and give it back group by group."""
        sights: dict[str, list[Sight]] = {group_id: [] for group_id in ids}
        by_machine = {instance.machine_id: instance for instance in known if instance.machine_id}
        launches = {instance.id: instance for instance in known if instance.state == LAUNCHING}
        for machine, group_id in owned.values():
            instance = by_machine.get(machine.id)
            launch = launches.pop(str(machine.tags.get(TAG_LAUNCH)), None)
            if instance is None and launch is not None:
                instances.acknowledged(connection, launch.id, machine.id, machine.state)
                instance = launch._replace(machine_id=machine.id, state=machine.state, state_since=now)
            elif instance is None:
                instance = instances.found(connection, self._lease, group_id, machine.id, machine.state)
                _log.info("instance_found", group_id=group_id, machine_id=machine.id, state=machine.state)
            elif instance.state != GONE:
                instance = self._seen(connection, instance, machine.state, now)
            sights[group_id].append(Sight(instance, machine.created, machine.protected))
        for machine_id, told in looked.items():
            instance = self._seen(connection, by_machine[machine_id], told.state if told and told.state != "deleted" else GONE, now)
            sights[instance.group_id].append(Sight(instance, told.created if told else "", told.protected if told else False))
        unseen = [instance for machine_id, instance in by_machine.items() if machine_id not in owned and machine_id not in looked]
        for instance in [*unseen, *launches.values()]:
            if is_lost(instance, now, self._limits):
                instances.refused(connection, instance.id)
                _log.warning("launch_lost", group_id=instance.group_id, launch_id=instance.id)
            else:
                sights[instance.group_id].append(Sight(instance))
        return sights

    def _seen(self, connection: Connection, instance: Instance, state: str, now: datetime) -> Instance:
        if instance.state == state or (instance.state == DELETING and state != GONE):
            return instance
        instances.seen(connection, self._lease, instance.id, state)
        _log.info("instance_seen", group_id=instance.group_id, machine_id=instance.machine_id, state=state, was=instance.state)
        return instance._replace(state=state, state_since=now)

    # What to do about it

    def _act(self, due: Sequence[Work], plans: Mapping[str, Plan], outcomes: Mapping[str, Outcome]) -> None:
        """Carry the plans out, in parallel, going round the groups: a large one keeps no small one waiting."""
        with self._db.read() as connection:
            made_from = templates.by_ids(connection, {group.template_id for group in due if plans[group.id].launches})
        # Where a machine's fate could not be learned, nothing is done on the strength of the list.
        known = [group for group in due if not (outcomes[group.id].errors or outcomes[group.id].unfinished)]
        by_group = [self._actions(group, plans[group.id], outcomes[group.id], made_from) for group in known]
        in_turn = [action for action in chain.from_iterable(zip_longest(*by_group)) if action is not None]
        if in_turn:
            with ThreadPoolExecutor(min(PARALLEL, len(in_turn))) as pool:
                for done in [pool.submit(action) for action in in_turn]:
                    done.result()

    def _actions(self, group: Work, planned: Plan, outcome: Outcome, made_from: Mapping[str, Template]) -> list[Callable[[], None]]:
        def deleting(instance: Instance, why: str) -> Callable[[], None]:
            return lambda: self._delete(group, instance, why, outcome)

        template = made_from.get(group.template_id)
        launches = planned.launches
        if launches and (template is None or template.unreadable):
            # A database of 2018 may lack the reference that keeps it, or hold what a person wrote into it.
            problem = f"is unreadable: {', '.join(template.unreadable)}" if template else "is not there"
            outcome.failed(f"The group's template {group.template_id} {problem}.", Reason.TEMPLATE_REJECTED)
            launches = 0

        def launching() -> None:
            if template is not None:
                self._launch(group, template, outcome)

        def guarded(action: Callable[[], None]) -> Callable[[], None]:
            return lambda: self._guarded(group, outcome, action)

        return [
            guarded(action)
            for action in (
                *(deleting(instance, "unhealthy") for instance in planned.unhealthy),
                *(deleting(instance, "surplus") for instance in planned.surplus),
                *[launching] * launches,
            )
        ]

    def _guarded(self, group: Work, outcome: Outcome, action: Callable[[], None]) -> None:
        """A fault of ours with one group costs the others nothing."""
        try:
            action()
        except sqlalchemy.exc.SQLAlchemyError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is
            _log.error("group_failed", group_id=group.id, exc_info=error)
            problem = f"The service failed on this group ({type(error).__name__}); its log says how."
            outcome.failed(problem, Reason.SERVICE_FAILED)

    def _may_go_on(self, outcome: Outcome) -> bool:
        """Wait for the budget; False when the pass should begin nothing more for this group."""
        if outcome.unfinished:
            return False
        if not self._keeper.holds or not self._client.turn(within=self._deadline - time.monotonic()):
            outcome.unfinished = True
            return False
        return True

    def _launch(self, group: Work, template: Template, outcome: Outcome) -> None:
        with bound_contextvars(group_id=group.id, request_id=group.request_id):
            if not self._may_go_on(outcome):
                return
            with self._db.read() as connection:
                launch_id = instances.launch(connection, self._lease, group)
            if launch_id is None:
                outcome.unfinished = True
                return
            tags = {TAG_NAME: group.name, TAG_GROUP: group.id, TAG_TEMPLATE: template.id, TAG_LAUNCH: launch_id}
            # The placeholder gives the alias of 2018, tsg-<template>-<instance>, without a second request.
            name = f"tsg-{template.id[:8]}-{{{{shortId}}}}"
            try:
                machine = self._client.create_machine(template.spec, name=name, tags=tags)
            except cloudapi.AnswerLost as error:
                # It may have been made: the launch goes on counting until a list shows it, or time shows that it was not.
                outcome.failed(str(error), Reason.CLOUDAPI_UNAVAILABLE)
                _log.warning("launch_answer_lost", launch_id=launch_id, error=str(error))
                self._scribe.note(group, activities.LAUNCH_ERROR, "a launch was not answered, and is looked for", error=error)
            except CloudAPIError as error:
                with self._db.read() as connection:
                    instances.refused(connection, launch_id)
                self._failed("launch_failed", outcome, error, Reason.TEMPLATE_REJECTED, launch_id=launch_id)
                if outcome.errors:
                    self._scribe.note(group, activities.LAUNCH_ERROR, "a launch failed", error=error)
            else:
                with self._db.read() as connection:
                    instances.acknowledged(connection, launch_id, machine.id, machine.state)
                outcome.launched += 1
                _log.info("instance_launched", launch_id=launch_id, machine_id=machine.id)
                self._scribe.note(group, activities.LAUNCH, f"launched {machine.id}", machine_id=machine.id)

    def _delete(self, group: Work, instance: Instance, why: str, outcome: Outcome) -> None:
        machine_id = instance.machine_id or ""
        with bound_contextvars(group_id=group.id, request_id=group.request_id, machine_id=machine_id):
            if not self._may_go_on(outcome):
                return
            with self._db.read() as connection:
                if not instances.deleting(connection, self._lease, group, instance.id):
                    outcome.unfinished = True
                    return
            try:
                self._client.delete_machine(machine_id)
            except CloudAPIError as error:
                with self._db.read() as connection:
                    instances.spared(connection, instance)
                self._failed("deletion_failed", outcome, error, Reason.DELETION_REJECTED)
                if outcome.errors:
                    told = f"deleting {machine_id} failed"
                    self._scribe.note(group, activities.TERMINATE_ERROR, told, machine_id=machine_id, error=error)
            else:
                outcome.deleted += 1
                _log.info("instance_deleted", why=why, was=instance.state)
                self._scribe.note(group, activities.TERMINATE, f"deleted {machine_id}, {why}, {instance.state}", machine_id=machine_id)

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

    def _conclude(
        self, connection: Connection, group: Work, planned: Plan, outcome: Outcome, sights: Sequence[Sight], now: datetime
    ) -> None:
        if group.archived and planned.empty:
            groups.emptied(connection, group)
            _log.info("group_emptied", group_id=group.id, request_id=group.request_id)
            return
        came_up = any(sight.instance.state == "running" and sight.instance.state_since == now for sight in sights)
        failures = failures_in_a_row(group.failures, planned, outcome, came_up=came_up)
        after = next_look(planned, outcome, failures, group.interval, now, spread=self._spread)
        error = outcome.errors[-1] if outcome.errors else None
        reason = outcome.reason_after(planned, archived=group.archived, failures=failures)
        if not groups.checked(connection, self._lease, group, after=after, failures=failures, error=error, reason=reason):
            self._keeper.lost()
        if outcome.launched or outcome.deleted or outcome.errors:
            _log.info(
                "group_checked",
                group_id=group.id,
                request_id=group.request_id,
                wanted=group.wanted,
                launched=outcome.launched,
                deleted=outcome.deleted,
                errors=len(outcome.errors),
                next_look=round(after, 1),
            )


def failures_in_a_row(before: int, planned: Plan, outcome: Outcome, *, came_up: bool) -> int:
    """How often it went wrong in a row. Errors beside successes are CloudAPI's bad minute and count as one."""
    if planned.unhealthy and not came_up:
        return before + 1
    if outcome.errors:
        return 1 if came_up or outcome.launched or outcome.deleted else before + 1
    return 0 if came_up or planned.settled else before


def next_look(planned: Plan, outcome: Outcome, failures: int, interval: int, now: datetime, *, spread: float) -> float:
    """Seconds until the group is to be looked at again."""
    if failures and (outcome.errors or planned.unhealthy):
        return backoff(failures)
    if outcome.unfinished:
        # CloudAPI says no to more than we count: it is given time.
        return SOONEST if outcome.reason == Reason.THROTTLED else 0.0
    if outcome.launched or outcome.deleted:
        return SOONEST
    if planned.moving and planned.moved_at is not None:
        return min(LATEST, float(interval), max(SOONEST, (now - planned.moved_at).total_seconds() / 4))
    return interval * random.uniform(1.0 - spread, 1.0)
