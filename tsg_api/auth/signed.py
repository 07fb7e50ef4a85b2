"""The caller's own signature, checked here with a key that CloudAPI vouched for a short while ago."""

from collections.abc import Mapping
from datetime import UTC, datetime

import falcon

from shared.clients.signature import SignatureError, check_digest, check_skew, parse, signed_text, verify
from shared.state.accounts import Account
from tsg_api.auth.caller_keys import CallerKeys, Claim, Known
from tsg_api.auth.tenants import Tenants
from tsg_api.auth.vouching import NOT_PROVEN, Vouching
from tsg_api.http.body import read_raw
from tsg_api.http.errors import NotAuthorized, TooMany, Unauthenticated

#: Methods that change nothing.
READS = frozenset({"GET", "HEAD", "OPTIONS"})
ONLY_READS = (
    "CloudAPI lets this sub-user see machines and not create any (createmachine), so it may change nothing here. Other rights in CloudAPI"
    " count here after some minutes."
)


class Signed:
    """Authenticator: reads the headers, has an unknown key vouched for by CloudAPI, and finds the row of the account whose it is."""

    def __init__(self, keys: CallerKeys, vouching: Vouching, tenants: Tenants, *, max_body: int) -> None:
        self._keys = keys
        self._vouching = vouching
        self._tenants = tenants
        self._max_body = max_body

    def __call__(self, req: falcon.Request) -> Account:
        try:
            claim, known = self._recognized(req) or self._verified(req)
        except SignatureError as error:
            raise _excess(req) or Unauthenticated(_sentence(str(error))) from None
        account = self._tenants.get(known.owner)
        if not account.has_registered_key and claim.credentials.signs_only_date:
            account = self._vouching.enrol(claim, known.owner)
        if self._keys.is_due(known):
            self._vouching.refresh(claim)
        if not known.may_write and req.method not in READS:
            raise NotAuthorized(ONLY_READS)
        return account

    def _recognized(self, req: falcon.Request) -> tuple[Claim, Known] | None:
        """Whose request it is, if its headers came before, and their key is the one that is known still."""
        date = req.get_header("Date") or ""
        recognized = self._keys.recognize(req.get_header("Authorization") or "", date)
        if recognized is not None:
            check_skew(date, datetime.now(UTC))
        return recognized

    def _verified(self, req: falcon.Request) -> tuple[Claim, Known]:
        headers = {name.lower(): value for name, value in req.headers.items()}
        claim = _claim(req, headers)
        try:
            known = self._vouched_for(claim, _excess(req))
        except SignatureError:
            raise _excess(req) or Unauthenticated(NOT_PROVEN) from None
        if {"digest", "content-md5"} & set(claim.credentials.headers):
            check_digest(claim.credentials, headers, read_raw(req, self._max_body))
        if claim.credentials.signs_only_date:
            self._keys.remember(headers["authorization"], claim, known)
        return claim, known

    def _vouched_for(self, claim: Claim, excess: TooMany | None) -> Known:
        """The key that the claim names, which verifies its signature; `SignatureError` when it does not.

        `excess` is raised before CloudAPI is asked about a stranger's claim.
        """
        known = self._keys.get(claim.identity)
        if known is None:
            if excess is not None:
                raise excess
            return self._vouching.learn(claim)
        believed = self._keys.is_believed(known)
        try:
            verify(claim.credentials, known.public, claim.text)
        except SignatureError:
            # A key of that name may be another by now; one of that fingerprint can't.
            if believed and claim.credentials.names_fingerprint:
                raise
            if excess is not None:
                raise excess from None
            return self._vouching.learn(claim)
        return known if believed else self._vouching.learn(claim, is_holder=True)


def _claim(req: falcon.Request, headers: Mapping[str, str]) -> Claim:
    if not headers.get("authorization") or not (headers.get("date") or headers.get("x-date")):
        raise SignatureError("requests must be signed: they need a Date and an Authorization header")
    credentials = parse(headers["authorization"])
    date = headers.get(credentials.dated_by, "")
    check_skew(date, datetime.now(UTC))
    return Claim(credentials, date, signed_text(credentials, req.method, _target(req), headers), req.remote_addr)


def _excess(req: falcon.Request) -> TooMany | None:
    """Why the request's address may send no more without proof (`LimitAddresses`); None while it may."""
    found: TooMany | None = req.context.get("excess")
    return found


def _target(req: falcon.Request) -> str:
    """The request's path and query as they came over the wire."""
    raw = req.env.get("RAW_URI") or req.env.get("REQUEST_URI")
    return str(raw) if raw else req.relative_uri


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
