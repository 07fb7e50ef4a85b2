"""What is, against what should be. Pure: rows in, a plan out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from shared.state.instances import DELETING, DOUBTED, GONE, LAUNCHING, ON_THE_WAY, RUNNING, Instance
from shared.state.looks import Work
from tsg_workers.pacing import Pacing

#: Seconds for which CloudAPI's list may lack a machine that it has made.
LISTED_AFTER = 5.0

#: CloudAPI gives a deletion up after 180 s, and says nothing.
DELETE_AGAIN = timedelta(seconds=200)


class Sight(NamedTuple):
    """An instance, and what CloudAPI says of its machine."""

    instance: Instance
    #: CloudAPI's time of creation, for the order of age.
    created: str = ""
    protected: bool = False
    #: False: CloudAPI's list does not have the machine, and it could not be asked for. It is what it was, until somebody knows better.
    sure: bool = True
    #: A launch that came to nothing: CloudAPI has no machine of it, after as long as that might have taken.
    lost: bool = False


class Limits(NamedTuple):
    """What converging keeps to."""

    #: Seconds that a machine may be on its way, and that a lost launch may still turn up.
    provision_timeout: int
    launch_grace: int
    #: Of a group's capacity, at most so many machines that ran are replaced at the same time; at least 1.
    replace_percent: int = 20
    #: Attempts to launch that fail in a row before launches are only tried one at a time.
    breaker: int = 5


@dataclass(frozen=True)
class Plan:
    """How to bring a group to its capacity."""

    launches: int
    #: Missing too, but launches failed a short while ago.
    held: int
    #: To be deleted because they never came to run: they failed, or were on their way for too long.
    stillborn: tuple[Instance, ...]
    #: To be deleted because they ran and do not any more, or were not deleted when they should have been.
    unhealthy: tuple[Instance, ...]
    #: Just as unhealthy, but as many as may be are being replaced.
    waiting: tuple[Instance, ...]
    #: To be deleted because they are too many, the oldest first.
    surplus: tuple[Instance, ...]
    #: Machines of which nobody could say now whether they are there.
    unsure: int
    #: Something is on its way up or down: look again soon.
    moving: bool
    #: Since when nothing has moved, among what is moving.
    moved_at: datetime | None
    #: Nothing of the group is left, not even a launch that may turn up.
    empty: bool
    #: Launches whose machines run now, and launches that came to nothing, since the last look.
    came_up: int
    lost: int
    #: Machines that ran, whose replacement does not run yet; once this is carried out.
    replacing: int

    @property
    def settled(self) -> bool:
        open_ends = self.launches or self.held or self.stillborn or self.unhealthy or self.waiting or self.surplus or self.unsure
        return not (open_ends or self.moving)


def is_overdue(instance: Instance, now: datetime, limits: Limits) -> bool:
    """A launch that no machine was known of for as long as it might have taken to be listed: CloudAPI is asked for it.

    One that CloudAPI failed over is not under way since then; one that was not answered may be.
    """
    waits = {LAUNCHING: limits.launch_grace, DOUBTED: LISTED_AFTER}.get(instance.state)
    return waits is not None and (now - instance.state_since).total_seconds() > waits


def plan(group: Work, sights: Sequence[Sight], now: datetime, limits: Limits) -> Plan:
    """Count what is there and what is coming, and close the difference.

    Counted as capacity: machines that run or are on their way there. Not counted: failed, stopped, or on the way for longer than
    `provision_timeout`; those are replaced, of those that ever ran only a share at a time.
    What nobody is sure of, a launch whose answer is not known too, counts as there before anything is launched, and as gone before
    anything is deleted.
    """
    there = [sight for sight in sights if sight.instance.state != GONE and not sight.lost]
    going = [sight.instance for sight in there if sight.instance.state == DELETING]
    standing = [sight for sight in there if sight.instance.state != DELETING]
    unsure = [sight for sight in standing if not sight.sure]
    counted = [sight for sight in standing if sight.sure and _is_healthy(sight.instance, now, limits)]
    failing = [sight.instance for sight in standing if sight.sure and not _is_healthy(sight.instance, now, limits)]
    stillborn = [instance for instance in failing if instance.ran_at is None]
    ailing = sorted((instance for instance in failing if instance.ran_at is not None), key=lambda one: (one.state_since, one.id))

    known = [sight for sight in counted if sight.instance.machine_id is not None]
    healthy = len(counted) + len(unsure)
    running = sum(sight.instance.state == RUNNING for sight in (*counted, *unsure))
    replacing = min(group.replacing, max(0, group.wanted - running - len(ailing)))
    needless = max(0, len(known) + len(ailing) - group.wanted)
    share = max(1, group.wanted * limits.replace_percent // 100)
    room = needless + max(0, share - replacing)
    replaced, waiting = ailing[:room], ailing[room:]

    on_the_way = [sight.instance for sight in (*counted, *unsure) if sight.instance.state in ON_THE_WAY]
    missing = max(0, group.wanted - healthy - len(waiting))
    came_up = sum(sight.instance.ran_at == now for sight in there)
    # What CloudAPI failed over was counted when it did.
    lost = sum(sight.lost and sight.instance.state == LAUNCHING for sight in sights)
    pacing = pacing_of(group).after(succeeded=came_up, failed=0, now=now, breaker=limits.breaker)
    if stillborn or lost:
        pacing = pacing._replace(window=max(1, came_up))
    launches = pacing.allowed(missing, sum(instance.ran_at is None for instance in on_the_way), now)
    stubborn = [instance for instance in going if now - instance.state_since > DELETE_AGAIN]
    return Plan(
        launches=launches,
        held=missing - launches,
        stillborn=tuple(stillborn),
        unhealthy=(*replaced, *stubborn),
        waiting=tuple(waiting),
        surplus=_oldest(known, len(known) - group.wanted),
        unsure=len(unsure),
        moving=bool(going or on_the_way),
        moved_at=max((instance.state_since for instance in (*going, *on_the_way)), default=None),
        empty=not there,
        came_up=came_up,
        lost=lost,
        replacing=replacing + max(0, len(replaced) - needless),
    )


def pacing_of(group: Work) -> Pacing:
    """Where the group stands with its launches, as its row has it."""
    return Pacing(group.launch_failures, group.launch_window, group.launch_at)


def _is_healthy(instance: Instance, now: datetime, limits: Limits) -> bool:
    if instance.state in ON_THE_WAY:
        return instance.machine_id is None or now - instance.state_since <= timedelta(seconds=limits.provision_timeout)
    return instance.state == RUNNING


def _oldest(known: Sequence[Sight], count: int) -> tuple[Instance, ...]:
    """The oldest of them; what is protected is left for last."""
    by_age = sorted(known, key=lambda sight: (sight.protected, sight.created or sight.instance.launched_at.isoformat(), sight.instance.id))
    return tuple(sight.instance for sight in by_age[: max(0, count)])
