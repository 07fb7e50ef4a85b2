"""Reading a request for a new machine: `POST /:login/machines`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dev.sim.cloudapi.catalog import Image, Network, Package
from dev.sim.cloudapi.errors import ApiError, invalid_argument, missing_parameter, validation_failed
from dev.sim.cloudapi.tags import check_tags
from dev.sim.common.wanted import is_uuid

#: CloudAPI: at most 189 characters, 63 when the account has CNS.
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,188}")
NAME_LENGTH_WITH_CNS = 63
SHORT_ID = "{{shortId}}"

_METADATA_KEY = re.compile(r"\w.*", re.DOTALL)


@dataclass
class Order:
    """A machine to be made. `name` still has its `{{shortId}}`; None means a name from the id."""

    name: str | None
    image: Image
    package: Package
    networks: list[Network]
    tags: dict[str, Any]
    metadata: dict[str, Any]
    credentials: dict[str, Any]
    brand: str
    firewall_enabled: bool
    deletion_protection: bool
    delegate_dataset: bool


def read_order(params: Mapping[str, Any], image: Image | None, package: Package | None, networks: Mapping[str, Network]) -> Order:
    """`networks` are those the account may use. Raises ApiError."""
    if image is None:
        raise missing_parameter("image must be specified")
    if package is None:
        raise missing_parameter("package must be specified")
    _check_placement(params)
    metadata = _prefixed(params, "metadata.")
    tags = _prefixed(params, "tag.")
    check_tags(tags, "Invalid VM parameters")
    credentials = metadata.pop("credentials", {})
    return Order(
        name=_read_name(params),
        image=image,
        package=package,
        networks=_read_networks(params.get("networks"), networks),
        tags=tags,
        metadata={key: value for key, value in metadata.items() if _is_kept_metadata(key)},
        credentials=credentials if isinstance(credentials, dict) else {},
        brand=_read_brand(params, image, package),
        firewall_enabled=params.get("firewall_enabled") in (True, "true"),
        deletion_protection=params.get("deletion_protection") is True,
        delegate_dataset=params.get("delegate_dataset") is True,
    )


def _is_kept_metadata(key: str) -> bool:
    """CloudAPI: keys ending `_pw` are dropped, and keys must begin with a word character."""
    return _METADATA_KEY.fullmatch(key) is not None and not key.endswith("_pw")


def _prefixed(params: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """CloudAPI: tags and metadata are flat fields, `tag.KEY`; nested objects are ignored."""
    return {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix) and name != prefix}


def _read_name(params: Mapping[str, Any]) -> str | None:
    name = params.get("name")
    if name is None or name == "":
        return None
    if not isinstance(name, str):
        raise ApiError(500, None, "name (string) is required")
    return name


def bad_name(code: str, detail: str) -> ApiError:
    return validation_failed("Invalid VM parameters: Invalid machine name", "alias", code, detail)


def final_name(name: str | None, machine_id: str, with_cns: bool) -> str:
    """The name with its short id in place. Raises ApiError when it isn't a name."""
    short_id = machine_id[:8]
    name = short_id if name is None else name.replace(SHORT_ID, short_id)
    if not NAME.fullmatch(name) or (with_cns and len(name) > NAME_LENGTH_WITH_CNS):
        raise bad_name("Invalid", "String does not match regexp")
    return name


def _read_networks(wanted: Any, known: Mapping[str, Network]) -> list[Network]:
    """CloudAPI: anything but an array is ignored; absent means one external and one internal network."""
    if not isinstance(wanted, list):
        external = [network for network in known.values() if network.public][:1]
        internal = [network for network in known.values() if not network.public and not network.fabric][:1]
        return external + internal
    ids = [str(network.get("ipv4_uuid") if isinstance(network, dict) else network) for network in wanted]
    if not all(map(is_uuid, ids)):
        raise ApiError(500, None, "netUuid (uuid) is required")
    if not all(network_id in known for network_id in ids):
        raise invalid_argument("Invalid Networks")
    chosen = [known[network_id] for network_id in dict.fromkeys(ids)]
    if sum(network.public for network in chosen) > 1:
        raise invalid_argument("Invalid Networks: only one public network is allowed")
    return chosen


def _check_placement(params: Mapping[str, Any]) -> None:
    affinity, locality = params.get("affinity"), params.get("locality")
    if affinity and locality:
        raise invalid_argument("cannot specify both affinity and locality")
    for rule in [affinity] if isinstance(affinity, str) else affinity if isinstance(affinity, list) else []:
        if not isinstance(rule, str) or not re.search(r"[^=!]+[=!]=~?.+", rule):
            raise invalid_argument(f"{rule} is not a valid affinity rule")
    hints = locality if isinstance(locality, dict) else {}
    for near_or_far in (hints.get("near", []), hints.get("far", [])):
        if not all(map(is_uuid, near_or_far if isinstance(near_or_far, list) else [near_or_far])):
            raise validation_failed("Invalid VM parameters", "locality", "Invalid", "locality contains malformed UUID")


def _read_brand(params: Mapping[str, Any], image: Image, package: Package) -> str:
    brand = params.get("brand")
    if brand is not None and brand not in ("kvm", "bhyve"):
        raise invalid_argument(f"{brand} is not a valid brand")
    if image.type == "zvol":
        return brand or package.brand or "bhyve"
    return "lx" if image.type == "lx-dataset" else "joyent"
