"""Groups that scale themselves: the reconciler of policies on real rows, with measures that the test pushes."""

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dev.services import Valkey
from shared.clients.pushed import Pushed
from shared.measures.gather import Gatherer
from shared.measures.pushed import PushedSource
from shared.measures.source import Asked
from shared.measures.source import Source as AnySource
from shared.measures.sources import list_members
from shared.policies.seen import Measure, Missing, Value
from shared.spec import policy_settings
from shared.state import decisions, policies, work
from shared.state.changes import Asker
from shared.state.decisions import Decision
from shared.state.groups import Group
from shared.state.policies import Stored
from tests.integration.conftest import World
from tsg_workers.reconcilers.policies import PolicyReconciler
from tsg_workers.runner import Runner

CPU = {"source": "pushed", "name": "cpu"}
TARGET = {"kind": "target", "metric": CPU, "target": 60, "stabilization": {"in_seconds": 0}}
HOOK = {"kind": "webhook", "change": "+1"}


class Source(AnySource):
    """Says what the test says."""

    def __init__(self) -> None:
        self.answer: Measure | Exception = Missing("the test says nothing")
        self.asked: list[Asked] = []

    def read(self, asked: Asked, /) -> Measure:
        self.asked.append(asked)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Scaling:
    """A group of the world's account, its policies, and a worker that decides by them."""

    def __init__(self, world: World, capacity: int = 4) -> None:
        self.world = world
        self.source = Source()
        self.gatherer = Gatherer({"pushed": self.source}, list_members(world.db))
        self.woken: list[tuple[str, str]] = []
        self.worker = self.make_worker()
        self.group: Group = world.make_group(capacity)
        self.asker = Asker(world.account.id, self.group.id, "R")
        self._names = itertools.count(1)
        world.settle()

    def make_worker(self) -> Runner[Any]:
        wake: Callable[[str, str], None] = lambda *woken: self.woken.append(woken)  # noqa: E731
        measure = lambda group, wanted: self.gatherer.measure(group, wanted, patience=20.0)  # noqa: E731
        return Runner(self.world.db, PolicyReconciler(self.world.db, measure, wake, interval=15, max_capacity=20), owner="worker")

    def add(self, **fields: Any) -> Stored:
        told = {"policy_name": f"policy {next(self._names)}", **fields}
        settings = policy_settings.OF_KIND[told["kind"]].model_validate(told)
        hashed = self.group.id if told["kind"] == "webhook" else None
        return self.world.db.transact(lambda made: policies.insert_policy(made, self.asker, settings, token_hash=hashed))

    def call(self, call_id: str) -> None:
        self.world.db.transact(lambda made: policies.insert_call(made, self.group.id, call_id=call_id, key=None))

    def evaluate(self, value: float | Measure | Exception | None = None) -> None:
        if value is not None:
            self.source.answer = Value(float(value)) if isinstance(value, int | float) else value
        self.worker.run(self.group.id)

    @property
    def capacity(self) -> int:
        return int(self.world.sql("SELECT capacity FROM tsg_groups WHERE id = :id", id=self.group.id)[0][0])

    @property
    def generation(self) -> int:
        return int(self.world.sql("SELECT generation FROM tsg_groups WHERE id = :id", id=self.group.id)[0][0])

    def decisions(self) -> list[Decision]:
        with self.world.db.read() as connection:
            return decisions.list_newest(connection, self.group.id, limit=100)

    def due_in(self) -> float | None:
        query = "SELECT extract(epoch FROM due_at - now())::float FROM tsg_work WHERE kind = 'policies' AND subject = :id"
        rows = self.world.sql(query, id=self.group.id)
        return rows[0][0] if rows else None

    def later(self, seconds: float) -> None:
        """So much time goes by for the policies."""
        columns = ", ".join(f"{name} = {name} - interval '{seconds} seconds'" for name in ("out_until", "in_until", "ran_until"))
        self.world.sql(f"UPDATE tsg_policies SET {columns}, memory = NULL WHERE group_id = :id", id=self.group.id)

    def close(self) -> None:
        self.gatherer.close()


@pytest.fixture
def scaling(world: World) -> Iterator[Scaling]:
    made = Scaling(world)
    yield made
    made.close()


def test_a_measure_over_its_target_grows_the_group(scaling: Scaling) -> None:
    policy = scaling.add(**TARGET)
    before = scaling.generation
    scaling.evaluate(90)
    assert (scaling.capacity, scaling.generation) == (6, before + 1)
    assert scaling.woken == [(scaling.world.account.id, scaling.group.id)]
    (decision,) = scaling.decisions()
    assert decision._replace(at=decision.at, id="", last_at=decision.at, message="") == Decision(
        id="",
        group_id=scaling.group.id,
        policy_id=policy.id,
        policy_name=policy.name,
        at=decision.at,
        times=1,
        last_at=decision.at,
        result="changed",
        by="measure",
        message="",
        value=90.0,
        target=60.0,
        samples=None,
        reporting=None,
        recommended=6,
        capacity_before=4,
        capacity_after=6,
        next_at=None,
    )
    assert "the measure is 90, the target 60: 6 instances would carry it; capacity 4 -> 6" in decision.message
    newest = [told for told in scaling.world.told(scaling.group) if told.kind == "TSG_POLICY_SCALE"][-1]
    assert decision.message in newest.description
    assert 13 < (scaling.due_in() or 0) <= 15
    scaling.world.settle()
    assert scaling.world.running(scaling.group) == 6


def test_the_same_decision_again_is_counted_and_changes_no_row_of_the_group(scaling: Scaling) -> None:
    scaling.add(**TARGET)
    for _ in range(3):
        scaling.evaluate(61)
    (decision,) = scaling.decisions()
    assert (decision.result, decision.times, decision.recommended) == ("tolerance", 3, 4)
    assert scaling.generation == 1
    scaling.evaluate(59)
    assert len(scaling.decisions()) == 1
    scaling.evaluate(Missing("Prometheus is away"))
    assert [one.result for one in scaling.decisions()] == ["missing_data", "tolerance"]


def test_each_change_has_a_decision_of_its_own(scaling: Scaling) -> None:
    scaling.add(**TARGET, cooldown={"out_seconds": 0})
    scaling.evaluate(90)
    scaling.world.sql("UPDATE tsg_groups SET capacity = 4 WHERE id = :id", id=scaling.group.id)
    scaling.evaluate(90)
    assert [(one.capacity_before, one.capacity_after, one.times) for one in scaling.decisions()] == [(4, 6, 1)] * 2


def test_cooldowns_stand_in_the_row(scaling: Scaling) -> None:
    scaling.add(**TARGET)
    scaling.evaluate(90)
    scaling.world.settle()
    # Another worker, which knows nothing.
    scaling.worker = scaling.make_worker()
    scaling.evaluate(90)
    assert (scaling.capacity, scaling.decisions()[0].result) == (6, "cooldown")
    scaling.later(61)
    scaling.evaluate(90)
    assert scaling.capacity == 9
    scaling.world.settle()
    scaling.later(61)
    scaling.evaluate(20)
    assert (scaling.capacity, scaling.decisions()[0].result) == (9, "cooldown")
    scaling.later(240)
    scaling.evaluate(20)
    assert scaling.capacity == 3


def test_members_that_come_up_are_capacity_and_are_not_asked(scaling: Scaling) -> None:
    scaling.add(**TARGET, cooldown={"out_seconds": 0})
    scaling.evaluate(90)
    scaling.world.converge()
    scaling.evaluate(90)
    assert (scaling.capacity, scaling.decisions()[0].result) == (6, "converging")
    assert len(scaling.source.asked[-1].members) == 4
    scaling.world.settle()
    scaling.evaluate(90)
    assert (scaling.capacity, len(scaling.source.asked[-1].members)) == (9, 6)


def test_the_groups_own_bounds_hold(scaling: Scaling) -> None:
    more = '{"version": 1, "fields": {"min_capacity": 3, "max_capacity": 5}}'
    scaling.world.sql("UPDATE tsg_groups SET more = :more WHERE id = :id", more=more, id=scaling.group.id)
    scaling.add(**TARGET, cooldown={"out_seconds": 0, "in_seconds": 0})
    scaling.evaluate(200)
    assert scaling.capacity == 5
    scaling.world.settle()
    scaling.evaluate(1)
    assert scaling.capacity == 3


def test_suspended_policies_change_nothing(scaling: Scaling) -> None:
    more = '{"version": 1, "fields": {"suspended": ["policies"]}}'
    scaling.world.sql("UPDATE tsg_groups SET more = :more WHERE id = :id", more=more, id=scaling.group.id)
    scaling.add(**TARGET)
    scaling.evaluate(90)
    assert (scaling.capacity, scaling.decisions()[0].result) == (4, "suspended")


def test_a_schedule_is_due_at_its_time_and_runs_once(scaling: Scaling) -> None:
    scaling.add(kind="schedule", schedule={"cron": "0 0 1 1 *"}, set={"capacity": 7})
    scaling.evaluate()
    assert 3500 < (scaling.due_in() or 0) <= 3600, "at least once an hour"
    assert scaling.decisions() == []
    minutely = scaling.add(kind="schedule", schedule={"cron": "* * * * *"}, set={"capacity": 7})
    scaling.evaluate()
    assert 0 < (scaling.due_in() or 0) <= 60
    scaling.later(60)
    scaling.evaluate()
    assert scaling.capacity == 7
    (decision,) = scaling.decisions()
    assert (decision.policy_id, decision.by, decision.result) == (minutely.id, "schedule", "changed")
    scaling.world.resize(scaling.group, 5)
    scaling.evaluate()
    assert (scaling.capacity, len(scaling.decisions())) == (5, 1), "its time has passed"


def test_a_schedule_that_sets_a_bound_moves_it_in_the_groups_settings(scaling: Scaling) -> None:
    scaling.add(kind="schedule", schedule={"cron": "* * * * *"}, set={"min_capacity": 6})
    scaling.later(60)
    scaling.evaluate()
    with scaling.world.db.read() as connection:
        found = policies.find_scaled(connection, scaling.group.id)
    assert found is not None
    assert (found.capacity, found.settings.min_capacity, found.settings.max_capacity) == (6, 6, None)


def test_each_call_of_a_webhook_is_one_decision(scaling: Scaling) -> None:
    scaling.add(**HOOK)
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for one in ids:
        scaling.call(one)
    assert (scaling.due_in() or 0) <= 0
    scaling.evaluate()
    assert scaling.capacity == 5
    assert {one.id: one.result for one in scaling.decisions()} == dict(zip(ids, ["changed", "cooldown", "cooldown"], strict=True))
    scaling.evaluate()
    assert len(scaling.decisions()) == 3


def test_decisions_of_one_evaluation_are_read_in_their_order(scaling: Scaling) -> None:
    scaling.add(**{**HOOK, "cooldown": {"out_seconds": 0, "in_seconds": 0}})
    for _ in range(4):
        scaling.call(str(uuid.uuid4()))
    scaling.evaluate()
    shown = [(one.capacity_before, one.capacity_after) for one in reversed(scaling.decisions())]
    assert len(shown) == 4
    assert all(earlier[1] == later[0] for earlier, later in itertools.pairwise(shown))


def test_a_source_that_fails_holds_and_costs_the_others_nothing(scaling: Scaling) -> None:
    scaling.add(**TARGET)
    scaling.add(**HOOK)
    scaling.call(str(uuid.uuid4()))
    scaling.evaluate(ValueError("a fault"))
    assert scaling.capacity == 5
    results = {one.by: one.result for one in scaling.decisions()}
    assert results == {"measure": "missing_data", "webhook": "changed"}


def test_a_change_by_hand_in_between_counts(scaling: Scaling) -> None:
    """The request comes while the measure is taken: what is decided is decided from what it left."""
    scaling.add(**TARGET)
    source, world, group = scaling.source, scaling.world, scaling.group

    def read(asked: Asked, /) -> Measure:
        world.resize(group, 12)
        return Value(90.0)

    source.read = read  # type: ignore[method-assign]
    scaling.worker.run(group.id)
    assert scaling.capacity == 12, "six would be enough, and twelve are asked for"
    assert scaling.decisions()[0].result == "converging"


def test_a_worker_whose_claim_has_ended_changes_nothing(scaling: Scaling) -> None:
    scaling.add(**TARGET)

    def read(asked: Asked, /) -> Measure:
        scaling.world.sql("UPDATE tsg_work SET token = token + 1 WHERE kind = 'policies' AND subject = :id", id=asked.group.id)
        return Value(90.0)

    scaling.source.read = read  # type: ignore[method-assign]
    scaling.worker.run(scaling.group.id)
    assert (scaling.capacity, scaling.decisions()) == (4, [])


def test_a_deleted_group_is_forgotten(scaling: Scaling) -> None:
    scaling.add(**HOOK)
    scaling.world.delete(scaling.group)
    with scaling.world.db.read() as connection:
        work.mark_due(connection, work.POLICIES, scaling.group.id)
    scaling.call(str(uuid.uuid4()))
    scaling.evaluate()
    assert scaling.due_in() is None
    assert scaling.world.sql("SELECT 1 FROM tsg_policies WHERE group_id = :id", id=scaling.group.id) == []


def test_the_last_policy_that_goes_leaves_nothing_due(scaling: Scaling) -> None:
    made = scaling.add(**TARGET)
    scaling.evaluate(60)
    scaling.world.db.transact(lambda connection: policies.delete_policy(connection, scaling.asker, made.id))
    scaling.evaluate()
    assert scaling.due_in() is None
    assert len(scaling.decisions()) == 1, "decisions outlive the policy"


def test_what_another_release_wrote_is_left_alone(scaling: Scaling) -> None:
    made = scaling.add(**TARGET)
    scaling.world.sql("UPDATE tsg_policies SET settings = '{\"version\": 9}' WHERE id = :id", id=made.id)
    scaling.evaluate(90)
    assert (scaling.capacity, scaling.decisions()) == (4, [])


# Measures


def test_pushed_values_are_averaged_over_available_members(world: World, valkey: Valkey) -> None:
    pushed = Pushed(valkey.url)
    group = world.make_group(2)
    world.settle()
    with world.db.read() as connection:
        found = policies.find_scaled(connection, group.id)
        members = policies.list_available(connection, group.id, group.settings)
    assert found is not None
    assert (found.available, len(members)) == (2, 2)
    source = PushedSource(pushed)
    metric = policy_settings.Metric.model_validate(CPU)

    def read(*, is_total: bool = False) -> Measure:
        return source.read(Asked(found, tuple(members), metric, is_total))

    assert isinstance(read(), Missing)
    pushed.put(group.id, "cpu", 40.0, member=members[0])
    pushed.put(group.id, "cpu", 999.0, member="somebody else")
    assert read() == Value(40.0, 2, 1)
    pushed.put(group.id, "cpu", 80.0, member=members[1])
    assert read() == Value(60.0, 2, 2)
    assert read(is_total=True) == Value(120.0, 2, 2)
    pushed.put(group.id, "cpu", 7.5)
    assert read() == Value(7.5)
    assert pushed.get(group.id, "cpu", max_age=-1) == []
    pushed.close()


def test_a_source_that_hangs_holds_up_nobody_for_longer_than_a_moment(scaling: Scaling) -> None:
    go_on = threading.Event()

    class Hanging(AnySource):
        def read(self, asked: Asked, /) -> Measure:
            assert go_on.wait(60)
            return Value(90.0)

    gatherer = Gatherer({"pushed": Hanging()}, list_members(scaling.world.db))
    measured = Runner(
        scaling.world.db,
        PolicyReconciler(scaling.world.db, gatherer.measure, lambda *_: None, interval=15, max_capacity=20),
        owner="worker",
    )
    scaling.add(**TARGET)
    scaling.add(**HOOK)
    scaling.call(str(uuid.uuid4()))
    measured.run(scaling.group.id)
    assert scaling.capacity == 5, "the webhook waits for no measure"
    assert (scaling.due_in() or 9) <= 1
    go_on.set()
    until = time.monotonic() + 30
    while scaling.capacity == 5 and time.monotonic() < until:
        scaling.later(3600)
        measured.run(scaling.group.id)
    assert scaling.capacity == 6, "the answer was kept"
    gatherer.close()
