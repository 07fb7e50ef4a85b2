"""Groups that were written without their state: by a program of the previous release during an upgrade, or by SQL.

Such a writer leaves a time in `tsg_groups.check_at`; programs of this release leave none. Session first, never commits, no network.
"""

from sqlalchemy import Connection, text

#: The time is taken away and the state made due in one statement: several may do it at once.
_ADOPT = (
    "WITH written AS (UPDATE tsg_groups SET check_at = NULL WHERE id IN ({}) AND check_at IS NOT NULL"
    " RETURNING id, account_id, generation, updated_at)"
    " INSERT INTO tsg_group_state AS state (group_id, account_id, generation, changed_at, check_at)"
    " SELECT id, account_id, generation, updated_at, now() FROM written"
    " ON CONFLICT (group_id) DO UPDATE SET generation = greatest(state.generation, excluded.generation),"
    " changed_at = greatest(state.changed_at, excluded.changed_at), check_at = now(), launch_at = NULL, emptied_at = NULL"
)
_OF_ACCOUNT = text(
    _ADOPT.format("SELECT id FROM tsg_groups WHERE check_at IS NOT NULL AND account_id = :account_id FOR UPDATE SKIP LOCKED")
)
_OF_ANY = text(_ADOPT.format("SELECT id FROM tsg_groups WHERE check_at IS NOT NULL ORDER BY check_at LIMIT :most FOR UPDATE SKIP LOCKED"))


def adopt(connection: Connection, *, limit: int) -> None:
    """Make at most `limit` such groups due now."""
    connection.execute(_OF_ANY, {"most": limit})


def adopt_of_account(connection: Connection, account_id: str) -> None:
    """Make those of an account due now."""
    connection.execute(_OF_ACCOUNT, {"account_id": account_id})
