"""Why a group is not, or not yet, what it should be: one word for programs, and a sentence for people."""

from enum import StrEnum


class Reason(StrEnum):
    """What a group waits for."""

    SETTLED = "Settled"
    PROVISIONING = "Provisioning"
    REPLACING = "Replacing"
    ROLLING_OUT = "RollingOut"
    ROLLOUT_PAUSED = "RolloutPaused"
    DRAINING = "Draining"
    PROTECTED = "Protected"
    SUSPENDED = "Suspended"
    DELETING = "Deleting"
    DELETED = "Deleted"
    THROTTLED = "Throttled"
    QUOTA_EXCEEDED = "QuotaExceeded"
    NO_CAPACITY = "NoCapacity"
    TEMPLATE_REJECTED = "TemplateRejected"
    DELETION_REJECTED = "DeletionRejected"
    DRAIN_REJECTED = "DrainRejected"
    ACCOUNT_REJECTED = "AccountRejected"
    CLOUDAPI_UNAVAILABLE = "CloudAPIUnavailable"
    CLOUDAPI_SLOW = "CloudAPISlow"
    NOMAD_UNAVAILABLE = "NomadUnavailable"
    BACKOFF = "Backoff"
    CIRCUIT_OPEN = "CircuitOpen"
    SERVICE_FAILED = "ServiceFailed"


def known(word: str | None) -> Reason:
    """The stored word as a reason; `PROVISIONING` for none, and for a word of another release."""
    return Reason(word) if word in _WORDS else Reason.PROVISIONING


_WORDS = frozenset(map(str, Reason))
#: What a group's owner chose. Time alone does not change it either, and nothing is wrong with it.
CHOSEN = frozenset({Reason.PROTECTED, Reason.SUSPENDED, Reason.ROLLOUT_PAUSED})
#: What time alone will not mend: somebody has to change the group, its template, or the account.
NEEDS_A_CHANGE = frozenset(
    {
        *(Reason.QUOTA_EXCEEDED, Reason.ACCOUNT_REJECTED, Reason.CIRCUIT_OPEN),
        *(Reason.TEMPLATE_REJECTED, Reason.DELETION_REJECTED, Reason.DRAIN_REJECTED),
        *CHOSEN,
    }
)

#: Each in a sentence.
MEANING = {
    Reason.SETTLED: "All instances that were asked for run.",
    Reason.PROVISIONING: "Instances are being launched, or have yet to come up.",
    Reason.REPLACING: "More instances stopped running than are replaced at a time: the others wait until the new ones run.",
    Reason.ROLLING_OUT: "A rollout replaces instances.",
    Reason.ROLLOUT_PAUSED: "The rollout is paused: resume it, cancel it or roll it back.",
    Reason.DRAINING: "Instances drain, and are deleted then.",
    Reason.PROTECTED: "There are too many instances, and those left are protected.",
    Reason.SUSPENDED: "The group's owner suspended what is to be done.",
    Reason.DELETING: "Instances are being deleted.",
    Reason.DELETED: "The group is deleted, and nothing of it is left.",
    Reason.THROTTLED: "CloudAPI took no more requests of this account for now.",
    Reason.QUOTA_EXCEEDED: "The account may not have more instances: have its limits raised, or lower the capacity.",
    Reason.NO_CAPACITY: "No server of the data center has room for the instance now.",
    Reason.TEMPLATE_REJECTED: "CloudAPI refuses to make an instance from the template: give the group another one.",
    Reason.DELETION_REJECTED: "CloudAPI refuses to delete an instance: see whether it is protected against deletion.",
    Reason.DRAIN_REJECTED: "CloudAPI refuses to take an instance out of DNS, or back into it: see the instance's metadata.",
    Reason.ACCOUNT_REJECTED: "The service may not act for the account: see that it is enabled, and has the service's key.",
    Reason.CLOUDAPI_UNAVAILABLE: "CloudAPI can't be reached, or failed.",
    Reason.CLOUDAPI_SLOW: "CloudAPI takes more than 5 seconds to answer: the work goes on, and takes longer.",
    Reason.NOMAD_UNAVAILABLE: "Nomad did not take the group's job, or does not run it: a worker takes over.",
    Reason.BACKOFF: "Launches failed a short while ago: the next ones are put off.",
    Reason.CIRCUIT_OPEN: "Launches failed too often in a row: one at a time is tried until one comes up.",
    Reason.SERVICE_FAILED: "The service failed on this group; its log says how.",
}
