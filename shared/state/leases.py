"""The lease on an account: one worker at a time changes an account's cloud.

A row, visible in SQL, that works on PostgreSQL and CockroachDB and outlives Redis. Each holder gets a number, and every later write of
its own is made on the condition that the number is still the newest (`is_held`): a holder that was frozen can't do harm on waking.
Session first, never commits, no network. Times are the database's, so that no worker's clock matters.
"""

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Float, FromClause, cast, exists, extract, func, or_, select, update

from shared.store.moments import ago, ahead
from shared.store.tables import accounts, groups

#: Seconds after which the clock rings again for an account that nobody has answered for.
RING_AGAIN = 5


class LeaseLost(Exception):
    """The lease has ended, or is another's: what was about to be written is not."""


class Lease(NamedTuple):
    """The right to change an account's cloud, and what is known of its request budget."""

    account_id: str
    token: int
    #: Requests left when the last holder was done, and seconds since then. None before the first.
    budget_left: float | None
    budget_age: float | None


def take(connection: Connection, account_id: str, owner: str, *, seconds: int) -> Lease | None:
    """Take the account's lease for so long, or get None while another holds it."""
    statement = (
        update(accounts)
        .where(accounts.c.id == account_id, _free())
        .values(lease_owner=owner, lease_token=accounts.c.lease_token + 1, lease_until=ahead(seconds), rung_at=None)
        .returning(
            accounts.c.id,
            accounts.c.lease_token,
            accounts.c.budget_left,
            cast(extract("epoch", func.now() - accounts.c.budget_at), Float),
        )
    )
    row = connection.execute(statement).one_or_none()
    return Lease._make(row) if row else None


def renew(connection: Connection, lease: Lease, *, seconds: int) -> bool:
    """Hold the lease for so long from now. False when it has gone to another, or ended."""
    statement = update(accounts).where(*_mine(lease)).values(lease_until=ahead(seconds)).returning(accounts.c.id)
    return connection.execute(statement).one_or_none() is not None


def release(connection: Connection, lease: Lease, *, budget_left: float) -> None:
    """Give the lease back, with what is left of the budget for the next holder."""
    statement = (
        update(accounts).where(*_mine(lease)).values(lease_owner=None, lease_until=None, budget_left=budget_left, budget_at=func.now())
    )
    connection.execute(statement)


def is_held(lease: Lease) -> ColumnElement[bool]:
    """The condition that a holder's writes carry."""
    return exists(select(accounts.c.id).where(*_mine(lease)))


def require(connection: Connection, lease: Lease) -> None:
    """Raise `LeaseLost` unless the lease is held: the last word of a transaction that rests on it."""
    if not connection.execute(select(is_held(lease))).scalar_one():
        raise LeaseLost


def claim_due(connection: Connection, *, limit: int, late: int = 0) -> list[str]:
    """Accounts with a due group on which nobody works, the longest due first.

    Each is told to one clock, and again only if nobody answers the bell.

    Only groups that have been due for `late` seconds count.
    """
    since = ago(late)
    # The conditions stand in both: inside, so that accounts that can't be told take no place from others; outside, for two clocks at once.
    account = accounts.alias()
    due = (
        select(account.c.id)
        .join_from(groups, account, groups.c.account_id == account.c.id)
        .where(groups.c.check_at <= since, _free(account), _unrung(account))
        .group_by(account.c.id)
        .order_by(func.min(groups.c.check_at), account.c.id)
        .limit(limit)
    )
    in_order = list(connection.execute(due).scalars())
    if not in_order:
        return []
    statement = update(accounts).where(accounts.c.id.in_(in_order), _free(), _unrung()).values(rung_at=func.now()).returning(accounts.c.id)
    told = set(connection.execute(statement).scalars())
    return [account_id for account_id in in_order if account_id in told]


def _free(table: FromClause = accounts) -> ColumnElement[bool]:
    return or_(table.c.lease_until.is_(None), table.c.lease_until < func.now())


def _unrung(table: FromClause = accounts) -> ColumnElement[bool]:
    return or_(table.c.rung_at.is_(None), table.c.rung_at < ago(RING_AGAIN))


def _mine(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (accounts.c.id == lease.account_id, accounts.c.lease_token == lease.token, accounts.c.lease_until > func.now())
