"""What an error of CloudAPI means for a group."""

from shared.clients import cloudapi
from shared.clients.cloudapi import CloudAPIError
from shared.reasons import Reason
from tsg_workers.plan.outcome import Trouble

#: The first that fits. What a request was about tells a refusal of a launch from one of a deletion.
_REASONS: tuple[tuple[type[CloudAPIError], Reason], ...] = (
    (cloudapi.Throttled, Reason.THROTTLED),
    (cloudapi.Unauthorized, Reason.ACCOUNT_REJECTED),
    (cloudapi.QuotaExceeded, Reason.QUOTA_EXCEEDED),
    (cloudapi.Forbidden, Reason.ACCOUNT_REJECTED),
    (cloudapi.NoCapacity, Reason.NO_CAPACITY),
)


def reason_of(error: CloudAPIError, *, refusal: Reason = Reason.CLOUDAPI_UNAVAILABLE) -> Reason:
    """Why CloudAPI did not do it. `refusal` is the reason when the request itself is refused (4xx)."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    if isinstance(error, cloudapi.Rejected):
        return Reason.ACCOUNT_REJECTED if error.code == "KeyRequired" else refusal
    return Reason.CLOUDAPI_UNAVAILABLE


def trouble_of(error: CloudAPIError) -> Trouble:
    """The error of a question."""
    return Trouble(str(error), reason_of(error), put_off=isinstance(error, cloudapi.Throttled))
