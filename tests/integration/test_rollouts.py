"""Rollouts with a real database and a simulated cloud: waves, canaries, the way back, scaling meanwhile."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from dev.sim.cloudapi.catalog import OLD_IMAGE
from shared import metrics
from shared.reasons import Reason
from shared.spec.rollout import ENDED, Ask, Rollout, State
from shared.spec.rollout_settings import RolloutSettings
from shared.state import rollouts
from shared.state.groups import Group
from shared.state.templates import Template
from tests.integration.conftest import PROVISION_SECONDS, World


def begin(world: World, group: Group, template: Template | None, **settings: Any) -> Rollout:
    chosen = RolloutSettings.model_validate_json(json.dumps({"bake_seconds": 0, **settings}))
    template_id = template.id if template else None
    return world.db.transact(
        lambda connection: rollouts.insert_rollout(
            connection, world.account.id, group.id, template_id=template_id, settings=chosen, request_id=None
        )
    )


def ask(world: World, rollout: Rollout, what: Ask) -> None:
    world.db.transact(lambda connection: rollouts.ask(connection, world.account.id, rollout.group_id, rollout.id, what, request_id=None))


def now(world: World, rollout: Rollout) -> Rollout:
    with world.db.read() as connection:
        return rollouts.get(connection, rollout.group_id, rollout.id)


def is_over(world: World, rollout: Rollout) -> bool:
    return now(world, rollout).state in ENDED


def live(world: World, done: Callable[[], bool], *, most: float = 2000, seen: Callable[[], None] = lambda: None) -> float:
    def look() -> bool:
        seen()
        return done()

    elapsed = world.live(look, most=most)
    assert done(), world.sql("SELECT * FROM tsg_rollouts")
    return elapsed


def made_from(world: World, group: Group, template_id: str) -> list[str]:
    return [machine.id for machine in world.machines(group, "provisioning", "running") if machine.tags["tsg.template"] == template_id]


@pytest.fixture
def other(world: World) -> Template:
    return world.make_template(package="sim-large")


def test_a_reload_of_fifty_keeps_fifty_available_and_at_most_sixty_there(world: World) -> None:
    group = world.make_group(50)
    world.settle()
    before = set(world.ids(group))
    rollout = begin(world, group, None, max_surge="20%")
    seen: list[tuple[int, int]] = []

    def look() -> None:
        seen.append((len(world.machines(group, "running")), len(world.machines(group, "provisioning", "running"))))

    seconds = live(world, lambda: is_over(world, rollout), seen=look)
    assert now(world, rollout).state == State.SUCCESSFUL
    assert min(available for available, _ in seen) == 50
    assert max(there for _, there in seen) == 60
    assert before.isdisjoint(world.ids(group, "running"))
    assert world.running(group) == 50
    assert seconds <= 1.3 * 5 * PROVISION_SECONDS
    assert world.creates == 100
    kinds = [activity.kind for activity in world.told(group) if activity.rollout_id == rollout.id]
    assert kinds.count("TSG_ROLLOUT_WAVE") >= 5
    assert kinds.count("TSG_INSTANCE_LAUNCH") == kinds.count("TSG_INSTANCE_TERMINATE") == 50
    live(world, lambda: world.group_row(group).reason == Reason.SETTLED)


def test_a_rollout_without_surge_fits_into_the_account_s_quota(world: World) -> None:
    group = world.make_group(10)
    world.settle()
    world.sim.knobs.turn({"default_quota": 10, "delete_seconds": 0})
    rollout = begin(world, group, None, max_surge=0, max_unavailable="50%")
    live(world, lambda: is_over(world, rollout))
    assert now(world, rollout).state == State.SUCCESSFUL
    assert world.sim.cloud.counters.to_json()["by_endpoint"]["CreateMachine"] == {"201": 20}, "none was asked for before there was room"


def test_a_quota_that_machines_fill_which_are_being_deleted_is_waited_for(world: World) -> None:
    group = world.make_group(10)
    world.settle()
    world.sim.knobs.turn({"default_quota": 10, "delete_seconds": 4})
    rollout = begin(world, group, None, max_surge=0, max_unavailable="50%", max_failures=1)
    before = metrics.launches.labels("no_room")._value.get()
    with capture_logs() as logs:
        live(world, lambda: is_over(world, rollout))
    assert (now(world, rollout).state, now(world, rollout).counts.failed, world.creates) == (State.SUCCESSFUL, 0, 20)
    assert "TSG_INSTANCE_LAUNCH_ERROR" not in world.kinds(group)
    assert "launch_failed" not in {one["event"] for one in logs}
    assert metrics.launches.labels("no_room")._value.get() > before


def test_what_could_not_be_deleted_is_not_replaced_yet(world: World) -> None:
    group = world.make_group(10)
    world.settle()
    world.sim.knobs.turn({"error_share": 1, "error_endpoints": ["DeleteMachine"]})
    rollout = begin(world, group, None, max_surge=0, max_unavailable="50%")
    world.converge()
    assert (world.asked("DeleteMachine"), world.creates, len(world.machines(group))) == (5, 10, 10)
    world.sim.knobs.turn({"error_share": 0})
    live(world, lambda: is_over(world, rollout))
    assert (now(world, rollout).state, world.creates) == (State.SUCCESSFUL, 20)


def test_a_canary_that_never_boots_is_rolled_back_to_the_same_machines(world: World) -> None:
    group = world.make_group(50)
    world.settle()
    before = set(world.ids(group))
    broken = world.make_template(image_id=OLD_IMAGE)
    world.sim.cloud.knobs.failing_images = [OLD_IMAGE]
    steps = [{"percent": 10, "pause_seconds": 600}, {"percent": 100}]
    rollout = begin(world, group, broken, max_surge="20%", steps=steps, max_failures=2, on_failure="rollback")
    live(world, lambda: is_over(world, rollout))
    assert now(world, rollout).state == State.ROLLED_BACK
    assert set(world.ids(group, "running")) == before
    assert world.template_id(group) == group.template_id
    assert world.creates <= 50 + 5 + 2
    live(world, lambda: world.group_row(group).reason == Reason.SETTLED)
    told = " ".join(activity.description for activity in world.told(group))
    assert "launches or new members failed (max_failures is 2)" in told


def test_a_template_that_cloudapi_refuses_fails_at_once(world: World) -> None:
    group = world.make_group(3)
    world.settle()
    before = world.ids(group)
    rollout = begin(world, group, world.make_template(package="no-such-package"), max_failures=100)
    live(world, lambda: is_over(world, rollout))
    assert (now(world, rollout).state, now(world, rollout).reason) == (State.FAILED, "TemplateRejected")
    assert world.ids(group) == before


def test_an_outage_of_cloudapi_is_no_delay(world: World, other: Template) -> None:
    group = world.make_group(3)
    world.settle()
    rollout = begin(world, group, other, max_surge=1, progress_deadline_seconds=100, on_failure="rollback")
    live(world, lambda: now(world, rollout).counts.new_available == 1)
    world.sim.knobs.turn({"error_share": 1, "error_endpoints": ["CreateMachine"]})
    live(world, lambda: now(world, rollout).counts.new_available == len(made_from(world, group, other.id)))
    world.sim.knobs.turn({"error_endpoints": ["CreateMachine", "ListMachines"]})
    world.live(lambda: False, most=240)
    world.sim.knobs.turn({"error_endpoints": ["CreateMachine"]})
    world.live(lambda: False, most=20)
    assert now(world, rollout).state == State.IN_PROGRESS
    world.sim.knobs.turn({"error_share": 0})
    live(world, lambda: is_over(world, rollout))
    assert now(world, rollout).state == State.SUCCESSFUL


def test_scaling_goes_on_meanwhile_and_the_bounds_go_along(world: World, other: Template) -> None:
    group = world.make_group(50)
    world.settle()
    rollout = begin(world, group, other, max_surge="20%")
    capacity = 50

    def look() -> None:
        assert len(world.machines(group, "provisioning", "running")) <= max(50, capacity) * 1.2
        assert world.running(group) >= min(50, capacity)

    live(world, lambda: len(made_from(world, group, other.id)) >= 20, seen=look)
    capacity = 70
    world.resize(group, capacity, template=other)
    live(world, lambda: world.running(group) >= 70, seen=look)
    world.sim.cloud.kill(world.machines(group, "running")[-1])
    capacity = 20
    world.resize(group, capacity, template=other)
    live(world, lambda: is_over(world, rollout))
    live(world, lambda: world.group_row(group).reason == Reason.SETTLED)
    assert now(world, rollout).state == State.SUCCESSFUL
    assert made_from(world, group, group.template_id) == []
    assert world.running(group) == 20


def test_a_pause_a_resume_a_cancel_and_a_rollback_are_done(world: World, other: Template) -> None:
    group = world.make_group(4)
    world.settle()
    rollout = begin(world, group, other, max_surge=1)
    world.converge()
    ask(world, rollout, Ask.PAUSE)
    live(world, lambda: now(world, rollout).state == State.PAUSED)
    world.live(lambda: False, most=300)
    assert len(made_from(world, group, other.id)) == 1
    assert world.group_row(group).reason == Reason.ROLLOUT_PAUSED
    ask(world, rollout, Ask.RESUME)
    live(world, lambda: len(made_from(world, group, other.id)) >= 2)
    ask(world, rollout, Ask.CANCEL)
    live(world, lambda: world.group_row(group).reason == Reason.SETTLED)
    assert now(world, rollout).state == State.CANCELLED
    assert made_from(world, group, group.template_id)
    ask(world, rollout, Ask.ROLLBACK)
    live(world, lambda: is_over(world, rollout))
    assert now(world, rollout).state == State.ROLLED_BACK
    assert made_from(world, group, other.id) == []
    assert world.template_id(group) == group.template_id
    assert world.running(group) == 4


def test_members_are_changed_where_tags_and_metadata_alone_differ(world: World) -> None:
    """What is changed is then as one that is made anew."""
    first = world.make_template(tags={"role": "web", "old": "x", "kept": 1}, metadata={"a": "1", "gone": "x"}, cns_services=["web:80"])
    tags, metadata = {"role": "api", "kept": 1, "on": True, "n": 7}, {"a": "2", "b": 3, "c": True, "d": 1.5}
    second = world.make_template(tags=tags, metadata=metadata, firewall_enabled=True, cns_services=["web:80", "api"], spread="prefer")
    third = world.make_template(tags=tags, metadata=metadata, firewall_enabled=True, cns_services=["web:80", "api"])
    group = world.make_group(3, template=first)
    world.settle()
    before = world.ids(group)
    rollout = begin(world, group, third)
    live(world, lambda: is_over(world, rollout))
    world.later(5)
    assert now(world, rollout).state == State.SUCCESSFUL
    assert (world.ids(group), world.creates) == (before, 3)
    world.resize(group, 4, template=third)
    world.settle()
    looks = [
        (machine.tags | {"tsg.launch": ""}, machine.metadata, machine.firewall_enabled)
        for machine in sorted(world.machines(group), key=lambda machine: machine.id in before)
    ]
    for tags, metadata, is_on in looks[1:]:
        assert set(tags.items()) == set(looks[0][0].items())
        assert set(metadata.items()) == set(looks[0][1].items())
        assert is_on == looks[0][2]
    rollout = begin(world, group, second)
    live(world, lambda: is_over(world, rollout))
    assert set(before).isdisjoint(world.ids(group)), "another rule of placement takes another machine"


def test_members_whose_template_says_the_same_count_as_new(world: World) -> None:
    group = world.make_group(3, template=world.make_template(tags={"role": "web"}))
    world.settle()
    before = world.ids(group)
    rollout = begin(world, group, world.make_template(tags={"role": "web"}))
    live(world, lambda: is_over(world, rollout))
    assert now(world, rollout).state == State.SUCCESSFUL
    assert world.ids(group) == before


def test_a_rolling_update_of_a_put_begins_one(world: World, other: Template) -> None:
    group = world.make_group(2, update={"strategy": "rolling", "bake_seconds": 0})
    world.settle()
    world.resize(group, 2, template=other)
    live(world, lambda: world.group_row(group).reason == Reason.SETTLED and len(made_from(world, group, other.id)) == 2)
    (row,) = world.sql("SELECT state FROM tsg_rollouts WHERE group_id = :id", id=group.id)
    assert row.state == State.SUCCESSFUL


def test_another_template_in_a_put_leaves_members_as_they_are_otherwise(world: World, other: Template) -> None:
    group = world.make_group(2)
    world.settle()
    world.resize(group, 3, template=other)
    world.settle()
    assert (len(made_from(world, group, group.template_id)), len(made_from(world, group, other.id))) == (2, 1)
    world.resize(group, 1, template=other)
    world.settle()
    assert len(made_from(world, group, other.id)) == 1, "the outdated go first"
