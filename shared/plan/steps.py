"""What a plan consists of: steps, each with its reason. Counts, log lines and explanations read `step.why`. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from shared.plan.census import Census
from shared.state.instances import Instance


class Why(StrEnum):
    """Why a step is taken. The words are labels of metrics and fields of log lines."""

    MISSING = "missing"
    NEVER_RAN = "never_ran"
    UNHEALTHY = "unhealthy"
    STUCK = "stuck_deleting"
    SURPLUS = "surplus"
    #: In place of all others, once the group is deleted.
    DELETED_GROUP = "deleted_group"


#: As the end of a sentence about a machine.
IN_WORDS = {
    Why.NEVER_RAN: "never came to run",
    Why.UNHEALTHY: "does not run any more",
    Why.STUCK: "was not deleted in time",
    Why.SURPLUS: "was one too many",
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
class Hold:
    """Steps that a limit holds back."""

    count: int
    why: Why
    limit: Limit


Step = Launch | Delete | Hold


@dataclass(frozen=True)
class Plan:
    """How to bring a group to its desired capacity, from what was found."""

    census: Census
    steps: tuple[Step, ...] = ()
    #: Machines that ran and whose replacement does not run yet; once the plan is carried out.
    replacing: int = 0

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
        return not (self.steps or self.moving or self.census.unsure)

    @property
    def empty(self) -> bool:
        """Nothing of the group is left, not even a launch that may turn up."""
        return not self.census.there
