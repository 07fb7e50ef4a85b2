"""Accounts of Triton that this service lets in. An account is its UUID in Triton; its login is a name that may change hands."""

import threading
import time
from collections.abc import Callable

from cachetools import TTLCache

from shared import log
from shared.clients import cloudapi
from shared.clients.cloudapi import Client
from shared.state import accounts
from shared.state.accounts import Account
from shared.store.db import Database
from tsg_api.auth.enrol import Enrolment
from tsg_api.auth.turns import Turns
from tsg_api.http.errors import NotAuthorized

_log = log.get(__name__)

#: Seconds for which an account's row is taken as read: an operator may disable it at any time.
ROW_SECONDS = 5.0
#: Rows remembered.
MOST = 10_000


class Tenants:
    """The rows of accounts that CloudAPI vouched for. Thread-safe."""

    def __init__(self, db: Database, enrolment: Enrolment, *, whitelist: bool, now: Callable[[], float] = time.monotonic) -> None:
        self._db = db
        self._enrolment = enrolment
        self._whitelist = whitelist
        self._rows: TTLCache[str, Account] = TTLCache(MOST, ROW_SECONDS, timer=now)
        self._lock = threading.Lock()
        self._turns = Turns()

    def get(self, owner: cloudapi.TritonAccount) -> Account:
        """The account's row, made if everybody is let in. `NotAuthorized` when the account is not let in."""
        try:
            with self._lock:
                return self._rows[owner.id]
        except KeyError:
            return self._read(owner)

    def enrolled(self, owner: cloudapi.TritonAccount, caller: Client) -> Account:
        """The same, and CloudAPI has the account's management key: put there under the caller's signature, if need be.

        Raises what `Enrolment.ensure` raises, too.
        """
        account = self.get(owner)
        if account.has_registered_key:
            return account
        with self._turns.turn(owner.id):
            account = self._read(owner)
            if not account.has_registered_key:
                self._enrolment.ensure(caller, account)
                account = self._read(owner)
        return account

    def follow(self, owner: cloudapi.TritonAccount) -> None:
        """Note the login that CloudAPI says the account has by now, if the account is known here."""
        with self._db.read() as connection:
            account = accounts.get_by_triton_uuid(connection, owner.id)
        if account is not None and account.name != owner.login:
            _log.info("account_renamed", account=owner.login, formerly=account.name, triton_uuid=owner.id)
            self._db.transact(lambda connection: accounts.mark_renamed(connection, account.id, owner.login))
            self.forget(owner)

    def forget(self, owner: cloudapi.TritonAccount) -> None:
        """The account's row has changed: read it again when it is needed."""
        with self._lock:
            self._rows.pop(owner.id, None)

    def _read(self, owner: cloudapi.TritonAccount) -> Account:
        with self._db.read() as connection:
            account = accounts.get_by_triton_uuid(connection, owner.id)
            disabled = account is None and accounts.is_disabled(connection, owner.id)
        if account is None:
            self.forget(owner)
            if disabled or self._whitelist:
                raise NotAuthorized(f"The account {owner.login} is not enabled for this service; ask its operator to add it.")
            _log.info("account_added", account=owner.login, triton_uuid=owner.id)
            account = self._db.transact(lambda connection: accounts.insert_account(connection, owner.login, owner.id))
        with self._lock:
            self._rows[owner.id] = account
        return account
