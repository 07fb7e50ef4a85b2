"""What each endpoint of CloudAPI answers. The pipeline has run: `req.context.call` knows the account, the machine, the fields."""

import fnmatch
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import falcon

from dev.sim.cloudapi import versions
from dev.sim.cloudapi.accounts import User
from dev.sim.cloudapi.catalog import Image
from dev.sim.cloudapi.dns import instance_name
from dev.sim.cloudapi.errors import ApiError, invalid_argument, missing_parameter, not_found, validation_failed
from dev.sim.cloudapi.listing import read_listing
from dev.sim.cloudapi.machine import Machine
from dev.sim.cloudapi.options import Asked
from dev.sim.cloudapi.order import read_order
from dev.sim.cloudapi.pipeline import Call, Endpoint
from dev.sim.cloudapi.tags import UNUSABLE, check_tags
from dev.sim.common.server import cut_connection, take_socket
from dev.sim.common.wanted import is_uuid

#: CloudAPI: metadata keys with a life of their own.
_GUARDED_METADATA = ("credentials", "administrator_pw", "root_authorized_keys")

Req = falcon.Request
Resp = falcon.Response


def send(resp: Resp, value: Any, status: int = 200) -> None:
    resp.status = status
    resp.data = json.dumps(value, separators=(",", ":")).encode()


def _call(req: Req) -> Call:
    call: Call = req.context.call
    return call


def _machine(req: Req) -> Machine:
    machine = _call(req).machine
    assert machine is not None, "preload finds the machine, or refuses the call"
    return machine


class Ping(Endpoint, GET="Ping"):
    open = True

    def on_get(self, _req: Req, resp: Resp) -> None:
        resp.set_header("Triton-Datacenter-Name", self.cloud.datacenter)
        send(resp, {"ping": "pong", "cloudapi": {"versions": [versions.text(version) for version in versions.OFFERED]}})


class AccountResource(Endpoint, group="account", GET="GetAccount", POST="UpdateAccount"):
    _PROFILE = ("email", "companyName", "firstName", "lastName", "address", "city", "state", "postalCode", "country", "phone")

    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        send(resp, _call(req).account.to_json())

    def on_post(self, req: Req, resp: Resp, **_: str) -> None:
        call = _call(req)
        call.account.profile |= {name: call.fields[name] for name in self._PROFILE if name in call.fields}
        if isinstance(call.fields.get("triton_cns_enabled"), bool):
            call.account.cns = call.fields["triton_cns_enabled"]
        send(resp, call.account.to_json())


class Limits(Endpoint, group="account", GET="GetProvisioningLimits"):
    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        account = _call(req).account
        quota = self.cloud.quota_of(account)
        send(resp, [] if quota is None else [{"value": quota, "used": len(account.live)}])


# Keys


class Keys(Endpoint, group="keys", GET="ListKeys", POST="CreateKey"):
    body_types = ("multipart/form-data", "application/octet-stream", "application/json", "text/plain")

    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        send(resp, [key.to_json() for key in _call(req).account.keys])

    def on_post(self, req: Req, resp: Resp, **_: str) -> None:
        call = _call(req)
        line, name = call.fields.get("key"), call.fields.get("name")
        if line is None:
            raise missing_parameter("key is a required argument")
        if not isinstance(line, str):
            raise invalid_argument("key must be a String")
        key = call.account.keys.add(line, name if isinstance(name, str) else None)
        resp.set_header("Location", f"/{call.account.login}/keys/{quote(key.fingerprint, safe='')}")
        send(resp, key.to_json(), 201)


class KeyResource(Endpoint, group="keys", GET="GetKey", DELETE="DeleteKey"):
    def on_get(self, req: Req, resp: Resp, key: str, **_: str) -> None:
        send(resp, _call(req).account.keys.get(key).to_json())

    def on_delete(self, req: Req, resp: Resp, key: str, **_: str) -> None:
        _call(req).account.keys.remove(key)
        resp.status = 204


class UserKeys(Endpoint, group="keys", GET="ListUserKeys"):
    def on_get(self, req: Req, resp: Resp, user: str, **_: str) -> None:
        send(resp, [key.to_json() for key in _user(req, user).keys])


class UserKeyResource(Endpoint, group="keys", GET="GetUserKey"):
    def on_get(self, req: Req, resp: Resp, user: str, key: str, **_: str) -> None:
        send(resp, _user(req, user).keys.get(key).to_json())


def _user(req: Req, login_or_uuid: str) -> User:
    user = _call(req).account.find_user(login_or_uuid)
    if user is None:
        raise not_found(f"{login_or_uuid} does not exist")
    return user


# Machines


class Machines(Endpoint, GET="ListMachines", POST="CreateMachine"):
    def preload(self, call: Call) -> None:
        params = call.params
        if "image" in params and "dataset" in params:
            raise invalid_argument("image and dataset cannot both be specified")
        wanted_image = params.get("image", params.get("dataset"))
        if call.endpoint == "ListMachines":
            if wanted_image is not None and is_uuid(wanted_image) and wanted_image not in self.cloud.images:
                raise not_found("image not found")
            return
        if wanted_image:
            call.image = self.cloud.find_image(call.account, wanted_image)
        if params.get("package"):
            call.package = self.cloud.find_package(params["package"])

    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        call = _call(req)
        listing, knobs = read_listing(call.params), self.cloud.knobs
        if knobs.page_most is not None and listing.limit is not None:
            listing.limit = min(listing.limit, knobs.page_most)
        rows = self.cloud.list_machines(call.account, listing)
        if listing.limit is not None:
            resp.set_header("x-query-limit", str(listing.limit))
        # CloudAPI: rows in this page, not in all
        counted = self.cloud.list_machines(call.account, replace(listing, limit=None, offset=0)) if knobs.count_all_pages else rows
        resp.set_header("x-resource-count", str(len(counted)))
        resp.data = b"[" + b",".join(rows) + b"]"

    def on_post(self, req: Req, resp: Resp, **_: str) -> None:
        call = _call(req)
        if call.image is None:
            raise missing_parameter("image must be specified")
        if call.package is None:
            raise missing_parameter("package must be specified")
        asked = Asked(
            params=call.params,
            version_range=call.version_range,
            account_id=call.account.id,
            image=call.image,
            package=call.package,
            networks=self.cloud.networks_of(call.account),
            knobs=self.cloud.knobs,
        )
        order = read_order(asked)
        machine_id, resp.data = self.cloud.create_machine(call.account, order, call.caller)
        resp.status = 201
        resp.set_header("Location", f"/{call.account.login}/machines/{machine_id}")


class AboutMachine(Endpoint):
    """An endpoint below /:login/machines/:machine."""

    def preload(self, call: Call) -> None:
        call.machine = self.cloud.get_machine(call.account, call.params["machine"])


class MachineResource(AboutMachine, GET="GetMachine", POST="UpdateMachine", DELETE="DeleteMachine"):
    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        call, machine = _call(req), _machine(req)
        extra: dict[str, Any] = {}
        if call.account.cns:
            extra["dns_names"] = [instance_name(call.account, machine, self.cloud.datacenter)]
        if call.params.get("credentials") == "true":
            extra["metadata"] = self.cloud.metadata_of(machine, credentials=True)
        resp.data = self.cloud.show_machine(machine, **extra)

    def on_delete(self, req: Req, resp: Resp, **_: str) -> None:
        self.cloud.delete_machine(_call(req).account, _machine(req), _call(req).caller)
        resp.status = 204

    def on_post(self, req: Req, resp: Resp, **_: str) -> None:
        call, machine = _call(req), _machine(req)
        self.cloud.show_machine(machine)  # 410 when it is deleted, before anything else is looked at
        action = call.params.get("action")
        if not action:
            raise missing_parameter("action is required")
        act = self._actions().get(action) if isinstance(action, str) else None
        if act is None:
            raise invalid_argument(f"{action} is not a valid action")
        act(call, machine)
        resp.status = 202

    def _actions(self) -> dict[str, Callable[[Call, Machine], None]]:
        cloud = self.cloud

        def power(action: str) -> Callable[[Call, Machine], None]:
            return lambda call, machine: cloud.power(call.account, machine, action, call.caller)

        return {
            "stop": power("stop"),
            "start": power("start"),
            "reboot": power("reboot"),
            "rename": lambda call, machine: cloud.rename(call.account, machine, call.params.get("name"), call.caller),
            "resize": self._resize,
            "enable_firewall": lambda call, machine: cloud.set_firewall(machine, True, call.caller),
            "disable_firewall": lambda call, machine: cloud.set_firewall(machine, False, call.caller),
            "enable_deletion_protection": lambda call, machine: cloud.set_deletion_protection(machine, True, call.caller),
            "disable_deletion_protection": lambda call, machine: cloud.set_deletion_protection(machine, False, call.caller),
        }

    def _resize(self, call: Call, machine: Machine) -> None:
        wanted = call.params.get("package")
        if not wanted:
            raise missing_parameter("package must be specified")
        self.cloud.resize(machine, self.cloud.find_package(wanted), call.caller)


class Audit(AboutMachine, GET="MachineAudit"):
    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        send(resp, self.cloud.jobs_of(_machine(req)))


# Tags and metadata


class Tags(AboutMachine, GET="ListMachineTags", POST="AddMachineTags", PUT="ReplaceMachineTags", DELETE="DeleteMachineTags"):
    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        send(resp, self.cloud.tags_of(_machine(req)))

    def on_post(self, req: Req, resp: Resp, **_: str) -> None:
        self._change(req, resp, "error adding tags", drop=())

    def on_put(self, req: Req, resp: Resp, **_: str) -> None:
        self._change(req, resp, "error replacing tags", drop=self.cloud.tags_of(_machine(req)))

    def on_delete(self, req: Req, resp: Resp, **_: str) -> None:
        machine = _machine(req)
        self.cloud.change_tags(machine, _call(req).caller, put={}, drop=self.cloud.tags_of(machine))
        resp.status = 204

    def _change(self, req: Req, resp: Resp, doing: str, drop: Iterable[str]) -> None:
        call = _call(req)
        tags = {key: value for key, value in call.fields.items() if key not in UNUSABLE}
        if not tags and doing == "error adding tags":
            raise validation_failed(f"{doing}: Invalid tag parameters", "tags", "Invalid", "tags must be a non-empty object")
        check_tags(tags, doing)
        after = self.cloud.change_tags(_machine(req), call.caller, put=tags, drop=drop)
        resp.set_header("x-job-uuid", self.cloud.new_id())
        send(resp, after)


class Tag(AboutMachine, GET="GetMachineTag", DELETE="DeleteMachineTag"):
    def on_get(self, req: Req, resp: Resp, tag: str, **_: str) -> None:
        value = self._value(req, tag)
        send(resp, value if isinstance(value, str) else "")  # CloudAPI: a tag that isn't a string comes back as ""

    def on_delete(self, req: Req, resp: Resp, tag: str, **_: str) -> None:
        self._value(req, tag)
        self.cloud.change_tags(_machine(req), _call(req).caller, put={}, drop=[tag])
        resp.status = 204

    def _value(self, req: Req, tag: str) -> Any:
        tags = self.cloud.tags_of(_machine(req))
        if tag not in tags:
            raise not_found(f'tag "{tag}" not found')
        return tags[tag]


class Metadata(AboutMachine, GET="ListMachineMetadata", POST="AddMachineMetadata", DELETE="DeleteAllMachineMetadata"):
    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        send(resp, self.cloud.metadata_of(_machine(req), _call(req).params.get("credentials") == "true"))

    def on_post(self, req: Req, resp: Resp, **_: str) -> None:
        call = _call(req)
        reserved = UNUSABLE | {"credentials"}
        metadata = {key: value for key, value in call.fields.items() if key not in reserved and not key.endswith("_pw")}
        after = self.cloud.change_metadata(_machine(req), call.caller, put=metadata)
        resp.set_header("x-job-uuid", self.cloud.new_id())
        send(resp, after)

    def on_delete(self, req: Req, resp: Resp, **_: str) -> None:
        machine = _machine(req)
        self.cloud.change_metadata(machine, _call(req).caller, put={}, drop=self.cloud.metadata_of(machine))
        resp.status = 204


class MetadataKey(AboutMachine, GET="GetMachineMetadata", DELETE="DeleteMachineMetadata"):
    def on_get(self, req: Req, resp: Resp, key: str, **_: str) -> None:
        value = self.cloud.metadata_of(_machine(req)).get(key)
        if not isinstance(value, str):
            raise not_found(f"metadata key {key} not found")
        send(resp, value)

    def on_delete(self, req: Req, resp: Resp, key: str, **_: str) -> None:
        if key in _GUARDED_METADATA:
            raise invalid_argument(f"{key} cannot be deleted")
        machine = _machine(req)
        if key not in self.cloud.metadata_of(machine):
            raise not_found(f"metadata key {key} not found")
        self.cloud.change_metadata(machine, _call(req).caller, put={}, drop=[key])
        resp.status = 204


# Packages, images, networks, volumes, datacenters


def _matches(row: dict[str, Any], params: dict[str, Any], names: Iterable[str]) -> bool:
    """Filters compare as text, and their values may be globs."""
    return all(name not in params or fnmatch.fnmatchcase(_text(row.get(name)), str(params[name])) for name in names)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Packages(Endpoint, group="packages", GET="ListPackages"):
    _FILTERS = ("name", "memory", "disk", "swap", "lwps", "vcpus", "version", "group", "brand", "flexible_disk")

    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        rows = [package.to_json() for package in self.cloud.packages.values() if package.active]
        send(resp, [row for row in rows if _matches(row, _call(req).params, self._FILTERS)])


class PackageResource(Endpoint, group="packages", GET="GetPackage"):
    def on_get(self, _req: Req, resp: Resp, package: str, **_: str) -> None:
        found = self.cloud.packages.get(package)  # CloudAPI: by its UUID, an inactive one too
        if found is None:
            try:
                found = self.cloud.find_package(package)
            except ApiError:
                raise not_found(f"{package} not found") from None
        send(resp, found.to_json())


class Images(Endpoint, group="images", GET="ListImages"):
    _FILTERS = ("name", "os", "version", "public", "owner", "type")

    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        call = _call(req)
        state = call.params.get("state", "active")
        images = [image for image in self.cloud.images.values() if state in ("all", image.state) and self._shown(image, call)]
        rows = [image.to_json(call.version) for image in sorted(images, key=lambda image: image.published_at)]
        send(resp, [row for row in rows if _matches(row, call.params, self._FILTERS)])

    def _shown(self, image: Image, call: Call) -> bool:
        return image.visible_to(call.account.id) and (image.type != "docker" or "type" in call.params)


class ImageResource(Endpoint, group="images", GET="GetImage"):
    def on_get(self, req: Req, resp: Resp, image: str, **_: str) -> None:
        call = _call(req)
        found = self.cloud.images.get(image)
        if found is None or not found.visible_to(call.account.id):
            raise not_found("image not found")
        send(resp, found.to_json(call.version))


class Networks(Endpoint, group="networks", GET="ListNetworks"):
    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        send(resp, [network.to_json() for network in self.cloud.networks_of(_call(req).account).values()])


class NetworkResource(Endpoint, group="networks", GET="GetNetwork"):
    def on_get(self, req: Req, resp: Resp, network: str, **_: str) -> None:
        found = self.cloud.networks_of(_call(req).account).get(network)
        if found is None:
            raise not_found(f"{network} not found")
        send(resp, found.to_json())


class Volumes(Endpoint, group="volumes", GET="ListVolumes"):
    _FILTERS = ("name", "size", "state", "type")

    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        call = _call(req)
        unknown = [name for name in req.params if name not in self._FILTERS]
        if unknown:
            raise invalid_argument(", ".join(f"Error: invalid parameter: {name}" for name in unknown))
        volumes = self.cloud.volumes_of(call.account).values()
        shown = [volume for volume in volumes if "state" in req.params or volume.state != "failed"]
        rows = [self.cloud.show_volume(call.account, volume) for volume in shown]
        send(resp, [row for row in rows if _matches(row, call.params, self._FILTERS)])


class VolumeResource(Endpoint, group="volumes", GET="GetVolume"):
    def on_get(self, req: Req, resp: Resp, volume: str, **_: str) -> None:
        call = _call(req)
        if not is_uuid(volume):
            raise invalid_argument(f"Error: Invalid volume ID: {volume}. Volume ID should match a UUID")
        found = self.cloud.volumes_of(call.account).get(volume)
        if found is None:
            raise ApiError(404, "VolumeNotFound", f"Error when getting volume: Volume with uuid {volume} could not be found")
        send(resp, self.cloud.show_volume(call.account, found))


class Datacenters(Endpoint, group="datacenters", GET="ListDatacenters"):
    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        resp.set_header("Triton-Datacenter-Name", self.cloud.datacenter)
        send(resp, {self.cloud.datacenter: req.prefix})


class Datacenter(Endpoint, group="datacenters", GET="GetDatacenter"):
    def on_get(self, req: Req, resp: Resp, datacenter: str, **_: str) -> None:
        if datacenter != self.cloud.datacenter:
            raise not_found(f"datacenter {datacenter} does not exist")
        resp.set_header("Location", req.prefix)
        send(resp, {"code": "ResourceMoved", "message": f"{datacenter} is at {req.prefix}"}, 302)


class Services(Endpoint, group="services", GET="ListServices"):
    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        send(resp, {"cloudapi": req.prefix, **self.cloud.services})


class Changefeed(Endpoint, group="changefeed", GET="Changefeed"):
    """CloudAPI: older ones have no such route. What is wrong with an upgrade throws where nobody catches."""

    def on_get(self, req: Req, resp: Resp, **_: str) -> None:
        call = _call(req)
        if not self.cloud.knobs.feed_offered:
            raise ApiError(404, "ResourceNotFound", f"{req.path} does not exist")
        if "upgrade" not in (req.get_header("Connection") or "").lower() or (req.get_header("Upgrade") or "").lower() != "websocket":
            raise ApiError(500, "InternalError", "Connection Must Upgrade For WebSockets")
        # Falcon looks at no body of a 101. This status is never sent.
        resp.status, resp.stream = 200, cut_connection()
        key = req.get_header("Sec-WebSocket-Key")
        if key and req.get_header("Sec-WebSocket-Version") in {None, "13"} and not req.get_header("Sec-WebSocket-Protocol"):
            call.outcome = "101"
            self.cloud.changefeed.adopt(take_socket(req.env), call.account.id, key)
