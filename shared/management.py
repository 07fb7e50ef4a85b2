"""Acting for an account: its management key out of the database, into a client of CloudAPI."""

from shared import accounts, keys
from shared.accounts import Account
from shared.cloudapi import Budget, Client, CloudAPI, Guard, always
from shared.db import Database
from shared.signature import Signer


class NoManagementKey(Exception):
    """The service can't act for the account. The text says why, and what to do."""


def client_for(
    database: Database,
    clouds: CloudAPI,
    sealer: keys.Sealer,
    account: Account,
    budget: Budget | None = None,
    guard: Guard = always,
) -> Client:
    """CloudAPI under the account's management key. `NoManagementKey` when it has none that opens."""
    with database.read() as connection:
        key = accounts.key_of(connection, account.id)
    if key is None:
        raise NoManagementKey(f"The account {account.name} has no management key yet; its first signed request makes one.")
    try:
        pair = keys.of_pem(sealer.open(key.material or "", row=key.id))
    except keys.SealError as error:
        raise NoManagementKey(f"The management key of account {account.name} can't be used: {error}.") from None
    return clouds.as_account(account.name, Signer(account.name, pair.fingerprint, pair.private_pem), budget, guard)
