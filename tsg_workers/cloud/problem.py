"""What an error of CloudAPI means for a group."""

from typing import Any

from shared.clients import cloudapi
from shared.clients.cloudapi import CloudAPIError
from shared.plan.outcome import Trouble
from shared.reasons import Reason
from shared.spec.spec import Spec, hard_rules

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


def explained(error: CloudAPIError, spec: Spec) -> CloudAPIError:
    """The error of a launch, with what the template has to do with it and what to change, before CloudAPI's own words."""
    explanation = _explanation(error, spec)
    if explanation is None:
        return error
    details: dict[str, Any] = {"status": error.status, "code": error.code, "request_id": error.request_id, "retry_after": error.retry_after}
    return type(error)(f"{explanation} CloudAPI: {error}", **details)


def _explanation(error: CloudAPIError, spec: Spec) -> str | None:
    if not isinstance(error, cloudapi.Rejected):
        return None
    text = f"{error.code} {error}".lower()
    if isinstance(error, cloudapi.NoCapacity):
        if "volume" in text:
            return "The servers of volumes have no room for the template's."
        rules = hard_rules(spec)
        return f"No server has room for the instance under the template's rules ({'; '.join(rules)})." if rules else None
    return next((words for sign, words in _REJECTED if sign in text), None)


#: What CloudAPI says of a template that it refuses, in lower case, and what it means. The first that fits.
_REJECTED = (
    ("shared image", "The template's image is another account's: make a template whose allow_shared_images is not false."),
    ("image not found", "The template's image was deleted, or is not shared with the account any more: make a template with another one."),
    ("package not found", "The template's package is not there any more: make a template with another one."),
    ("volumesnotreachable", "A volume of the template can't be reached: make a template whose networks have the volume's."),
    ("volumenotfound", "A volume of the template is not there: create it, or make a template without it."),
    ("automounting volumes", "This CloudAPI mounts no volumes: make a template without volumes."),
    ("delegated datasets", "This CloudAPI delegates no datasets: make a template without delegate_dataset."),
    ("affinity rule", "The template's affinity is wrong: make a template with other rules."),
    (
        "invalidfabricpackage",
        "The template's package may not be in a fabric network: make a template with another package or network.",
    ),
    ("invalid networks", "The template's networks are not all the account's: make a template with others."),
    ("network", "CloudAPI refuses the template's networks: make a template with others."),
    ("disk", "CloudAPI refuses the template's disks: make a template with others, or with another package."),
    ("brand", "The template's brand, package and image do not fit each other: make a template with others."),
    ("volume", "CloudAPI refuses the template's volumes: make a template with others."),
)
