"""What a request may ask for beside image, package, name, networks, tags and metadata: one entry for each option.

Nothing is said of an option that CloudAPI ignores, such as `encrypted: "true"`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dev.sim.cloudapi.catalog import HVM_BRANDS, Image, Network, Package
from dev.sim.cloudapi.disks import read_disks
from dev.sim.cloudapi.errors import ApiError, invalid_argument, validation_failed
from dev.sim.cloudapi.knobs import Knobs
from dev.sim.cloudapi.placement import read_rules
from dev.sim.common.wanted import is_uuid


@dataclass(frozen=True)
class Asked:
    """A request for a machine, and what of the cloud it speaks of."""

    params: Mapping[str, Any]
    version_range: str
    account_id: str
    image: Image
    package: Package
    networks: Mapping[str, Network]  #: those that the account may use
    knobs: Knobs


#: What a machine of that brand gets of the option; None for nothing. Raises ApiError.
Reader = Callable[[Asked, str], Any]


def _is_given(value: Any) -> bool:
    """CloudAPI: as JavaScript sees it, so that `[]` and `{}` are."""
    return value not in (None, False, 0, "")


def _only_true(name: str) -> Reader:
    return lambda asked, _brand: asked.params.get(name) is True or None


def _read_delegate_dataset(asked: Asked, _brand: str) -> bool | None:
    if asked.params.get("delegate_dataset") is not True:
        return None
    if not asked.knobs.delegate_datasets:
        raise invalid_argument("Support for delegated datasets is not enabled (experimental_cloudapi_delegate_dataset in SAPI)")
    return True


def _read_affinity(asked: Asked, _brand: str) -> list[str] | None:
    affinity = asked.params.get("affinity")
    if not _is_given(affinity):
        return None
    if _is_given(asked.params.get("locality")):
        raise invalid_argument('cannot specify both "locality" (deprecated) and "affinity"')
    rules = affinity if isinstance(affinity, list) else [affinity]
    read_rules(rules)
    return rules or None


def _read_locality(asked: Asked, _brand: str) -> dict[str, Any] | None:
    locality = asked.params.get("locality")
    if not isinstance(locality, dict):
        return None
    near, far = (_as_list(locality.get(name)) for name in ("near", "far"))
    if not all(map(is_uuid, near + far)):
        raise validation_failed("Invalid VM parameters", "locality", "Invalid", "locality contains malformed UUID")
    return {"near": near, "far": far, "strict": locality.get("strict") is True} if near or far else None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if _is_given(value) else []


def _read_disks(asked: Asked, brand: str) -> list[dict[str, Any]] | None:
    """Nothing for a zone, whose `disks` CloudAPI ignores, nor for kvm, whose disks it doesn't show."""
    if brand not in HVM_BRANDS:
        return None
    wanted = asked.params.get("disks")
    flexible = asked.package.flexible_disk and brand == "bhyve"
    disks = read_disks(wanted if _is_given(wanted) else None, asked.image, asked.package, flexible=flexible)
    return disks if brand == "bhyve" else None


def _read_volumes(asked: Asked, brand: str) -> list[dict[str, Any]] | None:
    volumes = asked.params.get("volumes")
    if not isinstance(volumes, (list, str)) or not volumes:
        return None
    if brand in HVM_BRANDS:
        raise invalid_argument(f'volumes not yet supported with brand "{brand}"')
    if not asked.knobs.mount_volumes:
        raise invalid_argument("Support for automounting volumes is not enabled")
    if not isinstance(volumes, list) or not all(isinstance(volume, dict) and _is_mountable(volume) for volume in volumes):
        # CloudAPI hands on a list of errors that nothing reads: the caller does not learn what is wrong.
        raise ApiError(500, None, "")
    return volumes


def _is_mountable(volume: Mapping[str, Any]) -> bool:
    name, mountpoint = volume.get("name"), volume.get("mountpoint")
    return (
        volume.get("type", "tritonnfs") == "tritonnfs"
        and volume.get("mode", "rw") in ("ro", "rw")
        and isinstance(name, str)
        and re.fullmatch(r"[a-z0-9][\w.-]{1,255}", name, re.IGNORECASE | re.ASCII) is not None
        and isinstance(mountpoint, str)
        and mountpoint.startswith("/")
        and mountpoint.strip("/") != ""
        and "\0" not in mountpoint
    )


#: What the machine object shows.
OPTIONS: dict[str, Reader] = {
    "disks": _read_disks,
    "flexible": lambda asked, brand: asked.package.flexible_disk if brand == "bhyve" else None,
    "delegate_dataset": _read_delegate_dataset,
    "encrypted": _only_true("encrypted"),
}
#: What no machine object shows, as at CloudAPI; `/--sim/state` shows it.
HIDDEN_OPTIONS: dict[str, Reader] = {
    "affinity": _read_affinity,
    "locality": _read_locality,
    "volumes": _read_volumes,
}


def read_options(readers: Mapping[str, Reader], asked: Asked, brand: str) -> dict[str, Any]:
    """Raises ApiError."""
    values = {name: read(asked, brand) for name, read in readers.items()}
    return {name: value for name, value in values.items() if value is not None}
