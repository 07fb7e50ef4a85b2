"""Replacing an account's management key, while everybody goes on using it.

CloudAPI has a name, and a fingerprint, once. So that the new key can have the old one's name, there is one between the two:

    add INTERIM to CloudAPI, switch to it here, delete the old key there; add the new one under the name, switch, delete INTERIM

At each moment the key that is the account's here is in CloudAPI. A thief who took the old one out of the database before the switch is
refused after the deletion, and goes on with the new one (`shared.management.access`). A key is written down here before it is sent
there, and forgotten here after it was deleted there: killed anywhere, the next run finds what is left and goes on.
"""

import time
import uuid
from collections.abc import Callable

from sqlalchemy import Connection

from shared import log
from shared.clients import cloudapi, keys
from shared.clients.cloudapi import Client, CloudAPI
from shared.clients.keys import Sealer
from shared.clients.signature import Signer
from shared.errors import Conflict
from shared.management.access import client_for, key_of, open_key
from shared.state import accounts
from shared.state.accounts import Account, ManagementKey
from shared.store.db import Database

_log = log.get(__name__)

#: Added to the name of the key between the old one and the new one.
INTERIM = "_rotating"
#: Seconds for which a new key may be unknown to CloudAPI: outside the first datacenter it is copied there first. And between looks.
KNOWN_WITHIN, LOOK = 120.0, 1.0


class Rotation:
    """Rotates management keys. Can be repeated at any time."""

    def __init__(
        self, database: Database, clouds: CloudAPI, sealer: Sealer, *, key_name: str, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._db = database
        self._clouds = clouds
        self._sealer = sealer
        self._key_name = key_name
        self._sleep = sleep

    def rotate(self, account: Account) -> str:
        """Give the account a new management key, or finish what was broken off; the fingerprint of the new key.

        Raises `NoManagementKey`, `SealError`, `Conflict`, and what CloudAPI raises: repeat it then.
        """
        interim = self._key_name + INTERIM
        current = self._current(account)
        with self._db.read() as connection:
            left = {key.name for key in accounts.list_retired_keys(connection, account.id)}
        self._retire(account)
        if current.name == self._key_name and interim in left:
            return current.fingerprint
        if current.name != interim:
            self._replace(account, interim)
        return self._replace(account, self._key_name)

    def _replace(self, account: Account, name: str) -> str:
        """Put a new key of that name in the place of the account's key."""
        old = self._current(account)
        new = self._next(account, name)
        pair = open_key(self._db, self._sealer, new)
        client = client_for(self._db, self._clouds, self._sealer, account)
        try:
            client.add_key(name, pair.public_line)
        except cloudapi.Forbidden:
            raise
        except cloudapi.Rejected as error:
            # It is there from a run that was broken off, or something else is in the way.
            if client.key_fingerprint(pair.fingerprint) is None:
                raise Conflict(
                    f'CloudAPI does not take a key named "{name}" for account {account.name} ({error}). If it has one of that name that '
                    f"nothing uses, remove it (triton key delete {name}) and repeat the command."
                ) from None
        signer = Signer(account.in_triton, pair.fingerprint, pair.private_pem)
        self._prove(self._clouds.as_account(account.in_triton, signer))
        if not self._db.transact(lambda connection: accounts.switch_key(connection, account.id, old, new)):
            raise Conflict(f"The key of account {account.name} was replaced by somebody else meanwhile.")
        _log.info("management_key_replaced", account=account.name, key_name=name, fingerprint=pair.fingerprint)
        self._retire(account)
        return pair.fingerprint

    def _current(self, account: Account) -> ManagementKey:
        key = key_of(self._db, account)
        # 2018's rows may have no fingerprint, and a retired key is found by it.
        return key._replace(fingerprint=open_key(self._db, self._sealer, key).fingerprint)

    def _next(self, account: Account, name: str) -> ManagementKey:
        pair = keys.generate()
        key_id = str(uuid.uuid4())
        material = self._sealer.seal(pair.private_pem, row=key_id)

        def write(connection: Connection) -> ManagementKey | None:
            accounts.insert_next_key(connection, account.id, key_id=key_id, name=name, fingerprint=pair.fingerprint, material=material)
            return accounts.get_next_key(connection, account.id, name)

        written = self._db.transact(write)
        if written is None:
            raise Conflict(f"The key of account {account.name} is being replaced by somebody else.")
        return written

    def _prove(self, client: Client) -> None:
        """Wait until CloudAPI takes the new key."""
        deadline = time.monotonic() + KNOWN_WITHIN
        while True:
            try:
                client.account()
            except cloudapi.Unauthorized:
                if time.monotonic() > deadline:
                    raise
                self._sleep(LOOK)
            else:
                return

    def _retire(self, account: Account) -> None:
        """Delete the former keys in CloudAPI, then here."""
        with self._db.read() as connection:
            retired = accounts.list_retired_keys(connection, account.id)
        if not retired:
            return
        client = client_for(self._db, self._clouds, self._sealer, account)
        for key in retired:
            client.delete_key(key.fingerprint)
            with self._db.read() as connection:
                accounts.delete_retired_key(connection, key.id)
            _log.info("management_key_deleted", account=account.name, fingerprint=key.fingerprint)
