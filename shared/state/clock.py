"""What to do when the database's clock was set back: times that lie further ahead than they are ever written are brought to now.

Without it a group would not be looked at, a launch not be given up, and a key not be forgotten, until the clock is where it was. Claims and
wake-ups need no mending: those that end too late have ended (`shared.state.work`). Session first, never commits, no network.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Column, ColumnElement, Connection, Interval, Table, Update, case, func, literal, or_, select, update

from shared.state import work
from shared.state.feeds import LONGEST_WATCHED, FeedState, is_in
from shared.state.group_state import INTERVAL
from shared.store.moments import ahead
from shared.store.tables import accounts, feeds, group_state, groups, idempotency_keys, instances
from shared.store.tables import work as rows

#: Seconds. By so little a clock may be set back without anybody noticing.
SLACK = 5.0
#: Seconds. No pause after failures is longer; a group is looked at, and its Nomad job too, after this or its interval.
LONGEST_PAUSE = 600.0
#: Seconds. The last looks at a deleted group that is empty are so far apart.
LATE_LOOK = 129_600.0

#: When something was: never in the future.
_PAST: dict[Table, tuple[str, ...]] = {
    group_state: ("changed_at", "checked_at", "emptied_at", "reason_since", "job_forced_at", "job_ran_at"),
    instances: ("state_since", "launched_at", "ran_at", "gone_at"),
    # Its answer is given for another day, and not forgotten: a request that is sent again must not be carried out again.
    idempotency_keys: ("created_at",),
    accounts: ("budget_at",),
    feeds: ("since",),
}


def get_now(connection: Connection) -> datetime:
    """The time by the database's clock."""
    found: datetime = connection.execute(select(func.now())).scalar_one()
    return found


def bring_back(connection: Connection) -> int:
    """Have looks that lie too far ahead be due, and let nothing have been in the future; how many rows were changed."""
    check_at, launch_at, due_at = group_state.c.check_at, group_state.c.launch_at, rows.c.due_at
    of_group = group_state.c.group_id == groups.c.id
    is_watched = is_in(group_state.c.account_id, [FeedState.TRUSTED])
    longest = func.greatest(INTERVAL, case((is_watched, LONGEST_WATCHED), else_=LONGEST_PAUSE))
    latest = _ahead(case((group_state.c.emptied_at.is_not(None), LATE_LOOK), else_=longest))
    late_job = _ahead(func.greatest(INTERVAL, LONGEST_PAUSE))
    # The first condition of each is for its index.
    statements = [
        update(group_state).where(check_at > ahead(LONGEST_PAUSE + SLACK), of_group, check_at > latest).values(check_at=func.now()),
        update(group_state).where(launch_at > ahead(LONGEST_PAUSE + SLACK)).values(launch_at=func.now()),
        update(rows)
        .where(rows.c.kind == work.NOMAD_JOB, due_at > ahead(LONGEST_PAUSE + SLACK), rows.c.subject == groups.c.id, due_at > late_job)
        .values(due_at=func.now()),
        *(_brought_back(table, [table.c[name] for name in names]) for table, names in _PAST.items()),
    ]
    return sum(connection.execute(statement).rowcount for statement in statements)


def _brought_back(table: Table, columns: Sequence[Column[datetime]]) -> Update:
    """One statement for a table: it has no index for this, and is read once."""
    values = {column: case((column > ahead(SLACK), func.now()), else_=column) for column in columns}
    return update(table).where(or_(*(column > ahead(SLACK) for column in columns))).values(values)


def _ahead(seconds: ColumnElement[float]) -> ColumnElement[datetime]:
    return func.now() + (seconds + SLACK) * literal(timedelta(seconds=1), Interval())
