"""What is, against what should be. Pure: rows in, a plan out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from shared.groups import Work
from shared.instances import DELETING, GONE, LAUNCHING, Instance

#: CloudAPI's states of a machine that is not what it was asked to be yet, or may come back by itself.
ON_THE_WAY = frozenset({LAUNCHING, "provisioning", "ready", "stopping", "offline", "unknown"})
#: CloudAPI gives a deletion up after 180 s, and says nothing.
DELETE_AGAIN = timedelta(seconds=200)


class Sight(NamedTuple):
    """An instance, and what CloudAPI says of its machine."""

    instance: Instance
    #: CloudAPI's time of creation, for the order of age.
    created: str = ""
    protected: bool = False


class Limits(NamedTuple):
    """Seconds that a machine may be on its way, and that a lost launch may still turn up."""

    provision_timeout: int
    launch_grace: int


@dataclass(frozen=True)
class Plan:
    """How to bring a group to its capacity."""

    launches: int
    #: To be deleted because they failed, stopped, or never came up.
    unhealthy: tuple[Instance, ...]
    #: To be deleted because they are too many, the oldest first.
    surplus: tuple[Instance, ...]
    #: Something is on its way up or down: look again soon.
    moving: bool
    #: Since when nothing has moved, among what is moving.
    moved_at: datetime | None
    #: Nothing of the group is left, not even a launch that may turn up.
    empty: bool

    @property
    def settled(self) -> bool:
        return not (self.launches or self.unhealthy or self.surplus or self.moving)


def is_lost(instance: Instance, now: datetime, limits: Limits) -> bool:
    """A launch whose answer never came, and whose machine was listed nowhere for as long as it might have taken."""
    return instance.state == LAUNCHING and now - instance.launched_at > timedelta(seconds=limits.launch_grace)


def plan(group: Work, sights: Sequence[Sight], now: datetime, limits: Limits) -> Plan:
    """Count what is there and what is coming, and close the difference.

    Counted as capacity: machines that run or are on their way there, and launches whose answer is not known. Not counted: failed,
    stopped, or on the way for longer than `provision_timeout`; those are replaced.
    """
    there = [sight for sight in sights if sight.instance.state != GONE]
    going = [sight.instance for sight in there if sight.instance.state == DELETING]
    unhealthy = [sight.instance for sight in there if sight.instance.state != DELETING and not _is_healthy(sight.instance, now, limits)]
    counted = [sight for sight in there if sight.instance.state != DELETING and _is_healthy(sight.instance, now, limits)]
    difference = group.wanted - len(counted)
    stubborn = [instance for instance in going if now - instance.state_since > DELETE_AGAIN]
    on_the_way = [sight.instance for sight in counted if sight.instance.state in ON_THE_WAY]
    return Plan(
        launches=max(0, difference),
        unhealthy=(*unhealthy, *stubborn),
        surplus=_oldest(counted, -difference) if difference < 0 else (),
        moving=bool(going or on_the_way),
        moved_at=max((instance.state_since for instance in (*going, *on_the_way)), default=None),
        empty=not there,
    )


def _is_healthy(instance: Instance, now: datetime, limits: Limits) -> bool:
    if instance.state in ON_THE_WAY:
        return instance.state == LAUNCHING or now - instance.state_since <= timedelta(seconds=limits.provision_timeout)
    return instance.state == "running"


def _oldest(counted: Sequence[Sight], count: int) -> tuple[Instance, ...]:
    """The oldest of those that can be deleted: what is protected, or not known to be there, is left for last or left alone."""
    deletable = [sight for sight in counted if sight.instance.machine_id is not None]
    deletable.sort(key=lambda sight: (sight.protected, sight.created or sight.instance.launched_at.isoformat(), sight.instance.id))
    return tuple(sight.instance for sight in deletable[:count])
