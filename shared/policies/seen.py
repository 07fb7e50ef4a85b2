"""What a decision is made from: a group's policies, bounds and members, what was measured, and the webhook calls that wait. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from shared.spec.policy_settings import Settings


class Progress(NamedTuple):
    """What a policy has behind it: times, so that it outlives a restart."""

    #: No further growth, and no further shrinkage, before then.
    out_until: datetime | None = None
    in_until: datetime | None = None
    #: A schedule: up to when its times were seen to.
    ran_until: datetime | None = None
    #: Evaluations in a row without a measure.
    failures: int = 0
    #: A target: recommendations, each of which held until the next one; the oldest first.
    history: tuple[tuple[datetime, int], ...] = ()
    #: A step policy: the step in whose range the measure is, and since when.
    step: int | None = None
    step_since: datetime | None = None


class Policy(NamedTuple):
    """One policy of a group."""

    id: str
    settings: Settings
    progress: Progress = Progress()

    @property
    def name(self) -> str:
        return self.settings.policy_name

    @property
    def mode(self) -> str:
        return self.settings.mode


class Value(NamedTuple):
    """A measure."""

    value: float
    #: Members that were asked, and those of them that said something; None where nobody asks members.
    samples: int | None = None
    reporting: int | None = None


class Missing(NamedTuple):
    """There is no measure, and why."""

    why: str


Measure = Value | Missing


class Members(NamedTuple):
    """Those that are available, and those that are coming."""

    available: int
    coming: int = 0


class Bounds(NamedTuple):
    """A group's capacity, what its owner keeps it within, and whether its policies are suspended."""

    capacity: int
    minimum: int
    maximum: int
    is_suspended: bool = False

    def clamp(self, capacity: int) -> int:
        return max(self.minimum, min(self.maximum, capacity))


class Call(NamedTuple):
    """A call of a policy's webhook that was not yet decided about."""

    id: str
    policy_id: str


class Seen(NamedTuple):
    """All that one decision is made from, beside the policies."""

    bounds: Bounds
    members: Members
    #: By policy.
    measures: Mapping[str, Measure] = {}
    #: The oldest first.
    calls: tuple[Call, ...] = ()
