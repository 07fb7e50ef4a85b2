"""What must not grow with the number of groups."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, text

from dev.benches.plans import reads_of
from shared.state import group_state, leases
from shared.store.db import Database
from tests.integration.conftest import World

#: Of one account, in the shape of a service that is at rest: all settled, a few due.
GROUPS, DUE = 20_000, 50

FILL = """
WITH account AS (INSERT INTO tsg_accounts (account_name, triton_uuid, created_at, updated_at)
                 VALUES ('big', gen_random_uuid()::text, now(), now()) RETURNING id),
template AS (INSERT INTO tsg_templates (template_name, account_id, package, image_id, created_at)
             SELECT 't', id, 'p', 'i', now() FROM account RETURNING id, account_id), made AS (
    INSERT INTO tsg_groups (name, template_id, account_id, capacity, created_at, updated_at, check_at)
    SELECT 'g' || n, id, account_id, 1, now(), now(), NULL FROM template, generate_series(1, :groups) n RETURNING id, account_id, name)
INSERT INTO tsg_group_state (group_id, account_id, reason, check_at)
SELECT id, account_id, 'Settled', now() + CASE WHEN substr(name, 2)::int <= :due THEN interval '-1 second' ELSE interval '1 hour' END
FROM made RETURNING account_id::text
"""


@contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """What is sent to the database meanwhile."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        sent.append((statement, parameters))

    engines = (database.engine, database.reader)
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    yield sent
    for engine in engines:
        event.remove(engine, "before_cursor_execute", note)


def test_what_is_due_is_found_by_an_index_among_however_many_groups(database: Database) -> None:
    with database.engine.begin() as connection:
        account_id = connection.execute(text(FILL), {"groups": GROUPS, "due": DUE}).scalars().first()
    with database.read() as connection:
        connection.execute(text("ANALYZE"))
        with statements(database) as sent:
            assert leases.claim_due(connection, limit=1000) == [account_id]
            assert len(group_state.list_due(connection, account_id, limit=1000)) == DUE
        asked = [(statement, parameters) for statement, parameters in sent if statement.lstrip().startswith("SELECT")]
        assert len(asked) == 2
        for statement, parameters in asked:
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
            assert "tsg_group_state_due" in plan or "tsg_group_state_of_account" in plan, plan
            assert "Seq Scan on tsg_group" not in plan, plan


def test_a_worker_reads_the_groups_of_its_account_while_those_of_all_are_due(database: Database) -> None:
    """After a long stop."""
    with database.engine.begin() as connection:
        connection.execute(text(FILL), {"groups": GROUPS, "due": GROUPS})
        account_id = connection.execute(text(FILL.replace("'big'", "'small'")), {"groups": DUE, "due": DUE}).scalars().first()
    with database.read() as connection:
        connection.execute(text("ANALYZE"))
        url = connection.engine.url
    (due,) = reads_of(url, lambda connection: group_state.list_due(connection, account_id, limit=1000))
    (owners,) = reads_of(url, lambda connection: group_state.list_owners(connection, account_id, ids=[account_id], names=["g1"]))
    assert "tsg_group_state_of_account" in due.indexes, due
    assert not [*due.whole, *owners.whole], (due, owners)


def test_a_round_of_settled_groups_asks_as_little_for_many_as_for_few(world: World) -> None:
    def round_of_all() -> tuple[int, int]:
        asked = world.asked("ListMachines")
        with statements(world.db) as sent:
            world.converge()
        return len(sent), world.asked("ListMachines") - asked

    template = world.make_template()
    for _ in range(2):
        world.make_group(1, template=template)
    world.settle()
    few = round_of_all()
    for _ in range(10):
        world.make_group(1, template=template)
    world.settle()
    assert round_of_all() == few
    assert few[1] == 1


def test_settled_groups_are_looked_at_together_when_the_first_of_them_is_due(world: World) -> None:
    template = world.make_template()
    made = [world.make_group(1, template=template) for _ in range(3)]
    world.settle()
    world.sql("UPDATE tsg_group_state SET check_at = now() + interval '140 seconds' WHERE group_id = :id", id=made[0].id)
    world.sql("UPDATE tsg_group_state SET check_at = now() + interval '160 seconds' WHERE group_id = :id", id=made[1].id)

    def due() -> set[str]:
        with world.db.read() as connection:
            return {work.id for work in group_state.list_due(connection, world.account.id, limit=10)}

    assert due() == set()
    world.sql("UPDATE tsg_group_state SET check_at = now() WHERE group_id = :id", id=made[2].id)
    assert due() == {made[0].id, made[2].id}


def test_machines_that_are_deleted_together_are_looked_for_together(world: World) -> None:
    group = world.make_group(12)
    world.settle()
    world.resize(group, 1)
    world.settle()
    assert world.running(group) == 1
    assert world.states(group) == ["running"]
    assert world.deletes == 11
    assert world.asked("GetMachine") == 0
