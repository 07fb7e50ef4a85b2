"""Who is calling. A middleware finds `req.context.account`, by one of two ways: a signature, or development mode."""

import uuid
from datetime import UTC, datetime
from typing import Protocol

import falcon

from shared import accounts, cloudapi, keys, log, seed
from shared.accounts import Account
from shared.cloudapi import Client, CloudAPI
from shared.db import Database
from shared.errors import Conflict
from shared.signature import SignatureError, check_skew, parse
from tsg_api.errors import NotAuthorized, Unauthenticated, Unavailable

_log = log.get(__name__)


class Authenticator(Protocol):
    """Tells whose request it is, or raises `Unauthenticated`, `NotAuthorized` or `Unavailable`."""

    def __call__(self, req: falcon.Request) -> Account: ...


class Authenticate:
    """Middleware: everything that has a route is somebody's request, unless its resource says `public = True`."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, resource: object, _params: object) -> None:
        if not getattr(resource, "public", False):
            req.context.account = self._authenticator(req)


class DevelopmentMode:
    """Every request, whatever its headers, is the seeded account's."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def __call__(self, req: falcon.Request) -> Account:  # noqa: ARG002 - whatever it says
        with self._db.read() as connection:
            account = accounts.get(connection, seed.ACCOUNT_ID)
        return account or self._db.transact(seed.account)


class Signed:
    """The caller's own signature is put to CloudAPI, which knows their keys.

    An account's first request also gives it the management key by which workers act for it.
    """

    def __init__(self, db: Database, api: CloudAPI, sealer: keys.Sealer, *, key_name: str, whitelist: bool) -> None:
        self._db = db
        self._cloudapi = api
        self._sealer = sealer
        self._key_name = key_name
        self._whitelist = whitelist

    def __call__(self, req: falcon.Request) -> Account:
        authorization, date = req.get_header("Authorization"), req.get_header("Date")
        if not authorization or not date:
            raise Unauthenticated("Requests must be signed: they need a Date and an Authorization header.")
        try:
            credentials = parse(authorization)
            check_skew(date, datetime.now(UTC))
        except SignatureError as error:
            raise Unauthenticated(f"{str(error)[0].upper()}{str(error)[1:]}.") from None
        if not credentials.signs_only_date:
            raise Unauthenticated('Sign the Date header alone: headers="date".')
        caller = self._cloudapi.as_caller(credentials.account, date, authorization)
        account = self._account(_ask(caller))
        if not account.has_registered_key:
            self._enrol(caller, account)
        return account

    def _account(self, known: cloudapi.Account) -> Account:
        with self._db.read() as connection:
            account = accounts.of_triton(connection, known.id)
            disabled = account is None and accounts.is_disabled(connection, known.id)
        if account is None:
            if disabled or self._whitelist:
                raise NotAuthorized(f"The account {known.login} is not enabled for this service; ask its operator to add it.")
            _log.info("account_added", account=known.login, triton_uuid=known.id)
            return self._db.transact(lambda connection: accounts.add(connection, known.login, known.id))
        if account.name == known.login:
            return account
        renamed = account._replace(name=known.login)
        self._db.transact(lambda connection: accounts.rename(connection, renamed.id, renamed.name))
        return renamed

    def _enrol(self, caller: Client, account: Account) -> None:
        """See to it that the account has a management key, here and in CloudAPI. Each step can be repeated, by several at once."""
        # CloudAPI is asked first: a key is written here before it is sent there, so one that is seen there is here as well.
        in_cloud = _ask_key(caller, self._key_name)
        with self._db.read() as connection:
            stored = accounts.key_of(connection, account.id)
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
        self._db.transact(lambda connection: accounts.mark_registered(connection, stored.id, registered=True))
        _log.info("management_key_registered", account=account.name, fingerprint=stored.fingerprint)

    def _make_key(self, account: Account) -> accounts.ManagementKey:
        pair = keys.generate()
        key_id = str(uuid.uuid4())
        material = self._sealer.seal(pair.private_pem, row=key_id)
        self._db.transact(
            lambda connection: accounts.give_key(
                connection, account.id, key_id=key_id, name=self._key_name, fingerprint=pair.fingerprint, material=material
            )
        )
        with self._db.read() as connection:  # ours, or that of a request that was faster
            stored = accounts.key_of(connection, account.id)
        if stored is None:
            raise Unavailable(f"The account {account.name} was changed meanwhile; repeat the request.")
        return stored

    def _register(self, caller: Client, stored: accounts.ManagementKey) -> str | None:
        """Send the public half to CloudAPI; the fingerprint that is there then."""
        try:
            pair = keys.of_pem(self._sealer.open(stored.material, row=stored.id))
        except keys.SealError as error:
            raise Unavailable(f"The account's management key can't be read: {error}.") from None
        try:
            caller.add_key(stored.name, pair.public_line)
        except cloudapi.Forbidden as error:
            raise NotAuthorized(f"CloudAPI lets this user add no key; the account's owner must send the first request: {error}") from None
        except cloudapi.Rejected as error:
            _log.info("management_key_refused", account_key=stored.name, error=str(error))
        return _ask_key(caller, stored.name)


def _ask(caller: Client) -> cloudapi.Account:
    """Put the caller's signature to CloudAPI."""
    try:
        return caller.account()
    except cloudapi.Forbidden as error:
        raise NotAuthorized(str(error)) from None
    except (cloudapi.Unauthorized, cloudapi.Rejected) as error:
        raise Unauthenticated(f"CloudAPI does not accept the signature: {error}") from None
    except cloudapi.CloudAPIError as error:
        raise Unavailable(f"The signature can't be verified now: {error}") from None


def _ask_key(caller: Client, name: str) -> str | None:
    try:
        return caller.key_fingerprint(name)
    except cloudapi.CloudAPIError as error:
        raise Unavailable(f"The account's keys can't be read now: {error}") from None
