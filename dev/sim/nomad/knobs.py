"""Everything that can be turned of the cluster while it runs."""

from dataclasses import dataclass, field
from typing import Annotated

from dev.sim.common import knobs as simulation
from dev.sim.common.knobs import Flag, Seconds, Share, Status, Text
from dev.sim.common.wanted import TEXT, Wanted

#: What `error_endpoints`, `hang_endpoints` and the counters speak of.
ENDPOINTS = frozenset(
    [
        *("ValidateJob", "ListJobs", "RegisterJob", "ReadJob", "DeregisterJob", "PlanJob", "ForceJob"),
        *("ListAllocations", "Leader"),
    ]
)

_ENDPOINT = Wanted("an endpoint name", lambda value: isinstance(value, str) and value in ENDPOINTS)

Endpoints = Annotated[list[str], _ENDPOINT.in_array("an array of endpoint names like ForceJob; [] means all")]


@dataclass
class Knobs(simulation.Knobs):
    # How long things take.
    latency_seconds: Seconds = 0.0  #: before every answer
    hang_seconds: Seconds = 0.0  #: the deed is done, and its answer comes only after so long
    hang_endpoints: Endpoints = field(default_factory=list)

    # Wrong answers. A refused or failed call has done nothing.
    down: Flag = False  #: every connection is closed without an answer; tasks and schedule go on
    no_leader: Flag = False  #: Nomad: 500 for everything, and no periodic job is launched
    error_share: Share = 0.0
    error_status: Status = 500
    error_message: Text = "the simulator was set to fail"
    error_endpoints: Endpoints = field(default_factory=list)
    # Runs that come to nothing.
    fail_runs: Annotated[str | None, TEXT.or_null()] = None  #: every run fails in its driver, with this message
    lose_runs: Flag = False  #: whatever is launched or forced never runs

    refuse_validate: Annotated[str | None, TEXT.or_null()] = None  #: every job is invalid, for this reason
