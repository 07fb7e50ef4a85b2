"""What a plan consists of: steps, each with its reason. Counts, log lines and explanations read `step.why`. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared.plan.census import Census
from shared.plan.rolling import Rolling
from shared.spec.rollout import Rollout
from shared.state.instances import Instance


class Why(StrEnum):
    """Why a step is taken. The words are labels of metrics and fields of log lines."""

    MISSING = "missing"
    NEVER_RAN = "never_ran"
    UNHEALTHY = "unhealthy"
    STUCK = "stuck_deleting"
    SURPLUS = "surplus"
    #: Its owner wants it gone.
    BY_HAND = "by_hand"
    #: It is not of the template that a rollout brings.
    OUTDATED = "outdated"
    #: In place of all others, once the group is deleted.
    DELETED_GROUP = "deleted_group"


#: As the end of a sentence about a machine.
IN_WORDS = {
    Why.NEVER_RAN: "never came to run",
    Why.UNHEALTHY: "does not work any more",
    Why.STUCK: "was not deleted in time",
    Why.SURPLUS: "was one too many",
    Why.BY_HAND: "its owner wanted to go",
    Why.OUTDATED: "was not of the rollout's template",
    Why.DELETED_GROUP: "is of a deleted group",
}


class Limit(StrEnum):
    """What holds a step back."""

    #: Launches failed a short while ago.
    BACKOFF = "backoff"
    #: As many machines as may be are under replacement.
    DISRUPTION = "disruption"
    #: CloudAPI itself failed, over and over: one launch tests whether it works again.
    CLOUDAPI = "cloudapi"
    #: One pass does not take on more.
    BATCH = "batch"
    #: The group's owner suspended it.
    SUSPENDED = "suspended"
    #: The instances that it concerns are protected.
    PROTECTED = "protected"


@dataclass(frozen=True, slots=True)
class Launch:
    """One more instance."""

    why: Why


@dataclass(frozen=True, slots=True)
class Delete:
    """One instance less."""

    instance: Instance
    why: Why


@dataclass(frozen=True, slots=True)
class Drain:
    """One instance is taken out of service, to be deleted later."""

    instance: Instance
    why: Why
    #: Until it is deleted.
    seconds: int
    #: It must leave DNS first.
    leaves_dns: bool


@dataclass(frozen=True, slots=True)
class Undrain:
    """One draining instance is taken back."""

    instance: Instance
    why: Why
    joins_dns: bool


@dataclass(frozen=True, slots=True)
class Update:
    """One instance is changed to what the group's template says."""

    instance: Instance
    why: Why


@dataclass(frozen=True, slots=True)
class Hold:
    """Steps that a limit holds back."""

    count: int
    why: Why
    limit: Limit


#: Steps that are carried out.
Act = Launch | Delete | Drain | Undrain | Update
Step = Act | Hold

#: What a step does, and did.
VERBS: dict[type[Act], str] = {Delete: "deletes", Drain: "drains", Undrain: "takes_back", Update: "updates", Launch: "launches"}
IN_PAST: dict[type[Act], str] = {Delete: "deleted", Drain: "drained", Undrain: "took back", Update: "updated", Launch: "launched"}


@dataclass(frozen=True)
class Plan:
    """How to bring a group to its desired capacity, from what was found."""

    census: Census
    steps: tuple[Step, ...] = ()
    #: Machines that ran and whose replacement does not run yet; once the plan is carried out.
    replacing: int = 0
    #: The rollout under way, as far as it is now.
    rolling: Rolling | None = None
    #: When time alone changes what is to be done.
    next_at: datetime | None = None
    #: In words, what its owner should know: which instances are protected, what is suspended.
    notice: str | None = None

    @property
    def rollout(self) -> Rollout | None:
        return self.rolling.rollout if self.rolling else None

    @property
    def acts(self) -> tuple[Act, ...]:
        """What is to be done: deletions before launches."""
        return (*self.deletions, *(step for step in self.steps if isinstance(step, Drain | Undrain | Update)), *self.launches)

    @property
    def launches(self) -> tuple[Launch, ...]:
        return tuple(step for step in self.steps if isinstance(step, Launch))

    @property
    def deletions(self) -> tuple[Delete, ...]:
        return tuple(step for step in self.steps if isinstance(step, Delete))

    def deleted_for(self, *reasons: Why) -> Iterator[Instance]:
        """The instances that go for one of these reasons."""
        return (step.instance for step in self.deletions if step.why in reasons)

    def held_by(self, limit: Limit) -> int:
        """How many steps a limit holds back."""
        return sum(step.count for step in self.steps if isinstance(step, Hold) and step.limit == limit)

    @property
    def moving(self) -> bool:
        """Is anything on its way up or down?"""
        return self.census.moving_since is not None

    @property
    def settled(self) -> bool:
        """Nothing to do, nothing on its way, and no doubt about anything."""
        return not (self.steps or self.moving or self.census.unsure or self.census.leaving or self.rolling)

    @property
    def empty(self) -> bool:
        """Nothing of the group is left, not even a launch that may turn up."""
        return not self.census.there
