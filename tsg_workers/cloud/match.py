"""CloudAPI's machines beside the rows: what has changed since the rows were written. Pure."""

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from shared.clients.cloudapi import Machine
from shared.plan.census import Sight
from shared.rules import is_uuid
from shared.spec.machines import TAG_LAUNCH, TAG_TEMPLATE
from shared.spec.tags import SERVICES
from shared.state.instances import DELETING, DOUBTED, GONE, LAUNCHING, PROVISIONING, RUNNING, Instance
from tsg_workers.cloud.ask import Answer

#: Values of `triton.cns.status` that drains write. CloudAPI shows a new value late, so an old one says nothing of the newest.
_OURS = frozenset({None, "up", "down"})


class Change(StrEnum):
    """What a look found new about an instance."""

    #: A machine that no row knows.
    FOUND = "found"
    #: The machine of a launch without an answer.
    ADOPTED = "adopted"
    #: A machine in another state than its row says; gone, at last.
    MOVED = "moved"
    #: A launch that came to nothing.
    LAUNCH_LOST = "launch_lost"
    #: A machine of which CloudAPI says more than its row.
    DESCRIBED = "described"


class Match(NamedTuple):
    """An instance as it is now, and what is new about it. One that was found gets its id when it is stored."""

    sight: Sight
    change: Change | None = None
    #: The state its row has.
    was: str = ""
    machine: Machine | None = None


def match(
    owned: Sequence[tuple[Machine, str]],
    answers: Sequence[Answer],
    rows: Sequence[Instance],
    *,
    lost_launches: Collection[str],
    missing: Collection[str],
    now: datetime,
) -> list[Match]:
    """Each machine to its row, each row to its machine.

    `owned` are listed machines, each with its group's id; `answers` are about machines that the list lacks. Of the rows whose ids are in
    `missing`, those without an answer are not sure. `lost_launches` are ids of launches without a machine.
    """
    by_machine: dict[str | None, Instance] = {row.machine_id: row for row in rows if row.machine_id}
    launches = {row.id: row for row in rows if row.state in {LAUNCHING, DOUBTED}}
    found = []
    for machine, group_id in owned:
        launch = launches.pop(str(machine.tags.get(TAG_LAUNCH)), None)
        found.append(_of_machine(machine, group_id, by_machine.get(machine.id), launch, now))
    found += [_moved(answer.instance, answer.machine, answer.state, now) for answer in answers]
    for machine_id in [*(machine.id for machine, _ in owned), *(answer.instance.machine_id for answer in answers)]:
        by_machine.pop(machine_id, None)
    found += [Match(Sight(row, sure=row.id not in missing)) for row in by_machine.values()]
    return found + [_of_launch(launch, lost=launch.id in lost_launches) for launch in launches.values()]


def _of_machine(machine: Machine, group_id: str, row: Instance | None, launch: Instance | None, now: datetime) -> Match:
    # Somebody gave a machine the tag of another group: that one finds it.
    if row is not None and row.group_id == group_id:
        # CloudAPI may go on listing for a moment what it said was gone.
        return Match(_sight(row, machine)) if row.state == GONE else _moved(row, machine, machine.state, now)
    if row is None and launch is not None:
        adopted = _in_state(launch._replace(machine_id=machine.id), machine.state, now)
        return Match(_sight(adopted, machine), Change.ADOPTED, launch.state, machine)
    ran_at = None if machine.state == PROVISIONING else now
    found = Instance("", group_id, machine.id, machine.state, now, now, None, ran_at, template_of(machine))
    return Match(_sight(found, machine), Change.FOUND, machine=machine)


def _of_launch(launch: Instance, *, lost: bool) -> Match:
    return Match(Sight(launch, lost=lost), Change.LAUNCH_LOST if lost else None, was=launch.state)


def _moved(row: Instance, machine: Machine | None, state: str, now: datetime) -> Match:
    was = row.state
    if was == state or (was == DELETING and state != GONE):
        if machine is not None and _says_more(machine, row):
            known = row._replace(template_id=row.template_id or template_of(machine))
            return Match(_sight(known, machine), Change.DESCRIBED, machine=machine)
        return Match(_sight(row, machine))
    return Match(_sight(_in_state(row, state, now), machine), Change.MOVED, was, machine)


def _says_more(machine: Machine, row: Instance) -> bool:
    """Of machines that run alone: the others change anyway."""
    if row.state != RUNNING:
        return False
    if machine.primary_ip != (row.primary_ip or "") or (row.template_id is None and template_of(machine) is not None):
        return True
    # On its only network, a machine with the same address has the same one.
    return row.addresses is None if len(machine.addresses) == 1 else row.addresses != addresses_of(machine)


def addresses_of(machine: Machine) -> str:
    """As rows have them: JSON."""
    return json.dumps(dict(machine.addresses), sort_keys=True)


def template_of(machine: Machine) -> str | None:
    """The template that the machine's tag names."""
    tag = machine.tags.get(TAG_TEMPLATE)
    return tag.lower() if isinstance(tag, str) and is_uuid(tag) else None


def _in_state(instance: Instance, state: str, now: datetime) -> Instance:
    ran_at = instance.ran_at or (now if state == RUNNING else None)
    since = instance.state_since if (instance.state, state) == (DELETING, GONE) else now
    gone_at = now if state == GONE else None
    return instance._replace(state=state, state_since=since, ran_at=ran_at, gone_at=gone_at, probe=None, probe_since=None)


def _sight(instance: Instance, machine: Machine | None) -> Sight:
    if machine is None:
        return Sight(instance)
    has_dns = SERVICES in machine.tags and machine.cns_status in _OURS
    return Sight(instance, machine.created, machine.protected, compute_node=machine.compute_node, has_dns=has_dns)
