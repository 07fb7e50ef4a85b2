"""What is there: each instance of a group in exactly one class. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from shared.plan.limits import Limits
from shared.spec.group_settings import DEFAULT, GroupSettings
from shared.state.instances import (
    DELETING,
    DOUBTED,
    GONE,
    HEALTHY,
    LAUNCHING,
    ON_THE_WAY,
    RUNNING,
    UNHEALTHY,
    Instance,
)

#: Seconds for which CloudAPI's list may lack a machine that it has made.
LISTED_AFTER = 5.0


class Sight(NamedTuple):
    """An instance, and what CloudAPI says of its machine."""

    instance: Instance
    #: CloudAPI's time of creation, for the order of age.
    created: str = ""
    #: CloudAPI protects it against deletion.
    protected: bool = False
    #: False: CloudAPI's list lacks the machine, and it could not be asked for. Its row is all that is known.
    sure: bool = True
    #: A launch that came to nothing: CloudAPI has no machine of it, after as long as that might have taken.
    lost: bool = False
    compute_node: str = ""
    #: It has names of services in DNS, and nobody but this service decides whether they lead to it.
    has_dns: bool = False


@dataclass(frozen=True)
class Census:
    """The instances of a group by class; an instance is in one class and no other."""

    #: Run, or are on their way within their time; launches without an answer too.
    healthy: tuple[Sight, ...] = ()
    #: CloudAPI's list lacks them, and they could not be asked for.
    unsure: tuple[Sight, ...] = ()
    #: Never came to run: they failed, or were on their way for too long.
    never_ran: tuple[Sight, ...] = ()
    #: Ran, and do not run any more, or are unhealthy by vote or by probe; the longest in their state first.
    unhealthy: tuple[Sight, ...] = ()
    #: Drain, or their owner wants them gone.
    leaving: tuple[Sight, ...] = ()
    #: CloudAPI has taken their deletion on.
    deleting: tuple[Sight, ...] = ()
    #: Launches that came to nothing.
    lost: tuple[Sight, ...] = ()
    gone: tuple[Sight, ...] = ()
    #: How many were seen running for the first time now.
    came_up: int = 0
    #: When they were seen.
    taken_at: datetime | None = None

    @property
    def there(self) -> tuple[Sight, ...]:
        """All that is, or may be, a machine."""
        return (*self.healthy, *self.unsure, *self.never_ran, *self.unhealthy, *self.leaving, *self.deleting)

    @property
    def counted(self) -> tuple[Sight, ...]:
        """All that counts as capacity before anything is launched: what nobody is sure of too."""
        return (*self.healthy, *self.unsure)

    @property
    def known(self) -> tuple[Sight, ...]:
        """Healthy machines. Launches without an answer are none: they do not count before anything is deleted."""
        return tuple(sight for sight in self.healthy if sight.instance.machine_id is not None)

    @property
    def running(self) -> int:
        return sum(sight.instance.state == RUNNING for sight in self.counted)

    @property
    def on_the_way(self) -> tuple[Sight, ...]:
        return tuple(sight for sight in self.counted if sight.instance.state in ON_THE_WAY)

    @property
    def failed_launches(self) -> int:
        """Launches that came to nothing since the last look. A launch that CloudAPI failed over was counted when it failed."""
        return sum(sight.instance.state == LAUNCHING for sight in self.lost)

    @property
    def moving_since(self) -> datetime | None:
        """The last movement among the instances on their way up or down; None when there are none."""
        return max((sight.instance.state_since for sight in (*self.deleting, *self.on_the_way)), default=None)

    @property
    def quickest_boot(self) -> timedelta | None:
        """From a launch until its machine was seen running; None where none was."""
        running = (sight.instance for sight in self.counted)
        return min(
            (one.ran_at - one.launched_at for one in running if one.ran_at is not None and one.ran_at > one.launched_at), default=None
        )

    @property
    def quickest_deletion(self) -> timedelta | None:
        """From a deletion until its machine was seen gone, of the last ones; None where none was."""
        gone = (sight.instance for sight in self.gone)
        return min(
            (one.gone_at - one.state_since for one in gone if one.gone_at is not None and one.gone_at > one.state_since), default=None
        )

    @property
    def ends_at(self) -> datetime | None:
        """When the last of those on their way up or down may be there, if it takes as long as the quickest.

        None where nobody knows, and where it was over when they were seen.
        """
        launched = max((sight.instance.launched_at for sight in self.on_the_way if sight.instance.ran_at is None), default=None)
        deleted = max((sight.instance.state_since for sight in self.deleting), default=None)
        ways = ((launched, self.quickest_boot), (deleted, self.quickest_deletion))
        ends_at = max((since + took for since, took in ways if since is not None and took is not None), default=None)
        return ends_at if ends_at is not None and self.taken_at is not None and ends_at > self.taken_at else None


def take_census(sights: Sequence[Sight], now: datetime, limits: Limits, settings: GroupSettings = DEFAULT) -> Census:
    """Put each instance into its class."""
    classes: dict[str, list[Sight]] = {}
    is_probed = settings.health_check is not None
    for sight in sights:
        classes.setdefault(_class_of(sight, now, limits, is_probed=is_probed), []).append(sight)
    classes.get("unhealthy", []).sort(key=lambda sight: (sight.instance.state_since, sight.instance.id))
    came_up = sum(sight.instance.ran_at == now for sight in sights if sight.instance.state != GONE and not sight.lost)
    return Census(**{name: tuple(found) for name, found in classes.items()}, came_up=came_up, taken_at=now)


def is_overdue(instance: Instance, now: datetime, limits: Limits) -> bool:
    """Has a launch had no known machine for as long as CloudAPI might have taken to list it?

    A launch that CloudAPI failed over (500) is not under way since then; one without an answer may be.
    """
    waits = {LAUNCHING: limits.launch_grace, DOUBTED: LISTED_AFTER}.get(instance.state)
    return waits is not None and (now - instance.state_since).total_seconds() > waits


def is_available(instance: Instance, settings: GroupSettings, now: datetime) -> bool:
    """Does it run for `ready_seconds`, pass its health check if there is one, and stay?"""
    ready_at = available_at(instance, settings)
    return ready_at is not None and ready_at <= now


def available_at(instance: Instance, settings: GroupSettings) -> datetime | None:
    """When it will have run for `ready_seconds`; None where time alone does not make it available."""
    if instance.state != RUNNING or instance.vote == UNHEALTHY or instance.draining_since is not None or instance.is_unwanted:
        return None
    if settings.health_check is not None and instance.probe != HEALTHY:
        return None
    return instance.state_since + timedelta(seconds=settings.ready_seconds)


def _class_of(sight: Sight, now: datetime, limits: Limits, *, is_probed: bool) -> str:
    instance = sight.instance
    if instance.state == GONE:
        return "gone"
    if sight.lost:
        return "lost"
    if instance.state == DELETING:
        return "deleting"
    return _class_of_machine(instance, now, limits, is_probed=is_probed) if sight.sure else "unsure"


def _class_of_machine(instance: Instance, now: datetime, limits: Limits, *, is_probed: bool) -> str:
    if instance.is_unwanted or instance.draining_since is not None:
        return "leaving"
    if is_healthy(instance, now, limits, is_probed=is_probed):
        return "healthy"
    return "never_ran" if instance.ran_at is None else "unhealthy"


def is_healthy(instance: Instance, now: datetime, limits: Limits, *, is_probed: bool) -> bool:
    """Does it run, or come up within its time, and does neither a vote nor a probe say that it is unhealthy?"""
    if instance.state in ON_THE_WAY:
        return instance.machine_id is None or now - instance.state_since <= timedelta(seconds=limits.provision_timeout)
    return instance.state == RUNNING and instance.vote != UNHEALTHY and not (is_probed and instance.probe == UNHEALTHY)
