"""Could CloudAPI make an instance from a template now? What it is made of is looked up, as the account."""

from collections.abc import Generator, Iterator, Mapping
from typing import Any

import falcon

from shared.clients.cloudapi import Client, part
from shared.errors import FieldError
from shared.spec import fields
from shared.spec.spec import Spec
from shared.state import templates
from shared.state.accounts import Account
from tsg_api.auth.enrol import as_manager
from tsg_api.http.service import Service, found_id
from tsg_api.schema import render, responses

#: The type of image that a virtual machine's disk is made from; zones are made from any other.
_VIRTUAL = ("zvol", "virtualmachine")

Found = Mapping[str, Any]


class Verification:
    """`/v1/tsg/templates/<id>/verification`"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, template_id: str) -> None:
        with self._service.db.read() as connection:
            found = templates.get(connection, req.context.account.id, found_id("template", template_id))
        unreadable = [FieldError(name, f"{name} can't be read from the database") for name in found.unreadable]
        errors = unreadable or problems(self._service, req.context.account, found.spec)
        shown = [responses.Problem.model_validate(error) for error in errors]
        render.answer(resp, responses.Verification(template_id=found.id, launchable=not errors, errors=shown))


def problems(service: Service, account: Account, spec: Spec) -> list[FieldError]:
    """What CloudAPI would refuse, by field. `Unavailable` or `CloudAPIError` when it can't be asked."""
    with service.slots.machines.of_cloudapi(account.id), as_manager(service.db, account):
        client = service.cloud(account)
        return [FieldError(name, message) for name, message in find_problems(client, account, spec)]


def makes_virtual_machines(service: Service, account: Account, spec: Spec) -> bool:
    """Is a hardware virtual machine made from it? `Unavailable` or `CloudAPIError` when CloudAPI can't be asked."""
    with service.slots.machines.of_cloudapi(account.id), as_manager(service.db, account):
        image = service.cloud(account).find("images", spec.values["image_id"])
    return image is not None and image.get("type") in _VIRTUAL


def find_problems(client: Client, account: Account, spec: Spec) -> Iterator[tuple[str, str]]:
    """Fields and what is wrong with them. What CloudAPI says in a form of its own says nothing."""
    value = {field.name: spec.get(field) for field in fields.FIELDS}
    package = client.find("packages", value["package"])
    if package is None:
        yield "package", f"the account has no package {value['package']}"
    elif package.get("active") is False:
        yield "package", f"the package {value['package']} is not active any more"
    image = client.find("images", value["image_id"])
    if image is None:
        yield "image_id", f"the account has no image {value['image_id']}: it does not exist, or is not shared with the account"
    else:
        yield from _of_image(image, account, value)
        if package is not None:
            yield from _of_both(image, package, value)
    networks = yield from _of_networks(client, value["networks"])
    yield from _of_volumes(client, value["volumes"] or [], networks)


def _of_image(image: Found, account: Account, value: Found) -> Iterator[tuple[str, str]]:
    if (image.get("state") or "active") != "active":
        yield "image_id", f"the image {value['image_id']} is {image['state']}, not active"
    # The operator's images are mostly public, and free for all if not.
    shared_with = _list(image, "acl")
    if value["allow_shared_images"] is False and account.in_triton in shared_with and image.get("owner") != account.in_triton:
        yield "allow_shared_images", f"the image {value['image_id']} is another account's: allow_shared_images must not be false"
    is_virtual = image.get("type") in _VIRTUAL
    if value["brand"] and not is_virtual:
        yield "brand", f"the brand {value['brand']} is for images of virtual machines, and this one is a zone's: leave it out"
    if value["disks"] and not is_virtual:
        yield "disks", "disks are for virtual machines, and the image is a zone's: CloudAPI would ignore them"
    if value["volumes"] and is_virtual:
        yield "volumes", "volumes are for zones, and the image is a virtual machine's"


def _of_both(image: Found, package: Found, value: Found) -> Iterator[tuple[str, str]]:
    needs, memory = part(image, "requirements"), _mebibytes(package, "memory")
    least, most = _mebibytes(needs, "min_ram", "min_memory"), _mebibytes(needs, "max_ram", "max_memory")
    if memory and memory < least:
        yield "package", f"the image needs {least} MiB of memory, and the package has {memory}"
    if most and memory > most:
        yield "package", f"the image takes at most {most} MiB of memory, and the package has {memory}"
    is_virtual = image.get("type") in _VIRTUAL
    brands = {"package": package.get("brand"), "image_id": needs.get("brand"), "brand": value["brand"]}
    named = {name: brand for name, brand in brands.items() if brand and isinstance(brand, str)}
    if len(set(named.values())) > 1:
        shown = ", ".join(f"{name}: {brand}" for name, brand in named.items())
        yield "brand" if value["brand"] else "package", f"package, image and brand do not fit each other ({shown})"
    elif named.get("package") in {"bhyve", "kvm"} and not is_virtual:
        yield "package", f"the package is for virtual machines ({named['package']}), and the image is a zone's"
    if value["disks"] and is_virtual:
        yield from _of_disks(image, package, value["disks"])


def _of_disks(image: Found, package: Found, disks: list[Found]) -> Iterator[tuple[str, str]]:
    if package.get("flexible_disk") is not True:
        yield "disks", "disks need a package with flexible_disk"
        return
    own = _mebibytes(image, "image_size")
    first = disks[0].get("size", own)
    if first < own:
        yield "disks", f"the first disk must have the image's {own} MiB at least"
    taken = first + sum(disk["size"] for disk in disks[1:] if disk["size"] != "remaining")
    room = _mebibytes(package, "disk")
    if room and taken > room:
        yield "disks", f"the disks take {taken} MiB, and the package has {room}"


def _of_networks(client: Client, asked: list[Any]) -> Generator[tuple[str, str], None, list[str]]:
    """Yields problems, and returns the ids that are there."""
    ids = [(one["ipv4_uuid"] if isinstance(one, dict) else one).lower() for one in asked]
    found = {one: client.find("networks", one) for one in ids}
    for number, one in enumerate(ids):
        if found[one] is None:
            yield f"networks.{number}", f"the account has no network {one}"
    public = [one for one, network in found.items() if network and network.get("public")]
    if len(public) > 1:
        yield "networks", f"an instance can be in one public network, and these are {len(public)}: {', '.join(public)}"
    return ids


def _of_volumes(client: Client, volumes: list[Found], networks: list[str]) -> Iterator[tuple[str, str]]:
    for number, volume in enumerate(volumes):
        name = volume["name"]
        found = client.volume(name)
        if found is None:
            yield f"volumes.{number}", f"the account has no volume {name}: create it first"
        elif found.get("state") != "ready":
            yield f"volumes.{number}", f"the volume {name} is {found.get('state')}, not ready"
        elif (its := [one for one in _list(found, "networks") if isinstance(one, str)]) and not set(its) & set(networks):
            yield f"volumes.{number}", f"the volume {name} can't be reached: give the template its network, {' or '.join(its)}"


def _mebibytes(found: Found, *names: str) -> int:
    """The first of these sizes that it has; 0 where it has none."""
    return next((size for name in names if isinstance(size := found.get(name), int) and size > 0), 0)


def _list(found: Found, name: str) -> list[Any]:
    value = found.get(name)
    return value if isinstance(value, list) else []
