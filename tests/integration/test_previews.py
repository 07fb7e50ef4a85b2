"""A preview says what then happens."""

import json
import os
import random
from collections import Counter
from typing import Any

from shared.plan.preview import Preview, preview, sight_of
from shared.plan.rolling import rolling_of
from shared.spec.rollout_settings import RolloutSettings
from shared.state import group_state, instance_lists, rollouts, templates
from shared.state.groups import Group
from tests.integration.conftest import LIMITS, World

CASES = int(os.environ.get("TSG_TEST_CASES") or 6)


def foreseen(world: World, group: Group) -> Preview:
    """What is about to happen to the group as it stands."""
    with world.db.read() as connection:
        seen = group_state.get(connection, world.account.id, group.id)
        now, known = instance_lists.list_for_preview(connection, group.id)
        rollout = rollouts.find_under_way(connection, group.id)
        specs = {
            one.id: one.spec
            for one in templates.get_by_ids(
                connection, {row.template_id for row, *_ in known if row.template_id} | {seen.template_id}
            ).values()
        }
    rolling = rolling_of(rollout, specs) if rollout else None
    return preview(seen, [sight_of(*one) for one in known], now, LIMITS, rolling)


def change_something(world: World, group: Group, rng: random.Random) -> None:
    """What its owner may do in one request."""
    chosen = rng.choice(["resize", "remove", "roll", "reload", "update", "vote"])
    machine = rng.choice(world.ids(group))
    if chosen == "resize":
        world.resize(group, rng.randrange(0, 10))
    elif chosen in {"roll", "reload", "update"}:
        template = {"roll": {"package": "sim-large"}, "update": {"tags": {"a": "b"}}}.get(chosen)
        settings = {"bake_seconds": 0, "max_surge": rng.choice([1, 2, "50%"]), "max_unavailable": rng.choice([0, 1]), "protected": "skip"}
        template_id = world.make_template(**template).id if template else None
        wanted = RolloutSettings.model_validate_json(json.dumps(settings))
        world.db.transact(
            lambda connection: rollouts.insert_rollout(
                connection, world.account.id, group.id, template_id=template_id, settings=wanted, request_id=None
            )
        )
    else:
        value = "desired = 'gone'" if chosen == "remove" else "vote = 'unhealthy'"
        world.sql(f"UPDATE tsg_instances SET {value} WHERE machine_id = :id", id=machine)
    world.sql("UPDATE tsg_group_state SET check_at = now() WHERE group_id = :id", id=group.id)


def test_what_is_foreseen_is_what_then_happens(world: World) -> None:
    seed = int(os.environ.get("TSG_TEST_SEED") or random.randrange(10**6))
    print("seed", seed)  # noqa: T201 - to repeat what failed
    rng = random.Random(seed)
    for case in range(CASES):
        drain: dict[str, Any] = {"drain": {"seconds": 30, "cns": False}} if rng.random() < 0.3 else {}
        policy = rng.sample(["outdated", "oldest", "newest", "unready"], 2)
        group = world.make_group(0, termination_policy=policy, ready_seconds=rng.choice([0, 30]), **drain)
        for capacity in sorted(rng.randrange(1, 6) for _ in range(2)):
            world.resize(group, capacity)
            world.settle()
        world.later(60)
        before = {machine.id for machine in world.machines(group)}
        if rng.random() < 0.3:
            world.sql("UPDATE tsg_instances SET protected = true WHERE machine_id = :id", id=rng.choice(sorted(before)))
        change_something(world, group, rng)
        told = foreseen(world, group)
        creates, seconds = world.creates, 0.0
        while seconds < 900:
            seconds += world.live(lambda: False, most=100)
            if not world.sql("SELECT 1 FROM tsg_rollouts WHERE group_id = :id AND ended_at IS NULL", id=group.id) and not world._moves():
                break
        after = {machine.id for machine in world.machines(group)}
        actions = Counter(change.action for change in told.changes)
        leaving = {change.machine_id for change in told.changes if change.action in {"terminate", "drain", "replace"}}
        assert leaving == before - after, (seed, case, told)
        assert sum(change.launches for change in told.changes) + actions["replace"] == world.creates - creates == len(after - before), (
            seed,
            case,
            told,
        )
        updated = {change.machine_id for change in told.changes if change.action == "update"}
        assert updated == {
            row.machine_id
            for row in world.rows(group)
            if row.machine_id in before and row.template_id == world.template_id(group) != group.template_id
        }


def test_it_ends_for_a_rollout_that_waits_for_somebody(world: World) -> None:
    group = world.make_group(4)
    world.settle()
    settings = RolloutSettings.model_validate_json(
        json.dumps({"steps": [{"percent": 25, "pause": True}, {"percent": 50, "pause_seconds": 60}, {"percent": 100}], "max_surge": 1})
    )
    world.db.transact(
        lambda c: rollouts.insert_rollout(c, world.account.id, group.id, template_id=None, settings=settings, request_id=None)
    )
    told = foreseen(world, group)
    assert Counter(change.action for change in told.changes) == {"replace": 4}
    assert {change.why for change in told.changes} == {"was not of the rollout's template"}
    assert [wave.pause_seconds for wave in told.waves if wave.pause_seconds != 0] == [None, 60]
    assert sum(wave.launch for wave in told.waves) == 4
