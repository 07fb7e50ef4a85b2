"""A group under a rollout in a world without network, database or clock: what a plan decides is done here, or fails, or is cut short."""

import itertools
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.plan.census import Sight, is_available
from shared.plan.conclusion import conclude, rolled
from shared.plan.limits import Limits
from shared.plan.outcome import Done, Result, outcome_of
from shared.plan.planner import make_plan
from shared.plan.rolling import Rolling
from shared.plan.steps import Delete, Drain, Launch, Plan, Undrain, Update, Why
from shared.reasons import Reason
from shared.spec import rollout_settings
from shared.spec.group_settings import GroupSettings, to_document
from shared.spec.rollout import ENDED, Ask, Counts, Rollout, State
from shared.spec.rollout_settings import RolloutSettings
from shared.state.group_state import DueGroup
from shared.state.instances import DELETING, GONE, LAUNCHING, RUNNING, Instance

LIMITS = Limits(provision_timeout=60, launch_grace=30, replace_percent=20)
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
OLD, NEW = "old", "new"
BOOT_SECONDS, DELETE_SECONDS = 5, 3


class World:
    """One group whose members are of template OLD, and a rollout of NEW."""

    def __init__(self, rng: random.Random, capacity: int, settings: RolloutSettings, more: GroupSettings | None = None) -> None:
        self.rng = rng
        self.now = NOW
        self._ids = itertools.count(1)
        self.more = more or GroupSettings()
        self.group = DueGroup("g", "web", NEW, capacity, False, 1, 0, 300, False, None, more=to_document(self.more), rollout_id="r")
        self.instances: dict[str, Instance] = {}
        for _ in range(capacity):
            self.add(OLD, RUNNING)
        self.rollout = Rollout(
            *("r", "a", "g", NEW, OLD, rollout_settings.to_document(settings), State.PENDING, None, None, None, 0, 0, Counts()),
            *(NOW, None, None, NOW, None, None),
        )
        #: Of a launch and of a member of NEW: the chance that it is refused, never runs, or stops while it comes up.
        self.refused = self.stuck = self.falls = 0.0
        #: The chance of a member of any template to stop, in one second.
        self.dies = 0.0
        self.launched = 0
        #: What a refusal of NEW means.
        self.refusal = Reason.NO_CAPACITY

    def add(self, template: str, state: str) -> Instance:
        number = f"{next(self._ids):05}"
        since = self.now - timedelta(seconds=1000 if state == RUNNING else 0)
        ran_at = since if state == RUNNING else None
        made = Instance(number, "g", f"m{number}", state, since, since, None, ran_at, template, None if template == OLD else "r")
        self.instances[number] = made
        return made

    # What is

    @property
    def members(self) -> list[Instance]:
        """All that is there and not on its way out."""
        return [one for one in self.instances.values() if one.state not in {DELETING, GONE}]

    @property
    def available(self) -> int:
        return sum(is_available(one, self.more, self.now) for one in self.members)

    def of(self, template: str) -> list[Instance]:
        return [one for one in self.members if one.template_id == template]

    def plan(self) -> Plan:
        rolling = None
        if self.rollout.state not in ENDED:
            rolling = Rolling(self.rollout, frozenset({self.rollout.target_id}))
        return make_plan(self.group, [Sight(one) for one in self.instances.values() if one.state != GONE], self.now, LIMITS, rolling)

    # What happens

    def change(self, **more: Any) -> None:
        """Its owner changes the group."""
        self.group = self.group._replace(generation=self.group.generation + 1, launch_at=None, **more)

    def ask(self, what: Ask, state: State) -> None:
        self.rollout = self.rollout._replace(state=state, asked=what, reason=None, message=None, next_at=None, progress_at=self.now)
        if what == Ask.ROLLBACK:
            self.rollout = self.rollout._replace(ended_at=None)
            self.change(template_id=OLD, rollout_id="r")
        else:
            self.change()

    def reconcile(self, *, cut_short: bool = False) -> tuple[Plan, list[Done]]:
        """One pass of a worker; killed in the middle where it is cut short: nobody writes down what it has done."""
        plan = self.plan()
        steps = list(plan.acts)
        if cut_short:
            steps = steps[: self.rng.randrange(len(steps) + 1)]
        done = [self._do(step) for step in steps]
        if not cut_short:
            self._conclude(plan, done)
        return plan, done

    def _conclude(self, plan: Plan, done: list[Done]) -> None:
        outcome = outcome_of([], done)
        check = conclude(self.group, plan, outcome, self.now, LIMITS)
        assert check.paced is not None
        self.group = self.group._replace(
            reason=check.reason,
            last_error=check.error,
            failures=check.failures,
            observed_generation=self.group.generation,
            **check.paced._asdict(),
        )
        if self.rollout.state in ENDED:
            return
        before = self.rollout
        if (found := rolled(self.group, before, plan, done, self.now)) is not None:
            self.rollout = found.now
        if self.rollout.state == State.ROLLING_BACK and before.state != State.ROLLING_BACK:
            self.change(template_id=OLD)
        if self.rollout.state in ENDED:
            self.group = self.group._replace(rollout_id=None)

    def _do(self, step: Any) -> Done:
        match step:
            case Launch():
                if self.group.template_id == NEW and self.rng.random() < self.refused:
                    return Done(step, Result.FAILED, error=ValueError("refused"), reason=self.refusal)
                self.launched += 1
                self.add(self.group.template_id, "provisioning")
            case Delete():
                self._set(step.instance, state=DELETING, state_since=self.now)
            case Drain():
                ends_at = self.now + timedelta(seconds=step.seconds)
                self._set(step.instance, draining_since=step.instance.draining_since or self.now, drained_at=ends_at)
            case Undrain():
                self._set(step.instance, draining_since=None, drained_at=None)
            case Update():
                self._set(step.instance, template_id=self.group.template_id)
        return Done(step, Result.DONE)

    def _set(self, instance: Instance, **fields: Any) -> None:
        self.instances[instance.id] = self.instances[instance.id]._replace(**fields)

    def later(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        for one in list(self.instances.values()):
            age = (self.now - one.state_since).total_seconds()
            if one.state == DELETING and age >= DELETE_SECONDS:
                del self.instances[one.id]
            elif one.state == "provisioning" and age >= BOOT_SECONDS:
                spoilt = one.template_id == NEW and self.rng.random() < self.stuck
                self._set(one, state="failed" if spoilt else RUNNING, state_since=self.now, ran_at=None if spoilt else self.now)
            elif one.state == RUNNING and self.rng.random() < self.dies * seconds + self.falls * (one.template_id == NEW):
                self._set(one, state="stopped", state_since=self.now)


__all__ = ["LAUNCHING", "NEW", "OLD", "Why", "World", "replace"]
