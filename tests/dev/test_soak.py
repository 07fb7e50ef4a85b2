"""What holds the soak's machines and answers against what should be: it must see what is wrong, and nothing else."""

import itertools
import os
import subprocess
import sys
from typing import Any

import pytest

from dev.soaking import decided
from dev.soaking.day import Daytime, after
from dev.soaking.decided import Decided
from dev.soaking.ledger import LAG, Rolled, violations
from dev.soaking.oracle import Account, Call, Change, Group, Span
from dev.soaking.usage import GROWN_UP, Memory
from shared.spec.rollout_settings import Amount, RolloutSettings

TIMEOUT = 30.0
START = 1_000_000.0


def group(*capacities: tuple[float, int]) -> Group:
    """A group whose capacity was changed at these seconds, each within a moment."""
    return Group("g", "web", "t", "demo", [Change(capacity, START + at, START + at + 0.1) for at, capacity in capacities])


def machine(name: str, *life: tuple[float, str], launch: str | None = None) -> dict[str, Any]:
    return {"id": name, "tags": {"tsg.group": "g", "tsg.launch": launch or name}, "life": [[START + at, what] for at, what in life]}


def found(of: Group, *machines: dict[str, Any]) -> list[str]:
    return violations(machines, {of.id: of}, provision_timeout=TIMEOUT)


def rolled(of: Group, rollout: Rolled, *machines: dict[str, Any]) -> list[str]:
    return violations(machines, {of.id: of}, provision_timeout=TIMEOUT, rollouts={of.id: [rollout]})


def test_growing_shrinking_and_replacing_is_as_it_should_be() -> None:
    one = machine("one", (1, "provisioning"), (2, "running"), (100, "destroy"), (100, "stopping"), (101, "deleted"))
    two = machine("two", (1, "provisioning"), (2, "running"), (50, "deleted"))
    three = machine("three", (51, "provisioning"), (52, "running"))
    assert found(group((0, 2), (99, 1)), one, two, three) == []


def test_a_machine_too_many_is_seen() -> None:
    lives = [machine(name, (at, "provisioning"), (at + 1, "running")) for name, at in (("one", 1), ("two", 1), ("three", 40))]
    (told,) = found(group((0, 2)), *lives)
    assert "three was launched" in told
    assert "2 of 2 being there" in told


def test_a_machine_that_was_asked_for_before_a_capacity_was_lowered_is_none_too_many() -> None:
    lives = [machine(name, (at, "provisioning")) for name, at in (("one", 1), ("two", LAG - 1))]
    assert found(group((0, 2), (2, 1)), *lives) == []


def test_a_machine_that_was_deleted_without_need_is_seen() -> None:
    one = machine("one", (1, "provisioning"), (2, "running"), (60, "destroy"), (60, "stopping"), (61, "deleted"))
    (told,) = found(group((0, 1)), one)
    assert "one was deleted" in told


def test_what_is_not_healthy_may_go() -> None:
    failed = machine("one", (1, "provisioning"), (2, "failed"), (3, "destroy"), (4, "deleted"))
    stuck = machine("two", (5, "provisioning"), (5 + TIMEOUT, "destroy"), (40, "deleted"))
    assert found(group((0, 1)), failed, stuck) == []


def decision(at: float, before: int, after: int, name: str = "queue", by: str = "measure", **fields: Any) -> Decided:
    values = {"id": str(next(_NUMBERS)), "policy_id": name, "result": "changed" if before != after else "held"}
    return Decided(**{**values, "policy_name": name, "at": START + at, "by": by, "before": before, "after": after, **fields})


_NUMBERS = itertools.count()


def test_changes_by_policies_follow_one_another() -> None:
    called = [decision(5.000001, 4, 5, "up", "webhook"), decision(5, 3, 4, "up", "webhook")]
    made = [*called, decision(5.000003, 5, 7), decision(5.000004, 5, 7, "cpu"), decision(1, 3, 3), decision(40, 7, 6)]
    assert decided.violations(3, 6, made, []) == []
    assert [change.capacity for change in decided.changes(3, made)] == [4, 5, 7, 7, 6]


def test_a_change_without_a_decision_is_seen() -> None:
    assert "a change without a decision" in decided.violations(3, 6, [decision(1, 3, 4), decision(40, 5, 6)], [])[0]
    assert decided.violations(3, 5, [decision(1, 3, 4)], []) == ["the capacity is 5, and its policies led to 4"]
    assert decided.violations(3, 4, [], []) == ["the capacity is 4, and its policies led to 3"]


def test_a_change_out_of_bounds_or_within_a_cooldown_is_seen() -> None:
    assert "leaves 1 to 8" in decided.violations(3, 9, [decision(1, 3, 9)], [])[0]
    (told,) = decided.violations(3, 5, [decision(1, 3, 4), decision(2, 4, 5)], [])
    assert "1.00 s after it grew the group, within its 2 s" in told
    (told,) = decided.violations(3, 3, [decision(0, 3, 3), decision(1, 3, 4, "up", "webhook"), decision(4, 4, 3)], [])
    assert "3.00 s after up" in told
    assert decided.violations(3, 3, [decision(1, 3, 4, "up", "webhook"), decision(4, 4, 3)], []) == [], "it was not there yet"
    assert decided.violations(3, 3, [decision(0, 3, 4), decision(1, 4, 3, "minutely", "schedule")], []) == []
    together = [decision(9, 5, 2), decision(9.000001, 5, 2, "cpu")]
    assert decided.violations(5, 2, [decision(0, 5, 5), decision(0, 5, 5, "cpu"), *together], []) == [], (
        "one change, that two measures led to"
    )


def test_a_day_ends_where_it_began_and_each_crossing_leads_to_the_level_that_is_needed_then() -> None:
    day = Daytime(START, START + 600)
    crossings = day.crossings("g")
    assert {level for _, level in crossings} == {1, 2, 3, 4, 5, 6}
    assert all(day.level("g", at) == level for at, level in crossings)
    assert crossings[-1][1] == day.level("g", START) == day.level("g", START + 900)


def test_each_moment_is_held_against_a_decision_of_its_own_however_late() -> None:
    moments = [START + 10, START + 20, START + 30]
    assert after(moments, [decision(22, 1, 4), decision(22.5, 4, 1), decision(33, 1, 4)]) == [12, 2.5, 3]
    assert len(after(moments, [decision(11, 1, 4), decision(33, 4, 1)])) < len(moments)


def test_two_decisions_of_one_call_are_seen() -> None:
    call = Call("k", "up", "url", {"a", "b"})
    (told,) = decided.violations(3, 5, [decision(1, 3, 4, "up", "webhook", id="a"), decision(2, 4, 5, "up", "webhook", id="b")], [call])
    assert "has two decisions" in told
    assert decided.violations(3, 4, [decision(1, 3, 4, "up", "webhook", id="a")], [call]) == []


def test_a_rollout_moves_both_bounds_by_as_much_as_it_may() -> None:
    rollout = Rolled(START + 50, START + 80, RolloutSettings(max_surge=Amount(1), max_unavailable=Amount(0)))
    old = [machine(name, (1, "provisioning"), (2, "running"), (70, "destroy"), (71, "deleted")) for name in ("one",)]
    kept = machine("two", (1, "provisioning"), (2, "running"))
    new = machine("three", (60, "provisioning"), (65, "running"))
    assert rolled(group((0, 2)), rollout, *old, kept, new) == []
    assert len(found(group((0, 2)), *old, kept, new)) == 1, "without a rollout it is one too many"
    (told,) = rolled(group((0, 2)), rollout, *old, kept, machine("three", (60, "provisioning"), (75, "running")))
    assert "one was deleted" in told, "before the new one ran"
    (told,) = rolled(group((0, 2)), rollout, *old, kept, new, machine("four", (61, "provisioning"), (62, "running")))
    assert "four was launched" in told


def test_what_somebody_wants_to_go_counts_for_nothing() -> None:
    of = group((0, 1))
    of.unwanted["one"] = START + 40
    going = machine("one", (1, "provisioning"), (2, "running"), (60, "destroy"), (61, "deleted"))
    assert found(of, going, machine("two", (50, "provisioning"), (51, "running"))) == []


def test_what_is_protected_or_suspended_is_left_alone() -> None:
    one = machine("one", (1, "provisioning"), (2, "running"), (60, "destroy"), (61, "deleted"))
    of = group((0, 1), (50, 0))
    assert found(of, one) == []
    of.protections = [Span("one", START + 10)]
    assert "one was deleted at 1000060.0, and it was protected" in found(of, one)[0]
    of.end(of.protections, "one", START + 55)
    of.suspensions = [Span("terminate", START + 10), Span("launch", START)]
    told = found(of, one, machine("two", (20, "provisioning"), (21, "failed")))
    assert ["terminate was suspended" in told[-1], "launch was suspended" in " ".join(told)] == [True, True]


def test_machines_that_come_and_go_by_hand_are_members_meanwhile() -> None:
    of = group((0, 1), (20, 2), (60, 1))
    of.adopted["two"], of.detached["one"] = START + 20, START + 60
    one = machine("one", (1, "provisioning"), (2, "running"), (80, "deleted"))
    del one["tags"]["tsg.group"]
    assert found(of, one, machine("two", (0, "provisioning"), (0.5, "running"))) == []


def test_two_machines_of_one_launch_and_a_machine_of_nobody_are_seen() -> None:
    twins = [machine(name, (1, "provisioning"), launch="same") for name in ("one", "two")]
    assert found(group((0, 2)), *twins) == ["2 machines of one launch same"]
    stranger = machine("three", (1, "provisioning"))
    stranger["tags"]["tsg.group"] = "another"
    assert "of an unknown group: another" in found(group((0, 2)), stranger)[0]


def test_the_model_tells_what_differs() -> None:
    account = Account("demo")
    made = account.made({"id": "g", "group_name": "web", "template_id": "t", "capacity": 2}, START)
    account.templates["red"] = "t"
    templates = [{"template_name": "red", "id": "t"}]
    assert account.differences([made.to_json()], templates) == []
    assert len(account.differences([{**made.to_json(), "capacity": 3}], templates)) == 1
    assert len(account.differences([], templates)) == 1
    assert len(account.differences([made.to_json()], [])) == 1
    assert len(account.differences([made.to_json(), made.to_json()], templates)) == 1
    account.deleted(made, START)
    assert account.differences([], templates) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what a process holds in a file")
def test_the_memory_of_a_process_that_lived_long_is_told() -> None:
    memory = Memory(now=itertools.count(0.0, GROWN_UP / 4).__next__)
    growing = "import os, sys\nheld = []\nfor _ in sys.stdin:\n    held.append(os.urandom(8 * 2**20))\n    print(flush=True)"
    # Another process than this one, which may have children by now.
    with subprocess.Popen([sys.executable, "-c", growing], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        memory.look([("lasting", process.pid), ("brief", os.getpid())])
        assert memory.report() == {}
        for _ in range(4):
            process.stdin.write("more\n")
            process.stdin.flush()
            process.stdout.readline()
            memory.look([("lasting", process.pid)])
    told = memory.report()
    assert list(told) == ["lasting"]
    first, half, last = (float(part) for part in told["lasting"].partition(" MiB")[0].split(" -> "))
    assert first + 12 < half + 8 < last
