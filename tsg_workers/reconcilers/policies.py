"""Decide by a group's policies: look at what is there and what was measured, and write down what becomes of the capacity.

The decision is made twice where it changes something: once to find that out, and once more in the transaction that writes it, from what is
there then. So a worker that is killed anywhere has either written all of it or nothing, and a change that a request made meanwhile counts.
"""

import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, select

from shared import log, metrics
from shared.clients.queue import DECIDE
from shared.policies.decide import decide
from shared.policies.schedule import next_time
from shared.policies.seen import Bounds, Call, Measure, Members, Seen
from shared.policies.verdict import Decision, Result, Verdict
from shared.spec.policy import Policy
from shared.spec.policy_settings import OFF, ScheduleSettings, StepSettings, TargetSettings
from shared.state import decisions, groups, policies, work
from shared.state.decisions import BY
from shared.state.decisions import Decision as StoredDecision
from shared.state.policies import Scaled, Stored
from shared.state.work import POLICIES, Claim, ClaimLost
from shared.store.db import Database
from tsg_workers.runner import After, Gone, Keeper, NotYet, Reconciler
from tsg_workers.runner import Result as Outcome

_log = log.get(__name__)

#: Seconds: a group's schedules are looked at at least so often.
AT_LEAST = 3600.0
#: Evaluations come up to this share of the interval early, so that not all groups are looked at in one second.
SPREAD = 0.1
#: Seconds until a group is looked at again whose measures are under way.
SOON = 1.0
#: Characters of a decision's message.
MESSAGE = 2000


class Loaded(NamedTuple):
    """A group and all that stands in rows about its policies."""

    group: Scaled
    stored: Mapping[str, Stored]
    calls: tuple[Call, ...]
    #: The operator's own bound.
    max_capacity: int

    @property
    def policies(self) -> list[Policy]:
        return [policy for one in self.stored.values() if (policy := one.policy) is not None]

    @property
    def bounds(self) -> Bounds:
        settings = self.group.settings
        most = self.max_capacity if settings.max_capacity is None else min(self.max_capacity, settings.max_capacity)
        return Bounds(self.group.capacity, min(settings.min_capacity, most), most, self.group.is_suspended)

    def decide(self, measures: Mapping[str, Measure] | None) -> Decision:
        """What becomes of it now."""
        members = Members(self.group.available, max(0, self.group.capacity - self.group.available))
        return decide(self.policies, Seen(self.bounds, members, measures, self.calls), self.group.now)


#: Measures of these policies of a group, by policy; None when they are not all there yet.
Measurer = Callable[[Scaled, Sequence[Policy]], Mapping[str, Measure] | None]


class PolicyReconciler(Reconciler[Claim]):
    """Decides by the policies of groups; a subject is a group's id. One for a process; thread-safe."""

    kind = POLICIES
    queues = (DECIDE,)

    def __init__(
        self, database: Database, measure: Measurer, wake: Callable[[str, str], None], *, interval: float, max_capacity: int
    ) -> None:
        """`wake`: have a worker converge this account and group soon. `interval`: seconds between evaluations of what is measured."""
        self._db = database
        self._measure = measure
        self._wake = wake
        self._interval = interval
        self._max_capacity = max_capacity

    def reconcile(self, claimed: Claim, _keeper: Keeper) -> Outcome:
        began = time.monotonic()
        with self._db.read() as connection:
            loaded = load(connection, claimed.subject, self._max_capacity)
        if loaded is None:
            return self._forget(claimed.subject)
        if not loaded.stored:
            return After(None)
        measures = self._measure(loaded.group, [policy for policy in loaded.policies if policy.mode != OFF])
        decision = loaded.decide(measures)
        if is_news(loaded, decision):
            loaded, decision = self._db.transact(lambda connection: self._write(connection, claimed, measures))
        elif measures is not None:
            with self._db.read() as connection:
                decisions.mark_repeated(connection, [one.decision_id for one in loaded.stored.values() if one.decision_id])
        if decision.bounds.capacity != loaded.group.capacity:
            self._wake(loaded.group.account_id, loaded.group.id)
        for verdict in decision.verdicts:
            metrics.decisions.labels(str(verdict.result)).inc()
        return NotYet(SOON) if measures is None else After(self._pause(loaded, time.monotonic() - began))

    def _forget(self, group_id: str) -> Outcome:
        with self._db.read() as connection:
            policies.delete_of_group(connection, group_id)
        return Gone()

    def _write(self, connection: Connection, claimed: Claim, measures: Mapping[str, Measure] | None) -> tuple[Loaded, Decision]:
        """Decide from what is there now, and write it down. `ClaimLost` when the claim or the group is gone."""
        policies.lock_group(connection, claimed.subject)
        loaded = load(connection, claimed.subject, self._max_capacity)
        if loaded is None or not connection.execute(select(work.is_held(claimed))).scalar_one():
            raise ClaimLost
        decision = loaded.decide(measures)
        store(connection, loaded, decision)
        group, before, after = loaded.group, loaded.bounds, decision.bounds
        if after != before:
            moved = {"min_capacity": after.minimum} if after.minimum != before.minimum else {}
            moved |= {"max_capacity": after.maximum} if after.maximum != before.maximum else {}
            settings = group.settings.model_copy(update=moved)
            groups.scale(connection, group.account_id, group.id, capacity=after.capacity, settings=settings, cause=decision.cause)
            _log.info("scaled", group_id=group.id, before=before.capacity, after=after.capacity)
        return loaded, decision

    def _pause(self, loaded: Loaded, took: float) -> float:
        """Seconds until the group's policies are looked at again."""
        if len(loaded.calls) == policies.CALLS:
            return 0.0
        pauses = [AT_LEAST]
        for policy in loaded.policies:
            if policy.mode == OFF:
                continue
            if isinstance(policy.settings, ScheduleSettings) and (coming := next_time(policy.settings, loaded.group.now)) is not None:
                pauses.append(max(0.0, (coming - loaded.group.now).total_seconds() - took))
            elif isinstance(policy.settings, TargetSettings | StepSettings):
                pauses.append(self._interval * random.uniform(1.0 - SPREAD, 1.0))
        return min(pauses)


def load(connection: Connection, group_id: str, max_capacity: int) -> Loaded | None:
    """What stands in the rows now; None for a group that is gone."""
    group = policies.find_scaled(connection, group_id)
    if group is None or group.archived:
        return None
    stored = {one.id: one for one in policies.list_of_group(connection, group_id)}
    has_webhook = any(one.settings is not None and one.settings.kind == "webhook" for one in stored.values())
    waiting = policies.list_waiting(connection, group_id) if has_webhook else []
    return Loaded(group, stored, tuple(Call(one.id, one.policy_id) for one in waiting), max_capacity)


def is_news(loaded: Loaded, decision: Decision) -> bool:
    """Is there anything to write down but that it was decided so once more?"""
    return (
        bool(loaded.calls)
        or decision.bounds != loaded.bounds
        or any(progress != loaded.stored[one].progress for one, progress in decision.progress.items())
        or any(_differs(loaded.stored[verdict.policy_id], verdict) for verdict in decision.verdicts)
    )


def store(connection: Connection, loaded: Loaded, decision: Decision) -> None:
    """Write down what was decided about each policy, and what it has behind it now."""
    last: dict[str, dict[str, object]] = {}
    repeated = []
    for place, verdict in enumerate(decision.verdicts):
        stored = loaded.stored[verdict.policy_id]
        if _differs(stored, verdict):
            made = _made(stored, verdict)
            decisions.insert_decision(connection, stored.account_id, made, place=place)
            last[stored.id] = {"decision_id": made.id, "result": made.result, "recommended": made.recommended}
        elif stored.decision_id:
            repeated.append(stored.decision_id)
    if repeated:
        decisions.mark_repeated(connection, repeated)
    for policy_id, progress in decision.progress.items():
        if policy_id in last or progress != loaded.stored[policy_id].progress:
            policies.mark_progress(connection, policy_id, progress, **last.get(policy_id, {}))
    if loaded.calls:
        policies.mark_decided(connection, [call.id for call in loaded.calls])


def _differs(stored: Stored, verdict: Verdict) -> bool:
    """Is it another decision than the policy's last? A change always has its own, and so has the call of a webhook."""
    if verdict.call_id is not None or verdict.result == Result.CHANGED:
        return True
    return (stored.result, stored.recommended) != (str(verdict.result), verdict.recommended)


def _made(stored: Stored, verdict: Verdict) -> StoredDecision:
    value = verdict.value
    return StoredDecision(
        id=verdict.call_id or str(uuid.uuid4()),
        group_id=stored.group_id,
        policy_id=stored.id,
        policy_name=stored.name,
        at=stored.updated_at,
        times=1,
        last_at=stored.updated_at,
        result=str(verdict.result),
        by=BY[stored.settings.kind] if stored.settings else "",
        message=verdict.message[:MESSAGE],
        value=value.value if value else None,
        target=verdict.target,
        samples=value.samples if value else None,
        reporting=value.reporting if value else None,
        recommended=verdict.recommended,
        capacity_before=verdict.before,
        capacity_after=verdict.after,
        next_at=verdict.next_at,
    )
