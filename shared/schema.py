"""The history of the tables: which revisions there are, and which one a database has."""

from functools import cache

import alembic.command
import alembic.config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the tables to a revision, the newest unless another is named."""
    alembic.command.upgrade(config(connection), revision)


def is_current(connection: Connection) -> bool:
    """Has the database all that this program needs? One with revisions that this program does not know has more than that.

    Raises what the database raises where there are no tables at all.
    """
    ours = _revisions()
    found = set(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())
    return bool(found) and (ours[0] in found or not found <= set(ours))


def config(connection: Connection | None = None) -> alembic.config.Config:
    """What Alembic's commands ask for."""
    made = alembic.config.Config()
    made.set_main_option("script_location", "shared:migrations")
    made.attributes["connection"] = connection
    return made


@cache
def _revisions() -> list[str]:
    """All revisions, the newest first."""
    return [script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()]
