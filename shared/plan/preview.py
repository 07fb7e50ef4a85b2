"""What a change of a group would do, wave by wave: the plan is made over and over, as if each were carried out and all went well. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from shared.plan.census import Sight
from shared.plan.limits import Limits
from shared.plan.planner import make_plan
from shared.plan.rolling import Rolling
from shared.plan.rollout import STEP
from shared.plan.steps import IN_WORDS, Act, Delete, Drain, Launch, Plan, Undrain, Update, Why
from shared.spec.rollout import ENDED, Ask, State
from shared.state.group_state import DueGroup
from shared.state.instances import DELETING, HEALTHY, LAUNCHING, ON_THE_WAY, RUNNING, Instance

#: Waves that a preview shows, and plans that it makes times members that each has: more would take too long.
WAVES_SHOWN, MOST_LOOKS = 100, 120_000
#: What the ids of launches begin with, which are no instances yet.
_NEW = "new-"
#: A member that goes for one of these reasons is replaced.
_REPLACED = frozenset({Why.NEVER_RAN, Why.UNHEALTHY, Why.OUTDATED, Why.BY_HAND})


class Change(NamedTuple):
    """What becomes of one member; or launches beside, and how many."""

    #: launch, terminate, drain (and terminate then), replace, update, take_back.
    action: str
    machine_id: str | None = None
    why: str | None = None
    launches: int = 0
    template_id: str | None = None


class Wave(NamedTuple):
    """What is done at one time, and how long it is paused for then; None: until it is resumed."""

    launch: int
    terminate: Sequence[str]
    drain: Sequence[str]
    update: Sequence[str]
    pause_seconds: int | None = 0


class Preview(NamedTuple):
    """All that would be done."""

    changes: Sequence[Change]
    waves: Sequence[Wave]
    warnings: Sequence[str]


def preview(group: DueGroup, sights: Iterable[Sight], now: datetime, limits: Limits, rolling: Rolling | None = None) -> Preview:
    """`group` as it would be, with the rollout that would be under way."""
    # Nothing that failed before holds anything back.
    group = group._replace(reason=None, failures=0, launch_failures=0, launch_window=None, launch_at=None)
    foreseen = _Foreseen(group, {sight.instance.id: sight for sight in sights}, now, limits, rolling)
    foreseen.run()
    return Preview(foreseen.changes(), foreseen.waves[:WAVES_SHOWN], foreseen.warnings)


def sight_of(instance: Instance, created_at: datetime | None, compute_node: str) -> Sight:
    """An instance as far as rows know it; the time of creation as CloudAPI writes it, so that it sorts as a worker sorts it."""
    created = f"{created_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{created_at.microsecond // 1000:03}Z" if created_at else ""
    return Sight(instance, created, compute_node=compute_node)


@dataclass
class _Foreseen:
    """A group in a world in which every launch comes up, and every deletion ends, before the next look."""

    group: DueGroup
    sights: dict[str, Sight]
    now: datetime
    limits: Limits
    rolling: Rolling | None
    waves: list[Wave] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    acts: list[Act] = field(default_factory=list)

    def run(self) -> None:
        """To the end, or until something else than time must go on."""
        looks = 0
        while looks <= MOST_LOOKS:
            looks += max(1, len(self.sights))
            plan = make_plan(self.group, list(self.sights.values()), self.now, self.limits, self.rolling)
            self._note(plan)
            is_moving = bool(plan.acts or plan.moving or plan.census.leaving)
            for step in plan.acts:
                self._do(step)
            self.group = self.group._replace(replacing=plan.replacing)
            if not self._roll(plan) and not is_moving:
                return
            self._later()
        self.warnings.append("There is more to it than can be foreseen here.")

    def changes(self) -> list[Change]:
        """What becomes of each member that there is now, and the launches that replace none."""
        kinds: dict[str, Change] = {}
        for step in self.acts:
            if isinstance(step, Launch) or step.instance.id.startswith(_NEW):
                continue
            words = IN_WORDS.get(step.why)
            action = {Delete: "terminate", Drain: "drain", Update: "update", Undrain: "take_back"}[type(step)]
            kinds.setdefault(step.instance.id, Change(action, step.instance.machine_id, words))
            if isinstance(step, Delete | Drain) and step.why in _REPLACED:
                self._replaced.add(step.instance.id)
        left = sum(id_.startswith(_NEW) for id_ in self.sights)
        found = []
        for id_, change in kinds.items():
            replaces = id_ in self._replaced and left > 0
            left -= replaces
            found.append(change._replace(action="replace") if replaces else change)
        launches = [Change("launch", launches=left, template_id=self.group.template_id)] if left else []
        return [*launches, *found]

    def __post_init__(self) -> None:
        self._replaced: set[str] = set()

    def _note(self, plan: Plan) -> None:
        self.acts += plan.acts
        if plan.notice and plan.notice not in self.warnings:
            self.warnings.append(plan.notice)
        if plan.acts:
            ids = {
                kind: [str(step.instance.machine_id) for step in plan.acts if isinstance(step, kind)] for kind in (Delete, Drain, Update)
            }
            self.waves.append(Wave(len(plan.launches), ids[Delete], ids[Drain], ids[Update]))

    def _do(self, step: Act) -> None:
        if isinstance(step, Launch):
            id_ = f"{_NEW}{len(self.acts)}-{len(self.sights)}"
            row = Instance(
                id_, self.group.id, id_, LAUNCHING, self.now, self.now, None, None, self.group.template_id, self.group.rollout_id
            )
            self.sights[id_] = Sight(row)
            return
        fields: dict[type[Act], dict[str, Any]] = {
            Delete: {"state": DELETING},
            Drain: {"draining_since": self.now, "drained_at": self.now + timedelta(seconds=step.seconds if isinstance(step, Drain) else 0)},
            Undrain: {"draining_since": None, "drained_at": None},
            Update: {"template_id": self.group.template_id},
        }
        sight = self.sights[step.instance.id]
        self.sights[step.instance.id] = sight._replace(instance=sight.instance._replace(**fields[type(step)]))

    def _roll(self, plan: Plan) -> bool:
        """Where the rollout stands; False where it is over, or waits for somebody."""
        if plan.rolling is None:
            return False
        rollout = plan.rolling.rollout._replace(progress_at=self.now)
        was_paused = self.rolling is not None and self.rolling.rollout.state == State.PAUSED
        if rollout.state in ENDED:
            self._warn(rollout.message if rollout.state != State.SUCCESSFUL or "protected" in (rollout.message or "") else None)
            self.rolling, self.group = None, self.group._replace(rollout_id=None)
            return True
        if rollout.state == State.PAUSED and rollout.reason != STEP:
            self._warn(rollout.message)
            self.rolling = replace(plan.rolling, rollout=rollout)
            return not was_paused
        if rollout.state == State.PAUSED:
            pause = None if rollout.next_at is None else max(0, round((rollout.next_at - self.now).total_seconds()))
            if self.waves:
                self.waves[-1] = self.waves[-1]._replace(pause_seconds=pause)
            rollout = rollout._replace(state=State.IN_PROGRESS, asked=Ask.RESUME, reason=None, next_at=None)
        if rollout.state == State.BAKING:
            self.now = max(self.now, rollout.next_at or self.now)
        self.rolling = replace(plan.rolling, rollout=rollout)
        return True

    def _warn(self, message: str | None) -> None:
        if message and message not in self.warnings:
            self.warnings.append(message)

    def _later(self) -> None:
        """Until all is up, gone, ready and drained."""
        settings = self.group.settings
        drains = [sight.instance.drained_at for sight in self.sights.values() if sight.instance.drained_at is not None]
        began, self.now = self.now, max([self.now + timedelta(seconds=settings.ready_seconds + 1), *drains])
        for id_, sight in list(self.sights.items()):
            instance = sight.instance
            if instance.state == DELETING or sight.lost:
                del self.sights[id_]
            elif instance.state in ON_THE_WAY:
                up = instance._replace(state=RUNNING, state_since=began, ran_at=began, machine_id=instance.machine_id or id_, probe=HEALTHY)
                self.sights[id_] = sight._replace(instance=up)
            elif instance.state == RUNNING and instance.probe is None:
                self.sights[id_] = sight._replace(instance=instance._replace(probe=HEALTHY))
