"""The changefeeds of accounts: who watches which, and how each is doing.

A `tsg-feed` that runs holds a seat: a row of work of the kind `feed`, whose subject is its own id, and whose claim it renews. Which
accounts it watches follows from the seats alone, so that nothing is written for an account while nothing happens there.
Session first, never commits, no network.
"""

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, case, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.state.work import FEED, is_free
from shared.store.moments import ago
from shared.store.tables import accounts, feeds, groups, work

#: Seconds after which the seat of a `tsg-feed` that was killed is deleted.
SEAT_KEPT = 3600
#: Seconds between checks, at most, of a settled group whose account's feed is trusted.
LONGEST_WATCHED = 3600.0
#: What is noted of the feed of a watcher that is not there any more.
WATCHER_GONE = "The tsg-feed that watched the account is not there any more."


class FeedState(StrEnum):
    """How the changefeed of an account is doing."""

    #: Not connected yet.
    CONNECTING = "connecting"
    #: Connected, and no message has come yet.
    WATCHED = "watched"
    #: Connected, and messages come: settled groups are checked less often.
    TRUSTED = "trusted"
    #: Connected, and it did not tell what this service itself did.
    MUTE = "mute"
    #: CloudAPI has no changefeed: it is too old.
    TOO_OLD = "too_old"
    #: Something between here and CloudAPI lets no WebSocket through.
    STRIPPED = "stripped"
    #: CloudAPI does not let this service's key in.
    FORBIDDEN = "forbidden"
    THROTTLED = "throttled"
    #: CloudAPI can't be reached, fails, or has ended the connection.
    UNREACHABLE = "unreachable"


#: States in which the account's machines are watched.
WATCHING = (FeedState.WATCHED, FeedState.TRUSTED)


class Feed(NamedTuple):
    """What is noted of an account's changefeed."""

    account_id: str
    state: FeedState
    problem: str | None = None


# Seats


def list_watchers(connection: Connection) -> list[str]:
    """The ids of the `tsg-feed` that run."""
    return list(connection.execute(select(work.c.subject).where(work.c.kind == FEED, ~is_free()).order_by(work.c.subject)).scalars())


def delete_old_seats(connection: Connection) -> None:
    """Forget those that were killed long ago."""
    connection.execute(delete(work).where(work.c.kind == FEED, work.c.until < ago(SEAT_KEPT)))


# Accounts


def list_accounts(connection: Connection) -> list[str]:
    """The accounts that have a group."""
    has_group = exists(select(groups.c.id).where(groups.c.account_id == accounts.c.id, ~groups.c.archived))
    return list(connection.execute(select(accounts.c.id).where(~accounts.c.archived, has_group)).scalars())


def mark_feeds(connection: Connection, watcher: str, noted: Sequence[Feed]) -> None:
    """Note how the feeds of accounts are doing, in one statement. `since` stays while the state does."""
    if not noted:
        return
    statement = insert(feeds).values([{**feed._asdict(), "watcher": watcher} for feed in noted])
    new = statement.excluded
    since = case((feeds.c.state == new.state, feeds.c.since), else_=func.now())
    changed = {"watcher": new.watcher, "state": new.state, "problem": new.problem, "since": since}
    connection.execute(statement.on_conflict_do_update(index_elements=[feeds.c.account_id], set_=changed))


def list_noted(connection: Connection) -> dict[str, tuple[str, str]]:
    """Of each account, who noted the state of its feed, and the state."""
    noted = connection.execute(select(feeds.c.account_id, feeds.c.watcher, feeds.c.state))
    return {account_id: (watcher, state) for account_id, watcher, state in noted}


def delete_feeds(connection: Connection, watcher: str, account_ids: Collection[str]) -> None:
    """These accounts have no groups any more. What another watcher has noted stays."""
    if account_ids:
        connection.execute(delete(feeds).where(feeds.c.watcher == watcher, feeds.c.account_id.in_(account_ids)))


def mark_unwatched(connection: Connection) -> int:
    """Note that the accounts of a `tsg-feed` that has ended are not watched; how many."""
    statement = update(feeds).where(feeds.c.state.in_((*WATCHING, FeedState.MUTE)), ~_is_alive())
    gone = statement.values(state=FeedState.UNREACHABLE, problem=WATCHER_GONE, since=func.now())
    return len(connection.execute(gone.returning(feeds.c.account_id)).all())


def is_in(account_id: ColumnElement[str], states: Collection[FeedState]) -> ColumnElement[bool]:
    """The condition that the account's feed is in one of these states, and its watcher alive."""
    return exists(select(feeds.c.account_id).where(feeds.c.account_id == account_id, feeds.c.state.in_(states), _is_alive()))


def _is_alive() -> ColumnElement[bool]:
    return exists(select(work.c.subject).where(work.c.kind == FEED, work.c.subject == feeds.c.watcher, ~is_free()))
