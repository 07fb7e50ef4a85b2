"""CloudAPI takes its time over each call: whatever its latency below the read timeout, each pass gets something done."""

from typing import Any

import pytest

from dev.sim.cloudapi.simulator import Simulator
from shared import metrics
from shared.clients.access import Timeouts
from shared.clients.cloudapi import CloudAPI
from shared.plan import outcome
from shared.reasons import Reason
from shared.state.groups import Group
from tests.integration.conftest import DELETE_SECONDS, LIMITS, PROVISION_SECONDS, World
from tsg_workers.reconcilers.groups import GroupReconciler, Pace
from tsg_workers.runner import Runner

#: All times of this test are so many times shorter than in earnest: the latencies, a pass's 10 s, the read timeout of 30 s.
SCALE = 50.0
CALLS = ["ListMachines", "GetMachine", "CreateMachine", "DeleteMachine"]
LATENCIES = [0.1, 6.0, 10.0, 25.0]
#: Passes that a group of ten with two dead may take: one that sees them dead, one that launches, and those that watch what boots.
PASSES = 12


@pytest.fixture
def hurried(world: World, monkeypatch: pytest.MonkeyPatch) -> Runner[Any]:
    monkeypatch.setattr(outcome, "SLOW_SECONDS", 5.0 / SCALE)
    clouds = CloudAPI(world.sim.url, Timeouts(connect=30.0, read=30.0))
    world._clouds.append(clouds)
    pace = Pace(rate=10_000, burst=10_000, lease_seconds=30, limits=LIMITS, part_seconds=10.0 / SCALE)
    return Runner(world.db, GroupReconciler(world.db, clouds, world.sealer, pace, owner="hurried"), owner="hurried")


def slowed(sim: Simulator, seconds: float, *calls: str) -> None:
    sim.knobs.turn({"latency_by_endpoint": dict.fromkeys(calls, seconds / SCALE)})


def group_of_ten(world: World, worker: Runner[Any]) -> Group:
    group = world.make_group(10)
    world.live(lambda: world.group_row(group).reason == Reason.SETTLED, most=300, worker=worker)
    assert world.running(group) == 10
    return group


@pytest.mark.parametrize("calls", [*([call] for call in CALLS), CALLS], ids=[*CALLS, "all"])
@pytest.mark.parametrize("seconds", LATENCIES)
def test_a_group_of_ten_with_two_dead_becomes_whole(world: World, hurried: Runner[Any], seconds: float, calls: list[str]) -> None:
    group = group_of_ten(world, hurried)
    dead, stopped = world.machines(group)[:2]
    slowed(world.sim, seconds, *calls)
    world.sim.cloud.kill(dead)
    world.sim.cloud.break_machine(stopped, "stopped")
    world.later(300)
    passes = 0
    while not (world.running(group) == len(world.machines(group)) == 10) and passes < PASSES:
        world.converge(hurried)
        passes += 1
        world.later(PROVISION_SECONDS / 4)
    assert world.running(group) == len(world.machines(group)) == 10, f"not in {passes} passes"
    assert (world.creates, world.deletes) == (12, 1)


@pytest.mark.parametrize("seconds", [6.0, 25.0])
def test_all_machines_dead_or_a_new_group_becomes_whole_too(world: World, hurried: Runner[Any], seconds: float) -> None:
    """Lists that lack many machines are asked for twice, and the machines one by one."""
    group = group_of_ten(world, hurried)
    slowed(world.sim, seconds, *CALLS)
    for machine in world.machines(group):
        world.sim.cloud.kill(machine)
    new = world.make_group(40)
    world.later(300)
    took = world.live(lambda: (world.running(group), world.running(new)) == (10, 40), most=120, worker=hurried)
    assert (world.running(group), world.running(new)) == (10, 40), f"not in {took} s besides CloudAPI's own"
    assert took <= PROVISION_SECONDS + 20


def test_no_turn_at_the_budget_is_lost_when_the_time_of_a_pass_is_over(world: World) -> None:
    """32 launches wait for their turns then: three seconds of CloudAPI's budget."""
    clouds = CloudAPI(world.sim.url, Timeouts(connect=30.0, read=30.0))
    world._clouds.append(clouds)
    pace = Pace(rate=100.0, burst=1, lease_seconds=30, limits=LIMITS, part_seconds=0.5)
    worker = Runner(world.db, GroupReconciler(world.db, clouds, world.sealer, pace, owner="paced"), owner="paced")
    world.make_group(100)
    turns, requests = turns_taken(), world.sim.cloud.counters.to_json()["requests"]
    world.settle(worker)
    assert world.creates == 100
    assert turns_taken() - turns == world.sim.cloud.counters.to_json()["requests"] - requests


def turns_taken() -> float:
    (metric,) = metrics.budget_seconds.collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_count"))


def test_what_is_slow_is_said_while_work_is_left_and_no_longer(world: World, hurried: Runner[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    group = group_of_ten(world, hurried)
    slowed(world.sim, 10.0, "CreateMachine")
    world.resize(group, 11)
    world.converge(hurried)
    assert world.group_row(group).reason == Reason.CLOUDAPI_SLOW
    slowed(world.sim, 10.0, "ListMachines")
    world.converge(hurried)
    assert world.group_row(group).reason == Reason.CLOUDAPI_SLOW
    world.later(PROVISION_SECONDS + 1)
    world.converge(hurried)
    assert world.group_row(group).reason == Reason.SETTLED
    slowed(world.sim, 0.1, *CALLS)
    # So fast it is on a machine that is busy too.
    monkeypatch.setattr(outcome, "SLOW_SECONDS", 30.0)
    world.resize(group, 10)
    world.converge(hurried)
    assert world.group_row(group).reason == Reason.DELETING
    world.later(DELETE_SECONDS + 1)
    world.converge(hurried)
    assert world.group_row(group).reason == Reason.SETTLED


def test_lists_are_not_asked_for_without_a_pause_while_nothing_can_be_done(world: World, hurried: Runner[Any]) -> None:
    group = group_of_ten(world, hurried)
    world.sim.knobs.turn({"empty_lists": True, "error_share": 1.0, "error_status": 503, "error_endpoints": ["GetMachine"]})
    world.later(300)
    world.sim.cloud.counters.reset()
    world.live(lambda: False, most=60, worker=hurried)
    assert 4 <= world.asked("ListMachines") <= 40
    assert world.creates == 0
    assert world.states(group) == ["running"] * 10
