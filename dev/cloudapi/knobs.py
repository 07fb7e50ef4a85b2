"""Everything that can be turned while the simulator runs: `GET` and `PATCH /--sim/knobs`, or `simulator.knobs` in a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, get_type_hints

from dev.cloudapi.wanted import ANY_TEXT, COUNT, ERROR_STATUS, FLAG, POSITIVE_COUNT, RATE, SECONDS, SHARE, Wanted

#: The endpoints by their CloudAPI names: what `latency_by_endpoint`, `error_endpoints` and the counters speak of.
ENDPOINTS = frozenset(
    [
        "Ping",
        *("GetAccount", "UpdateAccount", "GetProvisioningLimits"),
        *("ListKeys", "GetKey", "CreateKey", "DeleteKey", "ListUserKeys", "GetUserKey"),
        *("ListMachines", "GetMachine", "CreateMachine", "UpdateMachine", "DeleteMachine", "MachineAudit"),
        *("ListMachineTags", "AddMachineTags", "ReplaceMachineTags", "DeleteMachineTags"),
        *("GetMachineTag", "DeleteMachineTag"),
        *("ListMachineMetadata", "AddMachineMetadata", "DeleteAllMachineMetadata"),
        *("GetMachineMetadata", "DeleteMachineMetadata"),
        *("ListPackages", "GetPackage", "ListImages", "GetImage", "ListNetworks", "GetNetwork"),
        *("ListDatacenters", "GetDatacenter", "ListServices"),
    ]
)

_ENDPOINT = Wanted("an endpoint name", lambda value: isinstance(value, str) and value in ENDPOINTS)
_SECONDS_BY_ENDPOINT = Wanted(
    "an object of endpoint name to a number of seconds, 0 or more",
    lambda value: isinstance(value, dict) and all(map(_ENDPOINT.accepts, value)) and all(map(SECONDS.accepts, value.values())),
)

Seconds = Annotated[float, SECONDS]
Share = Annotated[float, SHARE]
Count = Annotated[int, COUNT]
Limit = Annotated[int | None, COUNT.or_null()]
Flag = Annotated[bool, FLAG]
Text = Annotated[str, ANY_TEXT]
Status = Annotated[int, ERROR_STATUS]
Endpoints = Annotated[list[str], _ENDPOINT.in_array("an array of endpoint names like ListMachines; [] means all")]


class KnobError(ValueError):
    """A knob that doesn't exist, or a value it can't take; the message names the knob."""


@dataclass
class Knobs:
    # How long things take.
    provision_seconds: Seconds = 5.0
    provision_jitter: Seconds = 0.0  #: each machine takes up to this much longer, at random
    delete_seconds: Seconds = 0.5  #: `stopping` for so long, then deleted
    delete_flip_seconds: Seconds = 0.0  #: the job is done, the state not yet: a second DELETE is a 410 with the id
    job_seconds: Seconds = 0.5  #: stop, start, reboot, rename, resize, tags, metadata
    latency_seconds: Seconds = 0.0  #: before every answer
    latency_by_endpoint: Annotated[dict[str, float], _SECONDS_BY_ENDPOINT] = field(default_factory=dict)
    hang_seconds: Seconds = 0.0  #: the deed is done, and its answer comes only after so long
    hang_endpoints: Endpoints = field(default_factory=list)

    # Wrong answers. A refused or failed call has done nothing; one whose answer is lost has done everything.
    error_share: Share = 0.0
    error_status: Status = 500
    error_code: Text = "InternalError"
    error_message: Text = "the simulator was told to fail"
    error_endpoints: Endpoints = field(default_factory=list)
    lost_answer_share: Share = 0.0
    lost_answers_next: Count = 0
    lost_answer_status: Annotated[int | None, ERROR_STATUS.or_null()] = None  #: null cuts the connection; else answered for the truth
    lost_answer_endpoints: Endpoints = field(default_factory=lambda: ["CreateMachine"])
    refuse_next_creates: Count = 0
    refuse_status: Status = 409
    refuse_code: Text = "NoAllocatableServersError"
    refuse_message: Text = "No compute resources available"
    fail_next_creates: Count = 0  #: accepted, then `failed` instead of running
    fail_share: Share = 0.0
    stick_next_creates: Count = 0  #: accepted, then `provisioning` for ever
    bad_json: Flag = False  #: answers with a body are not JSON
    down: Flag = False  #: 503 for everything
    read_only: Flag = False  #: CloudAPI's maintenance: 503 for every write

    # Limits.
    throttle: Flag = True
    throttle_rate: Annotated[float, RATE] = 10.0  #: CloudAPI: requests a second, for each account and group of endpoints
    throttle_burst: Annotated[int, POSITIVE_COUNT] = 30
    capacity: Limit = None  #: machines of the whole datacenter
    default_quota: Limit = None  #: machines an account
    quota: Annotated[dict[str, int], COUNT.in_object("an object of account login to a number of machines")] = field(default_factory=dict)

    # Lists that don't tell the truth.
    empty_lists: Flag = False
    empty_lists_next: Count = 0
    truncate_lists: Count = 0  #: so many machines are missing at the end of every page
    stale_list_seconds: Seconds = 0.0  #: a new machine is listed only after so long

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
