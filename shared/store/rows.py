"""Rows as named tuples: a select is built from the fields of a tuple type, and each field is filled from the column of its name."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, FromClause, Result

T = TypeVar("T", bound=NamedTuple)


def columns(kind: type[T], *tables: FromClause, **given: ColumnElement[Any]) -> tuple[ColumnElement[Any], ...]:
    """A column for each field of `kind`: the one given for it, else the one of its name in the first table that has it.

    `KeyError` for a field without a column.
    """
    named: dict[str, ColumnElement[Any]] = {column.name: column for table in reversed(tables) for column in table.c}
    named |= given
    return tuple(named[field].label(field) for field in kind._fields)


def check_names(kind: type[T], names: Iterable[str]) -> None:
    """`ValueError` unless a result's columns are named as the fields of `kind`, in their order. Checked once for all rows of a result."""
    if (found := tuple(names)) != kind._fields:
        raise ValueError(f"{kind.__name__} has the fields {kind._fields}, the rows have {found}")


def all_of(kind: type[T], result: Result[Any]) -> list[T]:
    """Every row as `kind`. `ValueError` as for `check_names`."""
    check_names(kind, result.keys())
    make = kind._make
    # A slice of a row is a plain tuple: iterating over the row itself takes longer.
    return [make(row[:]) for row in result.all()]


def one_of(kind: Callable[..., T], result: Result[Any], /, **more: Any) -> T | None:
    """The only row as `kind`, or None when there is none. `more` are the fields that are not in the row."""
    row = result.mappings().one_or_none()
    return kind(**row, **more) if row else None
