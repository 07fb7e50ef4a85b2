"""Rows as named tuples, over any database: the columns of a select, and which results are refused."""

from typing import NamedTuple

import pytest
from sqlalchemy import Connection, create_engine, literal, select

from shared.store.rows import all_of, columns, one_of
from shared.store.tables import accounts, keys


class Pair(NamedTuple):
    left: int
    right: int


class Keyed(NamedTuple):
    id: str
    fingerprint: str
    is_new: bool


@pytest.fixture
def connection():
    engine = create_engine("sqlite://")
    with engine.connect() as made:
        yield made
    engine.dispose()


def pairs(*names: str):
    return select(*(literal(number).label(name) for number, name in enumerate(names, start=1)))


def test_a_field_is_the_column_of_its_name_in_the_first_table_that_has_it_or_the_one_given() -> None:
    found = columns(Keyed, keys, accounts, is_new=keys.c.registered_at.is_(None))
    assert [column.name for column in found] == ["id", "fingerprint", "is_new"]
    assert [column.element for column in found[:2]] == [keys.c.id, keys.c.fingerprint]


def test_a_field_without_a_column_is_refused() -> None:
    with pytest.raises(KeyError, match="is_new"):
        columns(Keyed, keys)


def test_rows_become_tuples(connection: Connection) -> None:
    assert all_of(Pair, connection.execute(pairs("left", "right"))) == [Pair(1, 2)]


@pytest.mark.parametrize("names", [("right", "left"), ("left",), ("left", "right", "more")])
def test_columns_that_are_not_the_fields_in_their_order_are_refused(connection: Connection, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="Pair has the fields"):
        all_of(Pair, connection.execute(pairs(*names)))


def test_one_row_is_read_by_names_and_completed(connection: Connection) -> None:
    assert one_of(Pair, connection.execute(pairs("right", "left"))) == Pair(left=2, right=1)
    assert one_of(Pair, connection.execute(pairs("right")), left=7) == Pair(7, 1)
    assert one_of(Pair, connection.execute(pairs("left", "right").where(literal(value=False)))) is None
