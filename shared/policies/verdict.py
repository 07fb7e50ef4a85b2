"""What a decision says of each policy. Pure."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from shared.policies.seen import Bounds, Value
from shared.spec.policy import Progress


class Result(StrEnum):
    """What came of a policy, in one word."""

    CHANGED = "changed"
    HELD = "held"
    CLAMPED = "clamped"
    COOLDOWN = "cooldown"
    TOLERANCE = "tolerance"
    MISSING_DATA = "missing_data"
    SUSPENDED = "suspended"
    SHADOW = "shadow"
    CONVERGING = "converging"


class Verdict(NamedTuple):
    """What one policy recommended, and what came of it."""

    policy_id: str
    result: Result
    before: int
    after: int
    message: str
    recommended: int | None = None
    value: Value | None = None
    target: float | None = None
    #: When it may change something, as far as that is known.
    next_at: datetime | None = None
    #: The webhook call that it answers.
    call_id: str | None = None


class Decision(NamedTuple):
    """What becomes of a group now."""

    #: With the capacity and the bounds after it.
    bounds: Bounds
    verdicts: tuple[Verdict, ...]
    #: By policy.
    progress: Mapping[str, Progress]

    @property
    def cause(self) -> str:
        """What changed the capacity or a bound, in words."""
        return "; ".join(verdict.message for verdict in self.verdicts if verdict.result == Result.CHANGED)
