"""The lease on an account: one worker at a time changes an account's cloud. A claim on work of the kind `account`.

An account is due when one of its groups is: that is derived from the groups, and no time stands in the account's own row of work.

During an upgrade, workers of the previous release may run: their lease is in `tsg_accounts`. So the holder of a claim holds that one too,
which keeps them out, and nobody claims an account that one of them holds. The next release drops it.
Session first, never commits, no network.
"""

from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert

from shared.state import work
from shared.state.adoption import OF_ACCOUNT, adopt
from shared.state.work import ACCOUNT, Claim
from shared.state.work import ClaimLost as LeaseLost
from shared.store.moments import ago, ahead
from shared.store.rows import one_of
from shared.store.tables import accounts, group_state
from shared.store.tables import work as rows

__all__ = ["Lease", "LeaseLost", "claim", "claim_due", "is_held", "release", "renew", "require_held"]

#: Due groups that a look for due accounts reads for each account that it may name, and at least: after a long stop all groups are due.
OF_EACH, AT_LEAST = 10, 2000


class Lease(NamedTuple):
    """The right to change an account's cloud, and what is known of its request budget."""

    account_id: str
    token: int
    #: Requests left when the last holder was done, and seconds since then. None before the first.
    budget_left: float | None
    budget_age: float | None


_TAKE = text(
    f"WITH {OF_ACCOUNT},"  # noqa: S608 - of constants alone
    """
    free AS (
        UPDATE tsg_accounts SET lease_owner = :owner, lease_token = lease_token + 1, lease_until = now() + :term
        WHERE id = :account_id AND (lease_until IS NULL OR lease_until < now() OR lease_until > now() + :longest)
        RETURNING id, budget_left, CAST(extract(epoch FROM now() - budget_at) AS float) AS budget_age
    ), claimed AS (
        INSERT INTO tsg_work AS work (kind, subject, owner, token, until)
        SELECT :kind, id, :owner, 1, now() + :term FROM free
        ON CONFLICT (kind, subject) DO UPDATE
        SET owner = excluded.owner, token = work.token + 1, until = excluded.until, woken_at = NULL
        WHERE work.until IS NULL OR work.until < now() OR work.until > now() + :longest
        RETURNING token
    )
    SELECT token, budget_left, budget_age FROM claimed, free
    """
)


#: What was made due under the lease stays due, and nobody has been woken for it: the wake-up found the lease taken.
_RELEASE = text(
    """
    WITH released AS (
        UPDATE tsg_work SET until = NULL, owner = NULL, failures = 0, last_error = NULL
        WHERE kind = :kind AND subject = :account_id AND token = :token AND until > now() RETURNING subject
    ),
    given AS (
        UPDATE tsg_accounts SET budget_left = :budget_left, budget_at = now(), lease_owner = NULL, lease_until = NULL
        FROM released WHERE id = released.subject RETURNING id
    )
    SELECT EXISTS (SELECT 1 FROM tsg_group_state, given WHERE account_id = given.id AND check_at <= now())
    """
)


def claim(connection: Connection, account_id: str, owner: str, *, seconds: int) -> Lease | None:
    """Take the account's lease for so long, or get None while another holds it. What the previous release wrote is due then."""
    longest = timedelta(seconds=work.LONGEST_CLAIM)
    parameters = {"kind": ACCOUNT, "account_id": account_id, "owner": owner, "term": timedelta(seconds=seconds), "longest": longest}
    return one_of(Lease, connection.execute(_TAKE, parameters), account_id=account_id)


def renew(connection: Connection, lease: Lease, *, seconds: int) -> bool:
    """Hold the lease for so long from now. False when it has gone to another, or ended."""
    renewed = work.renew(connection, _claim(lease), seconds=seconds)
    if renewed:
        connection.execute(update(accounts).where(accounts.c.id == lease.account_id).values(lease_until=ahead(seconds)))
    return renewed


def release(connection: Connection, lease: Lease, *, budget_left: float) -> bool:
    """Give the lease back, with what is left of the budget for the next holder; is a group due? One statement."""
    parameters = {"kind": ACCOUNT, "account_id": lease.account_id, "token": lease.token, "budget_left": budget_left}
    return bool(connection.execute(_RELEASE, parameters).scalar_one())


def is_held(lease: Lease) -> ColumnElement[bool]:
    """The condition that a holder's writes carry."""
    return work.is_held(_claim(lease))


def require_held(connection: Connection, lease: Lease) -> None:
    """Raise `LeaseLost` unless the lease is held: the last word of a transaction that rests on it."""
    if not connection.execute(select(is_held(lease))).scalar_one():
        raise LeaseLost


def claim_due(connection: Connection, *, limit: int, late: float = 0) -> list[str]:
    """Accounts with a due group on which nobody works, the longest due first.

    Each goes to one scheduler, and again after `work.WAKE_AGAIN` seconds if nobody takes its lease. Only groups that have been due for
    `late` seconds count, and those whose Nomad job is known to fail. Accounts whose groups are not among the first that are read
    come at a later look.
    """
    is_due = group_state.c.check_at <= func.now()
    if late:
        is_due &= or_(group_state.c.check_at <= ago(late), group_state.c.job_error.is_not(None))
    adopt(connection, limit=limit)
    # The conditions stand in both: inside, so that accounts that can't be woken take no place from others; outside, for two at once.
    claimed = and_(rows.c.kind == ACCOUNT, rows.c.subject == group_state.c.account_id)
    first = (
        select(group_state.c.account_id, group_state.c.check_at)
        .join_from(group_state, accounts, group_state.c.account_id == accounts.c.id)
        .outerjoin(rows, claimed)
        .where(is_due, work.is_free(), work.is_unanswered(), _is_free_of_the_previous())
        .order_by(group_state.c.check_at)
        .limit(max(limit * OF_EACH, AT_LEAST))
        .subquery()
    )
    due = select(first.c.account_id).group_by(first.c.account_id).order_by(func.min(first.c.check_at), first.c.account_id).limit(limit)
    in_order = list(connection.execute(due).scalars())
    if not in_order:
        return []
    statement = insert(rows).values([{"kind": ACCOUNT, "subject": account_id, "woken_at": func.now()} for account_id in sorted(in_order)])
    statement = statement.on_conflict_do_update(
        index_elements=[rows.c.kind, rows.c.subject], set_={"woken_at": func.now()}, where=and_(work.is_free(), work.is_unanswered())
    )
    woken = set(connection.execute(statement.returning(rows.c.subject)).scalars())
    return [account_id for account_id in in_order if account_id in woken]


def _claim(lease: Lease) -> Claim:
    return Claim(ACCOUNT, lease.account_id, lease.token, 0)


def _is_free_of_the_previous() -> ColumnElement[bool]:
    until = accounts.c.lease_until
    return or_(until.is_(None), until < func.now(), until > ahead(work.LONGEST_CLAIM))
