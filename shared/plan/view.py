"""All that the rules of a plan look at. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from shared.plan.census import Census, Sight, is_available, is_healthy
from shared.plan.limits import Limits
from shared.plan.rolling import Rolling
from shared.spec.group_settings import Drain, GroupSettings, Suspension
from shared.state.group_state import DueGroup
from shared.state.instances import RUNNING


@dataclass(frozen=True)
class View:
    """A group, what is there of it, and what may be done."""

    group: DueGroup
    census: Census
    now: datetime
    limits: Limits
    #: The rollout under way.
    rolling: Rolling | None = None

    @cached_property
    def settings(self) -> GroupSettings:
        return self.group.settings

    # Suspensions do not keep a deleted group.

    @cached_property
    def may_launch(self) -> bool:
        return not self._is_suspended(Suspension.LAUNCH)

    @cached_property
    def may_terminate(self) -> bool:
        return not self._is_suspended(Suspension.TERMINATE)

    @cached_property
    def may_replace(self) -> bool:
        """To replace is to terminate and to launch."""
        return self.may_launch and self.may_terminate and not self._is_suspended(Suspension.REPLACE)

    def _is_suspended(self, what: Suspension) -> bool:
        return not self.group.archived and self.settings.is_suspended(what, self.now)

    # Instances

    def is_new(self, sight: Sight) -> bool:
        """Is it of the wanted template?"""
        if self.rolling is not None:
            return self.rolling.is_new(sight.instance)
        return sight.instance.template_id == self.group.template_id

    def is_available(self, sight: Sight) -> bool:
        return sight.sure and is_available(sight.instance, self.settings, self.now)

    def works(self, sight: Sight) -> bool:
        """Does it run, and is it healthy?"""
        is_probed = self.settings.health_check is not None
        return sight.instance.state == RUNNING and is_healthy(sight.instance, self.now, self.limits, is_probed=is_probed)

    def proves_itself_until(self, sight: Sight) -> datetime | None:
        """The end of the grace in which it has yet to pass its health check for the first time; None where it has none left."""
        instance, check = sight.instance, self.settings.health_check
        if check is None or instance.state != RUNNING or instance.probe is not None:
            return None
        ends_at = instance.state_since + timedelta(seconds=check.grace_seconds)
        return ends_at if ends_at > self.now else None

    def drain_of(self, sight: Sight) -> Drain | None:
        """The drain that stands before its deletion, if there is one."""
        return self.settings.drain if self.works(sight) and not self.group.archived else None
