"""The cloud in memory: accounts, machines and time. No web framework, no timers, no threads of its own.

Whatever takes time is written down as a job with the moment it ends. Every public method first carries out the jobs whose
moment has come, so a machine's state follows from the clock alone, and a test that owns the clock owns the cloud.
"""

import heapq
import ipaddress
import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from dev.sim.cloudapi import catalog, dns
from dev.sim.cloudapi.accounts import Account, User
from dev.sim.cloudapi.catalog import Image, Network, Package, Volume
from dev.sim.cloudapi.changefeed import Changefeed
from dev.sim.cloudapi.counters import Counters
from dev.sim.cloudapi.errors import ApiError, GoneError, invalid_argument, not_authorized, not_found, validation_failed
from dev.sim.cloudapi.knobs import Knobs
from dev.sim.cloudapi.listing import Listing
from dev.sim.cloudapi.machine import GONE, Change, Job, Machine, Nic
from dev.sim.cloudapi.order import Order, bad_name, final_name
from dev.sim.cloudapi.placement import Hints, NoServerError, hints_of_rules, narrow, read_rules
from dev.sim.common.wanted import is_uuid

#: An account without a UUID gets one made of its login, the same in every run.
_ACCOUNTS = uuid.UUID("5b0c8f0e-6c5b-4d0a-9f3f-2f6f6a1f7a10")

#: States that `/--sim/machines/ID/break` can put a machine in.
BREAKABLE = ("unknown", "offline", "failed", "stopped", "stopping", "provisioning", "ready", "running")

#: What has changed, as VMAPI names it: of a new machine everything; of one in another state; by the last word of a job.
NEW = (
    *("alias", "billing_id", "brand", "create_timestamp", "customer_metadata", "firewall_enabled", "image_uuid", "internal_metadata"),
    *("nics", "owner_uuid", "ram", "server_uuid", "state", "tags", "zone_state"),
)
STATE = ("state", "zone_state", "pid", "boot_timestamp", "exit_status")
BY_ACTION = {
    "tags": "tags",
    "metadata": "customer_metadata",
    "rename": "alias",
    "resize": "billing_id",
    "protection": "indestructible_zoneroot",
}

Caller = Mapping[str, Any]
OPERATOR: Caller = {"type": "operator"}


class Cloud:
    """`now` gives seconds since 1970 and drives machines and the throttle; signatures are dated by the real clock."""

    def __init__(
        self,
        datacenter: str = "us-east-1",
        now: Callable[[], float] = time.time,
        seed: int | None = None,
    ) -> None:
        self.datacenter = datacenter
        self.knobs = Knobs()
        self.counters = Counters()
        self.services: dict[str, str] = {}  #: URLs of others that CloudAPI lists, by name
        self.closing = threading.Event()  #: set when the program stops; handlers that wait, wait on this
        self.packages = {package.id: package for package in catalog.PACKAGES}
        self.images = {image.id: image for image in catalog.IMAGES}
        self.networks = {network.id: network for network in catalog.NETWORKS}
        self.volumes = {volume.id: volume for volume in catalog.VOLUMES}
        self.accounts: dict[str, Account] = {}  #: by login
        self._accounts_by_id: dict[str, Account] = {}
        self._now = now
        self._ahead = 0.0
        self._random = random.Random(seed)
        self._calls: dict[tuple[int | None, str], int] = {}  #: of each `error_seed` and endpoint
        self._lock = threading.RLock()
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._sequence = itertools.count()
        self._leases = {network_id: itertools.count() for network_id in self.networks}
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}
        self._changes: list[Change] = []
        self.is_watched = False  #: somebody has asked for the changefeed, so that changes are kept for it
        self.changefeed = Changefeed(self)

    # Time

    def now(self) -> float:
        return self._now() + self._ahead

    def advance(self, seconds: float) -> None:
        """Put the cloud's clock forward: machines boot and the throttle refills, as if so much time had passed."""
        with self._lock:
            self._ahead += seconds

    @contextmanager
    def _caught_up(self) -> Iterator[float]:
        """Hold the lock, with everything done that is due by now."""
        with self._lock:
            now = self.now()
            while self._due and self._due[0][0] <= now:
                due, _, job = heapq.heappop(self._due)
                job(due)
            yield now

    def _at(self, moment: float, job: Callable[[float], None]) -> None:
        heapq.heappush(self._due, (moment, next(self._sequence), job))

    def chance(self, share: float) -> bool:
        """True with this probability; the seed decides."""
        return share > 0 and self._random.random() < share

    def is_to_fail(self, endpoint: str) -> bool:
        """Whether this call of the endpoint is one of the `error_share`."""
        share, seed, evenly = self.knobs.error_share, self.knobs.error_seed, self.knobs.error_evenly
        if seed is None and not evenly:
            return self.chance(share)
        with self._lock:
            number = self._calls[seed, endpoint] = self._calls.get((seed, endpoint), 0) + 1
        if evenly:
            return int(number * share) > int((number - 1) * share)
        return random.Random(f"{seed} {endpoint} {number}").random() < share

    def use_up(self, knob: str) -> bool:
        """Whether a counting knob (`fail_next_creates`) still has one to give, and take it."""
        with self._lock:
            left: int = getattr(self.knobs, knob)
            setattr(self.knobs, knob, max(left - 1, 0))
            return left > 0

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def new_id(self) -> str:
        with self._lock:
            return self._uuid()

    # Accounts

    def add_account(
        self,
        login: str,
        keys: Iterable[str] = (),
        uuid: str | None = None,
        users: Mapping[str, Iterable[str]] | None = None,
        **more: Any,
    ) -> Account:
        """Add an account with OpenSSH public key lines; `users` are sub-users and theirs. `more` are fields of Account.

        Raises ApiError (a key that isn't one, or is there already) and ValueError (a login or UUID that is taken).
        """
        account = Account(login=login, id=uuid or _uuid_of(login), **more)
        for line in keys:
            account.keys.add(line)
        for user_login, lines in (users or {}).items():
            user = User(login=user_login, id=_uuid_of(f"{login}/{user_login}"))
            account.users.append(user)
            for line in lines:
                user.keys.add(line)
        with self._lock:
            if login in self.accounts or account.id in self._accounts_by_id:
                raise ValueError(f"account {login} ({account.id}) is there already")
            self.accounts[login] = account
            self._accounts_by_id[account.id] = account
        return account

    def find_account(self, login_or_uuid: str) -> Account | None:
        return self.accounts.get(login_or_uuid) or self._accounts_by_id.get(login_or_uuid)

    def rename_account(self, account: Account, login: str) -> None:
        """Another login for an account: the old one is anybody's from then on. ValueError when it is taken."""
        with self._lock:
            if login in self.accounts:
                raise ValueError(f"account {login} is there already")
            del self.accounts[account.login]
            account.login = login
            self.accounts[login] = account

    def take_token(self, login: str, group: str) -> bool:
        """CloudAPI: a token bucket for each account and group of endpoints; burst 30, 10 more a second."""
        with self._lock:
            now, knobs = self.now(), self.knobs
            tokens, filled = self._buckets.get((login, group), (float(knobs.throttle_burst), now))
            tokens = min(tokens + max(now - filled, 0.0) * knobs.throttle_rate, knobs.throttle_burst)
            taken = tokens >= 1
            self._buckets[login, group] = (tokens - 1 if taken else tokens, now)
            return taken

    # Packages, images, networks

    def find_package(self, wanted: Any) -> Package:
        """By UUID, or by name: of the active ones with that name, the highest version. Raises ApiError."""
        if is_uuid(wanted):
            package = self.packages.get(wanted)
            if package is None:
                raise not_found(f"{wanted} not found")
        else:
            named = [package for package in self.packages.values() if package.active and package.name == wanted]
            package = max(named, key=lambda package: _version_key(package.version), default=None)
            if package is None:
                raise invalid_argument(f"{wanted} is not a valid package")
        if not package.active:
            raise invalid_argument(f"{wanted} is inactive. Must use an active package")
        return package

    def find_image(self, account: Account, wanted: Any) -> Image:
        """Raises ApiError."""
        if not is_uuid(wanted):
            raise invalid_argument(f"{wanted} is not a valid image")
        image = self.images.get(wanted)
        if image is None or not image.visible_to(account.id):
            raise not_found("image not found")
        if image.state != "active":
            raise invalid_argument(f"image {wanted} is not active")
        return image

    def networks_of(self, account: Account) -> dict[str, Network]:
        return {network.id: network for network in self.networks.values() if not network.owners or account.id in network.owners}

    def add_network(self, network: Network) -> None:
        with self._lock:
            self.networks[network.id] = network
            self._leases.setdefault(network.id, itertools.count())

    def volumes_of(self, account: Account) -> dict[str, Volume]:
        return {volume.id: volume for volume in self.volumes.values() if not volume.owners or account.id in volume.owners}

    def show_volume(self, account: Account, volume: Volume) -> dict[str, Any]:
        with self._caught_up():
            refs = [machine.id for machine in account.live.values() if volume.name in machine.mounts]
            return volume.to_json(account.id, refs)

    # Looking at machines

    def list_machines(self, account: Account, listing: Listing) -> list[bytes]:
        """One page of machine objects as JSON, by id descending (CloudAPI: not by time)."""
        with self._caught_up() as now:
            takes_it = self.knobs.tag_wildcards or not listing.has_wildcard
            if not takes_it or self.knobs.empty_lists or self.use_up("empty_lists_next"):
                return []
            machines = account.machines(listing.with_gone)
            if self.knobs.stale_list_seconds:
                listed_until = now - self.knobs.stale_list_seconds
                machines = (machine for machine in machines if machine.created <= listed_until)
            page = [self._shown(machine) for machine in listing.page(machines)]
            return page[: max(len(page) - self.knobs.truncate_lists, 0)]

    def get_machine(self, account: Account, machine_id: Any) -> Machine:
        """Raises ApiError (409 for an id that isn't a lower-case UUID, 404 for one unknown or another owner's)."""
        if not is_uuid(machine_id):
            raise validation_failed("Invalid Parameters", "uuid", "Invalid", "Invalid UUID")
        with self._caught_up():
            machine = account.machine(machine_id)
            if machine is None:
                raise not_found("VM not found")
            return machine

    def show_machine(self, machine: Machine, **extra: Any) -> bytes:
        """The machine object as JSON. Raises GoneError, with the object, once it is deleted."""
        with self._caught_up():
            body = self._shown(machine, **extra)
            if machine.state == "deleted":
                raise GoneError(body)
            return body

    def _shown(self, machine: Machine, **extra: Any) -> bytes:
        """The machine object as JSON, with what knobs say in place of the truth."""
        odd = self.knobs.odd_machines
        other = extra | odd.get("*", {}) | odd.get(machine.id, {}) if odd else extra
        return _dump(machine.to_json() | other) if other else machine.rendered()

    def tags_of(self, machine: Machine) -> dict[str, Any]:
        with self._caught_up():
            return dict(machine.tags)

    def metadata_of(self, machine: Machine, credentials: bool = False) -> dict[str, Any]:
        with self._caught_up():
            return dict(machine.metadata) | ({"credentials": machine.credentials} if credentials else {})

    def dns(self) -> dict[str, list[str]]:
        """What DNS would answer: the addresses of each name, of all accounts."""
        with self._caught_up():
            return {name: ips for account in self.accounts.values() for name, ips in dns.records(account, self.datacenter).items()}

    def jobs_of(self, machine: Machine) -> list[dict[str, Any]]:
        with self._caught_up():
            return [job.to_json() for job in reversed(machine.jobs)]

    def all_machines(self) -> list[Machine]:
        """Of every account, the oldest first, with those that are gone."""
        with self._caught_up():
            machines = [
                machine for account in self.accounts.values() for machine in itertools.chain(account.live.values(), account.gone.values())
            ]
            return sorted(machines, key=lambda machine: machine.created)

    # Making and unmaking machines

    def create_machine(self, account: Account, order: Order, caller: Caller = OPERATOR) -> tuple[str, bytes]:
        """The new machine's id and its object as the create call shows it. Raises ApiError.

        CloudAPI: that first object has no NICs, and an empty package name.
        """
        with self._caught_up() as now:
            self._refuse_create(account)
            machine_id = self._uuid()
            name = final_name(order.name, machine_id, account.cns)
            if name in account.ids_by_name:
                raise bad_name("Duplicate", "Already exists for this owner_uuid")
            self._check_volumes(account, order)
            server = self._place(account, order)
            machine = Machine(
                id=machine_id,
                owner=account.id,
                name=name,
                image=order.image,
                package=order.package,
                networks=order.networks,
                compute_node=server,
                created=now,
                updated=now,
                tags=order.tags,
                metadata=order.metadata | {"root_authorized_keys": "".join(key.openssh + "\n" for key in account.keys)},
                credentials=order.credentials,
                firewall_enabled=order.firewall_enabled,
                deletion_protection=order.deletion_protection,
                options=order.options,
                hidden_options=order.hidden_options,
                brand=order.brand,
            )
            machine.lived(now, machine.state)
            account.add(machine)
            self._changed(machine, now, NEW)
            self._plan_provisioning(account, machine, now, caller)
            self.counters.count("creates_accepted")
            return machine.id, self._shown(machine, package="")

    def _refuse_create(self, account: Account) -> None:
        if self.use_up("refuse_next_creates"):
            raise ApiError(self.knobs.refuse_status, self.knobs.refuse_code, self.knobs.refuse_message)
        if not account.approved:
            raise invalid_argument("User is not currently approved for provisioning")
        if not len(account.keys):
            raise ApiError(409, "KeyRequired", "At least one SSH key is required to provision")
        quota = self.quota_of(account)
        if quota is not None and len(account.live) >= quota:
            raise not_authorized("Quota exceeded; to have your limits raised please contact Support")

    def quota_of(self, account: Account) -> int | None:
        return self.knobs.quota.get(account.login, self.knobs.default_quota)

    def _check_volumes(self, account: Account, order: Order) -> None:
        """CloudAPI: a volume that is there must be on a network of the machine; of one that isn't, nothing is said here."""
        networks = [network.id for network in order.networks]
        by_name = {volume.name: volume for volume in self.volumes_of(account).values() if volume.state == "ready"}
        found = [by_name[mount["name"]] for mount in order.hidden_options.get("volumes", ()) if mount["name"] in by_name]
        errors = [
            f"Volume {volume.name} not reachable on networks {', '.join(networks)}"
            for volume in found
            if not set(networks).intersection(volume.networks)
        ]
        if errors:
            raise ApiError(409, "VolumesNotReachableError", f"Volumes not reachable from machine: {', '.join(errors)}")

    def _place(self, account: Account, order: Order) -> str:
        """A server with room that the order's rules allow; of several, one with the fewest of the account's machines. Raises ApiError.

        CloudAPI: an order whose rules leave no server is answered like one for which there is no room.
        """
        hints = Hints(**order.hidden_options.get("locality", {}))
        try:
            if "affinity" in order.hidden_options:
                hints = hints_of_rules(read_rules(order.hidden_options["affinity"]), account.live.values())
        except NoServerError:
            raise _no_room() from None
        servers = narrow(self._servers_with_room("encrypted" in order.options), hints, account.live)
        if not servers:
            raise _no_room()
        turn = next(self._sequence) % len(servers)
        return min([*servers[turn:], *servers[:turn]], key=account.machines_on.__getitem__)

    def _servers_with_room(self, encrypted: bool) -> list[str]:
        """The same UUIDs in every run, so that a kept machine still stands on its server."""
        knobs, accounts = self.knobs, self.accounts.values()
        if knobs.capacity is not None and sum(len(account.live) for account in accounts) >= knobs.capacity:
            return []
        kind, count = ("encrypted server", knobs.encrypted_servers) if encrypted else ("server", knobs.servers)
        servers = [_uuid_of(f"{self.datacenter}/{kind}/{number}") for number in range(count)]
        if knobs.server_room is None:
            return servers
        return [server for server in servers if sum(account.machines_on[server] for account in accounts) < knobs.server_room]

    def _plan_provisioning(self, account: Account, machine: Machine, now: float, caller: Caller) -> None:
        knobs, image = self.knobs, machine.image.id
        if image in knobs.stuck_images or self.use_up("stick_next_creates"):
            return
        spoilt = image in knobs.failing_images or self.use_up("fail_next_creates") or self.chance(knobs.fail_share)

        def finish(moment: float) -> None:
            ready = {volume.name for volume in self.volumes_of(account).values() if volume.state == "ready"}
            failing = spoilt or not ready.issuperset(machine.mounts)
            if not failing:
                machine.nics = self._nics(machine)
                self._changed(machine, moment, ("nics", "server_uuid"))
            machine.jobs.append(Job("provision", not failing, moment, dict(caller)))
            self._become(account, machine, "failed" if failing else "running", moment)

        seconds = knobs.provision_seconds_by_image.get(image, knobs.provision_seconds) + self._random.random() * knobs.provision_jitter
        self._later_state(machine, now + seconds, finish)

    def delete_machine(self, account: Account, machine: Machine, caller: Caller = OPERATOR) -> None:
        """CloudAPI: any state is accepted, and again while the job runs; the states shown meanwhile are the old ones.

        Raises ApiError: protected, or GoneError with the id (job done, state not flipped yet) or with the object (deleted).
        """
        with self._caught_up() as now:
            if machine.state == "deleted":
                raise GoneError(machine.rendered())
            if machine.destroying == "done":
                raise GoneError(_dump(machine.id))
            if machine.deletion_protection:
                message = 'Instance has "deletion_protection" enabled, preventing deletion'
                raise ApiError(409, "CannotDestroyMachineError", message)
            self.counters.count("deletes_accepted")
            if machine.destroying:
                return
            machine.destroying = "running"
            machine.lived(now, "destroy")
            machine.turn += 1
            if machine.state != "failed":
                self._become(account, machine, "stopping", now)

            self._plan_deletion(account, machine, now, caller)

    def _plan_deletion(self, account: Account, machine: Machine, now: float, caller: Caller) -> None:
        def job_done(moment: float) -> None:
            machine.destroying = "done"
            machine.jobs.append(Job("destroy", True, moment, dict(caller)))

        done = now + self.knobs.delete_seconds
        self._later_state(machine, done, job_done)
        self._later_state(machine, done + self.knobs.delete_flip_seconds, lambda moment: self._become(account, machine, "deleted", moment))

    # Changing machines

    def power(self, account: Account, machine: Machine, action: str, caller: Caller = OPERATOR) -> None:
        """stop, start or reboot. CloudAPI: a wrong current state is accepted, and the job fails silently."""
        with self._caught_up() as now:
            self._check_allocated(machine)
            needed, meanwhile, then = {
                "stop": ("running", "stopping", "stopped"),
                "start": ("stopped", "ready", "running"),
                "reboot": ("running", "stopping", "running"),
            }[action]
            possible = machine.state == needed and not machine.destroying

            def finish(moment: float) -> None:
                machine.jobs.append(Job(action, possible, moment, dict(caller)))
                if possible and action == "reboot":
                    self._changed(machine, moment, STATE, "ready")
                if possible:
                    self._become(account, machine, then, moment)

            if possible:
                machine.turn += 1
                self._become(account, machine, meanwhile, now)
            self._later_state(machine, now + self.knobs.job_seconds, finish)

    def rename(self, account: Account, machine: Machine, name: Any, caller: Caller = OPERATOR) -> None:
        with self._caught_up():
            self._check_allocated(machine)
            if not isinstance(name, str):
                raise bad_name("Invalid", "String does not match regexp")
            final = final_name(name, machine.id, account.cns)
            if account.ids_by_name.get(final, machine.id) != machine.id:
                raise bad_name("Duplicate", "Already exists for this owner_uuid")
            self._job(machine, "rename", caller, lambda: account.rename(machine, final))

    def resize(self, machine: Machine, package: Package, caller: Caller = OPERATOR) -> None:
        self._update(machine, "resize", caller, "package", package)

    def set_firewall(self, machine: Machine, enabled: bool, caller: Caller = OPERATOR) -> None:
        self._update(machine, f"{'enable' if enabled else 'disable'}_firewall", caller, "firewall_enabled", enabled)

    def set_deletion_protection(self, machine: Machine, enabled: bool, caller: Caller = OPERATOR) -> None:
        action = f"{'enable' if enabled else 'disable'}_deletion_protection"
        self._update(machine, action, caller, "deletion_protection", enabled)

    def _update(self, machine: Machine, action: str, caller: Caller, name: str, value: Any) -> None:
        """CloudAPI: enabling what is so already is accepted without a job."""
        with self._caught_up():
            self._check_allocated(machine)
            if getattr(machine, name) != value:
                self._job(machine, action, caller, lambda: setattr(machine, name, value))

    def change_tags(self, machine: Machine, caller: Caller, *, put: Mapping[str, Any], drop: Iterable[str] = ()) -> dict[str, Any]:
        """Start the job; the answer shows what the tags will be, not what they are."""
        dropped = frozenset(drop)
        action = "replace_tags" if put and dropped else "set_tags" if put else "remove_tags"
        return self._change_pairs(machine, "tags", action, caller, put, dropped)

    def change_metadata(self, machine: Machine, caller: Caller, *, put: Mapping[str, Any], drop: Iterable[str] = ()) -> dict[str, Any]:
        action = "set_metadata" if put else "remove_metadata"
        return self._change_pairs(machine, "metadata", action, caller, put, frozenset(drop))

    def _change_pairs(
        self, machine: Machine, name: str, action: str, caller: Caller, put: Mapping[str, Any], dropped: frozenset[str]
    ) -> dict[str, Any]:
        def changed() -> dict[str, Any]:
            return {key: value for key, value in getattr(machine, name).items() if key not in dropped} | dict(put)

        with self._caught_up():
            self._check_there(machine)
            self._job(machine, action, caller, lambda: setattr(machine, name, changed()))
            return changed()

    def _check_there(self, machine: Machine) -> None:
        if machine.state == "deleted":
            raise GoneError(machine.rendered())

    def _check_allocated(self, machine: Machine) -> None:
        self._check_there(machine)
        if machine.state == "provisioning":
            raise ApiError(409, "UnallocatedVM", "VM is not allocated to a server yet")

    # What happens behind the owner's back

    def kill(self, machine: Machine) -> None:
        """Deleted at once, as when a server burns down."""
        self.break_machine(machine, "deleted")

    def break_machine(self, machine: Machine, state: str) -> None:
        """One of BREAKABLE, or deleted: at once and for good."""
        with self._caught_up() as now:
            account = self._accounts_by_id[machine.owner]
            machine.turn += 1
            machine.destroying = ""
            if machine.id in account.gone and state not in GONE:
                del account.gone[machine.id]
                account.add(machine)
            if state == "running" and not machine.nics:
                machine.nics = self._nics(machine)
            # VMAPI: of a server that does not answer, no machine is written.
            self._become(account, machine, state, now, sends=state not in {"unknown", "offline"})

    # Staying

    def rows(self) -> dict[str, Any]:
        """Accounts, catalogue and machines, as JSON has them. Knobs and counters are not kept, nor what is deleted."""
        with self._caught_up():
            return {
                "packages": [asdict(package) for package in self.packages.values()],
                "images": [asdict(image) for image in self.images.values()],
                "networks": [asdict(network) for network in self.networks.values()],
                "volumes": [asdict(volume) for volume in self.volumes.values()],
                "accounts": [account.to_row() for account in self.accounts.values()],
                "machines": [
                    machine.to_row()
                    for account in self.accounts.values()
                    for machine in (*account.live.values(), *account.gone.values())
                    if machine.state != "deleted"
                ],
            }

    def load(self, rows: Mapping[str, Any]) -> None:
        """Be the cloud that these rows were of. What was under way with a machine begins anew."""
        with self._caught_up() as now:
            self.packages |= {row["id"]: Package(**row) for row in rows["packages"]}
            self.images |= {row["id"]: Image(**(row | {"acl": tuple(row.get("acl", ()))})) for row in rows["images"]}
            for row in rows["networks"]:
                self.add_network(Network(**(row | {"owners": tuple(row["owners"])})))
            for row in rows.get("volumes", ()):  # older simulators kept none
                self.volumes[row["id"]] = Volume(**(row | {name: tuple(row[name]) for name in ("networks", "owners")}))
            for row in rows["accounts"]:
                account = Account.from_row(row)
                self.accounts[account.login] = self._accounts_by_id[account.id] = account
            for row in rows["machines"]:
                machine = Machine.from_row(row, self.images, self.networks)
                self._take_in(self._accounts_by_id[machine.owner], machine, now)

    def _take_in(self, account: Account, machine: Machine, now: float) -> None:
        account.add(machine)
        for nic in machine.nics:
            next(self._leases[nic.network])  # as many addresses are taken
        if machine.state in GONE:
            account.bury(machine)
        if machine.destroying:
            machine.destroying = "running"
            self._plan_deletion(account, machine, now, OPERATOR)
        elif machine.state == "provisioning":
            self._plan_provisioning(account, machine, now, OPERATOR)
        elif machine.state in ("stopping", "ready"):
            self._become(account, machine, "stopped" if machine.state == "stopping" else "running", now)

    # Inside

    def _become(self, account: Account, machine: Machine, state: str, now: float, *, sends: bool = True) -> None:
        machine.state = state
        machine.lived(now, state)
        machine.touch(now)
        if sends:
            self._changed(machine, now, (*STATE, "destroyed") if state == "deleted" else STATE)
        if state in GONE:
            account.bury(machine)

    def _changed(self, machine: Machine, moment: float, keys: tuple[str, ...], state: str = "") -> None:
        if self.is_watched:
            self._changes.append(machine.change(moment, keys, state))

    def take_changes(self) -> list[Change]:
        """What has changed since they were taken last."""
        with self._caught_up():
            taken, self._changes = self._changes, []
            return taken

    def _later_state(self, machine: Machine, moment: float, change: Callable[[float], None]) -> None:
        """A state change that a later command overtakes: a machine deleted while it boots never runs."""
        turn = machine.turn
        self._at(moment, lambda due: change(due) if machine.turn == turn else None)

    def _job(self, machine: Machine, action: str, caller: Caller, change: Callable[[], None]) -> None:
        def finish(moment: float) -> None:
            if machine.state == "deleted":
                return
            change()
            machine.jobs.append(Job(action, True, moment, dict(caller)))
            machine.touch(moment)
            self._changed(machine, moment, (BY_ACTION.get(action.rsplit("_", maxsplit=1)[-1], "firewall_enabled"),))

        self._at(self.now() + self.knobs.job_seconds, finish)

    def _nics(self, machine: Machine) -> list[Nic]:
        """The first public network's NIC is the primary one, else the first."""
        primary = next((network for network in machine.networks if network.public), None) or next(iter(machine.networks), None)
        return [self._nic(network, network is primary) for network in machine.networks]

    def _nic(self, network: Network, primary: bool) -> Nic:
        subnet = ipaddress.ip_network(network.subnet)
        host = next(self._leases[network.id]) % (subnet.num_addresses - 12) + 10  # the first ten are the network's own
        mac = "90:b8:d0:" + ":".join(f"{self._random.getrandbits(8):02x}" for _ in range(3))
        return Nic(network.id, str(subnet[host]), mac, primary, str(subnet[1]), str(subnet.netmask))


def _no_room() -> ApiError:
    return ApiError(409, "NoAllocatableServersError", "No compute resources available")


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _uuid_of(name: str) -> str:
    return str(uuid.uuid5(_ACCOUNTS, name))


def _version_key(version: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in version.split(".")]
