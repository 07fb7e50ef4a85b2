"""`Idempotency-Key`: a change that is asked for again under the same key is answered again, and made once.

A key is an account's own, and is remembered for 24 hours. Only what was done is kept: a request that was refused, or failed, changed
nothing, and may be sent again under its key.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import falcon
from sqlalchemy import Connection

from shared.errors import Conflict, FieldError, Invalid
from shared.state import idempotency
from shared.state.idempotency import Answer, Kept
from shared.store.db import Database
from tsg_api.http.body import read_raw
from tsg_api.schema import render

HEADER = "Idempotency-Key"
#: On an answer that was given before.
REPLAYED = "Idempotency-Replayed"

_METHODS = frozenset({"POST", "PUT", "DELETE"})
_KEY = re.compile(r"[ -~]{1,255}\Z")

T = TypeVar("T")


class Keyed(NamedTuple):
    """A request with a key: `request` is its fingerprint."""

    account_id: str
    key: str
    request: str


class Once:
    """Middleware, after authentication: a request that was carried out under its key is answered here."""

    def __init__(self, db: Database, max_body: int) -> None:
        self._db = db
        self._max_body = max_body

    def process_resource(self, req: falcon.Request, resp: falcon.Response, resource: object, params: Mapping[str, str]) -> None:
        if req.method not in _METHODS or not hasattr(resource, f"on_{req.method.lower()}"):
            return
        account, key = req.context.get("account"), req.get_header(HEADER)
        if account is None or key is None:
            return
        if not _KEY.match(key):
            raise Invalid([FieldError(HEADER, f"{HEADER} must have 1 to 255 printable ASCII characters")])
        keyed = Keyed(account.id, key, _fingerprint(req, read_raw(req, self._max_body)))
        with self._db.read() as connection:
            kept = idempotency.find(connection, keyed.account_id, keyed.key)
        if kept is None:
            req.context.keyed = keyed
        else:
            _again(resp, keyed, kept)
            if hasattr(resource, "on_replay"):
                resource.on_replay(req, resp, **params)
            resp.complete = True


def change(
    db: Database,
    req: falcon.Request,
    resp: falcon.Response,
    work: Callable[[Connection], T],
    answer: Callable[[T], Answer],
    *,
    alone: bool = False,
) -> T | None:
    """Make a change in one transaction, and answer. With a key, the key and the answer are written in the same transaction.

    `alone`: the change is one statement.

    What `work` returned; None when another request with the same key came first, and its answer was given.
    """
    keyed: Keyed | None = req.context.get("keyed")
    if keyed is None:
        done = db.transact(work, alone=alone)
        render.send(resp, answer(done))
        return done

    def once(connection: Connection) -> T | Kept:
        if not idempotency.claim(connection, *keyed):
            kept = idempotency.find(connection, keyed.account_id, keyed.key)
            if kept is None:  # its time ended at this very moment
                raise Conflict(f"A request with this {HEADER} is under way; ask again.")
            return kept
        made = work(connection)
        idempotency.mark_answered(connection, keyed.account_id, keyed.key, answer(made))
        return made

    made = db.transact(once)
    if isinstance(made, Kept):
        _again(resp, keyed, made)
        return None
    render.send(resp, answer(made))
    return made


def _again(resp: falcon.Response, keyed: Keyed, kept: Kept) -> None:
    if kept.request != keyed.request:
        raise Invalid([FieldError(HEADER, f"this {HEADER} was used for another request in the last 24 hours")])
    render.send(resp, kept.answer)
    resp.set_header(REPLAYED, "true")


def _fingerprint(req: falcon.Request, body: bytes) -> str:
    head = f"{req.method} {req.path}?{req.query_string}\n".encode("utf-8", "surrogateescape")
    return hashlib.sha256(head + body).hexdigest()
