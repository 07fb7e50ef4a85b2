"""What the messages of a changefeed mean for groups: which become due, and which messages should have come.

A message makes groups due, and says nothing else: the next check finds out what is so. Session first, never commits, no network.
"""

from collections.abc import Collection
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Float, Interval, cast, extract, func, literal, select, tuple_, union, update

from shared.reasons import Reason
from shared.state.activities import LAUNCH, LOST, TERMINATE, UNHEALTHY
from shared.state.feeds import FeedState, is_in
from shared.state.group_state import INTERVAL, make_due
from shared.store.moments import ago
from shared.store.rows import all_of, columns
from shared.store.tables import activities, feeds, group_state, groups, instances

#: What this service does to machines, and what a check finds of them.
OWN, FOUND = (LAUNCH, TERMINATE), (LOST, UNHEALTHY)
#: Seconds for which settled groups of an account that is not trusted any more are brought back to their interval. Longer than any pass:
#: a worker that read that the feed was trusted may write the time of a group's next check so much later.
BROUGHT_BACK = 310


class FeedMessage(NamedTuple):
    """A message about a machine."""

    account_id: str
    machine_id: str
    #: Of its tags. The name counts for machines of the 2018 service, which tagged nothing else.
    group_id: str | None = None
    group_name: str | None = None


class Event(NamedTuple):
    """A launch or deletion of this service, or a machine that a check found lost or unhealthy: a feed should report it."""

    account_id: str
    machine_id: str
    #: Of the activity.
    kind: str
    #: Seconds since then.
    age: float


def mark_groups_due(connection: Connection, messages: Collection[FeedMessage]) -> set[str]:
    """Make the groups due that messages are about; their accounts.

    Those of groups that are due already too: they may be waiting for the scheduler.
    """
    named = [(message.account_id, message.group_id) for message in messages if message.group_id]
    of_2018 = [(message.account_id, message.group_name) for message in messages if message.group_name and not message.group_id]
    known = [(message.account_id, message.machine_id) for message in messages]
    about = union(
        select(groups.c.id).where(tuple_(groups.c.account_id, groups.c.id).in_(named)),
        select(groups.c.id).where(tuple_(groups.c.account_id, groups.c.name).in_(of_2018), groups.c.by_name, ~groups.c.archived),
        select(instances.c.group_id).where(tuple_(instances.c.account_id, instances.c.machine_id).in_(known)),
    )
    return set(connection.execute(make_due(group_state.c.group_id.in_(about)).returning(group_state.c.account_id)).scalars())


def mark_accounts_due(connection: Connection, account_ids: Collection[str]) -> set[str]:
    """Make all groups of these accounts due; the accounts that have any."""
    theirs = select(groups.c.id).where(groups.c.account_id.in_(account_ids), ~groups.c.archived)
    return set(connection.execute(make_due(group_state.c.group_id.in_(theirs)).returning(group_state.c.account_id)).scalars())


def list_events(connection: Connection, *, after: float, until: float) -> list[Event]:
    """Events of all accounts that are at least `after` and at most `until` seconds old."""
    age = cast(extract("epoch", func.now() - activities.c.at), Float)
    statement = select(*columns(Event, activities, age=age)).where(
        activities.c.at <= ago(after),
        activities.c.at > ago(until),
        activities.c.kind.in_((*OWN, *FOUND)),
        activities.c.machine_id.is_not(None),
    )
    return all_of(Event, connection.execute(statement))


def bring_back(connection: Connection) -> int:
    """Have settled groups checked within their interval whose account's feed is not trusted any more; how many."""
    lately = select(feeds.c.account_id).where(feeds.c.since > ago(BROUGHT_BACK), ~is_in(feeds.c.account_id, [FeedState.TRUSTED]))
    # First by itself: the database can't know how few these are, and would read all groups.
    if not (account_ids := list(connection.execute(lately).scalars())):
        return 0
    usual = group_state.c.checked_at + INTERVAL * literal(timedelta(seconds=1), Interval())
    statement = update(group_state).where(
        group_state.c.group_id == groups.c.id,
        group_state.c.account_id.in_(account_ids),
        ~is_in(group_state.c.account_id, [FeedState.TRUSTED]),
        group_state.c.reason == Reason.SETTLED,
        group_state.c.check_at > func.greatest(func.now(), usual),
    )
    return len(connection.execute(statement.values(check_at=func.greatest(func.now(), usual)).returning(group_state.c.group_id)).all())
