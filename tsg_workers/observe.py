"""What is: CloudAPI's list of an account's machines, laid beside the rows.

A list is not believed when it lacks machines: it is asked for a second time, and whatever both lack is asked for one by one, so many in a
pass. A machine is gone when CloudAPI says so of that machine; until then it is what it was. A launch whose answer is not known is asked for
by its tag among all machines that ever were, since lists leave the failed ones out; while they lack what CloudAPI turns out to have, they
say nothing of launches.
"""

import random
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import chain, zip_longest
from typing import NamedTuple, TypeVar

from sqlalchemy import Connection

from shared import log
from shared.clients.cloudapi import TAG_GROUP, TAG_LAUNCH, TAG_NAME, Client, CloudAPIError, Machine, NotFound
from shared.state import activities, instances, leases, looks
from shared.state.instances import DELETING, DOUBTED, FAILED, GONE, LAUNCHING, MISSING, ON_THE_WAY, RUNNING, Instance
from shared.state.leases import Lease
from shared.state.looks import Work
from shared.store.db import Database
from tsg_workers.plan import LISTED_AFTER, Limits, Sight, is_overdue

_log = log.get(__name__)

T = TypeVar("T")

#: Machines that one pass asks for one by one: half of what the budget gives it.
LOOKS_A_PASS = 60
#: Requests under way at once.
PARALLEL = 32
#: What CloudAPI says of a machine that is gone.
DESTROYED = "deleted"

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


class Seen(NamedTuple):
    """What a look gave."""

    #: The database's time of it.
    now: datetime
    #: Of each due group, its instances.
    sights: Mapping[str, list[Sight]]
    #: Groups whose machines CloudAPI leaves out of its list although it has them, and of which not all could be asked for.
    misled: Collection[str]
    #: Machines that carry this service's tags and belong to no group of the account that it knows.
    strangers: Collection[str]


class _Told(NamedTuple):
    """What CloudAPI said of one machine that its list does not have."""

    state: str
    created: str = ""
    protected: bool = False
    #: It has the tag that lists are asked for by: they should have it.
    tagged: bool = False


#: Told of a machine that could not be asked for: its instance, and why.
Failed = Callable[[Instance, CloudAPIError], None]
#: Told, in the transaction in which it is written down, what became of a machine: its group, a kind of activity, in words, its id.
Tell = Callable[[Connection, Work, str, str, str | None], None]


class Observer:
    """Looks at an account's cloud once. `may_ask` waits for a turn within the budget, and is False when there is none in time."""

    def __init__(
        self, database: Database, client: Client, lease: Lease, limits: Limits, *, may_ask: Callable[[], bool], failed: Failed, tell: Tell
    ) -> None:
        self._db = database
        self._client = client
        self._lease = lease
        self._limits = limits
        self._may_ask = may_ask
        self._failed = failed
        self._tell = tell

    def look(self, due: Sequence[Work]) -> Seen:
        """Each machine to its group, each row to its machine. `CloudAPIError` when there is no list to be had; `LeaseLost`."""
        by_id = {group.id: group for group in due}
        ids = by_id.keys()
        machines = self._list()
        with self._db.read() as connection:
            by_name = self._by_name(connection, due)
            now, known = instances.of_groups(connection, ids)
        if self._is_doubtful(machines, known, due, now):
            again = self._list()
            _log.warning("list_asked_for_again", machines=len(machines), then=len(again))
            machines |= again
        launched = self._seek(self._unlisted_launches(known, machines.values(), now))
        machines |= {machine.id: machine for machine in launched.values() if machine is not None}
        lost = {launch_id for launch_id, machine in launched.items() if machine is None}
        owned = {machine.id: (machine, owner) for machine in machines.values() if (owner := machine.owner(ids, by_name)) is not None}
        # What failed, or is not known to CloudAPI, is not expected in its list.
        missing = [instance for instance in self._missing(known, owned, now) if instance.state not in {FAILED, MISSING}]
        looked, left = self._look(missing)
        # CloudAPI has what its list lacks. What somebody took the tags of is rightly not there.
        lies = any(told.tagged and told.state not in {GONE, MISSING, FAILED} for told in looked.values()) or any(
            machine is not None and machine.state != FAILED for machine in launched.values()
        )
        emptied = {group.id for group in due if group.emptied_for is not None}
        strays = [machine for machine in machines.values() if machine.id not in owned or owned[machine.id][1] in emptied]

        def record(connection: Connection) -> dict[str, list[Sight]]:
            recorded = self._record(connection, by_id, known, owned, looked, {one.id for one in missing}, now, () if lies else lost)
            # A worker that slept since then has seen what is no more.
            leases.require(connection, self._lease)
            return recorded

        sights = self._db.transact(record)
        with self._db.read() as connection:
            strangers = self._strangers(connection, strays)
        return Seen(now, sights, left if lies else (), strangers)

    def _by_name(self, connection: Connection, due: Sequence[Work]) -> dict[str, str]:
        """The due groups of the 2018 service by their names. Of two of one name, the machines are the living one's, due or not."""
        living = {group.name: group.id for group in due if group.by_name and not group.archived}
        deleted = {group.name: group.id for group in due if group.by_name and group.archived and group.name not in living}
        if deleted:
            for owner in looks.owners(connection, self._lease.account_id, ids=(), names=deleted):
                if not owner.archived:
                    del deleted[owner.name]
        return living | deleted

    def _list(self) -> dict[str, Machine]:
        return {machine.id: machine for machine in self._client.machines(**{f"tag.{TAG_NAME}": "*"})}

    def _missing(self, known: Iterable[Instance], listed: Collection[str], now: datetime) -> list[Instance]:
        return [
            instance
            for instance in known
            if instance.machine_id is not None
            and instance.state != GONE
            and instance.machine_id not in listed
            and (now - instance.launched_at).total_seconds() > LISTED_AFTER
        ]

    def _unlisted_launches(self, known: Iterable[Instance], listed: Iterable[Machine], now: datetime) -> list[Instance]:
        turned_up = {machine.tags.get(TAG_LAUNCH) for machine in listed}
        return [instance for instance in known if instance.id not in turned_up and is_overdue(instance, now, self._limits)]

    def _is_doubtful(self, machines: Mapping[str, Machine], known: Sequence[Instance], due: Sequence[Work], now: datetime) -> bool:
        """Is the list worth a second one? Where just one machine is missing, asking for that one costs as much."""
        unexpected = [one for one in self._missing(known, machines, now) if one.state not in {DELETING, FAILED, MISSING}]
        if len(unexpected) + len(self._unlisted_launches(known, machines.values(), now)) > 1:
            return True
        # Groups of 2018 that were never looked at: what they have is in the list, or nowhere.
        return not machines and not known and any(group.by_name and group.wanted for group in due)

    def _look(self, missing: Sequence[Instance]) -> tuple[dict[str, _Told], set[str]]:
        """Ask for machines one by one, going round the groups: what CloudAPI says of them, and the groups with some left over."""
        by_group: dict[str, list[Instance]] = {}
        # In no order: where not all can be asked for, it is others every time. What is being deleted can wait.
        for instance in sorted(random.sample(missing, len(missing)), key=lambda one: one.state == DELETING):
            by_group.setdefault(instance.group_id, []).append(instance)
        in_turn = [instance for instance in chain.from_iterable(zip_longest(*by_group.values())) if instance is not None]
        asked, left = in_turn[:LOOKS_A_PASS], in_turn[LOOKS_A_PASS:]
        looked = self._ask_for(asked, self._machine)
        if left:
            _log.warning("machines_not_listed", missing=len(missing), asked=len(asked))
        return looked, {instance.group_id for instance in left}

    def _seek(self, launches: Sequence[Instance]) -> dict[str, Machine | None]:
        """Ask for the machines of launches that no list has, and that may have failed by now: each by its launch, or None."""
        return self._ask_for(random.sample(launches, min(len(launches), LOOKS_A_PASS)), self._launched)

    def _ask_for(self, wanted: Sequence[Instance], ask: Callable[[Instance], tuple[str, T]]) -> dict[str, T]:
        """One request for each; those that could not be asked for are left out."""

        def asked(instance: Instance) -> tuple[str, T] | None:
            try:
                return ask(instance) if self._may_ask() else None
            except CloudAPIError as error:
                self._failed(instance, error)
                return None

        if not wanted:
            return {}
        with ThreadPoolExecutor(min(PARALLEL, len(wanted))) as pool:
            return dict(filter(None, pool.map(asked, wanted)))

    def _machine(self, instance: Instance) -> tuple[str, _Told]:
        machine_id = instance.machine_id or ""
        try:
            machine = self._client.machine(machine_id)
        except NotFound:
            # It was there once. One that we had deleted is gone; of any other this is no more than a sign of trouble.
            return machine_id, _Told(GONE if instance.state == DELETING else MISSING)
        if machine is None or machine.state == DESTROYED:
            return machine_id, _Told(GONE)
        return machine_id, _Told(machine.state, machine.created, machine.protected, TAG_NAME in machine.tags)

    def _launched(self, launch: Instance) -> tuple[str, Machine | None]:
        machine = self._client.launched(launch.id)
        return launch.id, None if machine is None or machine.state == DESTROYED else machine

    def _record(
        self,
        connection: Connection,
        due: Mapping[str, Work],
        known: Sequence[Instance],
        owned: Mapping[str, tuple[Machine, str]],
        looked: Mapping[str, _Told],
        missing: Collection[str],
        now: datetime,
        lost_launches: Collection[str],
    ) -> dict[str, list[Sight]]:
        """Write down what was seen, and give it back group by group."""
        sights: dict[str, list[Sight]] = {group_id: [] for group_id in due}
        by_machine = {instance.machine_id: instance for instance in known if instance.machine_id}
        launches = {instance.id: instance for instance in known if instance.state in {LAUNCHING, DOUBTED}}
        for machine, group_id in owned.values():
            instance = by_machine.get(machine.id)
            launch = launches.pop(str(machine.tags.get(TAG_LAUNCH)), None)
            if instance is None and launch is not None:
                instances.acknowledged(connection, launch.id, machine.id, machine.state)
                what = "failed" if launch.state == DOUBTED else "was not answered"
                description = f"found {machine.id}, {machine.state}, of a launch that {what}"
                self._tell(connection, due[group_id], activities.FOUND, description, machine.id)
                instance = _in_state(launch._replace(machine_id=machine.id), machine.state, now)
            elif instance is None:
                instance = instances.found(connection, self._lease, group_id, machine.id, machine.state)
                self._tell(connection, due[group_id], activities.FOUND, f"found {machine.id}, {machine.state}", machine.id)
                _log.info("instance_found", group_id=group_id, machine_id=machine.id, state=machine.state)
            elif instance.state != GONE:
                instance = self._seen(connection, due[group_id], instance, machine.state, now)
            sights[group_id].append(Sight(instance, machine.created, machine.protected))
        for machine_id, told in looked.items():
            known_as = by_machine[machine_id]
            instance = self._seen(connection, due[known_as.group_id], known_as, told.state, now)
            sights[instance.group_id].append(Sight(instance, told.created, told.protected))
        unseen = [instance for machine_id, instance in by_machine.items() if machine_id not in owned and machine_id not in looked]
        for instance in [*unseen, *launches.values()]:
            lost = instance.id in lost_launches
            if lost:
                instances.refused(connection, instance.id)
            if lost and instance.state == LAUNCHING:
                words = f"launch {instance.id} came to nothing: its answer was lost, and CloudAPI has no machine of it"
                self._tell(connection, due[instance.group_id], activities.LAUNCH_LOST, words, None)
                _log.warning("launch_lost", group_id=instance.group_id, launch_id=instance.id)
            sights[instance.group_id].append(Sight(instance, sure=instance.id not in missing, lost=lost))
        return sights

    def _seen(self, connection: Connection, group: Work, instance: Instance, state: str, now: datetime) -> Instance:
        if instance.state == state or (instance.state == DELETING and state != GONE):
            return instance
        instances.seen(connection, self._lease, instance.id, state)
        if instance.state != DELETING and state != RUNNING and state not in ON_THE_WAY:
            kind = activities.LOST if state == GONE else activities.UNHEALTHY
            self._tell(connection, group, kind, f"{instance.machine_id} is {state}; it was {instance.state}", instance.machine_id)
        _log.info("instance_seen", group_id=instance.group_id, machine_id=instance.machine_id, state=state, was=instance.state)
        return _in_state(instance, state, now)

    def _strangers(self, connection: Connection, machines: Sequence[Machine]) -> list[str]:
        """Machines that belong to no group of the account. Those of groups that were empty already make them due again."""
        ids = {machine.id: str(told) for machine in machines if (told := machine.tags.get(TAG_GROUP)) is not None}
        names = {machine.id: str(machine.tags.get(TAG_NAME)) for machine in machines if machine.id not in ids}
        sound = {group_id for group_id in ids.values() if _UUID.match(group_id)}
        if not machines:
            return []
        owners = looks.owners(connection, self._lease.account_id, ids=sound, names=set(names.values()))
        known = {owner.id for owner in owners}
        known_names = {owner.name for owner in owners if owner.by_name and not owner.is_emptied}
        emptied = {owner.id for owner in owners if owner.is_emptied}
        if emptied:
            _, rows = instances.of_groups(connection, emptied)
            # CloudAPI may go on listing for a moment what it said was gone.
            gone = {instance.machine_id for instance in rows if instance.state == GONE}
            late = {group_id for machine_id, group_id in ids.items() if group_id in emptied and machine_id not in gone}
            if late:
                _log.warning("machines_turned_up_late", groups=sorted(late))
                looks.reopen(connection, self._lease, late)
        return [one for one, group_id in ids.items() if group_id not in known] + [one for one in names if names[one] not in known_names]


def _in_state(instance: Instance, state: str, now: datetime) -> Instance:
    ran_at = instance.ran_at or (now if state == RUNNING else None)
    return instance._replace(state=state, state_since=now, ran_at=ran_at)
