"""Decisions of policies: tables of what one sees and decides, and what holds in every world."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.policies.decide import decide
from shared.policies.seen import Bounds, Call, Measure, Members, Missing, Seen, Value
from shared.policies.verdict import Decision, Verdict
from shared.spec import policy_settings
from shared.spec.changes import read
from shared.spec.policy import Policy, Progress

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
CPU = {"source": "cmon", "measure": "cpu"}
GONE = Missing("CMON does not answer")


def policy(kind: str, name: str = "p", progress: Progress | None = None, **fields: Any) -> Policy:
    told = {"policy_name": name, "kind": kind, **fields}
    return Policy(name, policy_settings.OF_KIND[kind].model_validate(told), progress or Progress())


def target(name: str = "p", progress: Progress | None = None, **fields: Any) -> Policy:
    return policy("target", name, progress, **{"metric": CPU, "target": 60, "stabilization": {"in_seconds": 0}, **fields})


def steps(name: str = "p", progress: Progress | None = None, **fields: Any) -> Policy:
    chosen = [{"from": 70, "to": 85, "change": "+2"}, {"from": 85, "change": "+20%"}, {"to": 20, "change": -1}]
    return policy("step", name, progress, **{"metric": CPU, "steps": chosen, **fields})


def window(name: str = "p", **fields: Any) -> Policy:
    return policy("schedule", name, **{"schedule": {"cron": "30 11 * * *"}, "duration_seconds": 3600, **fields})


def daily(name: str = "p", cron: str = "0 12 * * *", **fields: Any) -> Policy:
    return policy("schedule", name, Progress(ran_until=NOW - timedelta(days=1)), schedule={"cron": cron}, **fields)


def seen(
    measures: dict[str, float | Measure] | None = None,
    *,
    capacity: int = 4,
    available: int | None = None,
    bounds: tuple[int, int] = (0, 20),
    calls: tuple[Call, ...] = (),
    suspended: bool = False,
) -> Seen:
    found = {one: Value(value) if isinstance(value, int | float) else value for one, value in (measures or {}).items()}
    count = capacity if available is None else available
    return Seen(Bounds(capacity, *bounds, suspended), Members(count, max(0, capacity - count)), found, calls)


def one(decision: Decision, policy_id: str = "p") -> Verdict:
    (found,) = [verdict for verdict in decision.verdicts if verdict.policy_id == policy_id]
    return found


@pytest.mark.parametrize(
    ("value", "per", "after"), [(1e308, "instance", 20), (1e308, "group", 20), (-1e308, "group", 4), (1e15, "group", 20)]
)
def test_a_measure_beyond_all_numbers_recommends_one_that_a_row_can_have(value: float, per: str, after: int) -> None:
    decision = decide([target(target=1e-300, per=per)], seen({"p": value}), NOW)
    assert decision.bounds.capacity == after
    assert 0 <= (one(decision).recommended or 0) < 2**63


@pytest.mark.parametrize(
    ("value", "capacity", "available", "result", "recommended", "after"),
    [
        (90, 4, 4, "changed", 6, 6),
        (63, 4, 4, "tolerance", 4, 4),
        (54, 4, 4, "tolerance", 4, 4),
        (20, 10, 10, "changed", 4, 4),
        (61, 10, 10, "tolerance", 10, 10),
        (120, 4, 4, "changed", 8, 8),
        (0, 4, 4, "changed", 0, 0),
        # What comes up is capacity already: no second helping for the same load.
        (90, 6, 4, "converging", 6, 6),
        (90, 6, 2, "converging", 3, 6),
        (150, 6, 4, "changed", 10, 10),
        # Nobody is there to be asked.
        (90, 4, 0, "converging", None, 4),
        (90, 0, 0, "held", None, 0),
        # The bound.
        (600, 4, 4, "changed", 40, 20),
        (90, 20, 20, "clamped", 30, 20),
    ],
)
def test_a_target(value: float, capacity: int, available: int, result: str, recommended: int | None, after: int) -> None:
    decision = decide([target()], seen({"p": value}, capacity=capacity, available=available), NOW)
    assert (one(decision).result, one(decision).recommended, decision.bounds.capacity) == (result, recommended, after)


@pytest.mark.parametrize(
    ("value", "capacity", "result", "after"),
    [
        (600, 4, "changed", 10),
        (600, 10, "tolerance", 10),
        (1, 0, "changed", 1),
        (0, 0, "held", 0),
        (0, 3, "changed", 0),
        (599, 0, "changed", 10),
    ],
)
def test_a_target_of_the_whole_group_grows_from_nothing(value: float, capacity: int, result: str, after: int) -> None:
    decision = decide([target(per="group")], seen({"p": value}, capacity=capacity), NOW)
    assert (one(decision).result, decision.bounds.capacity) == (result, after)


def test_shrinkage_follows_the_highest_recommendation_of_the_window() -> None:
    chosen = target(stabilization={"in_seconds": 300}, cooldown={"in_seconds": 0, "out_seconds": 0})
    found, capacities = chosen, []
    capacity, loads = 10, [60, 20, 20, 48, 20, 20, 20, 20, 20, 20, 20]
    for minute, load in enumerate(loads):
        # The load is of ten instances.
        now = NOW + timedelta(minutes=minute)
        decision = decide([found], seen({"p": load * 10 / capacity}, capacity=capacity), now)
        capacity = decision.bounds.capacity
        found = found._replace(progress=decision.progress["p"])
        capacities.append(capacity)
        if one(decision).result == "held" and one(decision).recommended != capacity:
            next_at = one(decision).next_at
            assert next_at is not None
            assert now < next_at <= now + timedelta(minutes=5)
    # 48 asked for 8 until the fourth minute's end: at the sixth minute the 10 of the beginning has left the window, at the tenth the 8.
    assert capacities == [10] * 6 + [8, 8, 8, 4, 4]


def test_growth_waits_for_its_own_window() -> None:
    chosen = target(stabilization={"out_seconds": 60, "in_seconds": 0})
    first = decide([chosen], seen({"p": 60}), NOW)
    later = decide([chosen._replace(progress=first.progress["p"])], seen({"p": 90}), NOW + timedelta(seconds=30))
    assert one(later).result == "held"
    at_last = decide([chosen._replace(progress=later.progress["p"])], seen({"p": 90}), NOW + timedelta(seconds=91))
    assert at_last.bounds.capacity == 6


@pytest.mark.parametrize(
    ("most", "value", "after"),
    [
        ({"out": 1}, 120, 11),
        ({"out": "15%"}, 120, 12),
        ({"out": "100%"}, 600, 20),
        ({"in": 3}, 6, 7),
        ({"in": "10%"}, 6, 9),
        ({"in": "1%"}, 6, 9),
    ],
)
def test_the_largest_step(most: dict[str, Any], value: float, after: int) -> None:
    assert decide([target(max_step=most)], seen({"p": value}, capacity=10, bounds=(0, 100)), NOW).bounds.capacity == after


@pytest.mark.parametrize("per", ["instance", "group"])
def test_a_negative_load_is_no_measure_and_holds(per: str) -> None:
    for progress in (Progress(), Progress(failures=2)):
        decision = decide([target(progress=progress, per=per)], seen({"p": -1}), NOW)
        found = one(decision)
        assert (found.result, decision.bounds.capacity) == ("missing_data", 4)
        assert "it is -1, and no load is negative" in found.message
    asked = decide([target(progress=Progress(failures=2), fallback={"capacity": 9})], seen({"p": -1}), NOW)
    assert asked.bounds.capacity == 9
    falls = decide([steps(for_seconds=0)], seen({"p": -1}), NOW)
    assert falls.bounds.capacity == 3, "ranges of steps may be of any numbers"


def test_a_missing_measure_holds_and_its_fallback_takes_over() -> None:
    chosen = target(fallback={"after_failures": 3, "capacity": 10})
    for expected in (4, 4, 10):
        decision = decide([chosen], seen({"p": GONE}), NOW)
        assert decision.bounds.capacity == expected
        chosen = chosen._replace(progress=decision.progress["p"])
    assert "CMON does not answer" in one(decision).message
    assert chosen.progress.failures == 3
    # It is no reason to shrink, unless that is asked for.
    assert decide([chosen], seen({"p": GONE}, capacity=15), NOW + timedelta(hours=1)).bounds.capacity == 15
    lower = target(progress=Progress(failures=5), fallback={"after_failures": 3, "capacity": 10, "only_if_higher": False})
    assert decide([lower], seen({"p": GONE}, capacity=15), NOW).bounds.capacity == 10
    mended = decide([chosen._replace(progress=chosen.progress._replace(out_until=None))], seen({"p": 60}), NOW)
    assert mended.progress["p"].failures == 0


@pytest.mark.parametrize(
    ("value", "capacity", "available", "result", "after"),
    [
        (75, 4, 4, "changed", 6),
        (84.9, 4, 4, "changed", 6),
        (85, 4, 4, "changed", 5),
        (90, 11, 11, "changed", 14),
        (50, 4, 4, "held", 4),
        (70, 4, 4, "changed", 6),
        (20, 4, 4, "held", 4),
        (19, 4, 4, "changed", 3),
        (75, 6, 4, "converging", 6),
        (19, 0, 0, "held", 0),
    ],
)
def test_steps(value: float, capacity: int, available: int, result: str, after: int) -> None:
    decision = decide([steps()], seen({"p": value}, capacity=capacity, available=available), NOW)
    assert (one(decision).result, decision.bounds.capacity) == (result, after)


def test_a_step_waits_until_the_measure_was_in_its_range_for_so_long() -> None:
    chosen = steps(for_seconds=60)
    capacities = []
    for seconds, value in ((0, 75), (30, 75), (45, 50), (60, 75), (100, 80), (119, 75), (120, 75), (135, 75)):
        decision = decide([chosen], seen({"p": value}), NOW + timedelta(seconds=seconds))
        chosen = chosen._replace(progress=decision.progress["p"])
        capacities.append(decision.bounds.capacity)
    assert capacities == [4, 4, 4, 4, 4, 4, 6, 4]


@pytest.mark.parametrize(
    ("given", "capacity", "after"),
    [("+2", 4, 6), (-1, 4, 3), ("+20%", 4, 5), ("+20%", 1, 2), ("-10%", 4, 3), ("-10%", 25, 22), ("+10%", 25, 28), ("=5", 9, 5), (3, 0, 3)],
)
def test_changes(given: str | int, capacity: int, after: int) -> None:
    assert read(given).of(capacity) == after


@pytest.mark.parametrize("given", ["2", "+0", "", "+", "5%", "=x", "+1.5", "+99999", "=-1", 0])
def test_no_change(given: str | int) -> None:
    with pytest.raises(ValueError):
        read(given)


CALL = Call("call-1", "hook")


@pytest.mark.parametrize(
    ("fields", "capacity", "result", "after"),
    [
        ({"change": "+1"}, 4, "changed", 5),
        ({"change": "+50%"}, 4, "changed", 6),
        ({"change": "=9"}, 4, "changed", 9),
        ({"change": "+5"}, 18, "changed", 20),
        ({"change": "+5"}, 20, "clamped", 20),
        ({"change": "+5", "on_bound": "reject"}, 18, "clamped", 18),
        ({"change": "-1", "mode": "out_only"}, 4, "held", 4),
        ({"change": "+1", "mode": "shadow"}, 4, "shadow", 4),
    ],
)
def test_a_webhook(fields: dict[str, Any], capacity: int, result: str, after: int) -> None:
    decision = decide([policy("webhook", "hook", **fields)], seen(capacity=capacity, calls=(CALL,)), NOW)
    verdict = one(decision, "hook")
    assert (verdict.result, verdict.call_id, decision.bounds.capacity) == (result, "call-1", after)


def test_a_flood_of_calls_changes_what_the_cooldown_allows() -> None:
    calls = tuple(Call(f"call-{number}", "hook") for number in range(1000))
    decision = decide([policy("webhook", "hook", change="+1")], seen(calls=calls), NOW)
    assert decision.bounds.capacity == 5
    assert [verdict.result for verdict in decision.verdicts] == ["changed"] + ["cooldown"] * 999
    free = decide([policy("webhook", "hook", change="+1", cooldown={"out_seconds": 0})], seen(calls=calls), NOW)
    assert free.bounds.capacity == 20


def test_the_largest_growth_wins_and_says_so() -> None:
    decision = decide([target("a"), target("b", target=30), steps("c")], seen({"a": 90, "b": 90, "c": 50}), NOW)
    assert decision.bounds.capacity == 12
    assert (one(decision, "a").result, one(decision, "b").result, one(decision, "c").result) == ("changed", "changed", "held")


@pytest.mark.parametrize(
    ("measures", "after"),
    [
        ({"a": 20, "b": 20}, 4),
        ({"a": 20, "b": 40}, 7),
        # One is content, one is blind, one asks for more.
        ({"a": 20, "b": 60}, 10),
        ({"a": 20, "b": GONE}, 10),
        ({"a": 20, "b": 90}, 15),
        ({"a": GONE, "b": 90}, 15),
    ],
)
def test_the_group_shrinks_when_all_agree(measures: dict[str, float | Measure], after: int) -> None:
    decision = decide([target("a"), target("b")], seen(measures, capacity=10), NOW)
    assert decision.bounds.capacity == after


def test_cooldowns() -> None:
    grown = decide([target()], seen({"p": 90}), NOW)
    progress = grown.progress["p"]
    assert (progress.out_until, progress.in_until) == (NOW + timedelta(seconds=60), NOW + timedelta(seconds=300))
    chosen = target(progress=progress)
    soon = NOW + timedelta(seconds=59)
    assert one(decide([chosen], seen({"p": 90}, capacity=6), soon)).result == "cooldown"
    assert decide([chosen], seen({"p": 90}, capacity=6), soon + timedelta(seconds=1)).bounds.capacity == 9
    held = decide([chosen], seen({"p": 20}, capacity=6), NOW + timedelta(seconds=299))
    assert (one(held).result, one(held).next_at) == ("cooldown", progress.in_until)
    shrunk = decide([chosen], seen({"p": 20}, capacity=6), NOW + timedelta(seconds=300))
    assert shrunk.bounds.capacity == 2
    # Shrinkage never holds up growth.
    again = decide([target(progress=shrunk.progress["p"])], seen({"p": 120}, capacity=2), NOW + timedelta(seconds=301))
    assert again.bounds.capacity == 4


@pytest.mark.parametrize(
    ("chosen", "capacity", "result", "after"),
    [
        (window(set={"min_capacity": 8}), 4, "changed", 8),
        (window(set={"min_capacity": 8}), 10, "held", 10),
        (window(set={"max_capacity": 3}), 4, "changed", 3),
        (window(set={"min_capacity": 30}), 4, "changed", 20),
        (window(set={"max_capacity": 3}, mode="out_only"), 4, "held", 4),
        (window(set={"min_capacity": 8}, mode="shadow"), 4, "shadow", 4),
        (window(set={"min_capacity": 8}, schedule={"cron": "30 12 * * *"}), 4, "held", 4),
    ],
)
def test_a_window(chosen: Policy, capacity: int, result: str, after: int) -> None:
    decision = decide([chosen], seen(capacity=capacity), NOW)
    assert (one(decision).result, decision.bounds.capacity) == (result, after)
    assert (decision.bounds.minimum, decision.bounds.maximum) == (0, 20)


def test_windows_bound_all_others() -> None:
    floor, ceiling = window("floor", set={"min_capacity": 3}), window("ceiling", set={"max_capacity": 6})
    assert decide([floor, ceiling, target()], seen({"p": 120}), NOW).bounds.capacity == 6
    assert decide([floor, ceiling, target()], seen({"p": 1}), NOW).bounds.capacity == 3
    calls = (CALL,)
    assert decide([ceiling, policy("webhook", "hook", change="=9")], seen(calls=calls), NOW).bounds.capacity == 6
    # A floor over a ceiling wins.
    assert decide([window("floor", set={"min_capacity": 8}), ceiling], seen(), NOW).bounds.capacity == 8


@pytest.mark.parametrize(
    ("fields", "cron", "result", "after"),
    [
        ({"set": {"capacity": 9}}, "0 12 * * *", "changed", 9),
        ({"set": {"capacity": 40}}, "0 12 * * *", "changed", 20),
        ({"set": {"capacity": 9}}, "0 11 * * *", "changed", 9),
        ({"set": {"capacity": 9}, "misfire_grace_seconds": 3599}, "0 11 * * *", "held", 4),
        ({"set": {"capacity": 9}, "misfire": "skip"}, "0 11 * * *", "held", 4),
        ({"set": {"capacity": 9}, "misfire": "skip"}, "59 11 * * *", "changed", 9),
        ({"set": {"min_capacity": 6}}, "0 12 * * *", "changed", 6),
        ({"set": {"max_capacity": 2}}, "0 12 * * *", "changed", 2),
        ({"set": {"capacity": 2}, "mode": "out_only"}, "0 12 * * *", "held", 4),
    ],
)
def test_a_schedule_that_is_due(fields: dict[str, Any], cron: str, result: str, after: int) -> None:
    decision = decide([daily(cron=cron, **fields)], seen(), NOW)
    assert (one(decision).result, decision.bounds.capacity) == (result, after)
    # Once.
    again = decide([daily(cron=cron, **fields)._replace(progress=decision.progress["p"])], seen(), NOW)
    assert again.verdicts == ()


def test_a_schedule_moves_a_bound_for_good() -> None:
    decision = decide([daily(set={"min_capacity": 30})], seen(), NOW)
    assert decision.bounds == Bounds(30, 30, 30)


def test_times_that_were_missed_are_one() -> None:
    chosen = policy(
        "schedule", progress=Progress(ran_until=NOW - timedelta(hours=5)), schedule={"cron": "*/10 * * * *"}, set={"capacity": 7}
    )
    decision = decide([chosen], seen(), NOW + timedelta(minutes=3))
    assert decision.bounds.capacity == 7
    assert decision.progress["p"].ran_until == NOW


def test_what_is_suspended_changes_nothing_and_misses_its_time() -> None:
    policies = [
        daily("due", set={"capacity": 9}),
        window("floor", set={"min_capacity": 9}),
        target(),
        policy("webhook", "hook", change="+1"),
    ]
    decision = decide(policies, seen({"p": 90}, calls=(CALL,), suspended=True), NOW)
    assert decision.bounds.capacity == 4
    assert {verdict.result for verdict in decision.verdicts} == {"suspended"}
    assert decision.progress["due"].ran_until == NOW


@pytest.mark.parametrize(
    ("mode", "value", "result", "after"), [("shadow", 90, "shadow", 4), ("out_only", 20, "held", 4), ("out_only", 90, "changed", 6)]
)
def test_modes(mode: str, value: float, result: str, after: int) -> None:
    decision = decide([target(mode=mode)], seen({"p": value}), NOW)
    assert (one(decision).result, decision.bounds.capacity) == (result, after)


def test_what_is_off_says_nothing() -> None:
    assert decide([target(mode="off")], seen({"p": 90}), NOW).verdicts == ()


POLICIES = st.lists(
    st.sampled_from(
        [
            target("a"),
            target("b", target=30, per="group", stabilization={"in_seconds": 120, "out_seconds": 30}),
            target("c", fallback={"after_failures": 1, "capacity": 12, "only_if_higher": False}, max_step={"out": "50%", "in": 1}),
            target("d", mode="out_only"),
            target("e", mode="shadow"),
            steps("f"),
            steps("g", for_seconds=60),
            window("h", set={"min_capacity": 6}),
            window("i", set={"max_capacity": 9}),
            daily("j", set={"capacity": 13}),
            daily("k", set={"max_capacity": 7}),
            policy("webhook", "hook", change="+30%"),
            policy("webhook", "back", change="-3", on_bound="reject", cooldown={"in_seconds": 0}),
        ]
    ),
    unique_by=lambda one: one.id,
    max_size=6,
)
MEASURES = st.one_of(st.floats(0, 200), st.just(GONE))
CALLS = st.lists(st.sampled_from(["hook", "back", "unknown"]), max_size=4)


@given(data=st.data(), policies=POLICIES, capacity=st.integers(0, 20), bounds=st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted))
def test_in_every_world(data: st.DataObject, policies: list[Policy], capacity: int, bounds: list[int]) -> None:
    """Bounds hold; nothing shrinks blindly or in its cooldown; what changed is told; the same rows give the same decision."""
    least, most = bounds
    capacity = max(least, min(most, capacity))
    now = NOW
    for _ in range(4):
        measures = {one.id: found if isinstance(found, Missing) else Value(found) for one in policies for found in [data.draw(MEASURES)]}
        calls = tuple(Call(str(number), name) for number, name in enumerate(data.draw(CALLS)))
        available = data.draw(st.integers(0, capacity))
        suspended = data.draw(st.booleans())
        world = Seen(Bounds(capacity, least, most, suspended), Members(available, capacity - available), measures, calls)
        decision = decide(policies, world, now)
        assert decision == decide(policies, world, now)
        found = decision.bounds
        assert found.minimum <= found.capacity <= found.maximum
        if found != world.bounds:
            assert not suspended
            assert decision.cause
        if all(one.mode == "shadow" for one in policies):
            assert found == world.bounds
        by_measure = [one for one in policies if one.settings.kind in {"target", "step"} and one.mode != "shadow"]
        others = [one for one in policies if one.settings.kind in {"schedule", "webhook"}]
        blind = any(isinstance(measures[one.id], Missing) and one.id != "c" for one in by_measure)
        if not others and found.capacity < capacity:
            assert not blind
            assert any((one.progress.in_until or NOW) <= now for one in by_measure)
        assert {verdict.call_id for verdict in decision.verdicts if verdict.call_id} == {
            one.id for one in calls if one.policy_id in {p.id for p in policies}
        }
        policies = [one._replace(progress=decision.progress.get(one.id, one.progress)) for one in policies]
        capacity, least, most = found.capacity, found.minimum, found.maximum
        now += timedelta(seconds=data.draw(st.integers(1, 900)))


@given(st.floats(0, 1000), st.integers(1, 20), st.integers(1, 20))
def test_more_load_never_means_fewer_instances(value: float, capacity: int, available: int) -> None:
    available = min(capacity, available)
    lower = decide([target()], seen({"p": value}, capacity=capacity, available=available), NOW).bounds.capacity
    higher = decide([target()], seen({"p": value * 1.5}, capacity=capacity, available=available), NOW).bounds.capacity
    assert lower <= higher
