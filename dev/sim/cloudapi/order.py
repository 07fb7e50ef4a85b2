"""Reading a request for a new machine: `POST /:login/machines`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dev.sim.cloudapi import versions
from dev.sim.cloudapi.catalog import HVM_BRANDS, Image, Network, Package
from dev.sim.cloudapi.errors import ApiError, invalid_argument, validation_failed
from dev.sim.cloudapi.options import HIDDEN_OPTIONS, OPTIONS, Asked, read_options
from dev.sim.cloudapi.tags import check_tags
from dev.sim.common.wanted import is_uuid

#: CloudAPI: at most 189 characters, 63 when the account has CNS.
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,188}")
NAME_LENGTH_WITH_CNS = 63
SHORT_ID = "{{shortId}}"

_METADATA_KEY = re.compile(r"\w.*", re.DOTALL | re.ASCII)

_BRAND_OF_IMAGE_TYPE = {"zvol": "bhyve", "lx-dataset": "lx"}


@dataclass
class Order:
    """A machine to be made. `name` still has its `{{shortId}}`; None means a name from the id."""

    name: str | None
    image: Image
    package: Package
    networks: list[Network]
    tags: dict[str, Any]
    metadata: dict[str, Any] = field(default_factory=dict)
    credentials: dict[str, Any] = field(default_factory=dict)
    brand: str = "joyent"
    firewall_enabled: bool = False
    deletion_protection: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    hidden_options: dict[str, Any] = field(default_factory=dict)  #: what the machine object doesn't show


def read_order(asked: Asked) -> Order:
    """What is asked for, in CloudAPI's order of checks. Raises ApiError."""
    params = asked.params
    _check_consent(asked)
    brand = _read_brand(asked)
    options, hidden_options = (read_options(readers, asked, brand) for readers in (OPTIONS, HIDDEN_OPTIONS))
    _check_fit(asked)
    metadata = _prefixed(params, "metadata.")
    credentials = metadata.pop("credentials", {})
    tags = _prefixed(params, "tag.")
    check_tags(tags, "Invalid VM parameters")
    return Order(
        name=_read_name(params),
        image=asked.image,
        package=asked.package,
        networks=_read_networks(params.get("networks"), asked.networks),
        tags=tags,
        metadata=_checked_metadata({key: value for key, value in metadata.items() if _is_kept_metadata(key)}),
        credentials=credentials if isinstance(credentials, dict) else {},
        brand=brand,
        firewall_enabled=params.get("firewall_enabled") in (True, "true"),
        deletion_protection=params.get("deletion_protection") is True,
        options=options,
        hidden_options=hidden_options,
    )


def _check_consent(asked: Asked) -> None:
    """CloudAPI, from 9.1: asked as version 9 or later, a shared image wants a word. Clients of 2018 ask for version 8."""
    image = asked.image
    if (
        versions.admits(asked.version_range, (9, 0, 0))
        and image.needs_consent(asked.account_id)
        and asked.params.get("allow_shared_images") is not True
    ):
        raise invalid_argument(
            f"{image.id} is a shared image - to provision a shared image you can either clone the image or set "
            '"allow_shared_images" to true.'
        )


def _check_fit(asked: Asked) -> None:
    image, package = asked.image, asked.package
    if image.min_ram and package.memory < image.min_ram:
        raise invalid_argument(f"You must use a package with at least {image.min_ram} MiB of RAM in order to provision the selected image")
    if package.os and package.os != image.os:
        # CloudAPI mixes the two up.
        raise invalid_argument(f'The package and image must have the same OS, but package has "{image.os}" while image has "{package.os}"')


def _checked_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    for key, value in metadata.items():
        if not isinstance(value, (str, int, float, bool)):
            raise validation_failed("Invalid VM parameters: Invalid customer_metadata", f"customer_metadata.{key}", "Invalid")
    return metadata


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


def _read_brand(asked: Asked) -> str:
    """CloudAPI: the request's, else the image's, else the package's, else the default of the image's type; all must agree."""
    image, package = asked.image, asked.package
    wanted = asked.params.get("brand")
    if wanted and wanted not in HVM_BRANDS:
        raise invalid_argument(f'Unknown brand "{wanted}". Brand is restricted to one of ["bhyve","kvm"]')
    brand: str = wanted or image.brand or package.brand or _BRAND_OF_IMAGE_TYPE.get(image.type, "joyent")
    for what, required in (("Package", package.brand), ("Image", image.brand)):
        if required and required != brand:
            raise invalid_argument(f'{what} requires brand "{required}", but brand "{brand}" was selected')
    if brand in HVM_BRANDS and image.type != "zvol":
        raise invalid_argument(f'Brand "{brand}" requires the image type to be "zvol"')
    if brand not in HVM_BRANDS and image.type == "zvol":
        raise invalid_argument(f'Brand "{brand}" cannot use an image of type "zvol"')
    return brand
