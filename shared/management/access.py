"""Acting for an account: its management key out of the database, into a client of CloudAPI."""

from shared import log
from shared.clients import keys
from shared.clients.budget import Budget
from shared.clients.cloudapi import Client, CloudAPI, Guard, always
from shared.clients.keys import KeyPair, Sealer, SealError
from shared.clients.signature import Signer
from shared.state import accounts
from shared.state.accounts import Account, ManagementKey
from shared.store.db import Database

_log = log.get(__name__)


class NoManagementKey(Exception):
    """The service can't act for the account. The text says why, and what to do."""


def client_for(
    database: Database,
    clouds: CloudAPI,
    sealer: Sealer,
    account: Account,
    budget: Budget | None = None,
    guard: Guard = always,
) -> Client:
    """CloudAPI under the account's management key. `NoManagementKey` when it has none that opens.

    It is asked for the account's UUID, as its path and as its own keyId: a login may have become another account's, who may even have
    registered the management key's public half as a key of its own.

    The client outlives a rotation of the key: when CloudAPI refuses the key, it goes on with the one that is stored by then.
    """

    def newer(refused: str) -> Signer | None:
        with database.read() as connection:
            key = accounts.get_key(connection, account.id)
        if key is None or key.fingerprint == refused:
            return None
        try:
            found = _signer(database, sealer, account, key)
        except SealError:
            return None
        return found if found.fingerprint != refused else None

    return clouds.as_account(account.in_triton, signer_for(database, sealer, account), budget, guard, newer)


def signer_for(database: Database, sealer: Sealer, account: Account) -> Signer:
    """Signs as the account, with the management key that it has now. `NoManagementKey` when it has none that opens."""
    try:
        return _signer(database, sealer, account, key_of(database, account))
    except SealError as error:
        raise NoManagementKey(f"The management key of account {account.name} can't be used: {error}.") from None


def key_of(database: Database, account: Account) -> ManagementKey:
    """The account's management key, as it is stored, or `NoManagementKey`."""
    with database.read() as connection:
        key = accounts.get_key(connection, account.id)
    if key is None:
        raise NoManagementKey(f"The account {account.name} has no management key yet; its first signed request makes one.")
    return key


def forget_registration(database: Database, account: Account) -> None:
    """CloudAPI does not know the management key any more: the account's next requests put it there again."""
    with database.read() as connection:
        key = accounts.get_key(connection, account.id)
        if key is not None:
            accounts.mark_registered(connection, key.id, registered=False)


def open_key(database: Database, sealer: Sealer, key: ManagementKey) -> KeyPair:
    """The pair of a stored key. One that the 2018 service left in clear text is sealed. `SealError` for what is not the row's own."""
    material = key.material or ""
    pair = keys.of_pem(sealer.open(material, row=key.id))
    # Clear text is bound to its row by nothing but this.
    if key.fingerprint and key.fingerprint.removeprefix("MD5:") != pair.fingerprint:
        raise SealError("the private key belongs to another row: its fingerprint is not the one stored beside it")
    if keys.is_clear(material) and sealer.can_seal:
        sealed = sealer.seal(material, row=key.id)
        with database.read() as connection:
            if accounts.replace_material(connection, key.id, material, sealed):
                _log.info("key_sealed", key_id=key.id, fingerprint=pair.fingerprint)
    return pair


def _signer(database: Database, sealer: Sealer, account: Account, key: ManagementKey) -> Signer:
    pair = open_key(database, sealer, key)
    return Signer(account.in_triton, pair.fingerprint, pair.private_pem)
