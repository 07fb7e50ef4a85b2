"""The rules of a rollout: how far it is, and what it does next. Everything follows from what is there. Pure.

C is the capacity, S its surge, U what may be unavailable. Never more than C + S members, and no available one goes while there are C - U
or fewer. Outdated members that still come up, or do not work any more, cost nothing of either.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from shared.plan.capacity import let_go
from shared.plan.census import Sight, available_at
from shared.plan.outcome import Done, Result
from shared.plan.rolling import Rolling
from shared.plan.steps import Delete, Drain, Launch, Plan, Update, Why
from shared.plan.victims import victims
from shared.plan.view import View
from shared.reasons import Reason
from shared.spec.group_settings import GroupSettings
from shared.spec.rollout import ENDED, Ask, Counts, Rollout, State
from shared.spec.rollout_settings import OnFailure, Protected
from shared.state.instances import LAUNCHING, RUNNING, UNHEALTHY, Instance

#: Why it waits (`Rollout.reason`), unless its owner asked for it.
STEP, PROTECTED, FAILURES, DEADLINE, REJECTED = "Step", "Protected", "Failures", "Deadline", "TemplateRejected"
TROUBLES = frozenset({FAILURES, DEADLINE, REJECTED})

#: Seconds by which a look may be late, and no time of a rollout is lost.
LATE = 60.0

#: It brings its template to more members.
_MOVES = frozenset({State.IN_PROGRESS, State.BAKING, State.ROLLING_BACK})


@dataclass(frozen=True)
class Members:
    """A group's members as its rollout sees them."""

    view: View
    rolling: Rolling

    @cached_property
    def new(self) -> list[Sight]:
        """Of the template that the rollout brings, and counted as capacity."""
        return self._parted[True]

    @cached_property
    def new_available(self) -> int:
        return sum(map(self.view.is_available, self.new))

    @cached_property
    def old(self) -> list[Sight]:
        """Outdated, and counted as capacity."""
        return self._parted[False]

    @cached_property
    def _parted(self) -> dict[bool, list[Sight]]:
        parts: dict[bool, list[Sight]] = {True: [], False: []}
        for sight in self.view.census.counted:
            parts[self.rolling.is_new(sight.instance)].append(sight)
        return parts

    @cached_property
    def kept(self) -> list[Sight]:
        """Outdated ones that the rollout leaves alone, since they are protected."""
        if self.rolling.rollout.settings.protected == Protected.REPLACE:
            return []
        return [sight for sight in self.old if sight.instance.is_protected or sight.protected]

    @cached_property
    def broken(self) -> int:
        """Outdated ones that do not work."""
        census = self.view.census
        return sum(not self.rolling.is_new(sight.instance) for sight in (*census.unhealthy, *census.never_ran))

    @cached_property
    def leaving(self) -> int:
        """Outdated ones that drain, or are to go by hand."""
        return sum(not self.rolling.is_new(sight.instance) for sight in self.view.census.leaving)

    def target(self, percent: int) -> int:
        """How many of the capacity are new after a step; protected ones keep their places."""
        capacity = self.view.group.desired
        return max(0, min(-(-capacity * percent // 100), capacity - len(self.kept)))

    def is_done(self, percent: int) -> bool:
        """Are as many new ones available, and as many outdated ones gone?"""
        target, capacity = self.target(percent), self.view.group.desired
        left = len(self.old) - len(self.kept)
        if percent == 100:
            return self.new_available >= target and not (left or self.broken or self.leaving)
        return self.new_available >= target and len(self.old) <= max(len(self.kept), capacity - max(target, len(self.new)))

    @property
    def counts(self) -> Counts:
        return Counts(
            wanted=self.view.group.desired,
            new=len(self.new),
            new_available=self.new_available,
            outdated=len(self.old) + self.broken,
            draining=len(self.view.census.leaving),
            failed=self.rolling.rollout.failures,
        )


# How far it is


def advance(view: View, rolling: Rolling) -> Rollout:
    """The rollout as it stands now."""
    members = Members(view, rolling)
    before = rolling.rollout
    rollout = before._replace(counts=members.counts)
    if rollout.state == State.PENDING:
        rollout = rollout._replace(state=State.IN_PROGRESS, started_at=view.now, progress_at=view.now, message=None)
    if rollout.asked in {Ask.RESUME, Ask.ROLLBACK}:
        rollout = rollout._replace(failures=0, message=None, counts=rollout.counts._replace(failed=0))
    # What it stopped at is passed over.
    skips_pause = rollout.asked == Ask.RESUME
    rollout = rollout._replace(asked=None)
    if not view.may_replace:
        # It could not get on: from when it may again, it has all of its time.
        rollout = rollout._replace(progress_at=None)
    elif rollout.progress_at is None or _was_left(view) or _got_on(before.counts, rollout.counts):
        rollout = rollout._replace(progress_at=view.now)
    if trouble := _trouble(members, rollout):
        return fail(rollout, *trouble, view.now)
    match rollout.state:
        case State.PAUSING:
            return rollout if view.census.moving_since else rollout._replace(state=State.PAUSED, message="The rollout is paused.")
        case State.PAUSED:
            rollout, skips_pause = _awake(view, rollout, members)
    match rollout.state:
        case State.IN_PROGRESS | State.BAKING:
            return _on_its_way(view, rollout, members, skips_pause=skips_pause)
        case State.ROLLING_BACK if members.is_done(100):
            return _ended(rollout, State.ROLLED_BACK, "All members are of the template before again.", view.now)
    return rollout


def _was_left(view: View) -> bool:
    """Was it not looked at when it was due, since no worker was there?"""
    group, late = view.group, timedelta(seconds=LATE)
    is_late = group.check_at is not None and view.now - group.check_at > late
    was_away = group.checked_at is not None and view.now - group.checked_at > timedelta(seconds=group.interval) + late
    return is_late or was_away


def _got_on(before: Counts, now: Counts) -> bool:
    return now.new_available > before.new_available or now.outdated < before.outdated or now.draining < before.draining


def _trouble(members: Members, rollout: Rollout) -> tuple[str, str] | None:
    """Why the rollout cannot go on like this, as a reason and a sentence."""
    if rollout.state not in _MOVES:
        return None
    settings = rollout.settings
    if rollout.failures >= settings.max_failures:
        return FAILURES, f"{rollout.failures} launches or new members failed (max_failures is {settings.max_failures})."
    deadline = deadline_of(members, rollout)
    if deadline is not None and members.view.now >= deadline:
        return DEADLINE, f"Nothing got on for {settings.progress_deadline_seconds} seconds (progress_deadline_seconds)."
    return None


def deadline_of(members: Members, rollout: Rollout) -> datetime | None:
    """When it is given up unless it gets on; it waits for nothing while it bakes. `ready_seconds` and drains are no delay."""
    if rollout.state not in {State.IN_PROGRESS, State.ROLLING_BACK} or rollout.progress_at is None:
        return None
    ready = (available_at(sight.instance, members.view.settings) for sight in members.new)
    drained = (sight.instance.drained_at for sight in members.view.census.leaving)
    last = max([rollout.progress_at, *(moment for moment in (*ready, *drained) if moment is not None)])
    return last + timedelta(seconds=rollout.settings.progress_deadline_seconds)


def fail(rollout: Rollout, reason: str, message: str, now: datetime) -> Rollout:
    """What its owner wants done when it cannot go on. A template that CloudAPI refuses is not tried again."""
    if rollout.state == State.ROLLING_BACK:
        return _ended(rollout, State.ROLLBACK_FAILED, message, now, reason)
    on_failure = rollout.settings.on_failure
    if on_failure == OnFailure.ROLLBACK and not rollout.is_reload:
        anew: dict[str, Any] = {"failures": 0, "counts": rollout.counts._replace(failed=0), "progress_at": now, "next_at": None}
        return rollout._replace(state=State.ROLLING_BACK, reason=reason, message=message, **anew)
    if on_failure == OnFailure.PAUSE and reason != REJECTED:
        return rollout._replace(state=State.PAUSED, reason=reason, message=message, next_at=None)
    return _ended(rollout, State.FAILED, message, now, reason)


def _ended(rollout: Rollout, state: State, message: str, now: datetime, reason: str | None = None) -> Rollout:
    return rollout._replace(state=state, reason=reason, message=message, next_at=None, ended_at=now)


def _awake(view: View, rollout: Rollout, members: Members) -> tuple[Rollout, bool]:
    """A paused rollout that goes on by itself: its pause is over, or those that it waited for are not protected any more."""
    is_over = rollout.next_at is not None and rollout.next_at <= view.now
    if (rollout.reason == STEP and is_over) or (rollout.reason == PROTECTED and not members.kept):
        awake = rollout._replace(state=State.IN_PROGRESS, reason=None, message=None, next_at=None, progress_at=view.now)
        return awake, rollout.reason == STEP
    return rollout, False


def _on_its_way(view: View, rollout: Rollout, members: Members, *, skips_pause: bool) -> Rollout:
    """From step to step, as far as they are done."""
    steps = rollout.settings.steps
    while members.is_done(steps[rollout.step].percent):
        step = steps[rollout.step]
        if rollout.step == len(steps) - 1:
            return _all_done(view, rollout, members)
        if not skips_pause and (step.pause or step.pause_seconds):
            next_at = None if step.pause else view.now + timedelta(seconds=step.pause_seconds)
            message = f"{step.percent} % are new and available."
            return rollout._replace(state=State.PAUSED, reason=STEP, message=message, next_at=next_at)
        rollout = rollout._replace(step=rollout.step + 1, progress_at=view.now)
        skips_pause = False
    return rollout


def _all_done(view: View, rollout: Rollout, members: Members) -> Rollout:
    names = ", ".join(str(sight.instance.machine_id) for sight in members.kept)
    if names and rollout.settings.protected == Protected.WAIT:
        message = f"Protected, and not replaced before that ends: {names}."
        return rollout._replace(state=State.PAUSED, reason=PROTECTED, message=message, next_at=None)
    if rollout.state != State.BAKING and rollout.settings.bake_seconds:
        ends_at = view.now + timedelta(seconds=rollout.settings.bake_seconds)
        return rollout._replace(state=State.BAKING, reason=None, message="All members are new, and are watched.", next_at=ends_at)
    if rollout.state == State.BAKING and rollout.next_at is not None and rollout.next_at > view.now:
        return rollout
    message = f"All members are new, but for protected ones: {names}." if names else "All members are new and available."
    return _ended(rollout, State.SUCCESSFUL, message, view.now)


# What it does next


@dataclass(frozen=True)
class Wave:
    """What a rollout does now."""

    #: Updates of members, and outdated members that go.
    updates: tuple[Update, ...] = ()
    removals: tuple[Delete | Drain, ...] = ()
    #: Members more than the capacity that there may be meanwhile, since they wait to be replaced.
    waiting: int = 0
    #: New members to launch, beside what is missing anyway.
    lacking: int = 0
    surge: int = 0

    @property
    def removed(self) -> set[str]:
        return {step.instance.id for step in self.removals}


def to_roll(members: Members) -> int:
    """How many more members may become new now."""
    rollout = members.rolling.rollout
    if rollout.state not in _MOVES or not members.view.may_replace:
        return 0
    return max(0, members.target(_percent(rollout)) - len(members.new))


def next_wave(members: Members) -> Wave:
    """What to update, what to delete, and how many to launch."""
    view, rolling = members.view, members.rolling
    rollout = rolling.rollout
    if rollout.state in ENDED:
        return Wave()
    capacity = view.group.desired
    surge, unavailable = rollout.settings.bounds(capacity)
    if not view.may_replace:
        return Wave(waiting=min(surge, len(members.old)), surge=surge)
    lacking = to_roll(members)
    kept = {sight.instance.id for sight in members.kept}
    candidates = [sight for sight in members.old if sight.sure and sight.instance.machine_id and sight.instance.id not in kept]
    updates = [sight for sight in candidates if view.works(sight) and rolling.is_changeable(sight.instance)][:lacking]
    updated = {sight.instance.id for sight in updates}
    candidates = [sight for sight in candidates if sight.instance.id not in updated]
    new = len(members.new) + len(updates)
    old = len(members.old) - len(updates)
    removable = min(len(candidates), max(0, old - max(0, capacity - max(new, len(members.new) + lacking))))
    going = list(_going(view, candidates, removable, floor=capacity - unavailable))
    return Wave(
        updates=tuple(Update(sight.instance, Why.OUTDATED) for sight in updates),
        removals=tuple(let_go(view, sight, Why.OUTDATED) for sight in going),
        waiting=min(surge, removable - len(going)),
        lacking=lacking - len(updates),
        surge=surge,
    )


def _percent(rollout: Rollout) -> int:
    return rollout.settings.steps[rollout.step].percent if rollout.state == State.IN_PROGRESS else 100


def _going(view: View, candidates: list[Sight], count: int, *, floor: int) -> Iterator[Sight]:
    """Which of the outdated go now, so that no fewer than `floor` stay available.

    Those that still come up go first, and cost nothing. One that runs, and has yet to be available, costs as much as one that is: else a
    health check that nobody has answered yet would cost all at once.
    """
    coming = [sight for sight in candidates if sight.instance.state != RUNNING]
    running = [sight for sight in candidates if sight.instance.state == RUNNING]
    available = sum(map(view.is_available, view.census.counted))
    spare = available + sum(not view.is_available(sight) for sight in running) - floor
    free = victims(view, coming, count)
    yield from free
    yield from victims(view, running, min(count - len(free), spare))


def moments(members: Members) -> Iterator[datetime | None]:
    """When time alone brings the rollout on, or to its end."""
    view, rollout = members.view, members.rolling.rollout
    if rollout.state in ENDED:
        return
    yield rollout.next_at
    yield deadline_of(members, rollout)
    for sight in members.new:
        if not view.is_available(sight):
            yield available_at(sight.instance, view.settings)
    if rollout.reason == PROTECTED:
        yield from (sight.instance.protected_until for sight in members.kept)


# What went wrong


def rejection_of(done: Sequence[Done]) -> str | None:
    """What CloudAPI said when it refused the template, if it did."""
    refused = (one.error for one in done if isinstance(one.step, Launch | Update) and one.reason == Reason.TEMPLATE_REJECTED)
    return next((f"CloudAPI refuses the template: {error}" for error in refused), None)


def failures_of(plan: Plan, done: Sequence[Done], settings: GroupSettings) -> int:
    """Launches that failed, and new members that did: they never ran, or did not work before they were available, or in the bake."""
    if (rolling := plan.rolling) is None:
        return 0

    def is_failure(one: Done) -> bool:
        step = one.step
        if isinstance(step, Launch):
            return one.result == Result.FAILED and one.reason != Reason.CLOUDAPI_UNAVAILABLE
        if not isinstance(step, Delete) or one.result != Result.DONE or not rolling.is_new(step.instance):
            return False
        in_vain = rolling.rollout.state == State.BAKING or not was_available(step.instance, settings)
        return step.why == Why.NEVER_RAN or (step.why == Why.UNHEALTHY and in_vain)

    lost = sum(rolling.is_new(sight.instance) for sight in plan.census.lost if sight.instance.state == LAUNCHING)
    return lost + sum(map(is_failure, done))


def was_available(instance: Instance, settings: GroupSettings) -> bool:
    """Was it available before it stopped, or before probes found it unhealthy? As far as its row tells."""
    if instance.ran_at is None:
        return False
    fell_at = instance.probe_since if instance.state == RUNNING and instance.probe == UNHEALTHY else instance.state_since
    grace = settings.health_check.grace_seconds if settings.health_check else 0
    return fell_at is not None and fell_at - instance.ran_at > timedelta(seconds=settings.ready_seconds + grace)
