"""Lists that are read in pages: an account's live objects, the oldest first, from behind one of them on."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Integer, Row, Select, Table, bindparam, func, literal, select, tuple_

from shared.errors import FieldError, Invalid


def page(
    connection: Connection, table: Table, columns: Sequence[Any], account_id: str, *, limit: int, marker: str | None
) -> Sequence[Row[Any]]:
    """At most `limit` rows behind the one whose id is `marker`, from the first on without. The marker may be deleted meanwhile.

    `Invalid` when the account never had an object of that id.
    """
    place = (table.c.created_at, table.c.id)
    statement = _first(table, tuple(columns))
    parameters = {"owner": account_id, "most": limit}
    if marker is not None:
        at = connection.execute(select(*place).where(table.c.id == marker, table.c.account_id == account_id)).one_or_none()
        if at is None:
            raise Invalid([FieldError("marker", f"marker: there is nothing with the id {marker} in this list")])
        statement = statement.where(
            tuple_(*place) > tuple_(*(literal(value, column.type) for value, column in zip(at, place, strict=True)))
        )
    return connection.execute(statement, parameters).all()


@cache
def _first(table: Table, columns: tuple[Any, ...]) -> Select[Any]:
    """Built once: to build a statement takes longer than to have it answered."""
    mine = select(*columns).where(table.c.account_id == bindparam("owner"), ~table.c.archived)
    return mine.order_by(table.c.created_at, table.c.id).limit(bindparam("most", type_=Integer))


def count(connection: Connection, table: Table, account_id: str) -> int:
    """How many live objects of a kind the account has."""
    statement = select(func.count()).select_from(table).where(table.c.account_id == account_id, ~table.c.archived)
    return int(connection.execute(statement).scalar_one())
