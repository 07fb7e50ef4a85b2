"""What is asked of a source of measures."""

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

from shared.policies.seen import Measure, Missing, Value
from shared.spec.policy_settings import Metric
from shared.state.policies import Scaled


class Asked(NamedTuple):
    """A metric of a group: an average over its available members, or a total of the whole group."""

    group: Scaled
    #: Their machines.
    members: tuple[str, ...]
    metric: Metric
    is_total: bool

    @property
    def key(self) -> tuple[str, str, bool]:
        """The same for what has the same answer."""
        return self.group.id, json.dumps(self.metric.model_dump(exclude_none=True), sort_keys=True), self.is_total


class Source:
    """One place where measures come from. Thread-safe."""

    def read(self, asked: Asked, /) -> Measure:
        raise NotImplementedError

    def refusal(self, _login: str, _triton_uuid: str | None) -> str | None:
        """Why this account cannot have measures of it; None where it can."""
        return None


def combined(values: Sequence[float], asked: int, *, is_total: bool) -> Measure:
    """One measure of the values of several members, of whom so many were asked."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Missing(f"none of {asked} members says anything")
    total = math.fsum(finite)
    return Value(total if is_total else total / len(finite), asked, len(finite))
