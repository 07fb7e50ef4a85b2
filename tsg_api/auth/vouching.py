"""Whose key is it? CloudAPI is asked, in one of two ways.

As the account: where the account's management key is known, CloudAPI lists the account's keys, and the signature is checked here. One
list answers for all keys, so strangers who make keys up cause no more requests than the account's own callers. A key in the account's own
list is its owner's. A sub-user's key says nothing of what the sub-user may do: it is believed only for as long as CloudAPI let that
sub-user in a short while ago. What CloudAPI is asked then is what the sub-user would do there: may it list machines, and create any?

As the caller: a signature that covers the Date alone holds for any request of its time, so it is passed on to CloudAPI, which says yes or
no itself. That is how an account, and a sub-user, is let in at first.
"""

import hashlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from cachetools import TTLCache
from sqlalchemy.exc import SQLAlchemyError

from shared import log
from shared.clients import cloudapi
from shared.clients.cloudapi import Client, CloudAPI
from shared.clients.keys import sha256_fingerprint
from shared.clients.signature import Credentials, SignatureError, load_public, passed_on, verify
from shared.errors import Conflict
from shared.management.access import forget_registration
from shared.state import accounts
from shared.state.accounts import Account
from shared.store.db import Database
from tsg_api.auth.caller_keys import CallerKeys, Claim, Known
from tsg_api.auth.tenants import Tenants
from tsg_api.auth.turns import Turns
from tsg_api.http.address import block
from tsg_api.http.errors import NotAuthorized, Unauthenticated, Unavailable
from tsg_api.http.limits import Buckets
from tsg_api.http.slots import Slots

_log = log.get(__name__)

#: Questions to CloudAPI a second that strangers at one address may cause, and 5 seconds' worth at once: of all accounts, and of one.
ASKED_BY_ADDRESS, ASKED_OF_ACCOUNT = 50.0, 5.0
#: Seconds for which a list of keys is the truth: a new key that signs more than the Date is known so late.
LIST_SECONDS = 5.0
#: Seconds for which headers that CloudAPI refused are refused without asking: a key may be added at any time.
REFUSED_SECONDS = 5.0
#: Seconds by which the clocks of a database's nodes may differ.
CLOCK_SLACK = 1.0
#: Lists, and refused headers, remembered.
MOST = 10_000
#: Keys that are asked for again at once, behind the requests' back.
REFRESHERS = 4

#: The same words whether the account is known here, and whether the key is one of its keys: neither is a stranger's business.
NOT_PROVEN = (
    "The signature does not match a key that is known here under its keyId. For a key that is new to this service, send one request that"
    ' signs the Date alone, headers="date", and names the key by its MD5 fingerprint.'
)
#: The same for every sub-user.
NOT_LET_IN = (
    'What this sub-user may do is not known here. Send one request that signs the Date alone, headers="date", and names the key by its MD5'
    " fingerprint: CloudAPI is asked with it, and its yes holds for some minutes."
)
_AWAY = "CloudAPI did not answer as it should."
_UNLISTED = "CloudAPI accepts the signature, but does not list its key yet; try again."


class Listed(NamedTuple):
    """The keys of an account, or of one of its sub-users, and when CloudAPI was asked for them."""

    owner: cloudapi.TritonAccount
    keys: Sequence[cloudapi.Key]
    at: float


class Vouching:
    """Has CloudAPI say whose a key is. Thread-safe."""

    def __init__(
        self,
        db: Database,
        keys: CallerKeys,
        tenants: Tenants,
        clouds: CloudAPI,
        manage: Callable[[Account], Client],
        *,
        slots: Slots,
    ) -> None:
        """`clouds` is asked under callers' signatures, what `manage` makes of an account under its own management key. A request that
        waits for either takes a slot of its address."""
        self._db = db
        self._keys = keys
        self._tenants = tenants
        self._clouds = clouds
        self._manage = manage
        self._slots = slots
        self._by_address = Buckets(ASKED_BY_ADDRESS)
        self._by_account = Buckets(ASKED_OF_ACCOUNT)
        self._lists: TTLCache[tuple[str, str | None], Listed] = TTLCache(MOST, LIST_SECONDS, timer=keys.now)
        self._refused: TTLCache[bytes, tuple[type[Exception], str]] = TTLCache(MOST, REFUSED_SECONDS, timer=keys.now)
        self._lock = threading.Lock()
        self._turns = Turns()
        self._refreshers = threading.Semaphore(REFRESHERS)

    def learn(self, claim: Claim, *, is_holder: bool = False) -> Known:
        """The key that the claim names, verified. `is_holder`: the signature is that of a key that was known, not a stranger's.

        `SignatureError` or `Unauthenticated` when it is not proven who signed, `NotAuthorized` for a sub-user of whom CloudAPI has not
        said yes, `TooMany`, `Unavailable`.
        """
        try:
            return self._as_account(claim, is_holder=is_holder) or self._as_caller(claim, is_holder=is_holder)
        except (SignatureError, Unauthenticated, NotAuthorized):
            if is_holder:  # of a key that is none any more: a stranger from now on
                self._keys.forget(claim.identity)
            raise

    def enrol(self, claim: Claim, owner: cloudapi.TritonAccount) -> Account:
        """Give the account its management key under the claim's signature, which covers the Date alone."""
        with self._slots.of_cloudapi(block(claim.address)):
            try:
                return self._tenants.enrolled(owner, self._caller(claim, owner.id))
            except Unauthenticated:
                self._keys.forget(claim.identity)
                raise

    def refresh(self, claim: Claim) -> None:
        """Have the key of a claim that was verified vouched for anew, in a thread of its own, so that no request waits for it."""
        credentials = claim.credentials
        if credentials.user is not None and not credentials.signs_only_date:
            return  # CloudAPI must say yes again, and can't be asked with this
        if self._refreshers.acquire(blocking=False):
            self._keys.postpone(claim.identity)
            threading.Thread(target=self._refresh, args=(claim,), name="refresh-key", daemon=True).start()

    def _refresh(self, claim: Claim) -> None:
        try:
            if claim.credentials.user is None and self._as_account(claim, is_holder=True, waits=False):
                return
            if not claim.credentials.signs_only_date:
                raise Unauthenticated(NOT_PROVEN)
            self._ask_as_caller(claim)
        except (Unauthenticated, NotAuthorized, SignatureError):
            self._keys.forget(claim.identity)
        except (Unavailable, Conflict, SQLAlchemyError) as error:
            _log.warning("key_not_refreshed", account=claim.credentials.account, error=str(error))
        finally:
            self._refreshers.release()

    # As the account

    def _as_account(self, claim: Claim, *, is_holder: bool, waits: bool = True) -> Known | None:
        """The key, if it is listed for an account that is known here under the claim's name. `SignatureError` when it did not sign."""
        credentials = claim.credentials
        for account, seconds, may_write in self._candidates(credentials):
            listed = self._listed(account, claim, is_holder=is_holder, waits=waits)
            # The login may be another account's by now.
            if credentials.account not in listed.owner:
                continue
            line = _find(listed.keys, credentials)
            if line is not None:
                return self._believe(claim, line, listed.owner, at=listed.at, seconds=seconds, may_write=may_write)
        return None

    def _candidates(self, credentials: Credentials) -> list[tuple[Account, float, bool]]:
        """Accounts that the keyId may mean, for how many seconds one of its keys may be believed, and whether to change something."""
        found = []
        with self._db.read() as connection:
            for account in accounts.find_enabled(connection, credentials.account):
                seconds, may_write = math.inf, True
                if credentials.user is not None:
                    let_in = accounts.get_let_in(connection, account.id, credentials.user)
                    # Ahead of the database's clock: that was set back since.
                    if let_in is None or let_in.seconds_ago < -CLOCK_SLACK:
                        continue
                    seconds, may_write = self._keys.seconds - let_in.seconds_ago, let_in.may_write
                if account.triton_uuid and account.has_registered_key and seconds > 0:
                    found.append((account, seconds, may_write))
        return found

    def _listed(self, account: Account, claim: Claim, *, is_holder: bool, waits: bool) -> Listed:
        """The keys, as they were `LIST_SECONDS` ago at most. However many requests want to know, one asks."""
        what = (account.in_triton, claim.credentials.user)
        found = self._list_at_hand(what)
        if found is not None:
            return found
        with self._slot(claim, waits=waits), self._turns.turn(what):
            found = self._list_at_hand(what)
            if found is None:
                if not is_holder:
                    self._count(claim)
                found = self._list(account, claim.credentials.user)
            return found

    def _list_at_hand(self, what: tuple[str, str | None]) -> Listed | None:
        with self._lock:
            return self._lists.get(what)

    def _list(self, account: Account, user: str | None) -> Listed:
        """Ask CloudAPI for the keys, under the account's UUID."""
        at = self._keys.now()
        owner, keys = cloudapi.TritonAccount(account.in_triton, account.name), []
        try:
            client = self._manage(account)
            triton = client.account()
            if triton.id == account.in_triton:
                self._tenants.follow(triton)
                owner, keys = triton, client.list_keys(user=user)
            else:
                _log.error("account_confused", account=account.name, triton_uuid=account.triton_uuid, answered=triton.id)
        except Unavailable as error:
            # The management key does not open: the owner's own signature over the Date can still be passed on.
            _log.error("management_key_unusable", account=account.name, error=str(error))
        except cloudapi.Unauthorized:
            _log.warning("management_key_unknown", account=account.name)
            forget_registration(self._db, account)
            self._tenants.forget(owner)
        except cloudapi.Rejected as error:
            _log.info("keys_not_listed", account=account.name, error=str(error))
        except cloudapi.CloudAPIError as error:
            _log.warning("keys_not_listed", account=account.name, error=str(error))
            raise _away(error) from None
        listed = Listed(owner, keys, at)
        with self._lock:
            self._lists[account.in_triton, user] = listed
        return listed

    # As the caller

    def _as_caller(self, claim: Claim, *, is_holder: bool) -> Known:
        """CloudAPI's own word on the claim. However often one pair of headers comes, one request asks."""
        if not claim.credentials.signs_only_date:
            raise NotAuthorized(NOT_LET_IN) if claim.credentials.user else Unauthenticated(NOT_PROVEN)
        pair = hashlib.sha256(f"{passed_on(claim.credentials)}\n{claim.date}".encode()).digest()
        with self._slot(claim), self._turns.turn(pair):
            known = self._keys.get(claim.identity)
            if known is not None and self._keys.is_believed(known) and _signed_with(known, claim):
                return known
            with self._lock:
                refused = self._refused.get(pair)
            if refused is not None:
                kind, words = refused
                raise kind(words)
            if not is_holder:
                self._count(claim)
            try:
                return self._ask_as_caller(claim)
            except (Unauthenticated, NotAuthorized) as error:
                with self._lock:
                    self._refused[pair] = (type(error), str(error))
                raise

    def _ask_as_caller(self, claim: Claim) -> Known:
        credentials, at = claim.credentials, self._keys.now()
        try:
            owner = self._caller(claim, credentials.account).account()
            if credentials.account.lower() not in (owner.id, owner.login.lower()):
                raise Unauthenticated(NOT_PROVEN)
            self._tenants.follow(owner)
            user, may_write = credentials.user, True
            if user is None:
                keys: Sequence[cloudapi.Key] = self._caller(claim, owner.id).list_keys()
            else:
                keys, may_write = self._keys_of_user(claim, owner, user)
        except cloudapi.Forbidden as error:
            self._keep_out(credentials)
            raise NotAuthorized(str(error)) from None
        except (cloudapi.Unauthorized, cloudapi.Rejected) as error:
            _log.info("signature_refused", account=credentials.account, error=str(error))
            raise Unauthenticated(NOT_PROVEN) from None
        except cloudapi.CloudAPIError as error:
            _log.warning("signature_not_checked", account=credentials.account, error=str(error))
            raise _away(error) from None
        line = _find(keys, credentials)
        if line is None:
            raise Unavailable(_UNLISTED)
        return self._believe(claim, line, owner, at=at, seconds=math.inf, may_write=may_write)

    def _keys_of_user(self, claim: Claim, owner: cloudapi.TritonAccount, user: str) -> tuple[Sequence[cloudapi.Key], bool]:
        """The keys of a sub-user whom CloudAPI lets list machines, and whether it lets them create some.

        The user may see no keys itself; the account's management key does.
        """
        caller = self._caller(claim, owner.id)
        caller.check_may_list_machines()
        may_write = caller.may_create_machines()
        account = self._tenants.enrolled(owner, caller)
        self._db.transact(lambda connection: accounts.mark_let_in(connection, account.id, user, may_write=may_write))
        listed = self._list(account, user)
        if not listed.keys:
            raise Unavailable(_UNLISTED)
        return listed.keys, may_write

    def _keep_out(self, credentials: Credentials) -> None:
        user = credentials.user
        if user is not None:
            with self._db.read() as connection:
                for account in accounts.find_enabled(connection, credentials.account):
                    accounts.mark_kept_out(connection, account.id, user)

    def _caller(self, claim: Claim, account: str) -> Client:
        return self._clouds.as_caller(account, claim.date, passed_on(claim.credentials))

    # Both

    def _believe(self, claim: Claim, line: str, owner: cloudapi.TritonAccount, *, at: float, seconds: float, may_write: bool) -> Known:
        verify(claim.credentials, load_public(line), claim.text)
        return self._keys.put(claim.identity, line, owner, at=at, seconds=seconds, may_write=may_write)

    def _count(self, claim: Claim) -> None:
        """Count a question that a stranger may have caused, or raise `TooMany`."""
        address = block(claim.address)
        self._by_address.take(address)
        self._by_account.take(f"{address} {claim.credentials.account}")

    @contextmanager
    def _slot(self, claim: Claim, *, waits: bool = True) -> Iterator[None]:
        """A slot for as long as CloudAPI is asked; none is needed where no request waits."""
        if not waits:
            yield
            return
        with self._slots.of_cloudapi(block(claim.address)):
            yield


def _find(keys: Sequence[cloudapi.Key], credentials: Credentials) -> str | None:
    """The public key that the keyId names: by a fingerprint, or by its name."""
    wanted, plain = credentials.key, credentials.key.removeprefix("MD5:")
    if wanted.startswith("SHA256:"):
        by_fingerprint = (key.line for key in keys if sha256_fingerprint(key.line) == wanted)
    else:
        by_fingerprint = (key.line for key in keys if key.fingerprint == plain)
    return next(by_fingerprint, None) or next((key.line for key in keys if key.name == wanted), None)


def _signed_with(known: Known, claim: Claim) -> bool:
    try:
        verify(claim.credentials, known.public, claim.text)
    except SignatureError:
        return False
    return True


def _away(error: cloudapi.CloudAPIError) -> Unavailable:
    """The same words for all accounts: a certificate that is not trusted keeps out each of them."""
    return Unavailable(f"The signature can't be verified now: {error if isinstance(error, cloudapi.Untrusted) else _AWAY}")
