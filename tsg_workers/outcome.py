"""What came of a look at a group, and why the group is not yet what it should be."""

from dataclasses import dataclass, field

from shared.clients import cloudapi
from shared.clients.cloudapi import CloudAPIError
from shared.reasons import Reason
from shared.state.looks import Work
from tsg_workers.plan import Plan

#: The first that fits. What a request was about tells a refusal of a launch from one of a deletion.
_REASONS: tuple[tuple[type[CloudAPIError], Reason], ...] = (
    (cloudapi.Throttled, Reason.THROTTLED),
    (cloudapi.Unauthorized, Reason.ACCOUNT_REJECTED),
    (cloudapi.QuotaExceeded, Reason.QUOTA_EXCEEDED),
    (cloudapi.Forbidden, Reason.ACCOUNT_REJECTED),
    (cloudapi.NoCapacity, Reason.NO_CAPACITY),
)


def reason_of(error: CloudAPIError, *, refusal: Reason = Reason.CLOUDAPI_UNAVAILABLE) -> Reason:
    """Why CloudAPI did not do it. `refusal` is what it means when the request itself will not do (4xx)."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    if isinstance(error, cloudapi.Rejected):
        return Reason.ACCOUNT_REJECTED if error.code == "KeyRequired" else refusal
    return Reason.CLOUDAPI_UNAVAILABLE


@dataclass
class Outcome:
    """What a pass did for one group."""

    launched: int = 0
    #: Launches that CloudAPI refused or did not answer, and machines that never came to run.
    failed_launches: int = 0
    #: CloudAPI refused a launch: it would refuse the next one too.
    refused: bool = False
    deleted: int = 0
    errors: list[str] = field(default_factory=list)
    #: Something was left for the next pass: no time, no budget, or the group was changed meanwhile.
    unfinished: bool = False
    #: Why: of the newest error, or of what was left.
    reason: Reason | None = None

    def failed(self, problem: str, reason: Reason) -> None:
        self.errors.append(problem)
        self.reason = reason

    def left(self, reason: Reason) -> None:
        self.unfinished = True
        self.reason = self.reason or reason

    def error_after(self, planned: Plan, group: Work) -> str | None:
        """What went wrong, in words, for as long as it keeps the group back."""
        if self.errors:
            return self.errors[-1]
        if planned.stillborn:
            machine = planned.stillborn[-1]
            return f"Instance {machine.machine_id} never came to run: it was {machine.state}, and is replaced."
        return group.last_error if planned.held and not self.launched else None

    def reason_after(self, planned: Plan, group: Work, *, is_open: bool) -> Reason:
        """What the group waits for now."""
        if is_open and (planned.held or self.failed_launches):
            return Reason.CIRCUIT_OPEN
        if self.errors:
            return self.reason or Reason.SERVICE_FAILED
        if self.unfinished and (self.reason is not None or group.reason == Reason.THROTTLED):
            return self.reason or Reason.THROTTLED
        if planned.held or self.failed_launches:
            # Of what was refused before, the reason is still why; until a launch is taken on again.
            return Reason(group.reason) if group.reason and group.last_error and not self.launched else Reason.BACKOFF
        if group.archived or (planned.surplus and not planned.launches):
            return Reason.DELETING
        under_way = Reason.REPLACING if planned.waiting else Reason.PROVISIONING
        return Reason.SETTLED if planned.settled and not self.unfinished else under_way
