"""Checks of groups: which are due, what came of the last one, and when the next is.

Session first, never commits, no network.
"""

import math
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Float,
    Integer,
    Interval,
    Text,
    Update,
    and_,
    bindparam,
    case,
    cast,
    column,
    exists,
    extract,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.types import TypeEngine

from shared.errors import NotFound
from shared.reasons import Reason
from shared.rules import is_storable
from shared.spec.group_settings import DEFAULT, GroupSettings, from_document
from shared.spec.rollout import Rolled
from shared.state import work
from shared.state.feeds import FeedState, is_in
from shared.state.leases import Lease, is_held
from shared.store.moments import ago, ahead
from shared.store.rows import all_of, columns
from shared.store.tables import group_state, groups, rollouts
from shared.store.tables import work as work_rows


class DueGroup(NamedTuple):
    """A group as a worker sees it."""

    id: str
    name: str
    template_id: str
    #: Instances its owner asks for: 0 once the group is deleted.
    desired: int
    archived: bool
    generation: int
    failures: int
    #: Seconds between the checks of a settled group.
    interval: int
    #: Made by the 2018 service: machines with its name and no group's id are its own.
    by_name: bool
    request_id: str | None
    reason: str | None = None
    last_error: str | None = None
    #: Launches: attempts in a row that failed, how many may be under way at once (None: as many as are missing), and not before when.
    launch_failures: int = 0
    launch_window: int | None = None
    launch_at: datetime | None = None
    #: Machines that ran, and whose replacement did not run yet at the last check.
    replacing: int = 0
    #: Seconds since a deleted group was found empty.
    emptied_for: float | None = None
    #: The generation that a worker handled last.
    observed_generation: int = 0
    #: The last change of what should be, in words.
    cause: str | None = None
    #: The document of what its owner asks for beside (`settings`), and the rollout under way.
    more: str | None = None
    rollout_id: str | None = None
    #: Its check is due; False for a group that is checked early, since another one of its account is due.
    is_due: bool = True
    #: When it was to be checked. It is made due again meanwhile if this has changed by the end of the check.
    check_at: datetime | None = None
    #: The account's changefeed tells what happens to its machines.
    is_watched: bool = False
    checked_at: datetime | None = None
    #: Digest of CloudAPI's list at the last check, which the group may rest on: nothing but a change of the list asks for anything.
    listing: str | None = None

    @property
    def paced(self) -> "Paced":
        """How its launches and replacements go on."""
        return Paced(self.launch_failures, self.launch_window, self.launch_at, self.replacing)

    @property
    def settings(self) -> GroupSettings:
        """What its owner asks for beside. `OtherRelease` where another one wrote it. To a deleted group it makes no difference."""
        return DEFAULT if self.archived else from_document(self.more)


class Owner(NamedTuple):
    """A group that machines may belong to."""

    id: str
    name: str
    by_name: bool
    archived: bool
    #: Deleted, and nothing of it was left.
    is_emptied: bool


class Paced(NamedTuple):
    """How a group's launches and replacements go on: the fields of `DueGroup` of these names."""

    launch_failures: int
    launch_window: int | None
    launch_at: datetime | None
    replacing: int


class Check(NamedTuple):
    """A worker's check of a group: how it went, and `after` how many seconds to check again."""

    group: DueGroup
    after: float
    failures: int
    error: str | None
    #: What the group waits for.
    reason: Reason
    #: None: as before.
    paced: Paced | None = None
    #: What was done about the rollout under way, where that is new.
    rolled: Rolled | None = None
    #: What the group may rest on at its next check.
    listing: str | None = None


class Backlog(NamedTuple):
    """How far all groups together are behind."""

    due: int
    #: Due for longer than was asked about.
    late: int
    #: Seconds since the oldest change that no worker has seen; 0 when there is none.
    oldest_change: float


#: A row may hold any number: a smaller one would have the group checked all the time, and for a larger one there is no time.
INTERVAL = func.least(func.greatest(func.coalesce(groups.c.health_check_interval, 300), 10), 86_400)
#: Seconds before their time, at most, at which settled groups are checked when another of their account is; half their interval is less.
#: With half, any two groups of an account are checked together after one interval, and from then on.
AHEAD = 150.0

#: Seconds: a statement sees changes that were committed while it was planned, with times that are ahead of its own `now()`.
PLANNING = 0.05
_IS_DUE = group_state.c.check_at <= ahead(PLANNING)
_IS_DUE_SOON = and_(
    group_state.c.reason == Reason.SETTLED,
    group_state.c.check_at <= ahead(AHEAD),
    group_state.c.check_at <= func.now() + INTERVAL * literal(timedelta(seconds=0.5), Interval()),
)
#: Settled, and due because its interval is over: nobody has asked for a check, or changed the group.
_IS_AT_REST = and_(
    group_state.c.reason == Reason.SETTLED,
    group_state.c.check_at == group_state.c.rest_at,
    group_state.c.observed_generation == group_state.c.generation,
    ~groups.c.archived,
    rollouts.c.id.is_(None),
)
#: Built once: each pass uses it twice, and building a statement takes longer than its query.
_GROUPS = (
    select(
        *columns(
            DueGroup,
            *(groups, group_state),
            desired=case((groups.c.archived, 0), else_=groups.c.capacity),
            interval=INTERVAL,
            emptied_for=cast(extract("epoch", func.now() - group_state.c.emptied_at), Float),
            is_due=_IS_DUE,
            check_at=group_state.c.check_at,
            is_watched=is_in(bindparam("account_id"), [FeedState.TRUSTED]),
            rollout_id=rollouts.c.id,
            listing=case((_IS_AT_REST, group_state.c.listing)),
        )
    )
    .join_from(groups, group_state, group_state.c.group_id == groups.c.id)
    .outerjoin(rollouts, and_(rollouts.c.group_id == groups.c.id, rollouts.c.ended_at.is_(None)))
    .where(group_state.c.account_id == bindparam("account_id"))
)
_DUE = _GROUPS.where(or_(_IS_DUE, _IS_DUE_SOON)).order_by(group_state.c.check_at, groups.c.id).limit(bindparam("most", type_=Integer))
_ONE = _GROUPS.where(groups.c.id == bindparam("its_id"))


def list_due(connection: Connection, account_id: str, *, limit: int) -> list[DueGroup]:
    """The account's due groups, the longest due first.

    With them come settled groups that will be due in `AHEAD` seconds or half their interval: they are in the same list of machines.
    So the checks of an account come together, and its list is fetched once for all of them.
    """
    found = all_of(DueGroup, connection.execute(_DUE, {"account_id": account_id, "most": limit}))
    return found if found and found[0].is_due else []


def get(connection: Connection, account_id: str, group_id: str) -> DueGroup:
    """One group of the account, due or not, as a worker would see it; `NotFound`."""
    found = all_of(DueGroup, connection.execute(_ONE, {"account_id": account_id, "its_id": group_id}))
    if not found:
        raise NotFound(f"There is no group {group_id}.")
    return found[0]


def make_due(which: ColumnElement[bool]) -> Update:
    """The statement that makes groups due now, whatever CloudAPI's list says; not those that are over. May be given a `returning`.

    A group whose check is under way is due again after it: the check may have seen what was before. One that is due stays due since then.
    """
    under_way = exists(
        select(work_rows.c.subject).where(
            work_rows.c.kind == work.ACCOUNT, work_rows.c.subject == group_state.c.account_id, ~work.is_free(work_rows)
        )
    )
    due_at = case((under_way, func.now()), else_=func.least(group_state.c.check_at, func.now()))
    return update(group_state).where(which, group_state.c.check_at.is_not(None)).values(check_at=due_at, listing=None)


def mark_due(connection: Connection, group_id: str) -> None:
    """Make the group due now, whenever it was to be."""
    connection.execute(make_due(group_state.c.group_id == group_id))


def mark_all_due(connection: Connection, account_id: str) -> None:
    """Make all groups of an account due now that are ever due."""
    connection.execute(make_due(group_state.c.account_id == account_id))


def mark_checked(connection: Connection, lease: Lease, checks: Sequence[Check]) -> bool:
    """Note checks of groups, in one statement for all. A group that was changed meanwhile is due at once, and its launches do not wait.

    One that was made due again meanwhile is due at once, too.

    `reason_since` stays while the reason is the same. False, and nothing noted, when the lease is not held any more.
    """
    if not checks:
        return True
    paced = [check.paced or check.group.paced for check in checks]
    arrays: dict[str, tuple[list[Any], TypeEngine[Any]]] = {
        "id": ([check.group.id for check in checks], groups.c.id.type),
        "generation": ([check.group.generation for check in checks], BigInteger()),
        "check_at": ([check.group.check_at for check in checks], group_state.c.check_at.type),
        "after": ([check.after for check in checks], Float()),
        "failures": ([check.failures for check in checks], Integer()),
        "error": ([check.error for check in checks], Text()),
        "reason": ([str(check.reason) for check in checks], Text()),
        "listing": ([check.listing for check in checks], Text()),
        **{name: ([getattr(one, name) for one in paced], group_state.c[name].type) for name in Paced._fields},
    }
    unnested = func.unnest(*(literal(values, ARRAY(kind)) for values, kind in arrays.values()))
    seen = unnested.table_valued(*(column(name, kind) for name, (_, kind) in arrays.items()), name="seen").render_derived()
    # By the row's own generation: a change that commits meanwhile is seen in the row that is written.
    unchanged = group_state.c.generation == seen.c.generation
    # Only what `list_due` has read has a time.
    not_due_again = and_(unchanged, func.coalesce(group_state.c.check_at == seen.c.check_at, True))
    next_at = func.now() + seen.c.after * literal(timedelta(seconds=1), Interval())
    statement = (
        update(group_state)
        .where(group_state.c.group_id == seen.c.id, is_held(lease))
        .values(
            check_at=case((not_due_again, next_at), else_=func.now()),
            listing=case((not_due_again, seen.c.listing), else_=None),
            rest_at=case((seen.c.listing.is_not(None), next_at), else_=None),
            observed_generation=seen.c.generation,
            failures=seen.c.failures,
            last_error=seen.c.error,
            reason=seen.c.reason,
            reason_since=case((group_state.c.reason == seen.c.reason, group_state.c.reason_since), else_=func.now()),
            checked_at=func.now(),
            launch_failures=seen.c.launch_failures,
            launch_window=seen.c.launch_window,
            launch_at=case((unchanged, seen.c.launch_at), else_=None),
            replacing=seen.c.replacing,
        )
        .returning(group_state.c.group_id)
    )
    return len(connection.execute(statement).all()) == len(checks)


def mark_put_off(connection: Connection, lease: Lease, *, seconds: float) -> None:
    """Nothing can be done for the account for these seconds: what would be due within them is due after them, and so together."""
    until = ahead(seconds)
    statement = update(group_state).where(
        group_state.c.account_id == lease.account_id,
        group_state.c.check_at > ahead(PLANNING),
        group_state.c.check_at < until,
        is_held(lease),
    )
    rest_at = case((group_state.c.rest_at == group_state.c.check_at, until), else_=group_state.c.rest_at)
    connection.execute(statement.values(check_at=until, rest_at=rest_at))


def list_owners(connection: Connection, account_id: str, *, ids: Collection[str], names: Collection[str]) -> list[Owner]:
    """The account's groups of these ids, and those of the 2018 service of these names; the deleted ones too.

    The names are values of tags, which anybody may have set: what no row can have is no group's.
    """
    names = {name for name in names if is_storable(name)}
    # Each has its index; a condition on nothing would have all groups read.
    sought: list[ColumnElement[bool]] = [groups.c.id.in_(ids)] if ids else []
    sought += [and_(groups.c.by_name, groups.c.name.in_(names))] if names else []
    if not sought:
        return []
    statement = select(*columns(Owner, groups, is_emptied=group_state.c.emptied_at.is_not(None)))
    statement = statement.outerjoin_from(groups, group_state, group_state.c.group_id == groups.c.id)
    statement = statement.where(groups.c.account_id == account_id, or_(*sought))
    return all_of(Owner, connection.execute(statement))


def mark_reopened(connection: Connection, lease: Lease, group_ids: Collection[str]) -> None:
    """Machines of these deleted groups turned up after all: they are due, until nothing is left of them again."""
    statement = update(group_state).where(
        group_state.c.group_id.in_(group_ids), _is_archived(), group_state.c.emptied_at.is_not(None), is_held(lease)
    )
    connection.execute(statement.values(emptied_at=None, check_at=func.now()))


def mark_emptied(connection: Connection, lease: Lease, group: DueGroup, *, after: float | None) -> bool:
    """A deleted group has no instance left: it is checked once more `after` seconds, for what may turn up late, or never again.

    False, and nothing noted, when the lease is not held any more.
    """
    statement = (
        update(group_state)
        .where(group_state.c.group_id == group.id, _is_archived(), is_held(lease))
        .values(
            check_at=None if after is None else ahead(after),
            emptied_at=func.coalesce(group_state.c.emptied_at, func.now()),
            observed_generation=group.generation,
            failures=0,
            last_error=None,
            reason=Reason.DELETED,
            reason_since=case((group_state.c.reason == Reason.DELETED, group_state.c.reason_since), else_=func.now()),
            checked_at=func.now(),
        )
        .returning(group_state.c.job_id)
    )
    row = connection.execute(statement).one_or_none()
    if row is not None and row.job_id is not None:
        # Its Nomad job is over.
        work.mark_due(connection, work.NOMAD_JOB, group.id)
    return row is not None


def get_next_due(connection: Connection) -> float:
    """Seconds until the next group is due that is not yet; infinite when there is none."""
    ahead_by = cast(extract("epoch", func.min(group_state.c.check_at) - func.now()), Float)
    found = connection.execute(select(ahead_by).where(group_state.c.check_at > func.now())).scalar_one()
    return math.inf if found is None else float(found)


def get_backlog(connection: Connection, *, late: float) -> Backlog:
    """How many checks are due, and since when. Reads no more than what is due."""
    check_at = group_state.c.check_at
    due = select(func.count(), func.count().filter(check_at <= ago(late))).where(check_at <= func.now())
    unseen = select(cast(extract("epoch", func.now() - func.min(group_state.c.changed_at)), Float)).where(
        group_state.c.observed_generation < group_state.c.generation, check_at.is_not(None)
    )
    due_now, overdue = connection.execute(due).one()
    return Backlog(due_now, overdue, max(0.0, connection.execute(unseen).scalar_one() or 0.0))


def count_by_reason(connection: Connection) -> dict[str, int]:
    """How many groups wait for what, among those that are not gone."""
    reason = func.coalesce(group_state.c.reason, Reason.PROVISIONING.value)
    statement = select(reason, func.count()).where(group_state.c.emptied_at.is_(None)).group_by(group_state.c.reason)
    return {str(found): int(count) for found, count in connection.execute(statement)}


def _is_archived() -> ColumnElement[bool]:
    return exists(select(groups.c.id).where(groups.c.id == group_state.c.group_id, groups.c.archived))
