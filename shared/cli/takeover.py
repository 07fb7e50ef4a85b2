"""What in a database of 2018 is in the way of taking it over: live rows that share what must be unique now.

The 2018 service looked before it wrote, without a lock: two requests at once could make two groups of one name.
"""

from collections import defaultdict
from collections.abc import Iterator

from sqlalchemy import Column, ColumnElement, Connection, Row, and_, func, inspect, select, true

from shared.store.tables import accounts, groups, templates


def obstacles(connection: Connection) -> list[str]:
    """One paragraph for each set of such rows: which they are, and what to do. Changes nothing."""
    there = set(inspect(connection).get_table_names())
    found: list[str] = []
    if accounts.name in there:
        found += _accounts(connection)
    if {accounts.name, templates.name} <= there:
        found += _templates(connection)
    if {accounts.name, groups.name} <= there:
        found += _groups(connection)
    return found


def _accounts(connection: Connection) -> Iterator[str]:
    columns = (accounts.c.triton_uuid,)
    shown = (accounts.c.id, accounts.c.account_name, accounts.c.created_at)
    for (uuid,), rows in _sharing(connection, columns, shown, accounts.c.archived):
        listed = [f"id {row.id}, {row.account_name}, made {row.created_at:%Y-%m-%d %H:%M}" for row in rows]
        yield _paragraph(
            f"tsg_accounts: {len(rows)} live rows have the triton_uuid {uuid}",
            listed,
            [
                "Give the templates and groups of the others to the one that is to stay, and archive them:",
                "UPDATE tsg_templates SET account_id = 'STAYS' WHERE account_id = 'OTHER';",
                "UPDATE tsg_groups SET account_id = 'STAYS' WHERE account_id = 'OTHER';",
                "UPDATE tsg_accounts SET archived = true WHERE id = 'OTHER';",
            ],
        )


def _templates(connection: Connection) -> Iterator[str]:
    columns = (templates.c.account_id, templates.c.template_name)
    shown = (templates.c.id, templates.c.created_at)
    for (account_id, name), rows in _sharing(connection, columns, shown, templates.c.archived):
        listed = [f"id {row.id}, made {row.created_at:%Y-%m-%d %H:%M}" for row in rows]
        yield _paragraph(
            f"tsg_templates: {len(rows)} live rows of the account {account_id} have the template_name {name!r}",
            listed,
            [
                "Groups know their template by its id: give all but one another name:",
                "UPDATE tsg_templates SET template_name = 'NEW' WHERE id = 'OTHER';",
            ],
        )


def _groups(connection: Connection) -> Iterator[str]:
    columns = (groups.c.account_id, groups.c.name)
    shown = (groups.c.id, groups.c.capacity, groups.c.template_id, groups.c.updated_at)
    for (account_id, name), rows in _sharing(connection, columns, shown, groups.c.archived):
        listed = [
            f"id {row.id}, capacity {row.capacity}, template {row.template_id}, changed {row.updated_at:%Y-%m-%d %H:%M}" for row in rows
        ]
        yield _paragraph(
            f"tsg_groups: {len(rows)} live rows of the account {account_id} have the name {name!r}",
            listed,
            [
                "They have the same machines, which know a group by its name. Archive all but the one whose capacity is meant:",
                "UPDATE tsg_groups SET archived = true WHERE id = 'OTHER';",
            ],
        )


def _sharing(
    connection: Connection, columns: tuple[Column[str], ...], shown: tuple[ColumnElement[object], ...], archived: Column[bool]
) -> Iterator[tuple[tuple[str, ...], list[Row[tuple[object, ...]]]]]:
    """The live rows that have the same values in `columns`, by these values."""
    twice = select(*columns).where(~archived, *(column.is_not(None) for column in columns)).group_by(*columns).having(func.count() > 1)
    those = twice.subquery()
    same = and_(true(), *(column == those.c[column.name] for column in columns))
    statement = select(*columns, *shown).join(those, same).where(~archived).order_by(*columns, *shown)
    by_values: dict[tuple[str, ...], list[Row[tuple[object, ...]]]] = defaultdict(list)
    for row in connection.execute(statement):
        by_values[tuple(row[: len(columns)])].append(row)
    yield from by_values.items()


def _paragraph(what: str, rows: list[str], advice: list[str]) -> str:
    return "\n".join([what, *(f"    {row}" for row in rows), *(f"  {line}" for line in advice)])
