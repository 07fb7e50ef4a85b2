"""Lists that are read in pages: an account's live objects, the oldest first, from behind one of them on."""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Column, ColumnElement, Connection, Integer, Table, any_, bindparam, cast, func, literal_column, select, tuple_

from shared.errors import FieldError, Invalid
from shared.store.prepared import Prepared
from shared.store.rows import T, columns


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
    parameters = {"owner": account_id, "most": limit}
    if marker is not None:
        found = select(table.c.created_at).where(table.c.id == marker, table.c.account_id == account_id)
        parameters |= {"marker": marker, "marked_at": connection.execute(found).scalar_one_or_none()}
        if parameters["marked_at"] is None:
            raise Invalid([FieldError("marker", f"marker: there is nothing with the id {marker} in this list")])
    return _page(table, tuple(long), is_first=marker is None).all(connection, parameters)


@cache
def _page(table: Table, long: tuple[Any, ...], *, is_first: bool) -> Prepared[Entry]:
    nothing: ColumnElement[int] = literal_column("0", Integer)
    sizes = [func.coalesce(func.octet_length(column), nothing) for column in long]
    mine = select(*columns(Entry, table, size=sum(sizes, nothing))).where(table.c.account_id == bindparam("owner"), ~table.c.archived)
    if not is_first:
        marker = (bindparam("marked_at", type_=table.c.created_at.type), bindparam("marker", type_=table.c.id.type))
        mine = mine.where(tuple_(table.c.created_at, table.c.id) > tuple_(*marker))
    return Prepared(Entry, mine.order_by(table.c.created_at, table.c.id).limit(bindparam("most", type_=Integer)))


def by_ids(kind: type[T], key: Column[str], columns: Sequence[ColumnElement[Any]], *conditions: ColumnElement[bool]) -> Prepared[T]:
    """Reads the rows whose `key` is one of `array(ids)`, in any order."""
    return Prepared(kind, select(*columns).where(key == any_(cast(bindparam("ids"), ARRAY(key.type))), *conditions))


def array(ids: Collection[str]) -> dict[str, str]:
    """UUIDs as the parameter of a statement that was made by `by_ids`."""
    return {"ids": f"{{{','.join(ids)}}}"}


def count(connection: Connection, table: Table, account_id: str) -> int:
    """How many live objects of a kind the account has."""
    statement = select(func.count()).select_from(table).where(table.c.account_id == account_id, ~table.c.archived)
    return int(connection.execute(statement).scalar_one())
