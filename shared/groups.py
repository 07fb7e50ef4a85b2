"""Groups: so many instances of one template. Every change of what should be raises `generation` and makes the group due at once.

Session first, never commits, no network.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    Executable,
    Float,
    Integer,
    Interval,
    Text,
    and_,
    bindparam,
    case,
    cast,
    column,
    extract,
    func,
    literal,
    or_,
    select,
    text,
    update,
)

from shared import activities, pages, templates
from shared.db import Prepared
from shared.errors import Conflict, FieldError, Invalid, NotFound, Refused
from shared.leases import Lease, is_held
from shared.models import groups
from shared.reasons import Reason


class Group(NamedTuple):
    """A group as its owner sees it."""

    id: str
    name: str
    template_id: str
    capacity: int
    created_at: datetime
    updated_at: datetime
    #: One more with every change that was asked for.
    generation: int


class Work(NamedTuple):
    """A group as a worker sees it."""

    id: str
    name: str
    template_id: str
    #: Instances wanted: 0 once the group is deleted.
    wanted: int
    archived: bool
    generation: int
    failures: int
    #: Seconds between looks at a group with which all is well.
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
    #: Machines that ran, whose replacement did not run yet at the last look.
    replacing: int = 0
    #: Seconds since a deleted group was found empty.
    emptied_for: float | None = None
    #: The generation that was looked at last.
    observed_generation: int = 0
    #: The last change of what should be, in words.
    cause: str | None = None


class Owner(NamedTuple):
    """A group that machines may belong to, as far as whoever finds one needs to know it."""

    id: str
    name: str
    by_name: bool
    archived: bool
    #: Deleted, and nothing of it was left.
    is_emptied: bool


class Look(NamedTuple):
    """A worker's look at a group: how it went, and `after` how many seconds to look again."""

    group: Work
    after: float
    failures: int
    error: str | None
    #: What the group waits for.
    reason: Reason


class Backlog(NamedTuple):
    """How far all groups together are behind."""

    due: int
    #: Due for longer than was asked about.
    late: int
    #: Seconds since the oldest change that no worker has looked at; 0 when there is none.
    oldest_change: float


_GROUP = (
    groups.c.id,
    groups.c.name,
    groups.c.template_id,
    groups.c.capacity,
    groups.c.created_at,
    groups.c.updated_at,
    groups.c.generation,
)
#: Whoever wrote a smaller number into the row would have the group looked at all the time, and with a larger one no time can be told.
INTERVAL = func.least(func.greatest(func.coalesce(groups.c.health_check_interval, 300), 10), 86_400)
_WORK = (
    groups.c.id,
    groups.c.name,
    groups.c.template_id,
    case((groups.c.archived, 0), else_=groups.c.capacity).label("wanted"),
    groups.c.archived,
    groups.c.generation,
    groups.c.failures,
    INTERVAL,
    groups.c.by_name,
    groups.c.request_id,
    groups.c.reason,
    groups.c.last_error,
    groups.c.launch_failures,
    groups.c.launch_window,
    groups.c.launch_at,
    groups.c.replacing,
    cast(extract("epoch", func.now() - groups.c.emptied_at), Float),
    groups.c.observed_generation,
    groups.c.cause,
)
#: How long before their time settled groups are looked at, when another of their account is.
AHEAD = timedelta(seconds=60)


# Statements of the requests, built once: to build one takes longer than to have it answered.
_MINE = (groups.c.id == bindparam("its_id"), groups.c.account_id == bindparam("owner"), ~groups.c.archived)
_GET = Prepared(select(*_GROUP).where(*_MINE))
_LOCK = select(*_GROUP).where(*_MINE).with_for_update()
_NAMED = select(*_GROUP).where(groups.c.account_id == bindparam("owner"), groups.c.name == bindparam("its_name"), ~groups.c.archived)
# A change and the activity that tells of it are one statement, and so one round trip. As text: SQLAlchemy compiles an INSERT with ON
# CONFLICT anew each time, and is slower with statements in one another.
_TOLD = (
    "INSERT INTO tsg_activities (account_id, group_id, kind, status, description, cause, request_id, actor, started_at)"
    " SELECT CAST(:owner AS uuid), id, CAST(:kind AS text), 'success', CAST(:description AS text), CAST(:cause AS text),"
    " CAST(:request_id AS text),"
    " (SELECT account_name FROM tsg_accounts WHERE id = :owner), now() FROM"
)
_SHOWN = "id, name, template_id, capacity, created_at, updated_at, generation"
#: The template goes on being there until the transaction ends: whoever deletes it locks it first (`templates.archive`).
_CREATE = Prepared(
    text(
        "WITH template AS (SELECT id FROM tsg_templates WHERE id = :template_id AND account_id = :owner AND NOT archived FOR SHARE),"  # noqa: S608 - of constants alone
        " made AS (INSERT INTO tsg_groups (name, template_id, account_id, capacity, health_check_interval, request_id, cause,"
        " created_at, updated_at, archived, check_at, by_name)"
        " SELECT CAST(:its_name AS text), id, CAST(:owner AS uuid), CAST(:capacity AS bigint), CAST(:interval AS bigint),"
        " CAST(:request_id AS text), CAST(:cause AS text), now(), now(), false, now(), false FROM template"
        f" ON CONFLICT (account_id, name) WHERE NOT archived DO NOTHING RETURNING {_SHOWN}),"
        f" told AS ({_TOLD} made)"
        f" SELECT {_SHOWN} FROM made"
    )
)
#: Launches that failed before may go better now: there is no waiting for the next. Without a cause nothing is told.
_CHANGE = text(
    "WITH changed AS (UPDATE tsg_groups SET template_id = :template_id, capacity = :capacity,"  # noqa: S608
    " health_check_interval = COALESCE(CAST(:interval AS bigint), health_check_interval), archived = :archived,"
    " cause = COALESCE(:cause, cause), request_id = :request_id, generation = generation + 1, updated_at = now(),"
    " check_at = now(), job_check_at = now(), launch_at = NULL"
    f" WHERE id = :its_id AND account_id = :owner AND NOT archived RETURNING {_SHOWN}),"
    f" told AS ({_TOLD} changed WHERE CAST(:cause AS text) IS NOT NULL)"
    f" SELECT {_SHOWN} FROM changed"
).columns(*_GROUP)


def create(
    connection: Connection,
    account_id: str,
    *,
    name: str,
    template_id: str,
    capacity: int,
    interval: int,
    request_id: str | None,
) -> Group:
    """Store a group, due at once: one statement. `Invalid` for a template that the account does not have, `Conflict` for a taken name."""
    cause = _cause(f"created with capacity {capacity}", "POST", request_id)
    values = {
        "its_name": name,
        "template_id": template_id,
        "owner": account_id,
        "capacity": capacity,
        "interval": interval,
        "request_id": request_id,
        "kind": activities.GROUP_CREATED,
        "description": f"group {name} was {cause}",
        "cause": cause,
    }
    row = _CREATE.one(connection, values)
    if row is None:
        _require_template(connection, account_id, template_id)
        raise Conflict(f'Cannot create group "{name}", group name conflicts with existing group.')
    return Group._make(row)


def get(connection: Connection, account_id: str, group_id: str) -> Group:
    """The account's live group of this id, or `NotFound`."""
    row = _GET.one(connection, {"owner": account_id, "its_id": group_id})
    if row is None:
        raise _not_found(group_id)
    return Group._make(row)


def lock(connection: Connection, account_id: str, group_id: str) -> Group:
    """The same, and nobody else changes it until the transaction ends."""
    return _one(connection, _LOCK, group_id, {"owner": account_id, "its_id": group_id})


def named(connection: Connection, account_id: str, name: str) -> Group:
    """The account's live group of this name, or `NotFound`."""
    return _one(connection, _NAMED, f'named "{name}"', {"owner": account_id, "its_name": name})


def listed(connection: Connection, account_id: str, *, limit: int, marker: str | None = None) -> list[Group]:
    """The account's live groups, oldest first; those behind the one with the id `marker`. `Invalid` for a marker that never was."""
    return [Group._make(row) for row in pages.page(connection, groups, _GROUP, account_id, limit=limit, marker=marker)]


def count(connection: Connection, account_id: str) -> int:
    """How many live groups the account has."""
    return pages.count(connection, groups, account_id)


def is_by_name(connection: Connection, group_id: str) -> bool:
    """Was the group made by the 2018 service, whose machines carry no group id?"""
    return bool(connection.execute(select(groups.c.by_name).where(groups.c.id == group_id)).scalar_one_or_none())


def change(
    connection: Connection,
    account_id: str,
    group_id: str,
    *,
    name: str,
    template_id: str,
    capacity: int,
    interval: int | None = None,
    request_id: str | None,
) -> Group:
    """Give a group another template, capacity or interval; without an interval it keeps the one it has.

    `Refused` when `name` is not the group's: a name can't be changed.
    """
    current = lock(connection, account_id, group_id)
    if current.name != name:
        raise Refused(f'The group name "{name}" does not match the name on the record.')
    if current.template_id != template_id:
        _require_template(connection, account_id, template_id)
    changes = _differences(current, template_id, capacity)
    if interval is not None and interval != (before := _interval(connection, group_id)):
        changes.append(f"health_check_interval {before} -> {interval}")
    cause = _cause(", ".join(changes), "PUT", request_id) if changes else None
    kind = activities.CAPACITY_CHANGED if template_id == current.template_id else activities.GROUP_UPDATED
    wanted = current._replace(template_id=template_id, capacity=capacity)
    return _changed(connection, account_id, wanted, kind, cause, request_id, interval=interval)


def increment(connection: Connection, account_id: str, group_id: str, *, by: int, maximum: int, request_id: str | None) -> Group:
    """Raise the capacity by so many, at most to `maximum`. `Refused` when it is there already. Two at once both count."""
    current = lock(connection, account_id, group_id)
    if current.capacity >= maximum:
        raise Refused(f"The group capacity is already at or over the maximum of {maximum}.")
    return _step(connection, account_id, current, min(current.capacity + by, maximum), "increment", request_id)


def decrement(connection: Connection, account_id: str, group_id: str, *, by: int, minimum: int, request_id: str | None) -> Group:
    """Lower the capacity by so many, at most to `minimum`. `Refused` when it is there already. Two at once both count."""
    current = lock(connection, account_id, group_id)
    if current.capacity <= minimum:
        raise Refused(f"The group capacity is already at or under the minimum of {minimum}.")
    return _step(connection, account_id, current, max(current.capacity - by, minimum), "decrement", request_id)


def archive(connection: Connection, account_id: str, group_id: str, *, request_id: str | None) -> Group:
    """Delete a group: its name is free at once, its instances go in the background. `NotFound` the second time."""
    current = lock(connection, account_id, group_id)
    cause = _cause("deleted", "DELETE", request_id)
    told = f"group {current.name} of capacity {current.capacity} was {cause}"
    return _changed(connection, account_id, current, activities.GROUP_DELETED, cause, request_id, description=told, archived=True)


_IS_DUE = groups.c.check_at <= func.now()
_IS_DUE_SOON = and_(
    groups.c.reason == Reason.SETTLED,
    groups.c.check_at <= func.now() + AHEAD,
    groups.c.check_at <= func.now() + INTERVAL * literal(timedelta(seconds=0.2), Interval()),
)
#: Written once: each pass asks it twice, and to write it takes longer than to ask it.
_DUE = (
    select(*_WORK, _IS_DUE.label("is_due"))
    .where(groups.c.account_id == bindparam("account_id"), or_(_IS_DUE, _IS_DUE_SOON))
    .order_by(groups.c.check_at, groups.c.id)
    .limit(bindparam("most", type_=Integer))
)


def due(connection: Connection, account_id: str, *, limit: int) -> list[Work]:
    """The account's groups whose time to be looked at has come, the longest due first.

    With them come those with which all is well and whose time comes in `AHEAD` or a fifth of their interval: they are in the same list
    of machines. So the looks at an account come together, and its list is fetched once for all of them.
    """
    rows = connection.execute(_DUE, {"account_id": account_id, "most": limit}).all()
    return [Work._make(row[:-1]) for row in rows] if rows and rows[0].is_due else []


def make_due(connection: Connection, group_id: str) -> None:
    """Have the group looked at now, whenever it was to be."""
    statement = update(groups).where(groups.c.id == group_id, groups.c.check_at > func.now())
    connection.execute(statement.values(check_at=func.now()))


def make_all_due(connection: Connection, account_id: str) -> None:
    """Have all groups of an account looked at now that are looked at ever."""
    statement = update(groups).where(groups.c.account_id == account_id, groups.c.check_at > func.now())
    connection.execute(statement.values(check_at=func.now()))


def checked(connection: Connection, lease: Lease, looks: Sequence[Look]) -> bool:
    """Note looks at groups, in one statement however many there are: a group that was changed meanwhile is looked at again at once.

    `reason_since` stays while the reason is the same.

    False, and nothing noted, when the lease is not held any more: whoever holds it now knows better.
    """
    if not looks:
        return True
    columns = {
        "id": ([look.group.id for look in looks], groups.c.id.type),
        "generation": ([look.group.generation for look in looks], BigInteger()),
        "after": ([look.after for look in looks], Float()),
        "failures": ([look.failures for look in looks], Integer()),
        "error": ([look.error for look in looks], Text()),
        "reason": ([str(look.reason) for look in looks], Text()),
    }
    arrays = [literal(values, ARRAY(kind)) for values, kind in columns.values()]
    seen = func.unnest(*arrays).table_valued(*(column(name, kind) for name, (_, kind) in columns.items()), name="seen").render_derived()
    statement = (
        update(groups)
        .where(groups.c.id == seen.c.id, is_held(lease))
        .values(
            check_at=case(
                (groups.c.generation == seen.c.generation, func.now() + seen.c.after * literal(timedelta(seconds=1), Interval())),
                else_=func.now(),
            ),
            observed_generation=seen.c.generation,
            failures=seen.c.failures,
            last_error=seen.c.error,
            reason=seen.c.reason,
            reason_since=case((groups.c.reason == seen.c.reason, groups.c.reason_since), else_=func.now()),
            checked_at=func.now(),
        )
        .returning(groups.c.id)
    )
    return len(connection.execute(statement).all()) == len(looks)


def paced(connection: Connection, lease: Lease, group: Work) -> None:
    """Note where the group stands with its launches, as `group` has it. One that was changed meanwhile waits for none."""
    statement = update(groups).where(groups.c.id == group.id, is_held(lease))
    connection.execute(
        statement.values(
            launch_failures=group.launch_failures,
            launch_window=group.launch_window,
            launch_at=case((groups.c.generation == group.generation, cast(group.launch_at, groups.c.launch_at.type)), else_=None),
            replacing=group.replacing,
        )
    )


def owners(connection: Connection, account_id: str, *, ids: Collection[str], names: Collection[str]) -> list[Owner]:
    """The account's groups of these ids, and those of the 2018 service of these names; the deleted ones too."""
    by_name = and_(groups.c.by_name, groups.c.name.in_(names))
    statement = select(groups.c.id, groups.c.name, groups.c.by_name, groups.c.archived, groups.c.emptied_at.is_not(None))
    rows = connection.execute(statement.where(groups.c.account_id == account_id, or_(groups.c.id.in_(ids), by_name)))
    return [Owner._make(row) for row in rows]


def reopen(connection: Connection, lease: Lease, group_ids: Collection[str]) -> None:
    """Machines of these deleted groups turned up after all: they are due, until nothing is left of them again."""
    statement = update(groups).where(groups.c.id.in_(group_ids), groups.c.archived, groups.c.emptied_at.is_not(None), is_held(lease))
    connection.execute(statement.values(emptied_at=None, check_at=func.now()))


def emptied(connection: Connection, lease: Lease, group: Work, *, after: float | None) -> bool:
    """A deleted group has no instance left: it is looked at once more `after` seconds, for what may turn up late, or never again.

    False, and nothing noted, when the lease is not held any more.
    """
    statement = (
        update(groups)
        .where(groups.c.id == group.id, groups.c.archived, is_held(lease))
        .values(
            check_at=None if after is None else func.now() + literal(timedelta(seconds=after), Interval()),
            emptied_at=func.coalesce(groups.c.emptied_at, func.now()),
            observed_generation=group.generation,
            failures=0,
            last_error=None,
            reason=Reason.DELETED,
            reason_since=case((groups.c.reason == Reason.DELETED, groups.c.reason_since), else_=func.now()),
            checked_at=func.now(),
            # Its job is over, if it has one.
            job_check_at=case((groups.c.job_id.is_(None), None), else_=func.now()),
        )
        .returning(groups.c.id)
    )
    return connection.execute(statement).one_or_none() is not None


def backlog(connection: Connection, *, late: float) -> Backlog:
    """What waits to be looked at, and since when. Reads no more than what waits."""
    since = func.now() - literal(timedelta(seconds=late), Interval())
    due = select(func.count(), func.count().filter(groups.c.check_at <= since)).where(groups.c.check_at <= func.now())
    unseen = select(cast(extract("epoch", func.now() - func.min(groups.c.updated_at)), Float)).where(
        groups.c.observed_generation < groups.c.generation, groups.c.check_at.is_not(None)
    )
    due_now, overdue = connection.execute(due).one()
    return Backlog(due_now, overdue, max(0.0, connection.execute(unseen).scalar_one() or 0.0))


def by_reason(connection: Connection) -> dict[str, int]:
    """How many groups wait for what, among those that are not gone."""
    statement = select(func.coalesce(groups.c.reason, Reason.PROVISIONING.value), func.count()).where(groups.c.emptied_at.is_(None))
    return {str(reason): int(count) for reason, count in connection.execute(statement.group_by(groups.c.reason))}


def _step(connection: Connection, account_id: str, current: Group, capacity: int, how: str, request_id: str | None) -> Group:
    changes = _differences(current, current.template_id, capacity)
    cause = _cause(", ".join(changes), how, request_id) if changes else None
    return _changed(connection, account_id, current._replace(capacity=capacity), activities.CAPACITY_CHANGED, cause, request_id)


def _interval(connection: Connection, group_id: str) -> int | None:
    statement = select(groups.c.health_check_interval).where(groups.c.id == group_id)
    return connection.execute(statement).scalar_one_or_none()


def _differences(current: Group, template_id: str, capacity: int) -> list[str]:
    pairs = (("capacity", current.capacity, capacity), ("template", current.template_id, template_id))
    return [f"{name} {before} -> {after}" for name, before, after in pairs if before != after]


def _cause(what: str, how: str, request_id: str | None) -> str:
    """The first link of the chain that everything done on account of this change is told with."""
    return f"{what} by {how}" + (f", request {request_id}" if request_id else "")


def _changed(
    connection: Connection,
    account_id: str,
    wanted: Group,
    kind: str,
    cause: str | None,
    request_id: str | None,
    *,
    description: str | None = None,
    interval: int | None = None,
    archived: bool = False,
) -> Group:
    """Write down what should be from now on, and the activity. Without a cause, the group is looked at again and is what it was."""
    values = {
        "its_id": wanted.id,
        "owner": account_id,
        "template_id": wanted.template_id,
        "capacity": wanted.capacity,
        "interval": interval,
        "archived": archived,
        "request_id": request_id,
        "kind": kind,
        "description": description or cause,
        "cause": cause,
    }
    return _one(connection, _CHANGE, wanted.id, values)


def _require_template(connection: Connection, account_id: str, template_id: str) -> None:
    if not templates.is_live(connection, account_id, template_id):
        raise Invalid([FieldError("template_id", f"there is no template {template_id}")])


def _one(connection: Connection, statement: Executable, what: str, parameters: Mapping[str, Any]) -> Group:
    row = connection.execute(statement, parameters).one_or_none()
    if row is None:
        raise _not_found(what)
    return Group._make(row)


def _not_found(what: str) -> NotFound:
    return NotFound(f"There is no group {what}.")
