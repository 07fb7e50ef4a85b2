"""Packages, images, networks and volumes: what a machine is made of."""

from dataclasses import dataclass, field
from typing import Any

#: `sim-small`: the package of most tests. 512 MiB of memory.
DEFAULT_PACKAGE = "2d3ffb0c-0a5b-4d4f-9f0a-6f2a8d0f5101"
#: `sim-large`, 4 GiB.
LARGE_PACKAGE = "8c1d52a4-3f0e-4b6c-a1d7-52e0b7c95102"
#: `sim-hvm`: brand bhyve.
HVM_PACKAGE = "e5a7b3f6-91c2-4d08-b7e4-0c6f3a2d5103"
#: `sim-flexible`: brand bhyve, takes `disks`.
FLEXIBLE_PACKAGE = "0b9f0d7e-6a43-4c3b-9b51-7d1e8f4c5104"

#: `base-64-lts` 23.4.0, a zone.
DEFAULT_IMAGE = "7b27a514-89d7-11e6-bee6-3f96f367bee7"
#: `debian-12`, an LX zone.
LX_IMAGE = "63d6e664-3f1f-11e8-aef6-a3120cf8dd9d"
#: `ubuntu-24.04`, a virtual machine's disk.
HVM_IMAGE = "19aa3328-0025-11e7-a19a-c39077bfd4cf"
#: The same name as DEFAULT_IMAGE, an older version.
OLD_IMAGE = "1bd84670-055a-11e5-aaa2-0346bb21d5a1"

#: `sim-public`: the one public network.
DEFAULT_NETWORK = "f7ed95d3-faaf-43ef-9346-15644403b963"
#: `sim-private`.
PRIVATE_NETWORK = "9ec60129-9034-47b4-b111-3026f9b1a10f"
#: `sim-fabric`: a fabric network.
FABRIC_NETWORK = "c6e1c0b8-5ed7-4b0a-8b34-7f6f0a2a9d10"

#: `sim-volume`: on the fabric network.
DEFAULT_VOLUME = "5a2d7c4e-1f36-4b8a-9e0d-3c6b8f1a7e20"

#: Owner of the images: the operator's account.
ADMIN_UUID = "930896af-bf8c-48d4-885c-6573a94b1853"

#: Brands of virtual machines: the only ones that a request may name.
HVM_BRANDS = ("bhyve", "kvm")

_OLD_TYPES = {"zvol": "virtualmachine"}


@dataclass(frozen=True)
class Package:
    id: str
    name: str
    memory: int  #: MiB
    disk: int  #: MiB
    swap: int = 0
    lwps: int = 4000
    vcpus: int = 0
    version: str = "1.0.0"
    group: str = "sim"
    description: str = ""
    default: bool = False
    active: bool = True
    brand: str | None = None  #: the only brand that it takes
    os: str | None = None  #: the only operating system that it takes
    flexible_disk: bool = False  #: with brand bhyve: `disk` may be shared out among several

    def to_json(self) -> dict[str, Any]:
        row = {name: getattr(self, name) for name in ("id", "name", "version", "memory", "disk", "lwps", "vcpus", "default", "group")}
        row["swap"] = self.swap or self.memory * 2
        if self.description:
            row["description"] = self.description
        if self.brand:
            row["brand"] = self.brand
        if self.brand == "bhyve":
            row["flexible_disk"] = self.flexible_disk
        return row


@dataclass(frozen=True)
class Image:
    id: str
    name: str
    version: str = "1.0.0"
    os: str = "smartos"
    type: str = "zone-dataset"
    description: str = ""
    public: bool = True
    state: str = "active"
    owner: str = ADMIN_UUID
    published_at: str = "2024-01-15T12:00:00.000Z"
    image_size: int | None = None  #: MiB, of a virtual machine's disk
    acl: tuple[str, ...] = field(default=())  #: account UUIDs that it is shared with
    min_ram: int | None = None  #: MiB
    brand: str | None = None  #: the only brand that it runs under

    def visible_to(self, account_id: str) -> bool:
        return self.public or account_id == self.owner or account_id in self.acl

    def needs_consent(self, account_id: str) -> bool:
        """CloudAPI: another customer's image, shared with the account, is launched only by who says `allow_shared_images`."""
        return self.owner not in (account_id, ADMIN_UUID) and account_id in self.acl

    def to_json(self, api_version: tuple[int, int, int]) -> dict[str, Any]:
        """CloudAPI: `type` is smartmachine or virtualmachine below 8; owner, public and state come from 7.1."""
        row: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "version": self.version,
            "os": self.os,
            "requirements": {name: value for name, value in self._requirements().items() if value},
            "type": self.type if api_version >= (8, 0, 0) else _OLD_TYPES.get(self.type, "smartmachine"),
            "description": self.description,
            "files": [{"compression": "gzip", "sha1": "0" * 40, "size": 123456789}],
            "published_at": self.published_at,
        }
        if api_version >= (7, 1, 0):
            row |= {"owner": self.owner, "public": self.public, "state": self.state}
            row |= {"acl": list(self.acl)} if self.acl else {}
        if self.image_size is not None:
            row["image_size"] = self.image_size
        return row

    def _requirements(self) -> dict[str, Any]:
        """CloudAPI: the least memory goes by two names."""
        return {"min_memory": self.min_ram, "min_ram": self.min_ram, "brand": self.brand}


@dataclass(frozen=True)
class Network:
    id: str
    name: str
    public: bool = False
    description: str = ""
    fabric: bool = False
    subnet: str = "10.64.0.0/10"
    vlan_id: int | None = None
    owners: tuple[str, ...] = field(default=())  #: account UUIDs that may use it; () means everyone

    def to_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {"id": self.id, "name": self.name, "public": self.public}
        if self.description:
            row["description"] = self.description
        if self.fabric:
            row |= {"fabric": True, "internet_nat": True, "resolvers": ["8.8.8.8"], "subnet": self.subnet, "vlan_id": self.vlan_id or 2}
        return row


@dataclass(frozen=True)
class Volume:
    id: str
    name: str
    networks: tuple[str, ...] = field(default=())
    size: int = 10240  #: MiB
    type: str = "tritonnfs"
    state: str = "ready"
    created: str = "2024-01-15T12:00:00.000Z"
    owners: tuple[str, ...] = field(default=())  #: account UUIDs that have it; () means everyone has one of that name

    def to_json(self, account_id: str, refs: list[str]) -> dict[str, Any]:
        """`refs` are the machines that mount it."""
        row = {name: getattr(self, name) for name in ("id", "name", "size", "type", "state", "created")}
        path = {"filesystem_path": f"192.168.128.3:/exports/{self.name}"} if self.state == "ready" else {}
        return row | path | {"owner_uuid": account_id, "networks": list(self.networks), "refs": refs}


PACKAGES = (
    Package(DEFAULT_PACKAGE, "sim-small", memory=512, disk=10240, vcpus=1, default=True, description="Small, 512 MiB"),
    Package(LARGE_PACKAGE, "sim-large", memory=4096, disk=102400, vcpus=2, description="Large, 4 GiB"),
    Package(HVM_PACKAGE, "sim-hvm", memory=2048, disk=51200, vcpus=1, brand="bhyve", description="Virtual machine, 2 GiB"),
    Package(
        FLEXIBLE_PACKAGE,
        "sim-flexible",
        memory=2048,
        disk=51200,
        vcpus=1,
        brand="bhyve",
        flexible_disk=True,
        description="Virtual machine with disks of its own, 2 GiB",
    ),
)
IMAGES = (
    Image(DEFAULT_IMAGE, "base-64-lts", "23.4.0", description="A 64-bit SmartOS zone"),
    Image(OLD_IMAGE, "base-64-lts", "22.4.0", description="A 64-bit SmartOS zone", published_at="2023-01-15T12:00:00.000Z"),
    Image(LX_IMAGE, "debian-12", "20240115", os="linux", type="lx-dataset", brand="lx", description="Debian 12 in a container"),
    Image(HVM_IMAGE, "ubuntu-24.04", "20240515", os="linux", type="zvol", description="Ubuntu 24.04", image_size=10240),
)
NETWORKS = (
    Network(DEFAULT_NETWORK, "sim-public", public=True, description="Public", subnet="198.18.0.0/15"),
    Network(PRIVATE_NETWORK, "sim-private", description="Private", subnet="10.64.0.0/10"),
    Network(FABRIC_NETWORK, "sim-fabric", description="Fabric", fabric=True, subnet="192.168.128.0/17"),
)
VOLUMES = (Volume(DEFAULT_VOLUME, "sim-volume", networks=(FABRIC_NETWORK,)),)
