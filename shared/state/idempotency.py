"""Answers kept under the `Idempotency-Key` that the caller gave: who asks again with it gets them again, and nothing is done twice.

A key and the change that it stands for are written in one transaction. So a second request with the same key waits at the key for
the first, and then finds its answer; and what is committed can be answered, even by another process after this one was killed.
Session first, never commits, no network.
"""

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.store.moments import ago
from shared.store.rows import columns
from shared.store.tables import idempotency_keys as keys

#: Seconds for which a key is remembered.
KEPT = 24 * 3600.0


class Answer(NamedTuple):
    """What was answered, byte for byte."""

    status: int
    body: str | None = None
    location: str | None = None
    etag: str | None = None


class Kept(NamedTuple):
    """An answer, and the fingerprint of the request that it was given to."""

    request: str
    answer: Answer


def find(connection: Connection, account_id: str, key: str) -> Kept | None:
    """What the account was answered under this key in the last 24 hours."""
    statement = select(keys.c.request, *columns(Answer, keys))
    row = connection.execute(statement.where(keys.c.account_id == account_id, keys.c.key == key, ~_is_over())).one_or_none()
    return Kept(row.request, Answer(row.status, row.body, row.location, row.etag)) if row else None


def claim(connection: Connection, account_id: str, key: str, request: str) -> bool:
    """Take a key for the transaction that is under way; wait for another one that holds it. False: that one was carried out."""
    fresh = {"request": request, "created_at": func.now()}
    statement = (
        upsert(keys)
        .values(account_id=account_id, key=key, status=0, **fresh)
        .on_conflict_do_update(index_elements=["account_id", "key"], set_=fresh, where=_is_over())
        .returning(keys.c.key)
    )
    return connection.execute(statement).one_or_none() is not None


def mark_answered(connection: Connection, account_id: str, key: str, answer: Answer) -> None:
    """Write down what the request that holds the key is answered."""
    connection.execute(update(keys).where(keys.c.account_id == account_id, keys.c.key == key).values(**answer._asdict()))


def delete_old(connection: Connection, *, limit: int) -> int:
    """Forget keys whose time is over, at most `limit` and the oldest first; how many."""
    old = select(keys.c.account_id, keys.c.key).where(_is_over()).order_by(keys.c.created_at).limit(limit)
    return connection.execute(delete(keys).where(tuple_(keys.c.account_id, keys.c.key).in_(old))).rowcount


def _is_over() -> ColumnElement[bool]:
    return keys.c.created_at <= ago(KEPT)
