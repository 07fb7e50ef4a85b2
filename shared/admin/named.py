"""What a command's words stand for."""

from sqlalchemy import Connection

from shared import accounts, db
from shared.accounts import Account
from shared.errors import Conflict, NotFound
from shared.settings import Settings

#: Seconds for which a command waits for a database that does not answer: whoever sits before it should hear of that.
PATIENCE = 5.0


def connected(chosen: Settings) -> db.Database:
    """The service's database."""
    return db.connect(chosen.database_url, pool_size=1, patience=PATIENCE)


def one_account(connection: Connection, name_or_uuid: str, *, enabled: bool) -> Account:
    """The account that is meant, in the state that is asked for if there is one; one in the other state is as good."""
    found = accounts.found(connection, name_or_uuid)
    if not found:
        raise NotFound(f"there is no account {name_or_uuid}")
    meant = [account for account in found if account.enabled == enabled] or found
    if len(meant) > 1:
        rows = ", ".join(f"{account.id} ({account.triton_uuid})" for account in meant)
        raise Conflict(f"there are several accounts {name_or_uuid}; say which by its id: {rows}")
    return meant[0]
