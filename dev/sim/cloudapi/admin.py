"""`/--sim/...`: look inside the simulator, turn its knobs, and do to machines what no owner asked for.

Unauthenticated: the simulator is meant for a loopback address. Refusals are 400 or 404 with `{"code", "message"}`,
and the message names the field.
"""

import dataclasses
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar, get_type_hints

import falcon

from dev.sim.cloudapi.accounts import Account
from dev.sim.cloudapi.catalog import Image, Network, Package, Volume
from dev.sim.cloudapi.cloud import BREAKABLE, Cloud
from dev.sim.cloudapi.errors import ApiError, not_found
from dev.sim.cloudapi.machine import Machine, iso
from dev.sim.common.admin import read
from dev.sim.common.wanted import ANY_TEXT, COUNT, FLAG, OBJECT, SECONDS, TEXT, UUID, Unwanted, Wanted

T = TypeVar("T")
Req = falcon.Request
Resp = falcon.Response


def _is_subnet(value: object) -> bool:
    try:
        return isinstance(value, str) and ipaddress.IPv4Network(value).num_addresses >= 16
    except ValueError:
        return False


KEYS = TEXT.in_array("an array of OpenSSH public key lines")
USERS = KEYS.in_object("an object of user login to an array of OpenSSH public key lines")
UUIDS = UUID.in_array("an array of lower-case UUIDs")
SUBNET = Wanted("an IPv4 network like 10.0.0.0/8, of at least 16 addresses", _is_subnet)
BROKEN_STATE = Wanted("one of " + ", ".join(BREAKABLE), lambda state: state in BREAKABLE)


def _machine_row(machine: Machine, login: str) -> dict[str, Any]:
    return machine.to_json() | machine.hidden_options | {"account": login, "destroying": machine.destroying}


class Admin:
    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def account(self, login: str) -> Account:
        account = self.cloud.find_account(login)
        if account is None:
            raise not_found(f"account {login} does not exist")
        return account


class State(Admin):
    """GET: accounts, every machine with its true state, knobs and counters."""

    def on_get(self, _req: Req, resp: Resp) -> None:
        cloud = self.cloud
        logins = {account.id: account.login for account in cloud.accounts.values()}
        resp.media = {
            "datacenter": cloud.datacenter,
            "now": iso(cloud.now()),
            "accounts": [_account_row(account) for account in cloud.accounts.values()],
            "machines": [_machine_row(machine, logins[machine.owner]) for machine in cloud.all_machines()],
            "counters": cloud.counters.to_json(),
            "knobs": cloud.knobs.to_json(),
        }


class Clock(Admin):
    """POST {"seconds": 300}: the cloud's clock goes forward at once; signatures keep the real one."""

    def on_post(self, req: Req, resp: Resp) -> None:
        self.cloud.advance(read(req, {"seconds": SECONDS}, required=("seconds",))["seconds"])
        resp.media = {"now": iso(self.cloud.now())}


# Accounts

ACCOUNT_FLAGS: dict[str, Wanted] = {"disabled": FLAG, "approved": FLAG, "cns": FLAG}


def _account_row(account: Account) -> dict[str, Any]:
    return {
        "login": account.login,
        "uuid": account.id,
        "keys": [key.to_json() for key in account.keys],
        "users": {user.login: [key.to_json() for key in user.keys] for user in account.users},
        "machines": len(account.live),
        **{name: getattr(account, name) for name in ACCOUNT_FLAGS},
    }


class Accounts(Admin):
    """POST {"login", "uuid"?, "keys"?, "users"?, "disabled"?, "approved"?, "cns"?}: 201."""

    FIELDS: ClassVar[dict[str, Wanted]] = {"login": TEXT, "uuid": UUID, "keys": KEYS, "users": USERS, **ACCOUNT_FLAGS}

    def on_get(self, _req: Req, resp: Resp) -> None:
        resp.media = [_account_row(account) for account in self.cloud.accounts.values()]

    def on_post(self, req: Req, resp: Resp) -> None:
        fields = read(req, self.FIELDS, required=("login",))
        try:
            account = self.cloud.add_account(**fields)
        except ValueError as error:
            raise ApiError(409, "InvalidArgument", str(error)) from None
        resp.status = 201
        resp.media = _account_row(account)


class AccountResource(Admin):
    """PATCH {"login"?, "disabled"?, "approved"?, "cns"?, "user"?, "authorized"?, "actions"?}.

    The last three speak of one sub-user: whether it may do anything, and what: ["getaccount", ...] as policies call it, null for all.
    """

    FIELDS: ClassVar[dict[str, Wanted]] = {
        "login": TEXT,
        **ACCOUNT_FLAGS,
        "user": TEXT,
        "authorized": FLAG,
        "actions": TEXT.in_array("an array of endpoint names in lower case").or_null(),
    }

    def on_get(self, _req: Req, resp: Resp, login: str) -> None:
        resp.media = _account_row(self.account(login))

    def on_patch(self, req: Req, resp: Resp, login: str) -> None:
        account = self.account(login)
        fields = read(req, self.FIELDS)
        rights = fields.keys() & {"authorized", "actions"}
        if ("user" in fields) != bool(rights):
            raise Unwanted("user and what it may (authorized, actions) go together")
        if "user" in fields:
            user = account.find_user(fields.pop("user"))
            if user is None:
                raise not_found("user does not exist")
            for right in rights:
                setattr(user, right, fields.pop(right))
        if "login" in fields:
            try:
                self.cloud.rename_account(account, fields.pop("login"))
            except ValueError as error:
                raise ApiError(409, "InvalidArgument", str(error)) from None
        for name, value in fields.items():
            setattr(account, name, value)
        resp.media = _account_row(account)


class AccountKeys(Admin):
    """POST {"key", "name"?}."""

    def on_post(self, req: Req, resp: Resp, login: str) -> None:
        fields = read(req, {"key": TEXT, "name": TEXT}, required=("key",))
        resp.media = self.account(login).keys.add(fields["key"], fields.get("name")).to_json()
        resp.status = 201


class AccountKey(Admin):
    def on_delete(self, _req: Req, resp: Resp, login: str, key: str) -> None:
        self.account(login).keys.remove(key)
        resp.status = 204


# Packages, images, networks, volumes

#: What a field may be, by its type; and where more than its type is to be right, by its name.
_BY_TYPE: dict[Any, Wanted] = {str: TEXT, str | None: TEXT, int: COUNT, int | None: COUNT, bool: FLAG, tuple[str, ...]: UUIDS}
_BY_NAME = {"id": UUID, "owner": UUID, "description": ANY_TEXT, "subnet": SUBNET}


def _fields(kind: type, *names: str) -> dict[str, Wanted]:
    """Those that a new one may be made with: its id, its name, and these."""
    types = get_type_hints(kind)
    return {name: _BY_NAME.get(name) or _BY_TYPE[types[name]] for name in ("id", "name", *names)}


def _made(kind: Callable[..., T], req: Req, wanted: Mapping[str, Wanted], **usual: int) -> T:
    """A new one, which goes by its id unless it was given a name."""
    fields = read(req, wanted, required=("id",))
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return kind(**{"name": fields["id"], **usual, **given})


class Packages(Admin):
    FIELDS: ClassVar = _fields(
        Package, "memory", "disk", "vcpus", "version", "group", "description", "brand", "os", "flexible_disk", "active"
    )

    def on_post(self, req: Req, resp: Resp) -> None:
        package = _made(Package, req, self.FIELDS, memory=512, disk=10240)
        self.cloud.packages[package.id] = package
        resp.status, resp.media = 201, package.to_json()


class Images(Admin):
    """`acl` are the account UUIDs that an image is shared with."""

    FIELDS: ClassVar = _fields(
        Image, "version", "os", "type", "description", "public", "state", "owner", "acl", "min_ram", "brand", "image_size"
    )

    def on_post(self, req: Req, resp: Resp) -> None:
        image = _made(Image, req, self.FIELDS)
        self.cloud.images[image.id] = image
        resp.status, resp.media = 201, dataclasses.asdict(image)


class Networks(Admin):
    """`owners` are the account UUIDs that may use it; without it everyone may.

    Machines get addresses of `subnet`: on one of 127.0.0.0/8, a server on this machine may play them.
    """

    FIELDS: ClassVar = _fields(Network, "public", "description", "fabric", "subnet", "owners")

    def on_post(self, req: Req, resp: Resp) -> None:
        network = _made(Network, req, self.FIELDS)
        self.cloud.add_network(network)
        resp.status, resp.media = 201, network.to_json()


class Volumes(Admin):
    """`owners` are the account UUIDs that have it; without it every account has one of that name."""

    FIELDS: ClassVar = _fields(Volume, "networks", "size", "state", "owners")

    def on_post(self, req: Req, resp: Resp) -> None:
        volume = _made(Volume, req, self.FIELDS)
        self.cloud.volumes[volume.id] = volume
        resp.status, resp.media = 201, dataclasses.asdict(volume)


# Machines


class Machines(Admin):
    """GET: every machine there ever was with its life: [[time, state or "destroy"], ...]. `?live=true`: those that are there.

    Much shorter than `/--sim/state`, for frequent looks.
    """

    def on_get(self, req: Req, resp: Resp) -> None:
        logins = {account.id: account.login for account in self.cloud.accounts.values()}
        live = req.get_param_as_bool("live", default=False)
        resp.media = [
            {
                "id": machine.id,
                "account": logins[machine.owner],
                "state": machine.state,
                "destroying": machine.destroying,
                "tags": machine.tags,
                "life": machine.life,
            }
            for machine in self.cloud.all_machines()
            if not live or machine.state != "deleted"
        ]


class Dns(Admin):
    """GET: what DNS would answer, name by name: {"web.svc.ACCOUNT.us-east-1.cns.example.com": ["198.18.0.10"], ...}."""

    def on_get(self, _req: Req, resp: Resp) -> None:
        resp.media = self.cloud.dns()


class MachineDeed(Admin):
    """POST /--sim/machines/ID/kill, /stop, /fail, or /break with {"state": "unknown"}: done at once."""

    def on_post(self, req: Req, resp: Resp, machine: str, deed: str) -> None:
        logins = {account.id: account.login for account in self.cloud.accounts.values()}
        found = next((row for row in self.cloud.all_machines() if row.id == machine), None)
        if found is None:
            raise not_found(f"machine {machine} does not exist")
        self._do(req, found, deed)
        resp.media = _machine_row(found, logins[found.owner])

    def _do(self, req: Req, machine: Machine, deed: str) -> None:
        if deed == "kill":
            self.cloud.kill(machine)
        elif deed == "stop":
            self.cloud.break_machine(machine, "stopped")
        elif deed == "fail":
            self.cloud.break_machine(machine, "failed")
        elif deed == "break":
            self.cloud.break_machine(machine, read(req, {"state": BROKEN_STATE}).get("state", "unknown"))
        else:
            raise not_found(f"{deed} is not something to do to a machine: kill, stop, fail, break")


class Changefeed(Admin):
    """GET: its connections, by account, and how many messages it has sent."""

    def on_get(self, _req: Req, resp: Resp) -> None:
        resp.media = self.cloud.changefeed.shown()


class RestartChangefeed(Admin):
    """POST {"seconds"?: 5}: CLOSE to all, as when VMAPI is restarted; what happens within these seconds is lost."""

    def on_post(self, req: Req, resp: Resp) -> None:
        self.cloud.changefeed.restart(read(req, {"seconds": SECONDS}).get("seconds", 0.0))
        resp.media = self.cloud.changefeed.shown()


class CutChangefeed(Admin):
    """POST: all its connections end without a CLOSE, as when CloudAPI is killed."""

    def on_post(self, _req: Req, resp: Resp) -> None:
        self.cloud.changefeed.cut()
        resp.media = self.cloud.changefeed.shown()


class KillMachines(Admin):
    """POST {"count"?, "tag"?: {"tsg.group": "..."}, "account"?}: the oldest live machines first; without count all of them."""

    FIELDS: ClassVar[dict[str, Wanted]] = {"count": COUNT, "tag": OBJECT, "account": TEXT}

    def on_post(self, req: Req, resp: Resp) -> None:
        fields = read(req, self.FIELDS)
        owner = self.account(fields["account"]).id if "account" in fields else None
        tags = fields.get("tag", {})
        victims = [
            machine
            for machine in self.cloud.all_machines()
            if machine.state not in ("failed", "deleted")
            and owner in (None, machine.owner)
            and all(machine.tags.get(key) == value for key, value in tags.items())
        ][: fields.get("count")]
        for machine in victims:
            self.cloud.kill(machine)
        resp.media = {"killed": [machine.id for machine in victims]}
