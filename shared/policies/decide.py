"""What becomes of a group now, by all its policies together. Pure.

In this order: open windows bound the capacity; schedules that are due set it; webhook calls change it, one after the other; then those that
measure: growth wins, the largest; the group shrinks only when each of them has its measure and none asks for as many as there are.
A policy in shadow mode says what it would do by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from shared.policies import schedule, step, target
from shared.policies.schedule import Due
from shared.policies.seen import Bounds, Call, Measure, Missing, Seen, Value
from shared.policies.target import Proposal
from shared.policies.verdict import Decision, Result, Verdict
from shared.spec.policy import Policy, Progress
from shared.spec.policy_settings import (
    ACTIVE,
    OFF,
    OUT_ONLY,
    SHADOW,
    ScheduleSettings,
    StepSettings,
    TargetSettings,
    WebhookSettings,
)


def decide(policies: Sequence[Policy], seen: Seen, now: datetime) -> Decision:
    """What becomes of the group's capacity and bounds, and what is said of each policy."""
    turn = _Turn(seen, now, {policy.id: policy for policy in policies if policy.mode != OFF})
    turn.keep_within_windows()
    for due in schedule.list_due(list(turn.policies.values()), now):
        turn.run_schedule(due)
    for call in seen.calls:
        turn.answer(call)
    turn.follow_measures()
    return Decision(turn.bounds, tuple(turn.verdicts), turn.progress)


@dataclass
class _Turn:
    """One decision while it is made: the capacity and the bounds as far as they are decided."""

    seen: Seen
    now: datetime
    policies: dict[str, Policy]
    verdicts: list[Verdict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bounds = self.seen.bounds
        self.progress = {policy.id: policy.progress for policy in self.policies.values()}

    # Windows and schedules

    def keep_within_windows(self) -> None:
        """The floors and ceilings of open windows hold for all that follows."""
        before = self.limits.clamp(self.bounds.capacity)
        for policy in self.policies.values():
            settings = policy.settings
            if not isinstance(settings, ScheduleSettings) or settings.duration is None:
                continue
            closes = schedule.open_until(settings, self.now)
            if closes is None:
                self._say(policy, Result.HELD, f"{policy.name}: its window is closed", next_at=schedule.next_time(settings, self.now))
                continue
            low, high = settings.set.min_capacity, settings.set.max_capacity
            bound = f"at least {low}" if high is None else f"at most {high}"
            wanted = max(before, low) if low is not None else min(before, high if high is not None else before)
            self._conclude(policy, wanted, f"{policy.name}: {bound} until {_clock(closes)}", next_at=closes)

    @property
    def limits(self) -> Bounds:
        """The group's bounds, and within them those of its open windows. A floor over a ceiling wins."""
        hard = self.bounds
        floor, ceiling = hard.minimum, hard.maximum
        if not hard.is_suspended:
            for policy in self.policies.values():
                settings = policy.settings
                if not isinstance(settings, ScheduleSettings) or policy.mode == SHADOW or schedule.open_until(settings, self.now) is None:
                    continue
                if settings.set.min_capacity is not None:
                    floor = max(floor, min(settings.set.min_capacity, hard.maximum))
                elif settings.set.max_capacity is not None and policy.mode != OUT_ONLY:
                    ceiling = min(ceiling, max(settings.set.max_capacity, hard.minimum))
        return hard._replace(minimum=floor, maximum=max(floor, ceiling))

    def run_schedule(self, due: Due) -> None:
        """What is due is done, or is over: once."""
        policy = due.policy
        settings = policy.settings
        assert isinstance(settings, ScheduleSettings)  # noqa: S101 - for the type checker
        self.progress[policy.id] = self.progress[policy.id]._replace(ran_until=due.at)
        coming = schedule.next_time(settings, self.now)
        if due.is_missed:
            self._say(policy, Result.HELD, f"{policy.name}: its time at {_clock(due.at)} was missed", next_at=coming)
        elif settings.set.capacity is not None:
            self._conclude(policy, settings.set.capacity, f"{policy.name}: capacity {settings.set.capacity} is due", next_at=coming)
        else:
            self._move_bound(policy, settings, coming)

    def _move_bound(self, policy: Policy, settings: ScheduleSettings, coming: datetime | None) -> None:
        low, high = settings.set.min_capacity, settings.set.max_capacity
        text = f"{policy.name}: " + (f"min_capacity {low} is due" if high is None else f"max_capacity {high} is due")
        if low is not None:
            moved = self.bounds._replace(minimum=low, maximum=max(low, self.bounds.maximum))
        else:
            highest = high if high is not None else self.bounds.maximum
            moved = self.bounds._replace(maximum=highest, minimum=min(highest, self.bounds.minimum))
        result = self._barred(policy, moved.clamp(self.bounds.capacity))
        if result is not None:
            self._say(policy, result, text, recommended=moved.clamp(self.bounds.capacity), next_at=coming)
            return
        before, is_news = self.bounds.capacity, moved != self.bounds
        self.bounds = moved
        self._set(self.limits.clamp(before))
        self.verdicts.append(
            Verdict(policy.id, Result.CHANGED if is_news else Result.HELD, before, self.bounds.capacity, text, next_at=coming)
        )

    # Webhooks

    def answer(self, call: Call) -> None:
        """One call of a webhook. Its cooldown holds for it as for a measure, and is said."""
        policy = self.policies.get(call.policy_id)
        if policy is None or not isinstance(policy.settings, WebhookSettings):
            return
        settings = policy.settings
        wanted = settings.then.of(self.bounds.capacity)
        text = f"{policy.name}: called to change the capacity by {settings.change}"
        if settings.on_bound == "reject" and self.limits.clamp(wanted) != wanted:
            limits = self.limits
            text = f"{text}, which {wanted} would take out of its bounds of {limits.minimum} to {limits.maximum}"
            self._say(policy, Result.CLAMPED, text, recommended=wanted, call_id=call.id)
        elif (until := self._cools_until(policy.id, wanted)) is not None:
            self._say(policy, Result.COOLDOWN, text, recommended=wanted, next_at=until, call_id=call.id)
        else:
            self._conclude(policy, wanted, text, call_id=call.id, cools=True)

    # Measures

    def follow_measures(self) -> None:
        """Growth wins, the largest. The group shrinks when each has its measure and asks for fewer: to what the last of them asks for."""
        if self.seen.measures is None:
            return
        proposals = {policy.id: proposal for policy in self.policies.values() if (proposal := self._propose(policy)) is not None}
        for policy_id, proposal in proposals.items():
            self.progress[policy_id] = proposal.progress
        voting = {one: proposal for one, proposal in proposals.items() if self.policies[one].mode in {ACTIVE, OUT_ONLY}}
        capacity = self.bounds.capacity
        wanted = capacity if self.bounds.is_suspended else self._voted(voting)
        for policy_id, proposal in proposals.items():
            self._report(self.policies[policy_id], proposal, capacity, wanted)
        if wanted != capacity:
            movers = [one for one, proposal in voting.items() if self._moves(one, proposal, capacity, wanted)]
            self._set(wanted, movers)

    def _measure_of(self, policy: Policy) -> Measure | None:
        return (self.seen.measures or {}).get(policy.id)

    def _propose(self, policy: Policy) -> Proposal | None:
        settings = policy.settings
        if not isinstance(settings, TargetSettings | StepSettings):
            return None
        progress = self.progress[policy.id]
        found = self._measure_of(policy) or Missing("it was not measured")
        if isinstance(settings, TargetSettings) and isinstance(found, Value) and found.value < 0:
            # As some say that they know nothing.
            found = Missing(f"it is {found.value:g}, and no load is negative")
        if isinstance(found, Missing):
            return self._without_measure(settings, progress, found)
        then = (progress, self.now)
        if isinstance(settings, TargetSettings):
            return target.propose(settings, found, self.seen.members, self.bounds.capacity, then)
        return step.propose(settings, found, self.seen.members, self.bounds.capacity, then)

    def _without_measure(self, settings: TargetSettings | StepSettings, progress: Progress, found: Missing) -> Proposal:
        """It holds; a fallback takes its place once it is missing for long."""
        progress = progress._replace(failures=progress.failures + 1)
        fallback = settings.fallback if isinstance(settings, TargetSettings) else None
        if fallback is None or progress.failures < fallback.after_failures:
            return Proposal(None, None, Result.MISSING_DATA, f"there is no measure: {found.why}", progress)
        capacity = self.bounds.capacity
        wanted = max(capacity, fallback.capacity) if fallback.only_if_higher else fallback.capacity
        text = f"there is no measure for the {_th(progress.failures)} time ({found.why}): its fallback is {fallback.capacity}"
        return Proposal(wanted, fallback.capacity, Result.MISSING_DATA, text, progress)

    def _voted(self, voting: dict[str, Proposal]) -> int:
        """The capacity that they agree upon."""
        capacity = self.bounds.capacity
        wants = [(one, proposal.wanted) for one, proposal in voting.items() if proposal.wanted is not None]
        free = [(one, wanted) for one, wanted in wants if not self._cools_until(one, wanted)]
        grown = max((self.limits.clamp(wanted) for _, wanted in free), default=capacity)
        if grown > capacity:
            return grown
        is_blind = any(proposal.result == Result.MISSING_DATA and proposal.wanted is None for proposal in voting.values())
        if is_blind or not any(wanted < capacity and self.policies[one].mode == ACTIVE for one, wanted in free):
            return capacity
        return min(capacity, self.limits.clamp(max(wanted for _, wanted in wants)))

    def _moves(self, policy_id: str, proposal: Proposal, capacity: int, wanted: int) -> bool:
        """Is the change its own?"""
        asked = proposal.wanted
        if asked is None or asked == capacity or (asked > capacity) != (wanted > capacity) or self._cools_until(policy_id, asked):
            return False
        return wanted > capacity or self.policies[policy_id].mode == ACTIVE

    def _report(self, policy: Policy, proposal: Proposal, capacity: int, wanted: int) -> None:
        """What came of one proposal."""
        found = self._measure_of(policy)
        settings = policy.settings
        asked = proposal.wanted
        result, why, next_at = proposal.result, "", proposal.next_at
        if asked is not None and asked != capacity:
            result, why, next_at = self._fate(policy, proposal, capacity, wanted)
        elif policy.mode == SHADOW:
            result = Result.SHADOW
        elif self.bounds.is_suspended:
            result = Result.SUSPENDED
        self.verdicts.append(
            Verdict(
                policy.id,
                result,
                capacity,
                wanted if result == Result.CHANGED else capacity,
                f"{policy.name}: {proposal.message}{why}",
                proposal.recommended,
                found if isinstance(found, Value) else None,
                settings.target if isinstance(settings, TargetSettings) else None,
                next_at,
            )
        )

    def _fate(self, policy: Policy, proposal: Proposal, capacity: int, wanted: int) -> tuple[Result, str, datetime | None]:
        """What becomes of a proposal that asks for another capacity: in one word, in words, and until when."""
        asked = proposal.wanted if proposal.wanted is not None else capacity
        if (barred := self._barred(policy, asked)) is not None:
            why = "; it never shrinks the group (out_only)" if barred == Result.HELD else ""
            return barred, why, proposal.next_at
        if (until := self._cools_until(policy.id, asked)) is not None:
            return Result.COOLDOWN, f"; it waits until {_clock(until)}", until
        if self._moves(policy.id, proposal, capacity, wanted) and wanted != capacity:
            limits = self.limits
            why = f"; the bounds are {limits.minimum} to {limits.maximum}" if limits.clamp(asked) != asked else ""
            return Result.CHANGED, f"; capacity {capacity} -> {wanted}{why}", None
        if self.limits.clamp(asked) == capacity:
            return Result.CLAMPED, f"; the bounds are {self.limits.minimum} to {self.limits.maximum}", None
        return Result.HELD, "; another policy asks for more, or has no measure", None

    # What all of them do

    def _conclude(
        self, policy: Policy, wanted: int, text: str, *, cools: bool = False, next_at: datetime | None = None, call_id: str | None = None
    ) -> None:
        """Give the group the capacity that a policy asks for, as far as its mode and the bounds let it."""
        before, after = self.bounds.capacity, self.limits.clamp(wanted)
        result = self._barred(policy, wanted)
        if result is None:
            result = Result.CHANGED if after != before else Result.CLAMPED if wanted != before else Result.HELD
        if result == Result.CHANGED:
            self._set(after, [policy.id] if cools else [])
            text = f"{text}; capacity {before} -> {after}"
        elif result == Result.CLAMPED:
            text = f"{text}; the bounds are {self.limits.minimum} to {self.limits.maximum}"
        self.verdicts.append(Verdict(policy.id, result, before, self.bounds.capacity, text, wanted, next_at=next_at, call_id=call_id))

    def _barred(self, policy: Policy, wanted: int) -> Result | None:
        """Why this policy changes nothing, whatever the bounds are."""
        if policy.mode == SHADOW:
            return Result.SHADOW
        if self.bounds.is_suspended:
            return Result.SUSPENDED
        return Result.HELD if policy.mode == OUT_ONLY and wanted < self.bounds.capacity else None

    def _cools_until(self, policy_id: str, wanted: int) -> datetime | None:
        """When the policy may ask for this, if that is not now."""
        progress = self.progress[policy_id]
        until = progress.out_until if wanted > self.bounds.capacity else progress.in_until if wanted < self.bounds.capacity else None
        return until if until is not None and until > self.now else None

    def _set(self, capacity: int, movers: Sequence[str] = ()) -> None:
        """A change of the capacity: those that made it wait before they grow it further, and all of them before they shrink it."""
        before = self.bounds.capacity
        if capacity == before:
            return
        self.bounds = self.bounds._replace(capacity=capacity)
        for policy_id, policy in self.policies.items():
            cooldown = policy.settings.cooldown
            progress = step.begun_anew(self.progress[policy_id], self.now)
            progress = progress._replace(in_until=_later(progress.in_until, self.now + timedelta(seconds=cooldown.in_seconds)))
            if capacity > before and policy_id in movers:
                progress = progress._replace(out_until=self.now + timedelta(seconds=cooldown.out_seconds))
            self.progress[policy_id] = progress

    def _say(self, policy: Policy, result: Result, text: str, **more: object) -> None:
        capacity = self.bounds.capacity
        self.verdicts.append(Verdict(policy.id, result, capacity, capacity, text, **more))  # type: ignore[arg-type]


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _th(number: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")
