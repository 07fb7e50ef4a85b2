"""Groups whose templates say what 2018 could not: where their instances are, what CloudAPI says of them, and how that is told."""

import dataclasses
from collections import Counter
from typing import Any

import pytest

from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, FABRIC_NETWORK, HVM_PACKAGE, PRIVATE_NETWORK
from dev.sim.cloudapi.simulator import Simulator
from shared.reasons import Reason
from shared.state.groups import Group
from tests.integration.conftest import World


def servers(world: World, group: Group) -> list[int]:
    """How many of the group's machines run on each server that has any."""
    return sorted(Counter(machine.compute_node for machine in world.machines(group, "running")).values())


def test_spread_that_is_required_takes_a_server_for_each_instance_and_names_the_rule(world: World, sim: Simulator) -> None:
    sim.knobs.turn({"servers": 3})
    group = world.make_group(6, template=world.make_template(spread="require"))
    world.settle()
    assert servers(world, group) == [1, 1, 1]
    row = world.group_row(group)
    assert row.reason == Reason.NO_CAPACITY
    assert "under the template's rules (spread: require)" in row.last_error
    sim.knobs.turn({"servers": 4})
    world.later(3600)
    world.settle()
    assert servers(world, group) == [1, 1, 1, 1]
    assert world.group_row(group).reason == Reason.NO_CAPACITY


def test_spread_that_is_preferred_is_even_and_keeps_no_instance_back(world: World, sim: Simulator) -> None:
    sim.knobs.turn({"servers": 3})
    group = world.make_group(6, template=world.make_template(spread="prefer"))
    world.settle()
    assert servers(world, group) == [2, 2, 2]
    assert world.group_row(group).reason == Reason.SETTLED


def test_groups_are_spread_apart_from_each_other(world: World, sim: Simulator) -> None:
    sim.knobs.turn({"servers": 2})
    template = world.make_template(spread="require")
    groups = [world.make_group(2, template=template) for _ in range(2)]
    world.settle()
    assert [servers(world, group) for group in groups] == [[1, 1], [1, 1]]


def test_a_hard_rule_without_a_match_is_named(world: World) -> None:
    group = world.make_group(1, template=world.make_template(affinity=["role==cache", "role!=db"]))
    world.converge()
    row = world.group_row(group)
    assert row.reason == Reason.NO_CAPACITY
    assert "(affinity: role==cache; affinity: role!=db)" in row.last_error


def test_a_template_of_2018_is_launched_from_an_image_that_is_shared(world: World, sim: Simulator) -> None:
    image = dataclasses.replace(
        sim.cloud.images[DEFAULT_IMAGE],
        id="11111111-0000-4000-8000-000000000001",
        public=False,
        owner=PRIVATE_NETWORK,
        acl=(world.triton.id,),
    )
    sim.cloud.images[image.id] = image
    old = world.make_template(image_id=image.id)
    assert world.sql("SELECT more FROM tsg_templates WHERE id = :id", id=old.id) == [(None,)]
    group = world.make_group(2, template=old)
    world.settle()
    assert world.running(group) == 2
    refused = world.make_group(1, template=world.make_template(image_id=image.id, allow_shared_images=False))
    world.converge()
    row = world.group_row(refused)
    assert row.reason == Reason.TEMPLATE_REJECTED
    assert row.last_error.startswith("The template's image is another account's: make a template whose allow_shared_images is not false.")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"image_id": "11111111-0000-4000-8000-00000000dead"}, "The template's image was deleted, or is not shared with the account any more"),
    (
        {"volumes": [{"name": "sim-volume", "mountpoint": "/data"}], "networks": [PRIVATE_NETWORK]},
        "A volume of the template can't be reached",
    ),
    ({"package": HVM_PACKAGE}, "The template's brand, package and image do not fit each other"),
    ({"networks": [DEFAULT_IMAGE]}, "The template's networks are not all the account's"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED)
def test_what_a_refused_template_has_to_do_with_it_is_told(world: World, fields: dict[str, Any], words: str) -> None:
    group = world.make_group(1, template=world.make_template(**fields))
    world.converge()
    row = world.group_row(group)
    assert (row.reason, row.last_error.partition(":")[0].partition(" CloudAPI")[0]) == (Reason.TEMPLATE_REJECTED, words)
    before = world.creates
    world.converge()
    assert world.creates == before, "it is not tried again at once"


@pytest.mark.parametrize(
    ("knobs", "fields", "words"),
    [
        ({"delegate_datasets": False}, {"delegate_dataset": True}, "This CloudAPI delegates no datasets"),
        ({"mount_volumes": False}, {"volumes": [{"name": "sim-volume", "mountpoint": "/a"}]}, "This CloudAPI mounts no volumes"),
        ({"fabric_packages": ["other"]}, {"networks": [FABRIC_NETWORK]}, "The template's package may not be in a fabric network"),
    ],
)
def test_what_an_operator_does_not_allow_is_told(
    world: World, sim: Simulator, knobs: dict[str, Any], fields: dict[str, Any], words: str
) -> None:
    sim.knobs.turn(knobs)
    group = world.make_group(1, template=world.make_template(**fields))
    world.converge()
    row = world.group_row(group)
    assert (row.reason, words in row.last_error) == (Reason.TEMPLATE_REJECTED, True), row.last_error


def test_each_instance_is_in_the_group_of_cmon_that_its_template_names(world: World) -> None:
    usual = world.make_group(1)
    named = world.make_group(1, template=world.make_template(tags={"triton.cmon.groups": "web,db"}))
    world.settle()
    assert [machine.tags["triton.cmon.groups"] for machine in world.machines(usual)] == [usual.id]
    assert [machine.tags["triton.cmon.groups"] for machine in world.machines(named)] == ["web,db"]
