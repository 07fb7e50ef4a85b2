"""What a request may ask for beside image, package, name, networks, tags and metadata: one entry for each option.

Nothing is said of an option that CloudAPI ignores, such as `encrypted: "true"`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dev.sim.cloudapi.catalog import Image, Network, Package
from dev.sim.cloudapi.errors import invalid_argument, validation_failed
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


#: What the machine object shows.
OPTIONS: dict[str, Reader] = {
    "delegate_dataset": _read_delegate_dataset,
    "encrypted": _only_true("encrypted"),
}
#: What no machine object shows, as at CloudAPI; `/--sim/state` shows it.
HIDDEN_OPTIONS: dict[str, Reader] = {
    "affinity": _read_affinity,
    "locality": _read_locality,
}


def read_options(readers: Mapping[str, Reader], asked: Asked, brand: str) -> dict[str, Any]:
    """Raises ApiError."""
    values = {name: read(asked, brand) for name, read in readers.items()}
    return {name: value for name, value in values.items() if value is not None}
