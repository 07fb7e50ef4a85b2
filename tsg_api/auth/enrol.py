"""An account's management key: made here, sealed, and put into CloudAPI under the first signature that the account sends us."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from shared import log
from shared.clients import cloudapi, keys
from shared.clients.cloudapi import Client
from shared.errors import Conflict
from shared.management.access import forget_registration, open_key
from shared.state import accounts, group_state
from shared.state.accounts import Account, ManagementKey
from shared.store.db import Database
from tsg_api.http.errors import NotAuthorized, Unauthenticated, Unavailable

_log = log.get(__name__)


@contextmanager
def as_manager(db: Database, account: Account) -> Iterator[None]:
    """CloudAPI is asked under the account's management key. `Unavailable`, and a note of it, when CloudAPI does not know that any more."""
    try:
        yield
    except cloudapi.Unauthorized:
        forget_registration(db, account)
        raise Unavailable(
            "CloudAPI does not know this service's key of the account any more; a request in some seconds puts it there anew."
        ) from None


class Enrolment:
    """Gives accounts their management key. Each step can be repeated, and taken by several at once."""

    def __init__(self, db: Database, sealer: keys.Sealer, *, key_name: str) -> None:
        self._db = db
        self._sealer = sealer
        self._key_name = key_name

    def ensure(self, caller: Client, account: Account) -> None:
        """See to it that the account has one management key, the same here and in CloudAPI. `Conflict` where a human must decide."""
        # CloudAPI is asked first: a key is written here before it is sent there, so one that is seen there is here as well.
        in_cloud = _ask_key(caller, self._key_name)
        with self._db.read() as connection:
            stored = accounts.get_key(connection, account.id)
        if stored is not None and stored.name != self._key_name:  # a rotation was broken off, or the prefix was changed
            in_cloud = _ask_key(caller, stored.name)
        if stored is None:
            if in_cloud is not None:
                raise Conflict(
                    f'The account {account.name} has a key named "{self._key_name}" in CloudAPI whose private half this service does not '
                    f"have. If nothing else uses it, remove it (triton key delete {self._key_name}) and repeat the request."
                )
            stored = self._make_key(account)
        if in_cloud is None:
            in_cloud = self._register(caller, stored)
        if in_cloud != stored.fingerprint:
            raise Conflict(
                f'The key named "{stored.name}" of account {account.name} has the fingerprint {in_cloud} in CloudAPI and '
                f"{stored.fingerprint} here. Remove it there (triton key delete {stored.name}) and repeat the request."
            )

        def registered(connection: Connection) -> None:
            accounts.mark_registered(connection, stored.id, registered=True)
            # Without the key nothing could be done for them: now it can.
            group_state.mark_all_due(connection, account.id)

        self._db.transact(registered)
        _log.info("management_key_registered", account=account.name, fingerprint=stored.fingerprint)

    def _make_key(self, account: Account) -> ManagementKey:
        pair = keys.generate()
        key_id = str(uuid.uuid4())
        material = self._sealer.seal(pair.private_pem, row=key_id)
        self._db.transact(
            lambda connection: accounts.insert_key(
                connection, account.id, key_id=key_id, name=self._key_name, fingerprint=pair.fingerprint, material=material
            )
        )
        with self._db.read() as connection:  # ours, or that of a request that was faster
            stored = accounts.get_key(connection, account.id)
        if stored is None:
            raise Unavailable(f"The account {account.name} was changed meanwhile; repeat the request.")
        return stored

    def _register(self, caller: Client, stored: ManagementKey) -> str | None:
        """Send the public half to CloudAPI; the fingerprint that is there then."""
        try:
            pair = open_key(self._db, self._sealer, stored)
        except keys.SealError as error:
            raise Unavailable(f"The account's management key can't be read: {error}.") from None
        try:
            caller.add_key(stored.name, pair.public_line)
        except cloudapi.Forbidden as error:
            raise NotAuthorized(f"CloudAPI lets this user add no key; the account's owner must send the first request: {error}") from None
        except cloudapi.Rejected as error:
            # Another request was faster, or a key of that name is in the way: the fingerprint tells.
            _log.info("management_key_refused", key_name=stored.name, error=str(error))
        except cloudapi.CloudAPIError as error:
            raise Unavailable(f"The account's management key can't be put into CloudAPI now: {error}") from None
        return _ask_key(caller, stored.name)


def _ask_key(caller: Client, name: str) -> str | None:
    try:
        return caller.key_fingerprint(name)
    except cloudapi.Forbidden as error:
        raise NotAuthorized(f"CloudAPI lets this user see no keys; the account's owner must send the first request: {error}") from None
    except cloudapi.Unauthorized:
        raise Unauthenticated("CloudAPI does not accept the signature any more.") from None
    except cloudapi.CloudAPIError as error:
        raise Unavailable(f"The account's keys can't be read now: {error}") from None
