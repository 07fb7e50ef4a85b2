"""Rollouts, by the plan alone: the two bounds, progress and the end in whatever world; and what each setting means."""

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.plan.rollout import DEADLINE, FAILURES, PROTECTED, STEP
from shared.plan.steps import Delete, Drain, Launch, Why
from shared.reasons import Reason
from shared.spec.group_settings import Drain as DrainSettings
from shared.spec.group_settings import GroupSettings, to_document
from shared.spec.rollout import ENDED, Ask, State
from shared.spec.rollout_settings import RolloutSettings
from shared.state.instances import RUNNING
from tests.unit.rolling_world import NEW, OLD, World


def a_world(capacity: int, more: GroupSettings | None = None, seed: int = 1, **given_settings: Any) -> World:
    chosen = RolloutSettings.model_validate({"bake_seconds": 0, "max_surge": "20%", **given_settings})
    return World(random.Random(seed), capacity, chosen, more)


def run(world: World, *, until: Any, most: int = 2000) -> int:
    """Reconcile once a second; how many seconds it took."""
    for seconds in range(most):
        if until():
            return seconds
        world.reconcile()
        world.later(1)
    raise AssertionError(f"{world.rollout}, {world.group}")


def ended(world: World) -> bool:
    return world.rollout.state in ENDED


def held_bounds(world: World, *, cut_short: bool = False) -> None:
    """One pass, which keeps to the bounds: in what it launches, and in what it takes out of service."""
    before = {one.id: one for one in world.members}
    bounds = world.rollout.settings.bounds(world.group.desired)
    available = world.available
    template = world.group.template_id
    _, done = world.reconcile(cut_short=cut_short)
    assert template in {OLD, NEW}
    is_rolling = world.rollout.state not in ENDED
    capacity = world.group.desired
    if is_rolling and any(isinstance(one.step, Launch) for one in done):
        assert len(world.members) <= capacity + bounds.surge, "too many members"
    if any(isinstance(one.step, Delete | Drain) and one.step.why in {Why.OUTDATED, Why.SURPLUS} for one in done):
        least = capacity - (bounds.unavailable if is_rolling else 0)
        assert world.available >= min(available, least), "too few are available"
    for one in done:
        if isinstance(one.step, Delete):
            assert one.step.instance.id in before, "deleted twice"


def an_odd_world(rng: random.Random, seed: int) -> World:
    """Of whatever size and settings, in which launches are refused and members fall."""
    drain = DrainSettings(seconds=rng.choice([0, 4]), cns=False) if rng.random() < 0.3 else None
    percents = [*sorted(rng.sample(range(1, 100), rng.randrange(3))), 100]
    world = a_world(
        rng.choice([0, 1, 2, 5, 12]),
        GroupSettings(ready_seconds=rng.choice([0, 0, 3]), drain=drain),
        seed,
        max_surge=rng.choice([0, 1, 3, "25%", "100%"]),
        max_unavailable=rng.choice([1, 2, "30%"]),
        steps=[{"percent": percent, "pause_seconds": rng.choice([0, 0, 5])} for percent in percents],
        max_failures=rng.choice([1, 3, 1000]),
        progress_deadline_seconds=rng.choice([20, 1800]),
        on_failure=rng.choice(["pause", "stop", "rollback"]),
        bake_seconds=rng.choice([0, 5]),
    )
    world.refused, world.stuck = rng.choice([0, 0, 0.3, 1]), rng.choice([0, 0, 0.3, 1])
    world.falls, world.dies = rng.choice([0, 0, 0.05]), rng.choice([0, 0, 0.01])
    return world


def ask_something(rng: random.Random, world: World) -> None:
    """What its owner may ask for in the rollout's state."""
    state = world.rollout.state
    match rng.choice([Ask.PAUSE, Ask.PAUSE, Ask.RESUME, Ask.RESUME, Ask.ROLLBACK]):
        case Ask.PAUSE if state in {State.PENDING, State.IN_PROGRESS, State.BAKING}:
            world.ask(Ask.PAUSE, State.PAUSING)
        case Ask.RESUME if state in {State.PAUSING, State.PAUSED}:
            world.ask(Ask.RESUME, State.IN_PROGRESS)
        case Ask.ROLLBACK if state != State.ROLLING_BACK:
            world.ask(Ask.ROLLBACK, State.ROLLING_BACK)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 10**9))
def test_whatever_happens_the_bounds_hold_and_it_ends(seed: int) -> None:
    rng = random.Random(seed)
    world = an_odd_world(rng, seed)
    for _ in range(rng.randrange(60)):
        held_bounds(world, cut_short=rng.random() < 0.2)
        world.later(rng.randrange(1, 3))
        if rng.random() < 0.1:
            world.change(desired=rng.choice([0, 1, 3, 8, 15]))
        if not ended(world) and rng.random() < 0.1:
            ask_something(rng, world)
    # All goes well from now on.
    world.refused = world.stuck = world.falls = world.dies = 0
    for _ in range(1500):
        if ended(world):
            break
        if world.rollout.state == State.PAUSED and world.rollout.next_at is None:
            world.ask(Ask.RESUME, State.IN_PROGRESS)
        held_bounds(world)
        world.later(1)
    assert ended(world), world.rollout
    world.change()
    for _ in range(60):
        world.reconcile()
        world.later(1)
    assert len(world.members) == world.available == world.group.desired
    assert not world.of({State.SUCCESSFUL: OLD, State.ROLLED_BACK: NEW}.get(world.rollout.state, ""))


def test_fifty_members_are_replaced_in_waves_of_a_surge_and_never_fewer_are_available() -> None:
    world = a_world(50)
    seconds, most = 0, 0
    while not ended(world):
        held_bounds(world)
        most = max(most, len(world.members))
        assert world.available >= 50
        world.later(1)
        seconds += 1
    assert (world.rollout.state, len(world.of(NEW)), world.of(OLD), most) == (State.SUCCESSFUL, 50, [], 60)
    assert seconds <= 5 * 5 + 5


@pytest.mark.parametrize(
    ("capacity", "surge", "unavailable", "most", "least"), [(2, 0, "1%", 2, 1), (1, "25%", "1%", 2, 1), (4, "25%", "25%", 5, 3)]
)
def test_shares_of_small_groups(capacity: int, surge: Any, unavailable: Any, most: int, least: int) -> None:
    world = a_world(capacity, max_surge=surge, max_unavailable=unavailable)
    counts, available = [], []
    while not ended(world):
        world.reconcile()
        counts.append(len(world.members))
        available.append(world.available)
        world.later(1)
    assert (max(counts), min(available)) == (most, least)


def test_a_template_that_never_boots_costs_the_canary_alone_and_is_rolled_back() -> None:
    world = a_world(50, steps=[{"percent": 10, "pause_seconds": 60}, {"percent": 100}], max_failures=2, on_failure="rollback")
    before = set(world.instances)
    world.stuck = 1.0
    run(world, until=lambda: ended(world))
    assert (world.rollout.state, world.rollout.reason) == (State.ROLLED_BACK, None)
    assert {one.id for one in world.members} == before
    assert world.launched <= 5 + 2


def test_it_pauses_at_failures_and_goes_on_when_it_is_resumed() -> None:
    world = a_world(10, max_failures=2)
    world.stuck = 1.0
    run(world, until=lambda: world.rollout.state == State.PAUSED)
    assert world.rollout.reason == FAILURES
    assert len(world.of(OLD)) == 10
    world.stuck = 0.0
    world.ask(Ask.RESUME, State.IN_PROGRESS)
    run(world, until=lambda: ended(world))
    assert (world.rollout.state, world.rollout.failures) == (State.SUCCESSFUL, 0)


def test_a_template_that_is_refused_fails_at_once() -> None:
    world = a_world(10, max_failures=100)
    world.refused, world.refusal = 1.0, Reason.TEMPLATE_REJECTED
    world.reconcile()
    assert (world.rollout.state, world.rollout.reason) == (State.FAILED, "TemplateRejected")
    assert len(world.of(OLD)) == 10


def test_without_progress_the_deadline_ends_it() -> None:
    world = a_world(4, progress_deadline_seconds=30, on_failure="stop", max_failures=1000)
    world.refused = 1.0
    seconds = run(world, until=lambda: ended(world))
    assert (world.rollout.state, world.rollout.reason) == (State.FAILED, DEADLINE)
    assert 30 <= seconds <= 32


@pytest.mark.parametrize("more", [{"ready_seconds": 100}, {"drain": DrainSettings(seconds=100, cns=False)}])
def test_what_time_alone_ends_is_no_delay(more: dict[str, Any]) -> None:
    world = a_world(2, GroupSettings(**more), max_surge=1, progress_deadline_seconds=30, on_failure="rollback")
    run(world, until=lambda: ended(world))
    assert world.rollout.state == State.SUCCESSFUL


def test_a_time_in_which_the_owner_suspends_it_is_no_delay() -> None:
    world = a_world(4, max_surge=1, progress_deadline_seconds=30, on_failure="rollback", max_failures=1000)
    run(world, until=lambda: len(world.of(NEW)) == 2)
    world.change(more=to_document(GroupSettings(suspended=["replace"])))
    for _ in range(10):
        world.reconcile()
        world.later(60)
    assert world.rollout.state == State.IN_PROGRESS
    world.change(more=to_document(GroupSettings()))
    world.refused = 1.0
    assert 30 <= run(world, until=lambda: world.rollout.state != State.IN_PROGRESS) <= 32, "all of its time, from now on"
    assert (world.rollout.state, world.rollout.reason) == (State.ROLLING_BACK, DEADLINE)


def test_a_time_without_workers_is_no_delay() -> None:
    world = a_world(4, max_surge=1, progress_deadline_seconds=30, on_failure="rollback")
    run(world, until=lambda: len(world.of(NEW)) == 2)
    world.group = world.group._replace(checked_at=world.now)
    world.later(3600)
    world.reconcile()
    world.group = world.group._replace(checked_at=None)
    run(world, until=lambda: ended(world))
    assert world.rollout.state == State.SUCCESSFUL


def test_steps_pause_for_their_time_or_until_they_are_resumed_and_then_it_is_watched() -> None:
    steps = [{"percent": 10, "pause_seconds": 100}, {"percent": 50, "pause": True}, {"percent": 100}]
    world = a_world(10, steps=steps, bake_seconds=50, max_surge=1)
    run(world, until=lambda: world.rollout.state == State.PAUSED)
    assert (world.rollout.reason, world.rollout.step, len(world.of(NEW))) == (STEP, 0, 1)
    assert 99 <= run(world, until=lambda: world.rollout.state != State.PAUSED) <= 101
    run(world, until=lambda: world.rollout.state == State.PAUSED)
    assert (world.rollout.step, len(world.of(NEW)), world.rollout.next_at) == (1, 5, None)
    for _ in range(500):
        world.reconcile()
        world.later(1)
    assert (world.rollout.state, len(world.of(NEW)), len(world.of(OLD))) == (State.PAUSED, 5, 5)
    world.ask(Ask.RESUME, State.IN_PROGRESS)
    run(world, until=lambda: world.rollout.state == State.BAKING)
    assert not world.of(OLD)
    assert 49 <= run(world, until=lambda: ended(world)) <= 51
    assert world.rollout.state == State.SUCCESSFUL


def test_a_member_that_falls_while_it_is_watched_is_a_failure() -> None:
    world = a_world(3, bake_seconds=100, max_failures=1, on_failure="rollback")
    run(world, until=lambda: world.rollout.state == State.BAKING)
    fallen = world.of(NEW)[0]
    world._set(fallen, state="stopped", state_since=world.now)
    run(world, until=lambda: ended(world))
    assert world.rollout.state == State.ROLLED_BACK
    assert len(world.of(OLD)) == 3


def test_broken_members_are_replaced_first_and_all_at_once() -> None:
    world = a_world(20, max_surge=1)
    for one in world.members[5:]:
        world._set(one, state="stopped", state_since=world.now)
    world.reconcile()
    assert (len(world.of(NEW)), len(world.of(OLD))) == (16, 5)
    run(world, until=lambda: ended(world))
    assert world.rollout.state == State.SUCCESSFUL


def test_a_health_check_that_nobody_has_answered_yet_does_not_cost_the_group() -> None:
    check = {"type": "tcp", "port": 80}
    world = a_world(10, GroupSettings.model_validate({"health_check": check}))
    run(world, until=lambda: len(world.of(NEW)) == 2 and all(one.state == RUNNING for one in world.of(NEW)))
    world.reconcile()
    assert len(world.of(OLD)) == 10
    for one in world.of(NEW):
        world._set(one, probe="healthy")
    world.reconcile()
    assert len(world.of(OLD)) == 8


@pytest.mark.parametrize("protected", ["wait", "skip", "replace"])
def test_protected_members_are_waited_for_skipped_or_replaced(protected: str) -> None:
    world = a_world(5, protected=protected)
    kept = world.members[2]
    world._set(kept, is_protected=True)
    if protected == "wait":
        run(world, until=lambda: world.rollout.state == State.PAUSED)
        assert world.rollout.reason == PROTECTED
        assert str(kept.machine_id) in str(world.rollout.message)
        world._set(kept, is_protected=False)
    run(world, until=lambda: ended(world))
    assert world.rollout.state == State.SUCCESSFUL
    assert [one.id for one in world.of(OLD)] == ([kept.id] if protected == "skip" else [])
    assert len(world.members) == 5


def test_growth_is_of_the_new_template_and_shrinkage_takes_the_outdated() -> None:
    world = a_world(10, steps=[{"percent": 20, "pause": True}, {"percent": 100}])
    run(world, until=lambda: world.rollout.state == State.PAUSED)
    world.change(desired=14)
    run(world, until=lambda: world.available == 14)
    assert (len(world.of(NEW)), len(world.of(OLD))) == (6, 8)
    world.change(desired=7)
    run(world, until=lambda: len(world.members) == 7)
    assert (len(world.of(NEW)), len(world.of(OLD))) == (6, 1)


def test_drained_members_go_when_their_time_has_come_and_count_as_there() -> None:
    world = a_world(4, GroupSettings(drain=DrainSettings(seconds=30, cns=False)), max_surge=1)
    most = 0
    while not ended(world):
        held_bounds(world)
        most = max(most, len(world.members))
        world.later(1)
    assert most == 5
    assert (world.rollout.state, len(world.of(NEW))) == (State.SUCCESSFUL, 4)
    assert world.now - world.rollout.created_at >= timedelta(seconds=4 * 30)


def test_an_empty_group_is_rolled_out_at_once() -> None:
    world = a_world(0)
    world.reconcile()
    assert world.rollout.state == State.SUCCESSFUL
