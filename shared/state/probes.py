"""Health probes: which instances are probed, by which process, and what the probes found.

The ids of groups are divided into ranges by their first digit. To probe the groups of a range, a process claims it: a row of work of the
kind `probes`, whose subject is the first id of the range. Each process that probes also claims a row of its own, of the kind `prober`, so
that all know how many share the ranges. What a process finds is written under its claim.

Session first, never commits, no network.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, ColumnElement, Connection, Text, and_, case, column, delete, false, func, literal, or_, select, update
from sqlalchemy.types import TypeEngine

from shared.state import activities, work
from shared.state.group_state import make_due
from shared.state.instances import RUNNING
from shared.state.work import Claim, ClaimLost, is_held
from shared.store.moments import ago
from shared.store.rows import all_of, columns
from shared.store.tables import group_state, groups, instances
from shared.store.tables import work as rows

#: Kinds of work: whose subject is the first id of a range, and whose is a process.
PROBES, PROBER = "probes", "prober"
#: The first id of each range. UUIDs are in the order of their digits.
RANGES = tuple(f"{digit:x}0000000-0000-0000-0000-000000000000" for digit in range(16))
#: Seconds after which the row of a process that died is removed.
FORGET_AFTER = 60.0

#: What is found of an instance; null while nothing is known.
HEALTHY, UNHEALTHY = "healthy", "unhealthy"


class Target(NamedTuple):
    """A running instance of a group that may have a health check."""

    id: str
    account_id: str
    group_id: str
    machine_id: str
    #: The group's settings beyond 2018's: a document of `shared.spec.group_settings`.
    more: str
    primary_ip: str | None
    #: JSON: its address on each network.
    addresses: str | None
    running_since: datetime
    probe: str | None
    probe_since: datetime | None
    probe_error: str | None


class Finding(NamedTuple):
    """What the probes of an instance found."""

    target: Target
    #: HEALTHY, UNHEALTHY, or None while nothing is known.
    health: str | None
    error: str | None


#: Of a group with a health check; a document of another may have these letters too.
_HAS_CHECK = and_(groups.c.more.like('%"health_check": {%'), ~groups.c.archived)
_TARGET = columns(
    Target,
    instances,
    groups,
    more=groups.c.more,
    running_since=func.coalesce(instances.c.running_since, instances.c.ran_at, instances.c.state_since),
)


def are_wanted(connection: Connection) -> bool:
    """Has any group a health check?"""
    return bool(connection.execute(select(select(groups.c.id).where(_HAS_CHECK).exists())).scalar_one())


def list_targets(connection: Connection, ranges: Collection[str]) -> tuple[datetime, list[Target]]:
    """The database's time, and all running instances of groups with a health check in these ranges."""
    now: datetime = connection.execute(select(func.now())).scalar_one()
    statement = (
        select(*_TARGET)
        .join_from(groups, instances, instances.c.group_id == groups.c.id)
        .where(_HAS_CHECK, or_(false(), *map(_is_in, ranges)), instances.c.gone_at.is_(None), instances.c.state == RUNNING)
    )
    return now, all_of(Target, connection.execute(statement))


def range_of(group_id: str) -> str:
    """The range that a group is in."""
    return RANGES[int(group_id[0], 16)]


def count_probers(connection: Connection) -> int:
    """How many processes probe, or are about to. Forgets those that died."""
    connection.execute(delete(rows).where(rows.c.kind == PROBER, rows.c.until < ago(FORGET_AFTER)))
    return connection.execute(select(func.count()).where(rows.c.kind == PROBER, rows.c.until > func.now())).scalar_one()


def list_free_ranges(connection: Connection) -> list[str]:
    """The ranges that are not claimed."""
    claimed = connection.execute(select(rows.c.subject).where(rows.c.kind == PROBES, ~work.is_free())).scalars()
    taken = set(claimed)
    return [first for first in RANGES if first not in taken]


def mark_found(connection: Connection, claimed: Claim, findings: Sequence[Finding], *, actor: str) -> None:
    """Write down what was found in a range; groups with an instance whose health changed are due. `ClaimLost` when it is not held any more.

    An instance that turned unhealthy is an activity.
    """
    seen = _table_of(findings)
    is_one = and_(instances.c.id == seen.c.id, instances.c.gone_at.is_(None))
    is_same = func.coalesce(instances.c.probe, "") == func.coalesce(seen.c.health, "")
    changed = set(connection.execute(select(instances.c.id).where(is_one, ~is_same)).scalars())
    since = case((is_same, instances.c.probe_since), else_=func.now())
    connection.execute(update(instances).where(is_one).values(probe=seen.c.health, probe_since=since, probe_error=seen.c.error))
    news = [finding for finding in findings if finding.target.id in changed]
    for finding in news:
        if finding.health == UNHEALTHY:
            _tell(connection, finding, actor)
    group_ids = {finding.target.group_id for finding in news}
    connection.execute(make_due(group_state.c.group_id.in_(group_ids)))
    if not connection.execute(select(is_held(claimed))).scalar_one():
        raise ClaimLost


def forget(connection: Connection, group_id: str) -> None:
    """What probes found of a group's instances says nothing any more: its health check is gone."""
    is_known = or_(instances.c.probe.is_not(None), instances.c.probe_error.is_not(None))
    statement = update(instances).where(instances.c.group_id == group_id, instances.c.gone_at.is_(None), is_known)
    connection.execute(statement.values(probe=None, probe_since=None, probe_error=None))


def _table_of(findings: Sequence[Finding]) -> Any:
    """The findings as a table of the statement: id, health, error."""
    rows: dict[str, tuple[list[str | None], TypeEngine[Any]]] = {
        "id": ([finding.target.id for finding in findings], instances.c.id.type),
        "health": ([finding.health for finding in findings], Text()),
        "error": ([finding.error for finding in findings], Text()),
    }
    unnested = func.unnest(*(literal(values, ARRAY(kind)) for values, kind in rows.values()))
    return unnested.table_valued(*(column(name, kind) for name, (_, kind) in rows.items()), name="seen").render_derived()


def _tell(connection: Connection, found: Finding, actor: str) -> None:
    activities.insert_activity(
        connection,
        account_id=found.target.account_id,
        group_id=found.target.group_id,
        kind=activities.UNHEALTHY,
        status=activities.FAILED,
        description=f"{found.target.machine_id} is unhealthy: its health check says {found.error}",
        machine_id=found.target.machine_id,
        actor=actor,
    )


def _is_in(first: str) -> ColumnElement[bool]:
    return and_(groups.c.id >= first, groups.c.id <= f"{first[0]}fffffff-ffff-ffff-ffff-ffffffffffff")
