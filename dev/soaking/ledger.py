"""The lives of all machines, held against the capacities that were asked for.

The machines' lives are the cloud's own record, and so the truth, whatever the service was answered. For each group they are gone through in
the order of time: a machine that was asked for while as many as were wanted were there is a double launch; one that was deleted though it
was healthy and no more than wanted were there is a wrongful deletion; and of healthy ones, the oldest have to go first.

A rollout moves both bounds while it is under way: as many as it may surge may be there beside those that are wanted, and as many as it may
have unavailable may be missing to them, of machines that run. A machine that somebody wants to go counts for nothing from then on.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

from dev.soaking.oracle import Group
from shared.spec.rollout_settings import Protected, RolloutSettings

#: Seconds between the moment at which the service may last have read a group's capacity and CloudAPI's deed: its slowest answer.
LAG = 12.0
#: Seconds between the list that a pass was planned on and the last of its deeds.
PASS = 25.0
#: States that count as capacity: there, or on the way.
#: The event of a machine that its group forgot.
DETACHED = "detached"
COUNTED = frozenset(["provisioning", "ready", "running", "stopping", "offline", "unknown"])


class Rolled(NamedTuple):
    """A rollout: when it was under way, and its settings."""

    began: float
    ended: float
    settings: RolloutSettings


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
    #: Somebody wants it to go.
    unwanted: bool = False


class Judge:
    """What one group should have had at each moment."""

    def __init__(self, group: Group, rollouts: Sequence[Rolled]) -> None:
        self.group = group
        self._rollouts = rollouts

    def _bounds(self, since: float, until: float) -> list[tuple[int, int]]:
        """The least and the most members that may have been right at some time between."""
        found = []
        under_way = [one for one in self._rollouts if one.began <= until and one.ended >= since]
        for capacity in self.group.capacities(since, until):
            found.append((capacity, capacity))
            for rollout in under_way:
                surge, unavailable = rollout.settings.bounds(capacity)
                found.append((capacity - unavailable, capacity + surge))
        return found

    def most(self, at: float) -> int:
        return max(most for _, most in self._bounds(at - LAG, at))

    def least(self, at: float) -> int:
        return min(least for least, _ in self._bounds(at - LAG, at))

    def rolls(self, at: float) -> bool:
        return any(one.began <= at <= one.ended for one in self._rollouts)

    def is_deleted(self, at: float) -> bool:
        return self.group.deleted and at >= self.group.changes[-1].sent

    def forbids(self, event: Event) -> str | None:
        """Why what happened should not have, whatever the numbers."""
        if self.is_deleted(event.at):
            return None
        what = "terminate" if event.what == "destroy" else "launch"
        if any(span.what == what and span.covers(event.at - LAG, event.at) for span in self.group.suspensions):
            return f"{what} was suspended"
        replaces = any(one.began <= event.at <= one.ended and one.settings.protected == Protected.REPLACE for one in self._rollouts)
        is_protected = any(span.what == event.machine and span.covers(event.at - LAG, event.at) for span in self.group.protections)
        is_wanted = event.at < self.group.unwanted.get(event.machine, event.at + 1)
        if what == "terminate" and is_protected and is_wanted and not replaces:
            return "it was protected"
        return None


def violations(
    machines: Iterable[Mapping[str, Any]],
    groups: Mapping[str, Group],
    *,
    provision_timeout: float,
    rollouts: Mapping[str, Sequence[Rolled]] = MappingProxyType({}),
) -> list[str]:
    """Everything that was done without need, to any group. `rollouts`: by the group's id."""
    detached = {machine: group.id for group in groups.values() for machine in group.detached}
    by_group: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    found = []
    launches: Counter[str] = Counter()
    for machine in machines:
        group_id = machine["tags"].get("tsg.group", detached.get(machine["id"]))
        if group_id is None:
            continue  # a bystander
        if group_id not in groups:
            found.append(f"machine {machine['id']} is of an unknown group: {group_id}")
        by_group[group_id].append(machine)
        if "tsg.launch" in machine["tags"]:  # one that was adopted has none
            launches[machine["tags"]["tsg.launch"]] += 1
    found += [f"{count} machines of one launch {launch}" for launch, count in launches.items() if count > 1]
    for group_id, members in by_group.items():
        if group_id in groups:
            found += _of_group(Judge(groups[group_id], rollouts.get(group_id, ())), members, provision_timeout)
    return found


def _events(group: Group, machines: Iterable[Mapping[str, Any]]) -> Iterator[Event]:
    """What happened to its members, while they were members."""
    for machine in machines:
        name = machine["id"]
        since, until = group.adopted.get(name, 0.0), group.detached.get(name, float("inf"))
        yield from (Event(max(at, since), what, name) for at, what in machine["life"] if at < until)
        if name in group.detached:
            yield Event(until, DETACHED, name)


def _of_group(judge: Judge, machines: Iterable[Mapping[str, Any]], provision_timeout: float) -> list[str]:
    walk = _Walk(judge, provision_timeout)
    for event in sorted(_events(judge.group, machines), key=attrgetter("at")):
        walk.take(event)
    return walk.found


class _Walk:
    """Goes through the events of one group, in the order of time."""

    def __init__(self, judge: Judge, provision_timeout: float) -> None:
        self._judge = judge
        self._group = judge.group
        self._provision_timeout = provision_timeout
        self._lives: dict[str, Life] = {}
        #: When machines were lost behind the service's back, or somebody else's wish became known.
        self._lost: list[float] = []
        self.found: list[str] = []

    def take(self, event: Event) -> None:
        for name, since in self._group.unwanted.items():
            if name in self._lives and since <= event.at:
                self._lives[name].unwanted = True
        life = self._lives.get(event.machine)
        if life is None:
            if event.machine not in self._group.adopted:
                self._launched(event)
            self._lives[event.machine] = Life(event.what, event.at)
        elif event.what == DETACHED:
            life.dying = True
        elif event.what == "destroy":
            if self._is_sound(life, event.at):
                self._destroyed(event, life)
            life.dying = True
        else:
            if life.state in COUNTED and event.what not in COUNTED and not life.dying:
                self._lost.append(event.at)
            if event.what != life.state:
                life.state, life.since = event.what, event.at

    def _launched(self, event: Event) -> None:
        wanted = self._judge.most(event.at)
        healthy = sum(self._is_sound(other, event.at) for other in self._lives.values())
        if healthy >= wanted:
            self._tell(event, f"was launched at {event.at:.1f}, {healthy} of {wanted} being there")
        if why := self._judge.forbids(event):
            self._tell(event, f"was launched at {event.at:.1f}, and {why}")

    def _destroyed(self, event: Event, life: Life) -> None:
        """A sound one."""
        if why := self._judge.forbids(event):
            self._tell(event, f"was deleted at {event.at:.1f}, and {why}")
        wanted = self._judge.least(event.at)
        counted = [other for other in self._lives.values() if other.state in COUNTED and not other.dying and not other.unwanted]
        if self._judge.rolls(event.at):
            if life.state != "running" or life.since > event.at - LAG:
                return  # as far as the service knew it was not available, and cost nothing
            counted = [other for other in counted if other.state == "running"]
        by_hand = (*self._group.unwanted.values(), *self._group.detached.values())
        unknown = sum(event.at - PASS < at <= event.at for at in (*self._lost, *by_hand))
        if len(counted) + unknown <= wanted:
            self._tell(event, f"was deleted at {event.at:.1f}, {life.state}, {len(counted)} being there and {wanted} wanted")

    def _is_sound(self, life: Life, now: float) -> bool:
        """Running, or booting for no longer than it may; with seconds to spare, since the service counts from when it saw the state."""
        if life.dying or life.unwanted:
            return False
        return life.state == "running" or (life.state == "provisioning" and now - life.since < self._provision_timeout - 3)

    def _tell(self, event: Event, what: str) -> None:
        group = self._group
        self.found.append(f"{group.account}'s {group.name} ({group.id}): machine {event.machine} {what}")
