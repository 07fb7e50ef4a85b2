"""Everything that can be turned of the cloud while it runs."""

from dataclasses import dataclass, field
from typing import Annotated

from dev.sim.common import knobs as simulation
from dev.sim.common.knobs import Count, Flag, Seconds, Share, Status, Text
from dev.sim.common.wanted import COUNT, ERROR_STATUS, POSITIVE_COUNT, RATE, SECONDS, TEXT, UUID, Wanted, is_uuid

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
        *("ListVolumes", "GetVolume"),
        *("ListDatacenters", "GetDatacenter", "ListServices"),
        "Changefeed",
    ]
)

_ENDPOINT = Wanted("an endpoint name", lambda value: isinstance(value, str) and value in ENDPOINTS)
_SECONDS_BY_ENDPOINT = Wanted(
    "an object of endpoint name to a number of seconds, 0 or more",
    lambda value: isinstance(value, dict) and all(map(_ENDPOINT.accepts, value)) and all(map(SECONDS.accepts, value.values())),
)
_SECONDS_BY_IMAGE = Wanted(
    "an object of image UUID to a number of seconds, 0 or more",
    lambda value: isinstance(value, dict) and all(map(is_uuid, value)) and all(map(SECONDS.accepts, value.values())),
)

_FIELDS_BY_MACHINE = Wanted(
    "an object of machine UUID, or * for all, to an object of fields",
    lambda value: (
        isinstance(value, dict)
        and all(name == "*" or is_uuid(name) for name in value)
        and all(isinstance(fields, dict) for fields in value.values())
    ),
)

Limit = Annotated[int | None, COUNT.or_null()]
Images = Annotated[list[str], UUID.in_array("an array of image UUIDs")]
Endpoints = Annotated[list[str], _ENDPOINT.in_array("an array of endpoint names like ListMachines; [] means all")]


@dataclass
class Knobs(simulation.Knobs):
    # How long things take.
    provision_seconds: Seconds = 5.0
    provision_seconds_by_image: Annotated[dict[str, float], _SECONDS_BY_IMAGE] = field(default_factory=dict)  #: instead, for some
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
    error_seed: Limit = None  #: the n-th call of an endpoint fails or not as this number says, in every run; null: at random
    error_evenly: Flag = False  #: no luck in it: of a share of 0.5, every second call of each endpoint
    error_status: Status = 500
    error_code: Text = "InternalError"
    error_message: Text = "the simulator was set to fail"
    error_endpoints: Endpoints = field(default_factory=list)
    error_retry_after: Limit = None  #: seconds in their Retry-After, which CloudAPI itself does not send; null: none
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
    failing_images: Images = field(default_factory=list)  #: every machine of them becomes `failed`
    stuck_images: Images = field(default_factory=list)  #: every machine of them stays `provisioning`
    delegate_datasets: Flag = True  #: the operator allows them
    mount_volumes: Flag = True  #: the operator allows it
    fabric_packages: Annotated[list[str], TEXT.in_array("an array of beginnings of package names; [] means all")] = field(
        default_factory=list
    )  #: the only packages for fabric networks
    odd_machines: Annotated[dict[str, dict[str, object]], _FIELDS_BY_MACHINE] = field(default_factory=dict)  #: shown in place of the truth
    bad_json: Flag = False  #: answers with a body are not JSON
    down: Flag = False  #: 503 for everything
    read_only: Flag = False  #: CloudAPI's maintenance: 503 for every write

    # Limits.
    throttle: Flag = True
    throttle_rate: Annotated[float, RATE] = 10.0  #: CloudAPI: requests a second, for each account and group of endpoints
    throttle_burst: Annotated[int, POSITIVE_COUNT] = 30
    capacity: Limit = None  #: machines of the whole datacenter
    servers: Annotated[int, POSITIVE_COUNT] = 4
    server_room: Limit = None  #: machines a server
    encrypted_servers: Count = 1  #: more servers: those with an encrypted zpool, which take encrypted machines and no others
    default_quota: Limit = None  #: machines an account
    quota: Annotated[dict[str, int], COUNT.in_object("an object of account login to a number of machines")] = field(default_factory=dict)

    # Lists that don't tell the truth.
    empty_lists: Flag = False
    empty_lists_next: Count = 0
    page_most: Limit = None  #: machines on one page, whatever was asked for
    count_all_pages: Flag = False  #: x-resource-count is that of all pages together
    tag_wildcards: Flag = True  #: false: no machine has a tag that fits a filter with `*`
    truncate_lists: Count = 0  #: machines that are missing at the end of every page
    stale_list_seconds: Seconds = 0.0  #: a new machine is listed only after so long

    # The changefeed. 403, 429 and other refusals of it: `error_endpoints`.
    feed_offered: Flag = True  #: before 9.14 CloudAPI has none: 404
    feed_poll_seconds: Seconds = 2.0  #: VMAPI takes changes up this often, and sends them then
    feed_late_seconds: Seconds = 0.0  #: and so much later
    feed_mute: Flag = False  #: connections are accepted, and get nothing
    feed_lie: Flag = False  #: all runs, and has no tags
    feed_shuffle: Flag = False
    feed_double: Flag = False
    feed_lose_next: Count = 0
    feed_lose_share: Share = 0.0
    feed_lose_same_moment: Flag = False  #: of two changes of a machine at one time, the second
    feed_idle_seconds: Seconds = 55.0  #: a connection ends after so long without a byte from its client; 0: never

    # CMON, where it runs beside (`--cmon`).
    cmon_cpu: Count = 10  #: per cent of the cap that every machine uses
    cmon_down: Flag = False  #: 503 for everything
    cmon_hang: Flag = False  #: answers are kept back
