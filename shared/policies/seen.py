"""What a decision is made from: a group's policies, bounds and members, what was measured, and the webhook calls that wait. Pure."""

from collections.abc import Mapping
from typing import NamedTuple


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
    #: By policy; None while they are asked for: until then nothing is decided by measures.
    measures: Mapping[str, Measure] | None
    #: The oldest first.
    calls: tuple[Call, ...] = ()
