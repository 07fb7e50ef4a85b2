"""One machine, and the JSON object that CloudAPI shows of it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from dev.sim.cloudapi.catalog import Image, Network, Package

#: A list without a state filter leaves these out. CloudAPI: they free their name and their place in the quota.
GONE = frozenset(["failed", "deleted"])


def iso(moment: float) -> str:
    """ISO 8601 with milliseconds, in UTC."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


#: CloudAPI's state of a machine in VMAPI's words, where they differ.
_RAW = {"deleted": "destroyed", "stopping": "shutting_down", "offline": "down"}


class Change(NamedTuple):
    """What the changefeed sends: which properties changed, by VMAPI's names, and the machine as it was after it."""

    machine_id: str
    owner: str
    keys: tuple[str, ...]
    moment: float
    shown: dict[str, Any]
    #: VMAPI's own.
    state: str


@dataclass
class Nic:
    network: str
    ip: str
    mac: str
    primary: bool
    gateway: str
    netmask: str

    def to_json(self) -> dict[str, Any]:
        return {
            "mac": self.mac,
            "primary": self.primary,
            "ip": self.ip,
            "netmask": self.netmask,
            "gateway": self.gateway,
            "state": "running",
            "network": self.network,
        }


@dataclass
class Job:
    """A finished piece of work, for the audit."""

    action: str
    succeeded: bool
    time: float
    caller: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"action": self.action, "success": "yes" if self.succeeded else "no", "time": iso(self.time), "caller": self.caller}


@dataclass(eq=False, slots=True)
class Machine:
    id: str
    owner: str  #: account UUID
    name: str
    image: Image
    package: Package
    networks: list[Network]
    compute_node: str
    created: float
    updated: float
    tags: dict[str, Any]
    metadata: dict[str, Any]
    credentials: dict[str, Any] = field(default_factory=dict)
    state: str = "provisioning"
    nics: list[Nic] = field(default_factory=list)
    firewall_enabled: bool = False
    deletion_protection: bool = False
    brand: str = "joyent"
    options: dict[str, Any] = field(default_factory=dict)
    hidden_options: dict[str, Any] = field(default_factory=dict)  #: CloudAPI shows them nowhere
    destroying: str = ""  #: "", then "running" while the destroy job runs, then "done" until the state flips
    turn: int = 0  #: counts commands that change the state, so that a job overtaken by a later one does nothing
    jobs: list[Job] = field(default_factory=list)
    life: list[tuple[float, str]] = field(default_factory=list)  #: when it came into which state; `destroy`: its owner asked for its end
    _rendered: bytes | None = None

    @property
    def type(self) -> str:
        return "virtualmachine" if self.brand in ("kvm", "bhyve") else "smartmachine"

    @property
    def mounts(self) -> list[str]:
        """Names of volumes."""
        return [volume["name"] for volume in self.hidden_options.get("volumes", ())]

    def change(self, moment: float, keys: tuple[str, ...], state: str = "") -> Change:
        """That these of its properties have just changed."""
        return Change(self.id, self.owner, (*keys, "last_modified"), moment, self.to_json(), state or _RAW.get(self.state, self.state))

    def lived(self, moment: float, event: str) -> None:
        self.life.append((round(moment, 3), event))

    def to_row(self) -> dict[str, Any]:
        """Everything, for `from_row`."""
        row = {name.name: getattr(self, name.name) for name in fields(self) if not name.name.startswith("_")}
        named = {"image": self.image.id, "package": asdict(self.package), "networks": [network.id for network in self.networks]}
        return row | named | {"nics": [asdict(nic) for nic in self.nics], "jobs": [asdict(job) for job in self.jobs]}

    @classmethod
    def from_row(cls, row: Mapping[str, Any], images: Mapping[str, Image], networks: Mapping[str, Network]) -> Self:
        found = {"image": images[row["image"]], "networks": [networks[network] for network in row["networks"]]}
        made = {
            "package": Package(**row["package"]),
            "nics": [Nic(**nic) for nic in row["nics"]],
            "jobs": [Job(**job) for job in row["jobs"]],
            "life": [(moment, event) for moment, event in row["life"]],
        }
        known = {name.name for name in fields(cls)}  # an older simulator kept other fields
        return cls(**{name: value for name, value in {**row, **found, **made}.items() if name in known})

    def touch(self, now: float) -> None:
        """Say that something changed: the shown object is made anew."""
        self.updated = now
        self._rendered = None

    def rendered(self) -> bytes:
        """The object as lists show it, kept until the machine changes: a list of a thousand is a join."""
        if self._rendered is None:
            self._rendered = json.dumps(self.to_json(), separators=(",", ":")).encode()
        return self._rendered

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "brand": self.brand,
            "state": self.state,
            "image": self.image.id,
            "ips": [nic.ip for nic in self.nics],
            "memory": self.package.memory,
            "disk": self.package.disk,
            "deletion_protection": self.deletion_protection,
            "metadata": self.metadata,
            "tags": self.tags,
            "created": iso(self.created),
            "updated": iso(self.updated),
            "networks": [nic.network for nic in self.nics],
            "firewall_enabled": self.firewall_enabled,
            "compute_node": self.compute_node,
            "package": self.package.name,
        }
        if self.nics:
            row["primaryIp"] = next((nic.ip for nic in self.nics if nic.primary), self.nics[0].ip)
            row["nics"] = [nic.to_json() for nic in self.nics]
        return row | self.options
