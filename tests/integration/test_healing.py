"""Healing has limits: what CloudAPI says is doubted, what fails is tried gently, and what is nobody's is left alone."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.clients.access import Timeouts
from shared.clients.cloudapi import CloudAPI
from shared.clients.signature import Signer
from shared.reasons import Reason
from shared.state import status, templates
from shared.state.groups import Group
from tests.conftest import order
from tests.integration.conftest import LIMITS, PROVISION_SECONDS, World
from tsg_workers.cloud.ask import QUESTIONS_A_PASS

NOBODYS = "00000000-0000-4000-8000-000000000000"
#: Longer than any pause before the breaker opens, and shorter than a probe's.
A_WHILE = 33.0


def machine_with(world: World, **tags: str) -> str:
    """A machine that somebody tagged as this service does."""
    clouds = CloudAPI(world.sim.url, Timeouts(5, 30))
    client = clouds.as_account(world.login, Signer(world.login, world.pair.fingerprint, world.pair.private_pem))
    made = client.create_machine(order("x-{{shortId}}", {"tsg.name": "x", **tags}))
    clouds.close()
    return made.id


def state_of(world: World, machine_id: str) -> str:
    return next(machine.state for machine in world.sim.cloud.all_machines() if machine.id == machine_id)


def tries(world: World) -> int:
    """How often CloudAPI was asked for a machine in one turn."""
    before = world.asked("CreateMachine")
    world.converge()
    return world.asked("CreateMachine") - before


def settled_group(world: World, capacity: int, **more: Any) -> Group:
    group = world.make_group(capacity, **more)
    world.settle()
    assert world.running(group) == capacity
    return group


# Lists that do not tell the truth


def test_an_empty_list_for_a_minute_launches_and_deletes_nothing(world: World) -> None:
    group, shrinking = settled_group(world, 5), settled_group(world, 3)
    before = world.ids(group)
    world.resize(shrinking, 2)
    world.sim.knobs.turn({"empty_lists": True})
    for _ in range(10):
        world.converge()
        world.later(6)
    assert world.ids(group) == before
    assert (world.creates, world.deletes) == (8, 1), "the machine that was too many was asked for by its id, and not taken from the list"
    world.sim.knobs.turn({"empty_lists": False})
    world.settle()
    assert (world.running(group), world.running(shrinking), world.creates, world.deletes) == (5, 2, 8, 1)


def test_a_list_that_is_empty_once_is_asked_for_again_and_no_machine_one_by_one(world: World) -> None:
    group = settled_group(world, 5)
    world.sim.knobs.turn({"empty_lists_next": 1})
    world.sim.cloud.counters.reset()
    world.later(300)
    world.converge()
    assert (world.asked("ListMachines"), world.asked("GetMachine")) == (2, 0)
    assert world.states(group) == ["running"] * 5


@pytest.mark.parametrize("members", [1, 3])
def test_a_cloudapi_whose_filter_knows_no_wildcard_costs_a_second_list_and_nothing_else(world: World, members: int) -> None:
    """What no row knows is found all the same: here the machine of a launch that was refused, so CloudAPI said."""
    machine_with(world, mine="x")
    world.sim.knobs.turn({"tag_wildcards": False, "lost_answers_next": 1, "lost_answer_status": 503})
    group = world.make_group(members)
    for _ in range(3):
        world.settle()
    assert (world.running(group), len(world.machines(group)), world.creates - world.deletes) == (members, members, members + 1)
    world.sim.cloud.counters.reset()
    world.later(300)
    world.converge()
    assert (world.asked("ListMachines"), world.asked("GetMachine")) == (2, 0)
    assert world.states(group) == ["running"] * members


def test_a_list_that_hides_many_machines_costs_a_bounded_number_of_questions_and_is_told(world: World) -> None:
    group = settled_group(world, QUESTIONS_A_PASS + 10)
    shrinking = settled_group(world, 2)
    world.resize(shrinking, 0)
    world.sim.knobs.turn({"empty_lists": True})
    world.sim.cloud.counters.reset()
    world.later(300)
    least, _ = world.pause_after_converging(group)
    assert least > 0, "it went on asking at once"
    assert (world.asked("ListMachines"), world.asked("GetMachine")) == (2, QUESTIONS_A_PASS)
    assert (world.creates, world.deletes) == (0, 2), "what was asked for may go"
    row = world.group_row(group)
    assert "list lacks machines that it has" in row.last_error
    assert (row.failures, row.reason) == (1, Reason.CLOUDAPI_UNAVAILABLE)


def test_many_machines_that_are_really_gone_are_replaced_over_several_passes(world: World) -> None:
    group = settled_group(world, QUESTIONS_A_PASS + 10)
    for machine in world.machines(group):
        world.sim.cloud.kill(machine)
    world.settle()
    assert world.running(group) == QUESTIONS_A_PASS + 10
    assert world.creates == 2 * (QUESTIONS_A_PASS + 10)


def test_a_group_of_2018_that_was_never_looked_at_is_not_filled_on_the_strength_of_one_empty_list(world: World) -> None:
    machine_with(world, **{"tsg.name": "web"})
    world.later(PROVISION_SECONDS + 1)
    group = world.make_group(1, name="web", by_name=True)
    world.sim.knobs.turn({"empty_lists_next": 1})
    world.settle()
    assert (world.running(group), world.creates) == (1, 1)


def test_a_lost_launch_is_not_made_again_on_the_strength_of_one_empty_list(world: World) -> None:
    settled_group(world, 1)
    world.sim.knobs.turn({"lost_answers_next": 1, "stale_list_seconds": LIMITS.launch_grace - 1})
    group = world.make_group(1)
    world.converge()
    world.later(LIMITS.launch_grace + 1)
    world.sim.knobs.turn({"empty_lists_next": 1, "stale_list_seconds": 0})
    world.converge()
    assert world.creates == 2
    assert world.running(group) == 1


@pytest.mark.parametrize("status", [None, 500])
def test_a_lost_launch_is_not_made_again_for_as_long_as_lists_lack_what_is_there(world: World, status: int | None) -> None:
    group = settled_group(world, 4)
    world.sim.knobs.turn({"lost_answers_next": 1, "lost_answer_status": status})
    world.resize(group, 5)
    world.converge()
    world.sim.knobs.turn({"empty_lists": True})
    for _ in range(5):
        world.later(LIMITS.launch_grace)
        world.converge()
    assert (len(world.machines(group)), world.creates) == (5, 5)
    world.sim.knobs.turn({"empty_lists": False})
    world.settle()
    assert (world.running(group), world.creates, world.deletes) == (5, 5, 0)


# Many that look unhealthy at once


def test_of_many_that_look_stopped_at_once_a_fifth_is_replaced_at_a_time(world: World) -> None:
    group = settled_group(world, 10)
    for machine in world.machines(group):
        world.sim.cloud.break_machine(machine, "stopped")
    for round_ in range(1, 6):
        world.converge()
        assert (world.creates, world.deletes) == (10 + 2 * round_, 2 * round_)
        assert world.group_row(group).reason == (Reason.REPLACING if round_ < 5 else Reason.PROVISIONING)
        world.converge()
        assert world.deletes == 2 * round_, "the replacements do not run yet"
        world.later(PROVISION_SECONDS + 1)
    world.settle()
    assert world.running(group) == len(world.machines(group)) == 10
    assert [told.kind for told in world.told(group)].count("TSG_GROUP_REPLACING") == 1, "it was told more than once"


def test_machines_that_only_looked_stopped_for_a_moment_are_kept_but_for_a_share(world: World) -> None:
    group = settled_group(world, 10)
    before = set(world.ids(group))
    for machine in world.machines(group):
        world.sim.cloud.break_machine(machine, "stopped")
    world.converge()
    for machine in world.machines(group, "stopped"):
        world.sim.cloud.break_machine(machine, "running")
    world.settle()
    assert world.running(group) == 10
    assert len(before & set(world.ids(group))) == 8


def test_a_cloudapi_that_knows_no_machine_any_more_has_a_share_replaced_and_not_all(world: World) -> None:
    group = settled_group(world, 10)
    denying = {"error_share": 1, "error_status": 404, "error_code": "ResourceNotFound", "error_endpoints": ["GetMachine", "DeleteMachine"]}
    world.sim.knobs.turn({"empty_lists": True, **denying})
    world.converge()
    world.later(A_WHILE)
    world.converge()
    assert world.creates == 13, "two in the place of two, and one in the place of those two, which it does not know either"
    world.sim.knobs.turn({"empty_lists": False, "error_share": 0})
    world.settle()
    world.later(600)  # what was seen to be gone and is listed all the same is believed to live after ten minutes
    world.settle()
    assert world.running(group) == len(world.machines(group)) == 10


# Launches that fail


def refusing(world: World, count: int = 100_000) -> None:
    refusal = {"refuse_status": 409, "refuse_code": "ValidationFailed", "refuse_message": "package is not active"}
    world.sim.knobs.turn({"refuse_next_creates": count, **refusal})


def test_after_refused_launches_one_two_and_four_are_tried(world: World) -> None:
    refusing(world)
    group = world.make_group(7)
    assert tries(world) >= 1
    assert tries(world) == 0, "there was no pause"
    world.later(A_WHILE)
    assert tries(world) == 1
    refusing(world, 0)
    for size in (1, 2, 4):
        world.later(A_WHILE)
        assert tries(world) == size
    world.later(A_WHILE)
    world.converge()
    assert world.running(group) == 7
    row = world.group_row(group)
    assert (row.launch_failures, row.launch_window, row.launch_at, row.last_error) == (0, None, None, None)


def test_machines_that_fail_after_they_were_accepted_are_tried_gently_too(world: World) -> None:
    world.sim.knobs.turn({"fail_share": 1.0})
    group = world.make_group(20)
    assert tries(world) == 20
    world.later(A_WHILE)
    assert tries(world) == 1
    assert "never came to run: it was failed" in world.group_row(group).last_error
    for _ in range(3):
        world.later(A_WHILE)
        assert tries(world) <= 1
    assert world.group_row(group).launch_failures >= 3
    world.sim.knobs.turn({"fail_share": 0.0})
    for _ in range(3):
        world.later(120)
        world.settle()
    assert world.running(group) == len(world.machines(group)) == 20


def open_breaker(world: World, group: Group) -> None:
    for _ in range(LIMITS.breaker):
        tries(world)
        world.later(A_WHILE)
    assert world.group_row(group).reason == Reason.CIRCUIT_OPEN


def test_while_cloudapi_refuses_an_account_all_its_groups_cost_as_much_as_one(world: World) -> None:
    groups = [world.make_group(1, interval=60) for _ in range(12)]
    world.settle()
    for number, group in enumerate(groups):
        due = "UPDATE tsg_group_state SET check_at = now() + interval '{0} seconds', rest_at = now() + interval '{0} seconds'"
        world.sql(f"{due.format(number * 1.3)} WHERE group_id = :id", id=group.id)
    world.sim.knobs.turn({"error_share": 1, "error_status": 401})
    asked = world.asked("ListMachines")
    world.live(lambda: False, most=120)
    assert world.asked("ListMachines") - asked <= 10, "1 to 2 s, then 2 to 4, ... apart"
    assert {world.group_row(group).reason for group in groups} == {Reason.ACCOUNT_REJECTED}
    world.sim.knobs.turn({"error_share": 0})
    asked = world.asked("ListMachines")
    world.live(lambda: all(world.group_row(group).reason == Reason.SETTLED for group in groups), most=300)
    assert world.asked("ListMachines") - asked <= 2


def test_a_template_that_is_refused_costs_one_create_a_minute_at_most_and_other_groups_nothing(world: World) -> None:
    bad = world.make_group(10, template=world.make_template(package=NOBODYS))
    open_breaker(world, bad)
    good = world.make_group(3)
    assert tries(world) == 3
    row = world.group_row(bad)
    assert (row.reason, row.launch_failures) == (Reason.CIRCUIT_OPEN, LIMITS.breaker)
    assert f"{NOBODYS} not found" in row.last_error, "what CloudAPI said is still to be read"
    world.sql("UPDATE tsg_group_state SET check_at = now() WHERE group_id = :id", id=bad.id)
    with world.db.read() as connection:
        told = status.find(connection, bad.id)
    assert told is not None
    assert (told.next_attempt_at, told.stuck) == (row.launch_at, True), "a look is no attempt"
    world.later(25)
    assert tries(world) == 0
    world.later(25)
    assert tries(world) == 1
    world.later(55)
    assert tries(world) == 0
    world.later(700)
    assert tries(world) == 1
    assert world.running(good) == 3
    assert world.group_row(good).reason == Reason.SETTLED


def test_a_change_of_the_group_is_tried_at_once_and_success_closes_the_breaker(world: World) -> None:
    group = world.make_group(3, template=world.make_template(package=NOBODYS))
    open_breaker(world, group)
    world.later(100)
    assert tries(world) == 1
    assert tries(world) == 0
    world.resize(group, 3, template=world.make_template())
    assert tries(world) == 1, "half open: one, and no more until it runs"
    world.settle()
    assert world.running(group) == 3
    assert world.group_row(group).launch_failures == 0


def test_a_pause_outlives_the_worker(world: World) -> None:
    refusing(world)
    world.make_group(3)
    tries(world)
    asked = world.asked("CreateMachine")
    world.converge(world.make_worker("worker-2"))
    assert world.asked("CreateMachine") == asked


# Fairness


def test_a_large_group_keeps_small_ones_waiting_for_no_more_than_is_under_way(world: World) -> None:
    large, small = world.make_group(90), [world.make_group(1) for _ in range(5)]
    world.converge()
    order = [machine.tags["tsg.group"] for machine in world.sim.cloud.all_machines()]
    assert order.count(large.id) == 90
    assert max(order.index(group.id) for group in small) < 45


# Machines without a group


@pytest.mark.parametrize("has_other_groups", [True, False])
def test_a_machine_that_turns_up_after_its_deleted_group_was_empty_is_deleted(world: World, *, has_other_groups: bool) -> None:
    group = settled_group(world, 1)
    world.delete(group)
    world.settle()
    assert world.group_row(group).emptied_at is not None
    if has_other_groups:
        world.make_group(1)
        world.sql("UPDATE tsg_group_state SET check_at = NULL WHERE group_id = :id", id=group.id)
    late = machine_with(world, **{"tsg.group": group.id})
    world.later(PROVISION_SECONDS + 1)
    world.settle()
    assert state_of(world, late) == "deleted"
    assert world.group_row(group).emptied_at is not None


def test_a_deleted_group_is_looked_at_again_for_a_day(world: World) -> None:
    group = settled_group(world, 1)
    world.delete(group)
    world.settle()
    looks = 0
    while world.group_row(group).check_at is not None and looks < 20:
        world.later(
            world.sql("SELECT extract(epoch FROM check_at - now())::float FROM tsg_group_state WHERE group_id = :id", id=group.id)[0][0] + 1
        )
        lists = world.asked("ListMachines")
        world.worker.run(world.account.id)
        looks += world.asked("ListMachines") - lists
    assert 4 <= looks <= 6


def test_machines_of_nobody_s_groups_are_told_once_and_left_alone(world: World) -> None:
    strange = [machine_with(world, **{"tsg.group": told}) for told in (NOBODYS, "no id at all")] + [machine_with(world)]
    group = world.make_group(1)
    with capture_logs() as logs:
        world.settle()
    told = [line for line in logs if line["event"] == "unknown_tagged_machines"]
    assert [line["machine_ids"] for line in told] == [sorted(strange)]
    another = machine_with(world, **{"tsg.group": NOBODYS})
    with capture_logs() as logs:
        world.delete(group)
        world.settle()
    told = [line for line in logs if line["event"] == "unknown_tagged_machines"]
    assert [line["machine_ids"] for line in told] == [[another]]
    assert [state_of(world, machine_id) for machine_id in [*strange, another]] == ["running"] * 4


def test_a_template_that_was_archived_is_still_what_its_groups_are_made_of(world: World) -> None:
    group = world.make_group(1)
    world.sql("UPDATE tsg_templates SET archived = true WHERE id = :id", id=group.template_id)
    with world.db.read() as connection:
        assert group.template_id in templates.get_by_ids(connection, {group.template_id})
    world.settle()
    assert world.running(group) == 1
