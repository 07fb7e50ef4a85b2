"""Reading a request for a new machine: `POST /:login/machines`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dev.sim.cloudapi import versions
from dev.sim.cloudapi.catalog import HVM_BRANDS, Image, Network, Package
from dev.sim.cloudapi.errors import ApiError, invalid_argument, missing_parameter, validation_failed
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
    networks = _read_networks(asked)
    _check_fit(asked)
    metadata = _prefixed(params, "metadata.")
    credentials = metadata.pop("credentials", {})
    tags = _prefixed(params, "tag.")
    check_tags(tags, "Invalid VM parameters")
    return Order(
        name=_read_name(params),
        image=asked.image,
        package=asked.package,
        networks=networks,
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
    if with_cns and len(name) > NAME_LENGTH_WITH_CNS:
        raise invalid_argument(
            f"Name cannot be longer than {NAME_LENGTH_WITH_CNS} characters, because you have triton_cns_enabled set on your Account."
        )
    if not NAME.fullmatch(name):
        raise bad_name("Invalid", "String does not match regexp")
    return name


def _read_networks(asked: Asked) -> list[Network]:
    """CloudAPI: anything but an array is ignored; absent means one external and one internal network."""
    wanted, known = asked.params.get("networks"), asked.networks
    if not isinstance(wanted, list):
        external = [network for network in known.values() if network.public][:1]
        internal = [network for network in known.values() if not network.public and not network.fabric][:1]
        return external + internal
    objects_allowed = (versions.best(asked.version_range) or versions.OFFERED[-1]) >= (7, 3, 0)
    forms: dict[str, type] = {}  # doubles are dropped
    for number, network in enumerate(wanted):
        forms.setdefault(_network_id(network, number, objects_allowed), type(network))
    chosen = [known[network_id] for network_id in forms if network_id in known]
    prefixes = asked.knobs.fabric_packages
    if prefixes and any(network.fabric for network in chosen) and not asked.package.name.startswith(tuple(prefixes)):
        message = "Fabric network cannot be used with this package. Only packages with names starting with the following can be used"
        raise ApiError(409, "InvalidFabricPackage", f"{message} with a fabric network: {', '.join(prefixes)}")
    if len(chosen) < len(forms) or len(set(forms.values())) > 1:  # CloudAPI: both forms in one request become none
        raise invalid_argument("Invalid Networks")
    if sum(network.public for network in chosen) > 1:
        raise invalid_argument("Can specify a maximum of 1 public networks")
    return chosen


def _network_id(network: Any, number: int, objects_allowed: bool) -> str:
    if isinstance(network, dict) and objects_allowed:
        _check_network_object(network)
        return str(network["ipv4_uuid"])
    if not isinstance(network, str):
        if objects_allowed:
            raise invalid_argument(f'property "networks[{number}]": array of strings or objects expected')
        raise invalid_argument("Invalid Networks")
    if not is_uuid(network):
        raise ApiError(500, None, "netUuid (uuid) is required")
    return network


def _check_network_object(network: Mapping[str, Any]) -> None:
    wanted, count, ips = (network.get(f"ipv4_{name}") for name in ("uuid", "count", "ips"))
    if not wanted:
        raise missing_parameter("network objects must contain ipv4_uuid")
    if not isinstance(wanted, str):
        raise invalid_argument("ipv4_uuid must be a string")
    if not is_uuid(wanted):
        raise invalid_argument(f"ipv4_uuid: {wanted} is not a uuid")
    if "ipv4_count" in network and "ipv4_ips" in network:
        raise invalid_argument("ipv4_count and ipv4_ips cannot be specified together")
    if "ipv4_count" in network and count != 1:
        raise invalid_argument("ipv4_count can only be set to 1")
    if "ipv4_ips" in network:
        if not isinstance(ips, list) or len(ips) != 1:
            raise invalid_argument(f"ipv4_ips: network with ipv4_uuid {wanted} should contain a single IP array")
        # CloudAPI gives a wanted address on networks that have owners; the simulator gives none.
        raise invalid_argument(f"ipv4_uuid: {wanted} cannot specify IP on a public network")


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
