"""The rows of rollouts: one at a time for a group, and what may be asked of it when."""

import uuid
from typing import Any

import pytest

from shared.errors import Conflict, Invalid, NotFound
from shared.spec.rollout import ASKS, ENDED, Ask, Rollout, State
from shared.spec.rollout_settings import OnFailure, RolloutSettings
from shared.state import groups, rollouts, templates
from shared.state.groups import Group
from tests.integration.api.service import together
from tests.integration.conftest import World

SETTINGS = RolloutSettings()


def begin(world: World, group: Group, template_id: str | None = None, settings: RolloutSettings = SETTINGS) -> Rollout:
    def work(connection: Any) -> Rollout:
        return rollouts.insert_rollout(connection, world.account.id, group.id, template_id=template_id, settings=settings, request_id="R")

    return world.db.transact(work)


def ask(world: World, rollout: Rollout, what: Ask) -> Rollout:
    return world.db.transact(
        lambda connection: rollouts.ask(connection, world.account.id, rollout.group_id, rollout.id, what, request_id="R")
    )


def put(world: World, rollout: Rollout, state: State) -> None:
    """What a worker writes."""
    ended = "now()" if state in ENDED else "NULL"
    world.sql(f"UPDATE tsg_rollouts SET state = :state, ended_at = {ended} WHERE id = :id", state=state, id=rollout.id)


def stored(world: World, group: Group) -> Group:
    with world.db.read() as connection:
        return groups.get(connection, world.account.id, group.id)


def previous(world: World, group: Group) -> str | None:
    ((found,),) = world.sql("SELECT previous_template_id::text FROM tsg_groups WHERE id = :id", id=group.id)
    return str(found) if found else None


def test_a_rollout_gives_the_group_its_template_and_keeps_the_one_before(world: World) -> None:
    group, template = world.make_group(3), world.make_template()
    made = begin(world, group, template.id)
    assert (made.template_id, made.previous_template_id, made.state, made.settings) == (template.id, group.template_id, "Pending", SETTINGS)
    changed = stored(world, group)
    assert (changed.template_id, changed.generation) == (template.id, group.generation + 1)
    assert previous(world, group) == group.template_id
    told = world.told(group)[-1]
    assert (told.kind, told.rollout_id, told.request_id) == ("TSG_ROLLOUT_START", made.id, "R")
    assert told.description == f"rollout {made.id} (template {group.template_id} -> {template.id}) was started"


def test_without_a_template_it_is_a_reload(world: World) -> None:
    group = world.make_group(3)
    made = begin(world, group)
    assert made.is_reload
    assert (stored(world, group).template_id, previous(world, group)) == (group.template_id, None)


def test_one_rollout_at_a_time(world: World) -> None:
    group = world.make_group(3)
    first = begin(world, group)
    with pytest.raises(Conflict, match=first.id):
        begin(world, group)
    assert stored(world, group).generation == group.generation + 1
    ask(world, first, Ask.CANCEL)
    second = begin(world, group)
    with world.db.read() as connection:
        assert [one.id for one in rollouts.list_of_group(connection, group.id, limit=9)] == [second.id, first.id]
        assert [one.id for one in rollouts.list_of_group(connection, group.id, limit=9, marker=second.id)] == [first.id]
        assert rollouts.list_under_way(connection, [group.id]) == {group.id: second}


def test_of_several_at_once_one_begins(world: World) -> None:
    group = world.make_group(3)

    def attempt(_number: int) -> Rollout | None:
        try:
            return begin(world, group)
        except Conflict:
            return None

    made = [one for one in together(4, attempt) if one]
    assert len(made) == 1


def test_a_template_that_is_not_the_accounts_is_refused(world: World) -> None:
    group = world.make_group(3)
    with pytest.raises(Invalid, match="there is no template"):
        begin(world, group, str(uuid.uuid4()))
    with pytest.raises(Invalid, match="no other one to go back to"):
        begin(world, group, settings=SETTINGS.model_copy(update={"on_failure": OnFailure.ROLLBACK}))
    with pytest.raises(NotFound):
        begin(world, group._replace(id=str(uuid.uuid4())))


@pytest.mark.parametrize("what", list(Ask))
@pytest.mark.parametrize("state", list(State))
def test_what_may_be_asked_depends_on_the_state(world: World, what: Ask, state: State) -> None:
    group = world.make_group(3)
    made = begin(world, group, world.make_template().id)
    put(world, made, state)
    allowed, then = ASKS[what]
    before = stored(world, group)
    if state not in allowed:
        with pytest.raises(Conflict, match=f"is {state}"):
            ask(world, made, what)
        assert stored(world, group) == before
        return
    asked = ask(world, made, what)
    assert (asked.state, asked.asked, asked.ended_at is not None) == (then, what, then in ENDED)
    after = stored(world, group)
    assert after.generation == before.generation + 1
    assert after.template_id == (group.template_id if what == Ask.ROLLBACK else made.template_id)
    assert world.told(group)[-1].kind == f"TSG_ROLLOUT_{what.upper()}"


def test_only_the_newest_goes_back_and_only_to_a_template_that_is_there(world: World) -> None:
    group, template = world.make_group(3), world.make_template()
    first = begin(world, group, template.id)
    put(world, first, State.SUCCESSFUL)
    reload = begin(world, group)
    put(world, reload, State.SUCCESSFUL)
    with pytest.raises(Conflict, match="is not the group's newest"):
        ask(world, first, Ask.ROLLBACK)
    with pytest.raises(Conflict, match="is a reload"):
        ask(world, reload, Ask.ROLLBACK)
    last = begin(world, group, world.make_template().id)
    put(world, last, State.SUCCESSFUL)
    world.db.transact(lambda connection: templates.archive(connection, world.account.id, template.id))
    with pytest.raises(Conflict, match="is deleted"):
        ask(world, last, Ask.ROLLBACK)


def test_a_template_that_a_rollout_may_go_back_to_stays(world: World) -> None:
    group = world.make_group(3)
    made = begin(world, group, world.make_template().id)
    with pytest.raises(Conflict, match="while in use"):
        world.db.transact(lambda connection: templates.archive(connection, world.account.id, group.template_id))
    put(world, made, State.SUCCESSFUL)
    world.db.transact(lambda connection: templates.archive(connection, world.account.id, group.template_id))


def test_a_deleted_group_has_no_rollout_under_way(world: World) -> None:
    group = world.make_group(3)
    made = begin(world, group)
    world.delete(group)
    with world.db.read() as connection:
        assert rollouts.get(connection, group.id, made.id).state == State.CANCELLED
    with pytest.raises(NotFound):
        ask(world, made, Ask.ROLLBACK)


def test_the_newest_of_a_group_are_kept_and_others_are_forgotten_in_time(world: World) -> None:
    group = world.make_group(0)
    made = []
    for _ in range(rollouts.KEPT + 3):
        made.append(begin(world, group))
        put(world, made[-1], State.SUCCESSFUL)
    ended = "UPDATE tsg_rollouts SET ended_at = now() - interval '50 days' WHERE group_id = :group_id AND id <> :id"
    world.sql(ended, group_id=group.id, id=made[1].id)

    def forget(days: int = 42) -> int:
        return world.db.transact(lambda connection: rollouts.delete_old(connection, days=days, limit=1000))

    def left() -> list[str]:
        with world.db.read() as connection:
            return [one.id for one in rollouts.list_of_group(connection, group.id, limit=100)]

    assert [forget(51), forget(), forget()] == [0, 2, 0]
    assert left() == [one.id for one in reversed([made[1], *made[3:]])]
    world.delete(group)
    assert (forget(), left()) == (rollouts.KEPT, [made[1].id])
