"""Lists that are read in pages: an account's live objects, the oldest first, from behind one of them on."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Integer, Select, Table, bindparam, func, literal, select, tuple_

from shared.errors import FieldError, Invalid
from shared.store.rows import all_of, columns


class Entry(NamedTuple):
    """An object of a list, by its id, and the bytes of its long columns."""

    id: str
    size: int = 0


def list_entries(
    connection: Connection, table: Table, long: Sequence[Any], account_id: str, *, limit: int, marker: str | None
) -> list[Entry]:
    """At most `limit` objects behind the one whose id is `marker`, from the first on without. The marker may be deleted meanwhile.

    `long` are the text columns whose size is not known beforehand. PostgreSQL knows it without reading them.

    `Invalid` when the account never had an object of that id.
    """
    place = (table.c.created_at, table.c.id)
    statement = _first(table, tuple(long))
    parameters = {"owner": account_id, "most": limit}
    if marker is not None:
        at = connection.execute(select(*place).where(table.c.id == marker, table.c.account_id == account_id)).one_or_none()
        if at is None:
            raise Invalid([FieldError("marker", f"marker: there is nothing with the id {marker} in this list")])
        statement = statement.where(
            tuple_(*place) > tuple_(*(literal(value, column.type) for value, column in zip(at, place, strict=True)))
        )
    return all_of(Entry, connection.execute(statement, parameters))


@cache
def _first(table: Table, long: tuple[Any, ...]) -> Select[Any]:
    """Built once: to build a statement takes longer than to have it answered."""
    sizes: list[ColumnElement[int]] = [func.coalesce(func.octet_length(column), 0) for column in long]
    mine = select(*columns(Entry, table, size=sum(sizes, literal(0)))).where(table.c.account_id == bindparam("owner"), ~table.c.archived)
    return mine.order_by(table.c.created_at, table.c.id).limit(bindparam("most", type_=Integer))


def count(connection: Connection, table: Table, account_id: str) -> int:
    """How many live objects of a kind the account has."""
    statement = select(func.count()).select_from(table).where(table.c.account_id == account_id, ~table.c.archived)
    return int(connection.execute(statement).scalar_one())
