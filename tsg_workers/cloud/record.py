"""The one place where what a pass did becomes rows, activities, metrics and log lines."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection

from shared import log, metrics
from shared.clients.cloudapi import CloudAPIError
from shared.plan.outcome import Done, Outcome, Result
from shared.plan.rollout import TROUBLES
from shared.plan.steps import IN_WORDS, VERBS, Act, Delete, Drain, Launch, Limit, Plan, Undrain, Update
from shared.reasons import CHOSEN, MEANING, Reason
from shared.spec.rollout import Rolled, State
from shared.state import activities, group_state, instances, rollouts
from shared.state.activities import DONE, FAILED, REASONS
from shared.state.group_state import Check, DueGroup
from shared.state.leases import Lease
from shared.store.db import Database

_log = log.get(__name__)

#: Called for each launch and each deletion: kind (of `shared.state.activities`), account's name, group's name, status, description.
Audit = Callable[[str, str, str, str, str], None]

#: Nothing was done, nothing failed, and it is tried again.
_TOO_EARLY = frozenset({Result.NO_ROOM, Result.PUT_OFF})
#: Reasons that are no trouble.
_GOOD = CHOSEN | {Reason.SETTLED, Reason.DELETED}


def no_audit(*_event: str) -> None:
    """The default audit: the activities are enough."""


class Recorder:
    """For one pass over one account. Thread-safe, except that two errors of a group at the same time may both be recorded."""

    def __init__(self, database: Database, lease: Lease, account_name: str, actor: str, audit: Audit) -> None:
        self.lease = lease
        self._db = database
        self._account_name = account_name
        self._actor = actor
        self._audit = audit
        self._causes: dict[str, str] = {}
        self._noted: set[tuple[str, ...]] = set()

    def write_activity(self, connection: Connection, group: DueGroup, kind: str, status: str, description: str, **more: Any) -> None:
        """An activity of the group."""
        activities.insert_activity(
            connection,
            account_id=self.lease.account_id,
            group_id=group.id,
            kind=kind,
            status=status,
            description=description,
            cause=self._causes.get(group.id, group.cause),
            request_id=group.request_id,
            actor=self._actor,
            **more,
        )

    def note_plan(self, group: DueGroup, plan: Plan) -> None:
        """What was found, and what is done about it: the next links of the chain of causes."""
        states = Counter(sight.instance.state for sight in plan.census.there)
        found = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"
        counts = Counter(VERBS[type(step)] for step in plan.acts)
        steps = ((verb, counts[verb]) for verb in VERBS.values())
        doing = [f"{verb} {count}" for verb, count in steps if count]
        self._causes[group.id] = "; ".join(filter(None, [group.cause, f"found {found} of {group.desired}", *doing]))

    # What was done

    def record_step(self, group: DueGroup, done: Done) -> None:
        """What came of one step: its row, activity, metric and log line."""
        if done.result in {Result.LEFT, Result.SKIPPED}:
            return
        if done.result == Result.CRASHED:
            _log.error("group_failed", group_id=group.id, why=done.step.why, exc_info=done.error)
        elif isinstance(done.step, Launch):
            self._record_launch(group, done)
        elif isinstance(done.step, Delete):
            self._record_deletion(group, done.step, done)
        else:
            self._record_change(group, done.step, done)

    def _record_launch(self, group: DueGroup, done: Done) -> None:
        launch_id, machine_id = done.launch_id or "", done.machine_id or ""
        if done.result == Result.DONE:
            metrics.launches.labels("launched").inc()
            _log.info("instance_launched", launch_id=launch_id, machine_id=machine_id)
            # The activity before the row: a worker that is killed in between leaves it to be found, and noted twice rather than never.
            self._note(group, activities.LAUNCH, f"launched {machine_id}", done, machine_id=machine_id)
            with self._db.read() as connection:
                instances.mark_launched(connection, launch_id, machine_id, done.state)
        elif done.result == Result.UNANSWERED:
            metrics.launches.labels("answer_lost").inc()
            _log.warning("launch_answer_lost", launch_id=launch_id, error=str(done.error))
            self._note(group, activities.LAUNCH_ERROR, "a launch was not answered, and is looked for", done)
        else:
            with self._db.read() as connection:
                (instances.mark_doubted if done.doubted else instances.delete_launch)(connection, launch_id)
            if done.result in _TOO_EARLY:
                metrics.launches.labels(done.result).inc()
                _log.info("launch_put_off", launch_id=launch_id, why=done.step.why, **_of_error(done.error))
            else:
                metrics.launches.labels("failed").inc()
                _log.warning("launch_failed", launch_id=launch_id, why=done.step.why, **_of_error(done.error))
            if done.result == Result.FAILED:
                self._note(group, activities.LAUNCH_ERROR, "a launch failed", done)

    def _record_deletion(self, group: DueGroup, step: Delete, done: Done) -> None:
        machine_id = step.instance.machine_id or ""
        if done.result == Result.DONE:
            metrics.deletions.labels(step.why).inc()
            _log.info("instance_deleted", machine_id=machine_id, why=step.why, was=step.instance.state)
            description = f"deleted {machine_id}, which {IN_WORDS[step.why]} ({step.instance.state})"
            self._note(group, activities.TERMINATE, description, done, machine_id=machine_id)
            with self._db.read() as connection:
                instances.mark_deleting(connection, step.instance.id)
        elif done.result in _TOO_EARLY:
            metrics.deletions.labels(done.result).inc()
            _log.info("deletion_put_off", machine_id=machine_id, why=step.why, **_of_error(done.error))
        else:
            metrics.deletions.labels("failed").inc()
            _log.warning("deletion_failed", machine_id=machine_id, why=step.why, **_of_error(done.error))
            if done.result == Result.FAILED:
                self._note(group, activities.TERMINATE_ERROR, f"deleting {machine_id} failed", done, machine_id=machine_id)

    def _record_change(self, group: DueGroup, step: Drain | Undrain | Update, done: Done) -> None:
        """A drain, its end, or an update: the row was written beside the requests."""
        machine_id, verb = step.instance.machine_id or "", VERBS[type(step)]
        kind, failed, words = _CHANGES[type(step)]
        metrics.changes.labels(verb, done.result).inc()
        if done.result == Result.DONE:
            _log.info("instance_changed", machine_id=machine_id, change=verb, why=step.why)
            which = f", which {IN_WORDS[step.why]}" if isinstance(step, Drain) else ""
            self._note(group, kind, f"{words} {machine_id}{which}", done, machine_id=machine_id)
        else:
            _log.warning("change_failed", machine_id=machine_id, change=verb, why=step.why, **_of_error(done.error))
            if done.result in {Result.FAILED, Result.UNANSWERED}:
                self._note(group, failed, f"{words} {machine_id}: failed", done, machine_id=machine_id)

    def _note(self, group: DueGroup, kind: str, description: str, done: Done, *, machine_id: str | None = None) -> None:
        """The activity of a launch or a deletion."""
        error = done.error
        status = FAILED if error else DONE
        text = f"{description}: {error}" if error else description
        self._audit(kind, self._account_name, group.name, status, text)
        if error is None or self._is_news(group, kind, machine_id or "", str(error)):
            more: dict[str, Any] = {"took": done.took, "machine_id": machine_id, "rollout_id": group.rollout_id}
            if isinstance(error, CloudAPIError):
                more |= {"error_code": error.code or str(error.status or ""), "cloudapi_request_id": error.request_id}
            with self._db.read() as connection:
                self.write_activity(connection, group, kind, status, text, **more)

    # What follows

    def log_check(self, check: Check, plan: Plan, outcome: Outcome, *, breaker: int) -> None:
        """What a check did, and whether the breaker of the group's launches opened or closed."""
        group = check.group
        if outcome.launched or outcome.deleted or outcome.changed or outcome.errors:
            _log.info(
                "group_checked",
                group_id=group.id,
                request_id=group.request_id,
                desired=group.desired,
                launched=outcome.launched,
                deleted=outcome.deleted,
                changed=outcome.changed,
                errors=len(outcome.errors),
                held=plan.held_by(Limit.BACKOFF),
                waiting=plan.held_by(Limit.DISRUPTION),
                next_look=round(check.after, 1),
            )
        failures = check.paced.launch_failures if check.paced else group.launch_failures
        if group.launch_failures < breaker <= failures:
            _log.warning("circuit_opened", group_id=group.id, failures=failures)
        elif failures < breaker <= group.launch_failures:
            _log.info("circuit_closed", group_id=group.id)

    def mark_checked(self, checks: Sequence[Check]) -> bool:
        """Note checks of groups (`group_state.mark_checked`), and what each waits for if that is new."""
        news = [
            check for check in checks if check.reason in REASONS and (check.reason != check.group.reason or not _is_observed(check.group))
        ]

        rolled = [(check.group, check.rolled) for check in checks if check.rolled is not None]

        def work(connection: Connection) -> bool:
            held = group_state.mark_checked(connection, self.lease, checks)
            for check in news if held else ():
                text = f"{MEANING[check.reason]} {check.error}" if check.error else MEANING[check.reason]
                self.write_activity(connection, check.group, REASONS[check.reason], DONE if check.reason in _GOOD else FAILED, text)
            for group, news_of_rollout in rolled if held else ():
                self._rolled(connection, group, news_of_rollout)
            return held

        for check in checks:
            metrics.checks.labels(check.reason).inc()
        return self._db.transact(work, alone=not (news or rolled))

    def _rolled(self, connection: Connection, group: DueGroup, rolled: Rolled) -> None:
        """How far a rollout is. When it begins to roll back, the group gets its former template."""
        before, now = rolled.before, rolled.now
        if not rollouts.mark_progress(connection, now, generation=group.generation):
            return
        if rolled.wave is not None:
            text = f"rollout {now.id}: {rolled.wave}"
            self.write_activity(connection, group, activities.ROLLOUT_WAVE, DONE, text, rollout_id=now.id)
        if (now.state, now.step) != (before.state, before.step):
            metrics.rollouts.labels(now.state).inc()
            counts, status = now.counts, FAILED if now.reason in TROUBLES else DONE
            text = f"rollout {now.id} is {now.state} at step {now.step + 1} of {len(now.settings.steps)}: {counts.new_available} of"
            text += f" {counts.wanted} are new and available, {counts.outdated} are outdated. {now.message or ''}"
            self.write_activity(connection, group, activities.ROLLOUT_STATE, status, text.strip(), rollout_id=now.id)
            _log.info("rollout_moved", group_id=group.id, rollout_id=now.id, state=now.state, step=now.step, reason=now.reason)
        if now.state == State.ROLLING_BACK and before.state != State.ROLLING_BACK:
            rollouts.give_back_template(connection, now)

    def mark_emptied(self, group: DueGroup, *, after: float | None) -> bool:
        """Note that nothing is left of a deleted group (`group_state.mark_emptied`), with an activity the first time."""

        def work(connection: Connection) -> bool:
            held = group_state.mark_emptied(connection, self.lease, group, after=after)
            if held and group.emptied_for is None:
                self.write_activity(connection, group, REASONS[Reason.DELETED], DONE, MEANING[Reason.DELETED])
            return held

        held = self._db.transact(work)
        if held and group.emptied_for is None:
            metrics.checks.labels(Reason.DELETED).inc()
            _log.info("group_emptied", group_id=group.id, request_id=group.request_id)
        return held

    def _is_news(self, group: DueGroup, *error: str) -> bool:
        """Was the error neither noted in this pass, nor what kept the group back at its last check?"""
        if _is_observed(group) and group.last_error == error[-1]:
            return False
        if (group.id, *error) in self._noted:
            return False
        self._noted.add((group.id, *error))
        return True


#: Of changes: the activity, the activity of an error, and the beginning of a sentence.
_CHANGES: dict[type[Act], tuple[str, str, str]] = {
    Drain: (activities.DRAIN, activities.DRAIN_ERROR, "drain"),
    Undrain: (activities.UNDRAIN, activities.UNDRAIN_ERROR, "take back"),
    Update: (activities.UPDATE, activities.UPDATE_ERROR, "update"),
}


def _is_observed(group: DueGroup) -> bool:
    return group.observed_generation == group.generation


def _of_error(error: Exception | None) -> dict[str, Any]:
    """The fields of a log line about an error."""
    if not isinstance(error, CloudAPIError):
        return {"error": str(error)}
    return {"error": str(error), "status": error.status, "code": error.code, "cloudapi_request_id": error.request_id}
