"""What came of a plan's steps, and what the group waits for after them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from shared.plan.steps import Act, Delete, Drain, Launch, Limit, Plan, Why
from shared.reasons import Reason
from shared.spec.rollout import ENDED, State
from shared.state.group_state import DueGroup
from shared.state.instances import DOUBTED

#: An answer that takes longer is said to be slow.
SLOW_SECONDS = 5.0


class Result(StrEnum):
    """What came of one step."""

    #: CloudAPI has done it, or taken it on.
    DONE = "done"
    #: The request went out and no answer came: it may have been done.
    UNANSWERED = "answer_lost"
    #: CloudAPI refused it, or failed over it: it may have been done if it failed.
    FAILED = "failed"
    #: CloudAPI takes no more requests now, or the lease is over: nothing was done.
    PUT_OFF = "put_off"
    #: Not begun: no time or budget was left in the pass, or the group was changed meanwhile.
    LEFT = "left"
    #: Not begun: CloudAPI refused one like it in this pass.
    SKIPPED = "skipped"
    #: The account's quota has no room for it before machines of the group that go are gone; nothing was done.
    NO_ROOM = "no_room"
    #: A fault of this service.
    CRASHED = "crashed"


class Done(NamedTuple):
    """One step of a plan, carried out or not."""

    step: Act
    result: Result
    #: Seconds.
    took: float = 0.0
    error: Exception | None = None
    #: What the error means for the group.
    reason: Reason | None = None
    #: Of a launch: its row, and the machine once there is one.
    launch_id: str | None = None
    machine_id: str | None = None
    #: CloudAPI's state of the new machine.
    state: str = ""
    #: CloudAPI failed over the launch (500) and may have made a machine before that.
    doubted: bool = False


class Trouble(NamedTuple):
    """Something that keeps a group back and belongs to no step."""

    problem: str
    reason: Reason
    #: It is no error: CloudAPI takes no more requests now, and the next pass goes on.
    put_off: bool = False
    #: Seconds for which CloudAPI asks to be left alone.
    retry_after: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What a pass did for one group."""

    launched: int = 0
    deleted: int = 0
    #: Drains that were begun or ended, and instances that were updated.
    changed: int = 0
    #: Launches that CloudAPI refused, and machines that never came to run. What CloudAPI itself failed over says nothing of the template.
    failed_launches: int = 0
    errors: tuple[str, ...] = ()
    #: Something was left for the next pass.
    unfinished: bool = False
    #: Why: of the newest error, or of what was left.
    reason: Reason | None = None
    #: Seconds that CloudAPI's slowest answer took.
    slowest: float = 0.0

    def error_after(self, plan: Plan, group: DueGroup) -> str | None:
        """What went wrong, in words, for as long as it keeps the group back."""
        if self.errors:
            return self.errors[-1]
        if plan.census.never_ran:
            instance = plan.census.never_ran[-1].instance
            return f"Instance {instance.machine_id} never came to run: it was {instance.state}, and is replaced."
        if not self.launched and (plan.held_by(Limit.BACKOFF) or _is_in_doubt(plan, group)):
            return group.last_error
        return plan.notice

    def reason_after(self, plan: Plan, group: DueGroup, *, is_open: bool) -> Reason:
        """What the group waits for now."""
        held = plan.held_by(Limit.BACKOFF)
        if is_open and (held or self.failed_launches):
            return Reason.CIRCUIT_OPEN
        if self.errors:
            return self.reason or Reason.SERVICE_FAILED
        if self.unfinished and (self.reason is not None or group.reason == Reason.THROTTLED):
            return self.reason or Reason.THROTTLED
        if held or self.failed_launches:
            # The reason of an earlier refusal still stands, until a launch is taken on again.
            return Reason(group.reason) if group.reason and group.last_error and not self.launched else Reason.BACKOFF
        return self._under_way(plan, group)

    def _under_way(self, plan: Plan, group: DueGroup) -> Reason:
        """What the group waits for while all goes well."""
        if plan.settled and not self.unfinished and not group.archived:
            return Reason.SETTLED
        rollout, leaving = plan.rollout, plan.census.leaving or any(isinstance(step, Drain) for step in plan.steps)
        reasons = (
            (not self.launched and _is_in_doubt(plan, group), Reason.CLOUDAPI_UNAVAILABLE),
            (plan.held_by(Limit.SUSPENDED) > 0, Reason.SUSPENDED),
            (self.slowest > SLOW_SECONDS, Reason.CLOUDAPI_SLOW),
            (rollout is not None and rollout.state == State.PAUSED, Reason.ROLLOUT_PAUSED),
            (rollout is not None and rollout.state not in ENDED, Reason.ROLLING_OUT),
            (plan.held_by(Limit.PROTECTED) > 0, Reason.PROTECTED),
            (group.archived, Reason.DELETING),
            (any(plan.deleted_for(Why.SURPLUS, Why.BY_HAND)) and not plan.launches, Reason.DELETING),
            (leaving and not plan.launches, Reason.DRAINING),
            (plan.held_by(Limit.DISRUPTION) > 0, Reason.REPLACING),
            (bool(plan.census.deleting) and not (plan.launches or plan.census.on_the_way), Reason.DELETING),
        )
        return next((reason for holds, reason in reasons if holds), Reason.PROVISIONING)


def _is_in_doubt(plan: Plan, group: DueGroup) -> bool:
    """Did CloudAPI fail over all launches under way, and has it yet to be seen what came of them?

    A check that waits for that is no sign that CloudAPI works: taken for one, it would let all launches go at once, over and over.
    """
    states = {sight.instance.state for sight in plan.census.on_the_way}
    return group.reason == Reason.CLOUDAPI_UNAVAILABLE and states == {DOUBTED}


def outcome_of(troubles: Sequence[Trouble], done: Sequence[Done], *, slowest: float = 0.0) -> Outcome:
    """Add up what was done for a group, in the order in which it was."""
    launches = [one for one in done if isinstance(one.step, Launch)]
    deletions = [one for one in done if isinstance(one.step, Delete)]
    found = [*troubles, *(trouble for one in done if (trouble := _trouble(one)) is not None)]
    errors, put_off = [one for one in found if not one.put_off], [one for one in found if one.put_off]
    reasons = [errors[-1].reason] if errors else [one.reason for one in put_off]
    return Outcome(
        launched=sum(one.result == Result.DONE for one in launches),
        deleted=sum(one.result == Result.DONE for one in deletions),
        changed=sum(one.result == Result.DONE and not isinstance(one.step, Launch | Delete) for one in done),
        failed_launches=sum(one.result == Result.FAILED and one.reason != Reason.CLOUDAPI_UNAVAILABLE for one in launches)
        + sum(one.result == Result.DONE and one.step.why == Why.NEVER_RAN for one in deletions),
        errors=tuple(one.problem for one in errors),
        unfinished=bool(put_off) or any(one.result in {Result.PUT_OFF, Result.LEFT} for one in done),
        reason=next(iter(reasons), None),
        slowest=max([slowest, *(one.took for one in done)]),
    )


def _trouble(done: Done) -> Trouble | None:
    if done.result == Result.CRASHED:
        return crash(done.error)
    if done.error is None or done.reason is None:
        return None
    return Trouble(str(done.error), done.reason, put_off=done.result == Result.PUT_OFF)


def crash(error: Exception | None, what: str = "group") -> Trouble:
    """A fault of this service: it must not be tried again all the time, and costs its own group alone."""
    return Trouble(f"The service failed on this {what} ({type(error).__name__}); its log says how.", Reason.SERVICE_FAILED)
