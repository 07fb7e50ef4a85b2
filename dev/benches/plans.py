"""What the database reads for each statement that a piece of work sends: each is explained before it is run, and all are undone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg2.extensions
from sqlalchemy import Connection, NullPool, create_engine
from sqlalchemy.engine import URL

#: What can be explained. Such a statement is run twice; what the first run wrote is undone before the second.
EXPLAINED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
#: A whole table of fewer rows is read as cheaply as by an index.
SMALL = 200


class Read(NamedTuple):
    """What one statement read."""

    statement: str
    #: Of tables and indexes together, pages of 8 kB; and rows, those that a condition threw away included; and milliseconds.
    pages: int
    rows: int
    took: float
    #: Tables of which all rows were read, and indexes that were used.
    whole: Sequence[str]
    indexes: Sequence[str]


def reads_of(url: URL, work: Callable[[Connection], Any]) -> list[Read]:
    """Do the work in a transaction that is rolled back; what each of its statements read."""
    found: list[Read] = []

    class Explaining(psycopg2.extensions.cursor):
        def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's own name
            text = query.decode() if isinstance(query, bytes) else str(query)
            if text.lstrip().startswith(EXPLAINED):
                found.append(_explained(self.connection, text, vars))
            super().execute(query, vars)

    with create_engine(url, poolclass=NullPool).connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        driver.cursor_factory = Explaining
        work(connection)
        connection.rollback()
    return found


def _explained(driver: Any, text: str, parameters: Any) -> Read:
    with driver.cursor(cursor_factory=psycopg2.extensions.cursor) as cursor:
        cursor.execute("SAVEPOINT explained")
        try:
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}", parameters)
            ((((explained,),),),) = [cursor.fetchall()]
        finally:
            cursor.execute("ROLLBACK TO SAVEPOINT explained")
    nodes = list(_nodes(explained["Plan"]))
    scans = [node for node in nodes if node["Node Type"].endswith("Scan") and node["Node Type"] not in {"CTE Scan", "Function Scan"}]
    whole = sorted({node["Relation Name"] for node in scans if node["Node Type"] == "Seq Scan" and _rows(node) > SMALL})
    indexes = sorted({node["Index Name"] for node in scans if "Index Name" in node})
    pages = sum(explained["Plan"][f"Shared {how} Blocks"] for how in ("Hit", "Read"))
    return Read(" ".join(text.split()), pages, sum(map(_rows, scans)), explained["Execution Time"], whole, indexes)


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)


def _rows(node: Mapping[str, Any]) -> int:
    if node["Node Type"] == "Bitmap Heap Scan":  # its index has counted them
        return int(node["Actual Loops"] * node.get("Rows Removed by Index Recheck", 0))
    thrown_away = sum(node.get(f"Rows Removed by {why}", 0) for why in ("Filter", "Index Recheck"))
    return round(node["Actual Loops"] * (node["Actual Rows"] + thrown_away))
