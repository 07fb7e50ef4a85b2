"""The lives of all machines, held against the capacities that were asked for.

The machines' lives are the cloud's own record, and so the truth, whatever the service was answered. For each group they are gone through in
the order of time: a machine that was asked for while as many as were wanted were there is a double launch; one that was deleted though it
was healthy and no more than wanted were there is a wrongful deletion; and of healthy ones, the oldest have to go first.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from dev.soaking.oracle import Group

#: Seconds between the moment at which the service may last have read a group's capacity and CloudAPI's deed: its slowest answer.
LAG = 12.0
#: Seconds between the list that a pass was planned on and the last of its deeds.
PASS = 25.0
#: States that count as capacity: there, or on the way.
COUNTED = frozenset(["provisioning", "ready", "running", "stopping", "offline", "unknown"])


class Event(NamedTuple):
    at: float
    what: str
    machine: str


@dataclass
class Life:
    """What a machine is at the moment that is looked at."""

    state: str
    since: float
    dying: bool = False


def violations(machines: Iterable[Mapping[str, Any]], groups: Mapping[str, Group], *, provision_timeout: float) -> list[str]:
    """Everything that was done without need, to any group."""
    by_group: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    found = []
    launches: Counter[str] = Counter()
    for machine in machines:
        group_id = machine["tags"].get("tsg.group")
        if group_id is None:
            continue  # a bystander
        if group_id not in groups:
            found.append(f"machine {machine['id']} is of an unknown group: {group_id}")
        by_group[group_id].append(machine)
        launches[machine["tags"].get("tsg.launch", "none")] += 1
    found += [f"{count} machines of one launch {launch}" for launch, count in launches.items() if count > 1]
    for group_id, members in by_group.items():
        if group_id in groups:
            found += _of_group(groups[group_id], members, provision_timeout)
    return found


def _of_group(group: Group, machines: Iterable[Mapping[str, Any]], provision_timeout: float) -> list[str]:
    events = sorted(Event(at, what, machine["id"]) for machine in machines for at, what in machine["life"])
    lives: dict[str, Life] = {}
    lost: list[float] = []
    found = []
    for event in events:
        life = lives.get(event.machine)
        if life is None:
            wanted = max(group.capacities(event.at - LAG, event.at))
            healthy = sum(_is_sound(other, event.at, provision_timeout) for other in lives.values())
            if healthy >= wanted:
                found.append(f"{_name(group)}: machine {event.machine} was launched at {event.at:.1f}, {healthy} of {wanted} being there")
            lives[event.machine] = Life(event.what, event.at)
            continue
        if event.what == "destroy":
            wanted = min(group.capacities(event.at - LAG, event.at))
            there = sum(other.state in COUNTED and not other.dying for other in lives.values())
            unknown = sum(at > event.at - PASS for at in lost)
            if _is_sound(life, event.at, provision_timeout) and there + unknown <= wanted:
                found.append(
                    f"{_name(group)}: machine {event.machine} was deleted at {event.at:.1f}, {life.state}, "
                    f"{there} being there and {wanted} wanted"
                )
            life.dying = True
            continue
        if life.state in COUNTED and event.what not in COUNTED and not life.dying:
            lost.append(event.at)
        if event.what != life.state:
            life.state, life.since = event.what, event.at
    return found


def _is_sound(life: Life, now: float, provision_timeout: float) -> bool:
    """Running, or booting for no longer than it may; with some seconds to spare, since the service counts from when it saw the state."""
    if life.dying:
        return False
    return life.state == "running" or (life.state == "provisioning" and now - life.since < provision_timeout - 3)


def _name(group: Group) -> str:
    return f"{group.account}'s {group.name} ({group.id})"
