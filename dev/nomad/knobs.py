"""Everything that can be turned while the simulator runs: `GET` and `PATCH /--sim/knobs`, or `simulator.knobs` in a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, get_type_hints

from dev.cloudapi.wanted import ANY_TEXT, ERROR_STATUS, FLAG, SECONDS, SHARE, TEXT, Wanted

#: What `error_endpoints`, `hang_endpoints` and the counters speak of.
ENDPOINTS = frozenset(
    [
        *("ValidateJob", "ListJobs", "RegisterJob", "ReadJob", "DeregisterJob", "PlanJob", "ForceJob"),
        *("ListAllocations", "ListEvaluations", "ReadAllocation", "ReadLogs"),
        *("Leader", "Health"),
    ]
)

_ENDPOINT = Wanted("an endpoint name", lambda value: isinstance(value, str) and value in ENDPOINTS)

Seconds = Annotated[float, SECONDS]
Flag = Annotated[bool, FLAG]
Text = Annotated[str, ANY_TEXT]
Endpoints = Annotated[list[str], _ENDPOINT.in_array("an array of endpoint names like ForceJob; [] means all")]


class KnobError(ValueError):
    """A knob that doesn't exist, or a value it can't take; the message names the knob."""


@dataclass
class Knobs:
    # How long things take.
    start_seconds: Seconds = 0.0  #: an allocation is `pending` for so long
    latency_seconds: Seconds = 0.0  #: before every answer
    hang_seconds: Seconds = 0.0  #: the deed is done, and its answer comes only after so long
    hang_endpoints: Endpoints = field(default_factory=list)

    # Wrong answers. A refused or failed call has done nothing.
    down: Flag = False  #: every connection is closed without an answer; tasks and schedule go on
    no_leader: Flag = False  #: Nomad: 500 for everything, and no periodic job is launched
    error_share: Annotated[float, SHARE] = 0.0
    error_status: Annotated[int, ERROR_STATUS] = 500
    error_message: Text = "the simulator was told to fail"
    error_endpoints: Endpoints = field(default_factory=list)
    refuse_validate: Annotated[str | None, TEXT.or_null()] = None  #: every job is invalid, for this reason

    def turn(self, changes: Mapping[str, Any]) -> None:
        """Set several knobs, all or none. Raises KnobError."""
        for name, value in changes.items():
            if name not in _WANTED:
                raise KnobError(f"{name} is not a knob; there are: {', '.join(sorted(_WANTED))}")
            if not _WANTED[name].accepts(value):
                raise KnobError(f"{name} must be {_WANTED[name].text}")
        for name, value in changes.items():
            setattr(self, name, value)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


_WANTED: dict[str, Wanted] = {name: hint.__metadata__[0] for name, hint in get_type_hints(Knobs, include_extras=True).items()}
