"""Groups that were written without their state: by a program of the previous release during an upgrade, or by SQL.

Such a writer leaves a time in `tsg_groups.check_at`; programs of this release leave none. Session first, never commits, no network.
"""

from sqlalchemy import Connection, text

#: Two parts of a WITH clause. The time is taken away and the state made due in one statement: several may do it at once.
_ADOPT = (
    "written AS (UPDATE tsg_groups SET check_at = NULL WHERE id IN ({}) AND check_at IS NOT NULL"
    " RETURNING id, account_id, generation, updated_at),"
    " adopted AS (INSERT INTO tsg_group_state AS state (group_id, account_id, generation, changed_at, check_at)"
    " SELECT id, account_id, generation, updated_at, now() FROM written"
    " ON CONFLICT (group_id) DO UPDATE SET generation = greatest(state.generation, excluded.generation),"
    " changed_at = greatest(state.changed_at, excluded.changed_at), check_at = now(), launch_at = NULL, emptied_at = NULL"
    " RETURNING group_id)"
)
#: Those of an account, whose worker does this with its claim: it costs no statement.
OF_ACCOUNT = _ADOPT.format("SELECT id FROM tsg_groups WHERE check_at IS NOT NULL AND account_id = :account_id FOR UPDATE SKIP LOCKED")
_OF_ANY = _ADOPT.format("SELECT id FROM tsg_groups WHERE check_at IS NOT NULL ORDER BY check_at LIMIT :most FOR UPDATE SKIP LOCKED")
_OLDEST = text(f"WITH {_OF_ANY} SELECT count(*) FROM adopted")  # noqa: S608 - of constants alone


def adopt(connection: Connection, *, limit: int) -> None:
    """Make at most `limit` such groups due now."""
    connection.execute(_OLDEST, {"most": limit})
