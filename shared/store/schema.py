"""The history of the tables: which revisions there are, and which one a database has.

Alembic is imported where it is used: it takes longer to import than the rest of a program, and programs that run only compare.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, text

if TYPE_CHECKING:
    from alembic.config import Config

#: The revisions: files `r<revision>_<what it does>.py`, one after the other.
VERSIONS = Path(__file__).parent / "migrations" / "versions"


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the tables to a revision, the newest unless another is named."""
    import alembic.command  # noqa: PLC0415

    alembic.command.upgrade(config(connection), revision)


def is_current(connection: Connection) -> bool:
    """Has the database all that this program needs? One with revisions that this program does not know has more than that.

    Raises what the database raises where there are no tables at all.
    """
    ours = revisions()
    found = set(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())
    return bool(found) and (ours[0] in found or not found <= set(ours))


def holds_unicode(connection: Connection) -> bool:
    """Can the database hold any text? One with another encoding refuses some, or spoils it.

    With SQL_ASCII, which initdb chooses where the system has no locale, PostgreSQL keeps the bytes that it is given: ours are UTF-8.
    CockroachDB has no other than UTF-8, and need not say so.
    """
    driver: Any = connection.connection.dbapi_connection
    return driver.get_parameter_status("server_encoding") in {"UTF8", "SQL_ASCII", None}


def config(connection: Connection | None = None) -> "Config":
    """What Alembic's commands ask for."""
    from alembic.config import Config  # noqa: PLC0415

    made = Config()
    made.set_main_option("script_location", "shared.store:migrations")
    made.attributes["connection"] = connection
    return made


@cache
def revisions() -> list[str]:
    """All revisions, the newest first."""
    return sorted((file.stem[1:].partition("_")[0] for file in VERSIONS.glob("r[0-9]*.py")), reverse=True)
