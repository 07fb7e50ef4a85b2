"""Who is calling. A middleware finds `req.context.account`, by one of two ways: a signature, or development mode."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Protocol

import falcon
from prometheus_client import Counter

from shared import log, metrics
from shared.cli import seed
from shared.clients import cloudapi
from shared.clients.cloudapi import Client, CloudAPI
from shared.clients.signature import Credentials, SignatureError, check_digest, check_skew, load_public, parse, signed_text, verify
from shared.state import accounts
from shared.state.accounts import Account
from shared.store.db import Database
from tsg_api.auth.caller_keys import ACCOUNT_SECONDS, Identity, Keyring, Known, Verified, VerifiedHeaders
from tsg_api.auth.enrol import Enrolment, as_manager
from tsg_api.http.address import block
from tsg_api.http.body import read_raw
from tsg_api.http.errors import NotAuthorized, TooMany, Unauthenticated, Unavailable
from tsg_api.http.limits import Buckets
from tsg_api.http.slots import Slots
from tsg_api.http.waiting import WAITED

_log = log.get(__name__)

#: First sights a second that one address may cause, and 5 seconds' worth at once: each costs CloudAPI two requests.
LOOKUPS_AN_ADDRESS = 50.0
#: Keys a second of one account that are looked up with its own management key, and 5 seconds' worth at once: anybody who knows the
#: account's name can cause such a lookup, and it is taken from the 10 requests a second that the account's groups have at CloudAPI.
LOOKUPS_BY_MANAGER = 1.0


class Authenticator(Protocol):
    """Tells whose request it is, or raises `Unauthenticated`, `NotAuthorized`, `TooMany` or `Unavailable`."""

    def __call__(self, req: falcon.Request) -> Account: ...


_RESULTS: dict[type[Exception], str] = {
    Unauthenticated: "refused",
    NotAuthorized: "not_enabled",
    Unavailable: "unavailable",
    TooMany: "too_many",
}


@cache
def _counter(result: str) -> Counter:
    return metrics.authentications.labels(result)


class Authenticate:
    """Middleware: everything that has a route is somebody's request, unless its resource says `public = True`."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, resource: object, _params: object) -> None:
        # One that was parked has its account.
        if not getattr(resource, "public", False) and WAITED not in req.env:
            result = "failed"
            try:
                req.context.account = self._authenticator(req)
                result = "accepted"
            except (Unauthenticated, NotAuthorized, Unavailable, TooMany) as error:
                result = _RESULTS[type(error)]
                raise
            finally:
                _counter(result).inc()


class DevelopmentMode:
    """Every request, whatever its headers, is the seeded account's."""

    def __init__(self, db: Database) -> None:
        self._db = db
        #: The account, and until when (by the steady clock) its row is taken as read.
        self._known: tuple[Account, float] | None = None

    def __call__(self, req: falcon.Request) -> Account:  # noqa: ARG002 - whatever it says
        known = self._known
        if known and time.monotonic() < known[1]:
            return known[0]
        with self._db.read() as connection:
            account = accounts.get(connection, seed.ACCOUNT_ID)
        account = account or self._db.transact(seed.account)
        self._known = (account, time.monotonic() + ACCOUNT_SECONDS)
        return account


class Signed:
    """The caller's own signature, checked here with a key that CloudAPI vouched for a short while ago.

    The first sight of a key puts the caller's signature to CloudAPI, which knows their keys, and fetches the key for the requests to
    come. A signature that covers more than the date is good for no other request than ours, so CloudAPI can't be asked with it: its key
    is fetched with the account's management key instead, which the account must have by then.
    """

    def __init__(
        self,
        db: Database,
        api: CloudAPI,
        enrolment: Enrolment,
        keyring: Keyring,
        *,
        manage: Callable[[Account], Client],
        whitelist: bool,
        max_body: int,
        first_sights: Slots,
    ) -> None:
        """`first_sights` is where requests wait for CloudAPI."""
        self._db = db
        self._cloudapi = api
        self._enrolment = enrolment
        self._keyring = keyring
        self._manage = manage
        self._whitelist = whitelist
        self._max_body = max_body
        self._lookups = Buckets(LOOKUPS_AN_ADDRESS)
        self._lookups_by_manager = Buckets(LOOKUPS_BY_MANAGER)
        self._verified = VerifiedHeaders()
        self._first_sights = first_sights

    def __call__(self, req: falcon.Request) -> Account:
        try:
            identity, known = self._recognized(req) or self._verify(req)
        except SignatureError as error:
            raise Unauthenticated(_sentence(str(error))) from None
        return self._account_of(identity, known)

    def _recognized(self, req: falcon.Request) -> tuple[Identity, Known] | None:
        """Whose request it is, if its headers came before, and their key is the one that is known still."""
        date = req.get_header("Date") or ""
        seen = self._verified.get(req.get_header("Authorization") or "", date)
        if seen is None:
            return None
        known = self._keyring.get(seen.identity)
        if known is None or known.public is not seen.public:
            return None
        check_skew(date, datetime.now(UTC))
        return seen.identity, known

    def _verify(self, req: falcon.Request) -> tuple[Identity, Known]:
        headers = {name.lower(): value for name, value in req.headers.items()}
        credentials = _credentials(headers)
        identity = (credentials.account, credentials.user, credentials.key)
        text = signed_text(credentials, req.method, _target(req), headers)
        known = self._keyring.get(identity) or self._first_sight(identity, credentials, headers, block(req.remote_addr))
        verify(credentials, known.public, text)
        if {"digest", "content-md5"} & set(credentials.headers):
            check_digest(credentials, headers, read_raw(req, self._max_body))
        if credentials.signs_only_date:
            self._verified.put(headers["authorization"], headers["date"], Verified(identity, known.public))
        return identity, known

    def _first_sight(self, identity: Identity, credentials: Credentials, headers: Mapping[str, str], address: str) -> Known:
        """Learn a key from CloudAPI. However many requests come with it at once, one asks."""
        self._lookups.take(address)
        with self._first_sights.of_cloudapi(), self._keyring.asking(identity):
            known = self._keyring.get(identity)
            if known is not None:
                return known
            if reason := self._keyring.refused(headers["authorization"], headers.get("date", "")):
                raise Unauthenticated(reason)
            # CloudAPI takes a fingerprint without its prefix only, and could be asked with a signature that covers the date alone.
            if credentials.signs_only_date and not credentials.has_prefixed_key:
                account, line = self._ask_as_caller(credentials, headers)
            else:
                account, line = self._ask_as_manager(credentials)
            return self._keyring.put(identity, load_public(line), account)

    def _ask_as_caller(self, credentials: Credentials, headers: Mapping[str, str]) -> tuple[Account, str]:
        """Put the caller's own signature to CloudAPI. An account's first request also gives it its management key."""
        caller = self._cloudapi.as_caller(credentials.account, headers["date"], headers["authorization"])
        try:
            account = self._account(caller.account())
            if not account.has_registered_key:
                self._enrolment.ensure(caller, account)
            # A sub-user may not be allowed to look at keys; the account's own management key is.
            return account, self._looked_up(account, credentials) if credentials.user else caller.key_line(credentials.key)
        except cloudapi.Forbidden as error:
            raise NotAuthorized(str(error)) from None
        except (cloudapi.Unauthorized, cloudapi.Rejected) as error:
            reason = f"CloudAPI does not accept the signature: {error}"
            self._keyring.refuse(headers["authorization"], headers["date"], reason)
            raise Unauthenticated(reason) from None
        except cloudapi.CloudAPIError as error:
            raise Unavailable(f"The signature can't be verified now: {error}") from None

    def _ask_as_manager(self, credentials: Credentials) -> tuple[Account, str]:
        with self._db.read() as connection:
            account = accounts.called(connection, credentials.account)
        if account is None or not account.has_registered_key:
            raise Unauthenticated('The account is not known here yet: send one request that signs the Date alone, headers="date".')
        self._lookups_by_manager.take(account.id)
        try:
            return account, self._looked_up(account, credentials)
        except cloudapi.NotFound:
            raise Unauthenticated("The account has no such key.") from None
        except cloudapi.CloudAPIError as error:
            raise Unavailable(f"The signature can't be verified now: {error}") from None

    def _looked_up(self, account: Account, credentials: Credentials) -> str:
        """The public key that the credentials name, by the account's own management key."""
        with as_manager(self._db, account):
            return self._manage(account).key_line(credentials.key, user=credentials.user)

    def _account(self, told: cloudapi.Account) -> Account:
        """The row of an account that CloudAPI vouches for, made if everybody is let in."""
        with self._db.read() as connection:
            account = accounts.of_triton(connection, told.id)
            disabled = account is None and accounts.is_disabled(connection, told.id)
        if account is None:
            if disabled or self._whitelist:
                raise _not_enabled(told.login)
            _log.info("account_added", account=told.login, triton_uuid=told.id)
            return self._db.transact(lambda connection: accounts.add(connection, told.login, told.id))
        if account.name == told.login:
            return account
        renamed = account._replace(name=told.login)
        self._db.transact(lambda connection: accounts.rename(connection, renamed.id, renamed.name))
        return renamed

    def _account_of(self, identity: Identity, known: Known) -> Account:
        """The account of a known key. Its row is read again now and then: an account may be disabled at any time."""
        if self._keyring.is_account_fresh(known):
            return known.account
        with self._db.read() as connection:
            account = accounts.get(connection, known.account.id)
        if account is None or not account.has_registered_key:
            # Disabled, or CloudAPI does not know the management key any more: begin again.
            self._keyring.forget(identity)
        if account is None:
            raise _not_enabled(known.account.name)
        return self._keyring.refresh_account(identity, known, account).account if account.has_registered_key else account


def _credentials(headers: Mapping[str, str]) -> Credentials:
    if not headers.get("authorization") or not (headers.get("date") or headers.get("x-date")):
        raise SignatureError("requests must be signed: they need a Date and an Authorization header")
    credentials = parse(headers["authorization"])
    check_skew(headers.get(credentials.dated_by, ""), datetime.now(UTC))
    return credentials


def _target(req: falcon.Request) -> str:
    """The request's path and query as they came over the wire."""
    raw = req.env.get("RAW_URI") or req.env.get("REQUEST_URI")
    return str(raw) if raw else req.relative_uri


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _not_enabled(name: str) -> NotAuthorized:
    return NotAuthorized(f"The account {name} is not enabled for this service; ask its operator to add it.")
