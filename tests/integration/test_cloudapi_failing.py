"""CloudAPI fails at random, or altogether for a while: groups get whole in the time that its retries take, and at once when it is back."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from shared.reasons import Reason
from shared.state.groups import Group
from tests.integration.conftest import DELETE_SECONDS, PROVISION_SECONDS, World

#: What everything may take, once CloudAPI works, beside what it takes to boot and to delete machines.
RECOVERY_SECONDS = 30.0
BOOT_SECONDS = PROVISION_SECONDS + DELETE_SECONDS
MACHINES = ["ListMachines", "GetMachine", "CreateMachine", "DeleteMachine"]


@pytest.fixture
def seed() -> int:
    chosen = random.randrange(10**6)
    print("seed", chosen)  # noqa: T201 - to repeat what failed
    return chosen


def is_whole(world: World, group: Group, capacity: int) -> Callable[[], bool]:
    return lambda: world.running(group) == len(world.machines(group)) == capacity


def failing(world: World, *, share: float, status: int = 500, **luck: Any) -> None:
    world.sim.knobs.turn({"error_share": share, "error_status": status, "error_endpoints": MACHINES, **luck})


def working(world: World) -> None:
    world.sim.knobs.turn({"error_share": 0.0, "down": False})


@pytest.mark.parametrize(("status", "most"), [(500, 60), (503, 45)])
def test_a_group_gets_whole_while_every_second_request_fails(world: World, status: int, most: float) -> None:
    """`most`: what the pauses come to at their longest, and a machine's boot."""
    failing(world, share=0.5, status=status, error_evenly=True)
    group = world.make_group(10)
    took = world.live(is_whole(world, group, 10), most=300)
    assert took <= most
    assert world.creates == 10


def test_groups_are_whole_soon_after_half_of_all_requests_failed_for_minutes(world: World, seed: int) -> None:
    """Whatever was begun meanwhile: made, grown, shrunk, and machines that died."""
    growing, shrinking, healing = world.make_group(2), world.make_group(9), world.make_group(5)
    world.settle()
    failing(world, share=0.5, error_seed=seed)
    made = world.make_group(10)
    world.resize(growing, 8)
    world.resize(shrinking, 3)
    for machine in world.machines(healing)[:2]:
        world.sim.cloud.kill(machine)
    world.live(lambda: False, most=240)
    failing(world, share=0.9, error_seed=seed + 1)
    world.resize(growing, 12)
    world.live(lambda: False, most=60)
    working(world)
    expected = {made: 10, growing: 12, shrinking: 3, healing: 5}
    took = world.live(lambda: all(is_whole(world, group, capacity)() for group, capacity in expected.items()), most=300)
    assert took <= RECOVERY_SECONDS + BOOT_SECONDS


CHANGES = ["CreateMachine", "DeleteMachine"]


@pytest.mark.parametrize(
    "trouble",
    [
        {"down": True},
        {"error_share": 1.0, "error_status": 500, "error_endpoints": ["ListMachines"]},
        {"error_share": 1.0, "error_status": 500, "error_endpoints": CHANGES},
        {"error_share": 1.0, "error_status": 503, "error_endpoints": CHANGES},
    ],
)
def test_groups_are_whole_soon_after_cloudapi_was_away(world: World, trouble: dict[str, object]) -> None:
    growing, shrinking = world.make_group(2), world.make_group(4)
    world.settle()
    world.sim.knobs.turn(trouble)
    world.resize(growing, 12)
    world.resize(shrinking, 1)
    world.live(lambda: False, most=300)
    assert world.group_row(growing).reason == Reason.CLOUDAPI_UNAVAILABLE
    world.sim.knobs.turn({"down": False, "error_share": 0.0})
    took = world.live(lambda: is_whole(world, growing, 12)() and is_whole(world, shrinking, 1)(), most=300)
    assert took <= RECOVERY_SECONDS + BOOT_SECONDS
    assert world.creates == 6 + 10


def test_a_cloudapi_that_fails_for_long_is_asked_now_and_then_and_one_launch_tests_it(world: World) -> None:
    world.sim.knobs.turn({"error_share": 1.0, "error_status": 500, "error_endpoints": ["CreateMachine"]})
    group = world.make_group(50)
    world.live(lambda: False, most=60)
    world.sim.cloud.counters.reset()
    world.live(lambda: False, most=120)
    assert 4 <= world.asked("CreateMachine") <= 20
    assert world.group_row(group).launch_failures == 0, "CloudAPI's failures say nothing of the template"


def test_a_refused_template_goes_on_pausing_when_cloudapi_is_back(world: World) -> None:
    """Its pauses are not CloudAPI's doing; and CloudAPI's failures make them no longer."""
    world.sim.knobs.turn({"refuse_next_creates": 10_000, "refuse_status": 409, "refuse_code": "ValidationFailed", "refuse_message": "no"})
    group = world.make_group(3)
    world.live(lambda: False, most=600)
    assert world.group_row(group).reason == Reason.CIRCUIT_OPEN
    failures = world.group_row(group).launch_failures
    world.sim.knobs.turn({"down": True})
    world.live(lambda: False, most=300)
    assert world.group_row(group).launch_failures == failures
    world.sim.knobs.turn({"down": False})
    world.sim.cloud.counters.reset()
    world.live(lambda: False, most=120)
    assert world.asked("CreateMachine") <= 3


def test_a_refusal_after_an_outage_is_the_first_of_its_kind(world: World) -> None:
    group = world.make_group(1)
    world.settle()
    world.sim.knobs.turn({"down": True})
    world.later(300)
    world.live(lambda: world.group_row(group).failures > 8, most=600)
    world.sim.knobs.turn({"down": False})
    (machine,) = world.machines(group)
    world.sim.cloud.set_deletion_protection(machine, True)
    world.sim.cloud.advance(1)
    world.resize(group, 0)
    world.live(lambda: world.group_row(group).reason == Reason.DELETION_REJECTED, most=60)
    assert world.group_row(group).failures == 1
