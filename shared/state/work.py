"""Work: "look at this then", and who has claimed it. One row for each kind and subject, in one table for all kinds.

A claim has a number. Every later write of its holder is made on the condition that the number is still the newest (`is_held`), so that a
holder that was frozen does no harm when it wakes. A claim ends by itself: what a killed holder had claimed is due again then.

Rows and not locks: visible in SQL, the same on PostgreSQL and CockroachDB, and kept when Redis is lost. Times are the database's.
Session first, never commits, no network.
"""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, FromClause, case, delete, exists, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.store.moments import ago, ahead
from shared.store.rows import one_of
from shared.store.tables import work

#: Kinds: whose subject is an account, whose is a group, and whose is a process that watches changefeeds.
ACCOUNT = "account"
NOMAD_JOB = "nomad_job"
FEED = "feed"
POLICIES = "policies"

#: Seconds after which the scheduler sends another wake-up for what nobody has claimed.
WAKE_AGAIN = 5
#: Seconds. No claim is made for longer: one that ends later was written before the database's clock was set back, and has ended.
LONGEST_CLAIM = 300


class ClaimLost(Exception):
    """The claim has ended, or is another's: what was about to be written is not."""


class Claim(NamedTuple):
    """The right to work on a subject until the claim ends."""

    kind: str
    subject: str
    token: int
    #: How often in a row the work failed before.
    failures: int


def claim(connection: Connection, kind: str, subject: str, *, owner: str, seconds: float) -> Claim | None:
    """Claim a subject for so long. None while another has it."""
    statement = insert(work).values(kind=kind, subject=subject, owner=owner, token=1, until=ahead(seconds), due_at=ahead(seconds))
    statement = statement.on_conflict_do_update(
        index_elements=[work.c.kind, work.c.subject],
        set_={
            "owner": owner,
            "token": work.c.token + 1,
            "until": statement.excluded.until,
            # Due again when the claim ends, unless its holder says otherwise.
            "due_at": statement.excluded.until,
            "woken_at": None,
        },
        where=is_free(),
    )
    result = connection.execute(statement.returning(work.c.token, work.c.failures))
    return one_of(Claim, result, kind=kind, subject=subject)


def renew(connection: Connection, claimed: Claim, *, seconds: float) -> bool:
    """Hold the claim for so long from now. False when it has ended, or is another's."""
    until = ahead(seconds)
    statement = update(work).where(*_mine(claimed)).values(until=until, due_at=case((_is_untouched(), until), else_=work.c.due_at))
    return connection.execute(statement.returning(work.c.token)).one_or_none() is not None


def mark_done(connection: Connection, claimed: Claim, *, after: float | None) -> bool:
    """Give the claim back: the work is due again `after` some seconds, or when somebody makes it due.

    What was made due during the claim stays due. False, and nothing written, when the claim is not held any more.
    """
    return _give_back(connection, claimed, after=after, failures=None, error=None)


def mark_failed(connection: Connection, claimed: Claim, *, after: float, error: str) -> bool:
    """Give the claim back after a failure, which is counted. Otherwise as `done`."""
    return _give_back(connection, claimed, after=after, failures=claimed.failures + 1, error=error)


def mark_postponed(connection: Connection, claimed: Claim, *, after: float) -> bool:
    """Give the claim back: it was not time yet, and nothing is known of failures. Otherwise as `done`."""
    return _give_back(connection, claimed, after=after, failures=claimed.failures, error=None)


def delete_work(connection: Connection, claimed: Claim) -> None:
    """There is nothing to look at any more: the row goes, with its claim."""
    connection.execute(delete(work).where(*_mine(claimed)))


def mark_due(connection: Connection, kind: str, subject: str) -> None:
    """Have the subject looked at now; a claim that is held goes on, and the work is due once it is given back."""
    statement = insert(work).values(kind=kind, subject=subject, due_at=func.now())
    statement = statement.on_conflict_do_update(
        index_elements=[work.c.kind, work.c.subject], set_={"due_at": func.now(), "failures": 0, "woken_at": None}
    )
    connection.execute(statement)


def claim_wake_ups(connection: Connection, kind: str, *, limit: int) -> list[str]:
    """Subjects that are due and not claimed, the longest due first. Each goes to one scheduler, and again after `WAKE_AGAIN` seconds."""
    due = (
        select(work.c.subject)
        .where(work.c.kind == kind, work.c.due_at <= func.now(), is_free(), is_unanswered())
        .order_by(work.c.due_at, work.c.subject)
        .limit(limit)
        # Another scheduler is just claiming these: two neither wait for one another, nor lock each other out.
        .with_for_update(skip_locked=True)
    )
    taken = (
        update(work)
        .where(work.c.kind == kind, work.c.subject.in_(due))
        .values(woken_at=func.now())
        .returning(work.c.due_at, work.c.subject)
    )
    return [subject for _, subject in sorted(map(tuple, connection.execute(taken)))]


def count_late(connection: Connection, kinds: Collection[str], *, late: float) -> dict[str, int]:
    """How many subjects of each of these kinds have been due for over `late` seconds."""
    statement = select(work.c.kind, func.count()).where(work.c.kind.in_(kinds), work.c.due_at <= ago(late)).group_by(work.c.kind)
    return {**dict.fromkeys(kinds, 0), **{kind: int(count) for kind, count in connection.execute(statement)}}


def is_held(claimed: Claim) -> ColumnElement[bool]:
    """The condition that a holder's writes carry."""
    return exists(select(work.c.token).where(*_mine(claimed)))


def is_free(table: FromClause = work) -> ColumnElement[bool]:
    """Nobody has claimed it, or the claim has ended."""
    return or_(table.c.until.is_(None), table.c.until < func.now(), table.c.until > ahead(LONGEST_CLAIM))


def is_unanswered(table: FromClause = work) -> ColumnElement[bool]:
    """No wake-up was sent a short while ago."""
    # A little ahead of `now()` is another scheduler, whose statement began later than this one and was done first. More is a time from
    # before the database's clock was set back.
    return or_(table.c.woken_at.is_(None), table.c.woken_at < ago(WAKE_AGAIN), table.c.woken_at > ahead(WAKE_AGAIN))


def _mine(claimed: Claim) -> tuple[ColumnElement[bool], ...]:
    return (work.c.kind == claimed.kind, work.c.subject == claimed.subject, work.c.token == claimed.token, work.c.until > func.now())


def _is_untouched() -> ColumnElement[bool]:
    """Nobody has made it due since it was claimed."""
    return work.c.due_at == work.c.until


def _give_back(connection: Connection, claimed: Claim, *, after: float | None, failures: int | None, error: str | None) -> bool:
    later: ColumnElement[datetime] | None = None if after is None else ahead(after)
    statement = (
        update(work)
        .where(*_mine(claimed))
        .values(
            due_at=case((_is_untouched(), later), else_=work.c.due_at),
            until=None,
            owner=None,
            failures=failures or 0,
            last_error=error,
        )
    )
    return connection.execute(statement.returning(work.c.token)).one_or_none() is not None
