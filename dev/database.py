"""A database of the service's own making, and accounts in it, for programs that start parts of the service in their own process."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, make_url

from dev.services import Postgres
from shared.clients.keys import KeyPair, Sealer
from shared.state import accounts
from shared.state.accounts import Account
from shared.store import db, schema
from shared.store.db import Database


@contextmanager
def new_database(server: Postgres, name: str) -> Iterator[Database]:
    """One with the service's tables, until it is left."""
    server.create_database(name)
    database = db.connect(make_url(server.url(name)), pool_size=16)
    database.transact(schema.upgrade)
    try:
        yield database
    finally:
        database.close()


def managed_account(connection: Connection, login: str, triton_id: str, pair: KeyPair, sealer: Sealer, *, key_name: str = "tsg") -> Account:
    """An account that was here before: enabled, and with `pair` for its registered management key."""
    account = accounts.insert_account(connection, login, triton_id)
    key_id = str(uuid.uuid4())
    material = sealer.seal(pair.private_pem, row=key_id)
    accounts.insert_key(connection, account.id, key_id=key_id, name=key_name, fingerprint=pair.fingerprint, material=material)
    accounts.mark_registered(connection, key_id, registered=True)
    found = accounts.get(connection, account.id)
    assert found is not None
    return found
