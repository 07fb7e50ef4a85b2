"""Instances: the launches and machines of groups, as far as this service knows them.

A launch is written down before CloudAPI is asked, and its id goes with the machine as the tag `tsg.launch`; so whatever becomes of the
answer, a later list tells what became of the launch. Everything a worker writes here is written under its lease, and a launch or a
deletion moreover only while the group is still what it was when it was planned.

Session first, never commits, no network.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, ColumnElement, Connection, Select, and_, case, column, delete, exists, func, literal, or_, select, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.state.group_state import DueGroup
from shared.state.leases import Lease, is_held
from shared.store.moments import ago, ahead
from shared.store.rows import all_of, columns
from shared.store.tables import groups, instances

#: This service's own states, beside those of CloudAPI (provisioning, ready, running, stopping, stopped, offline, failed, unknown).
LAUNCHING = "launching"  # CloudAPI was asked, or is about to be; no answer is known
DOUBTED = "doubted"  # CloudAPI was asked, and failed: it may have been made before that
DELETING = "deleting"  # CloudAPI has taken its deletion on
MISSING = "missing"  # CloudAPI does not know it any more: it says so of what never was, and not of what was destroyed
GONE = "gone"
#: CloudAPI's own, of a machine that will never run. It leaves those out of its list.
FAILED = "failed"
PROVISIONING = "provisioning"
RUNNING = "running"

#: Seconds after which a machine that was gone and is listed again is taken for living again.
FORGET_AFTER = 600.0
#: Seconds for which rows of gone machines are kept, for people who read the database.
KEEP_GONE = 86_400.0

#: A machine in such a state is not what it was asked to be yet, or may come back by itself.
ON_THE_WAY = frozenset({LAUNCHING, DOUBTED, "provisioning", "ready", "stopping", "offline", "unknown"})


class Instance(NamedTuple):
    """One launch, or one machine that was found."""

    id: str
    group_id: str
    machine_id: str | None
    state: str
    state_since: datetime
    launched_at: datetime
    gone_at: datetime | None
    #: When it was first seen running.
    ran_at: datetime | None = None
    #: What it was made from; None where that is not known.
    template_id: str | None = None
    #: The rollout that launched it.
    rollout_id: str | None = None
    #: Its owner wants it gone.
    is_unwanted: bool = False
    #: Its owner protects it now, and until when (None: for good).
    is_protected: bool = False
    protected_until: datetime | None = None
    #: The application's own vote on its health, and what probes found, since when. None: nothing.
    vote: str | None = None
    probe: str | None = None
    probe_since: datetime | None = None
    #: Its drain: since when, and when it is over. `drained_at` is None until DNS has been changed.
    draining_since: datetime | None = None
    drained_at: datetime | None = None
    primary_ip: str | None = None
    #: Its address on each of its networks, as JSON.
    addresses: str | None = None


class Described(NamedTuple):
    """What CloudAPI says of an instance's machine, beside its state."""

    instance_id: str
    name: str
    created_at: datetime | None
    compute_node: str | None
    primary_ip: str
    #: Its address on each of its networks, as JSON.
    addresses: str
    template_id: str | None


#: What is asked of an instance (`tsg_instances.desired`): that it runs, or goes.
RUN, LEAVE = "run", "gone"
#: Votes and findings of probes.
HEALTHY, UNHEALTHY = "healthy", "unhealthy"

#: The columns of an `Instance`.
INSTANCE = columns(
    Instance,
    instances,
    is_unwanted=instances.c.desired == LEAVE,
    is_protected=and_(instances.c.protected, func.coalesce(instances.c.protected_until > func.now(), True)),
)


def insert_launch(connection: Connection, lease: Lease, group: DueGroup) -> str | None:
    """Write down a launch that is about to be asked for; its id. None when the lease or the group is not what it was."""
    values = select(
        literal(lease.account_id, instances.c.account_id.type),
        literal(group.id, instances.c.group_id.type),
        literal(group.template_id, instances.c.template_id.type),
        literal(group.rollout_id, instances.c.rollout_id.type),
        literal(LAUNCHING),
    )
    return _inserted(connection, values.where(is_held(lease), _unchanged(group)))


def mark_launched(connection: Connection, launch_id: str, machine_id: str, state: str) -> None:
    """CloudAPI has made the machine. Without a lease: it has happened."""
    statement = (
        update(instances)
        .where(instances.c.id == launch_id, instances.c.machine_id.is_(None))
        .values(machine_id=machine_id, state=state, state_since=func.now(), gone_at=None, **_times(state))
    )
    connection.execute(statement)


def mark_doubted(connection: Connection, launch_id: str) -> None:
    """CloudAPI failed over the launch: the next lists show whether it made a machine."""
    statement = update(instances).where(instances.c.id == launch_id, instances.c.machine_id.is_(None))
    connection.execute(statement.values(state=DOUBTED, state_since=func.now()))


def delete_launch(connection: Connection, launch_id: str) -> None:
    """CloudAPI has made no machine: the launch never was."""
    connection.execute(delete(instances).where(instances.c.id == launch_id, instances.c.machine_id.is_(None)))


def insert_found(
    connection: Connection, lease: Lease, group_id: str, machine_id: str, state: str, *, template_id: str | None = None
) -> Instance:
    """Write down a machine of the group that this service did not know, or took for gone. One that is not coming up has run before."""
    values: dict[str, Any] = {"group_id": group_id, "template_id": template_id, "state": state}
    values["ran_at"] = None if state == PROVISIONING else func.now()
    values["running_since"] = func.now() if state == RUNNING else None
    # Nothing that was asked of it elsewhere, or before it was gone, is asked of it now.
    anew = {"desired": RUN, "state_since": func.now(), "gone_at": None, "draining_since": None, "drained_at": None, "vote": None}
    statement = (
        upsert(instances)
        .values(account_id=lease.account_id, machine_id=machine_id, **values)
        .on_conflict_do_update(index_elements=["account_id", "machine_id"], set_={**values, **anew})
        .returning(*INSTANCE)
    )
    (instance,) = all_of(Instance, connection.execute(statement))
    return instance


def mark_described(connection: Connection, lease: Lease, described: Collection[Described]) -> None:
    """Write down what CloudAPI says of machines, in one statement for all."""
    kinds = {"instance_id": instances.c.id.type, **{name: instances.c[name].type for name in Described._fields[1:]}}
    arrays = [literal([getattr(one, name) for one in described], ARRAY(kind)) for name, kind in kinds.items()]
    seen = func.unnest(*arrays).table_valued(*(column(name, kind) for name, kind in kinds.items()), name="seen").render_derived()
    statement = update(instances).where(instances.c.id == seen.c.instance_id, is_held(lease))
    values = {name: seen.c[name] for name in ("name", "created_at", "compute_node", "primary_ip", "addresses")}
    connection.execute(statement.values(**values, template_id=func.coalesce(instances.c.template_id, seen.c.template_id)))


def mark_state(connection: Connection, lease: Lease, instance_id: str, state: str) -> None:
    """Write down the state a machine was seen in. One that is being deleted stays so until it is gone, and what is gone stays gone.

    Of one that was deleted, `state_since` still says since when: with `gone_at` that is how long it took.
    """
    gone_at = func.now() if state == GONE else None
    statement = update(instances).where(instances.c.id == instance_id, instances.c.state != state, is_held(lease))
    since: ColumnElement[datetime] = func.now()
    if state == GONE:
        since = case((instances.c.state == DELETING, instances.c.state_since), else_=since)
    else:
        statement = statement.where(instances.c.state.not_in((DELETING, GONE)))
    connection.execute(statement.values(state=state, state_since=since, gone_at=gone_at, **_times(state)))


def may_delete(connection: Connection, lease: Lease, group: DueGroup) -> bool:
    """Is a deletion that was planned for this group still right? False when the lease or the group is not what it was."""
    return bool(connection.execute(select(and_(is_held(lease), _unchanged(group)))).scalar_one())


def mark_draining(connection: Connection, lease: Lease, group: DueGroup, instance_id: str, *, seconds: float | None) -> bool:
    """Begin an instance's drain, which is over in `seconds`; None: once DNS has been changed (`mark_drained`).

    False, and nothing noted, when the lease or the group is not what it was.
    """
    statement = update(instances).where(instances.c.id == instance_id, is_held(lease), _unchanged(group))
    drained_at = None if seconds is None else ahead(seconds)
    values = {"draining_since": func.coalesce(instances.c.draining_since, func.now()), "drained_at": drained_at}
    return connection.execute(statement.values(values).returning(instances.c.id)).one_or_none() is not None


def mark_drained(connection: Connection, instance_id: str, *, seconds: float) -> None:
    """DNS leads nobody to the instance any more: its drain is over in `seconds`."""
    statement = update(instances).where(instances.c.id == instance_id, instances.c.draining_since.is_not(None))
    connection.execute(statement.values(drained_at=ahead(seconds)))


def mark_undrained(connection: Connection, lease: Lease, instance_id: str) -> None:
    """The instance stays."""
    statement = update(instances).where(instances.c.id == instance_id, is_held(lease))
    connection.execute(statement.values(draining_since=None, drained_at=None))


def mark_updated(connection: Connection, instance_id: str, template_id: str) -> None:
    """The instance was changed to what another template says."""
    connection.execute(update(instances).where(instances.c.id == instance_id).values(template_id=template_id))


def mark_deleting(connection: Connection, instance_id: str) -> None:
    """CloudAPI has taken the machine's deletion on. Without a lease: it has happened.

    Not written down before: a deletion may be asked for twice, and one that a killed worker had only written down would be waited for.
    """
    statement = update(instances).where(instances.c.id == instance_id, instances.c.state != GONE)
    connection.execute(statement.values(state=DELETING, state_since=func.now()))


def get_owners(
    connection: Connection, account_id: str, machine_ids: Collection[str], *, group_id: str | None = None
) -> dict[str, tuple[str, str]]:
    """Of these machines of the account, and all of a group, those that rows know and that are not gone: each one's group and state."""
    known: ColumnElement[bool] = instances.c.machine_id.in_(machine_ids)
    if group_id is not None:
        known = or_(known, and_(instances.c.group_id == group_id, instances.c.machine_id.is_not(None)))
    statement = select(instances.c.machine_id, instances.c.group_id, instances.c.state)
    rows = connection.execute(statement.where(instances.c.account_id == account_id, instances.c.gone_at.is_(None), known))
    return {row.machine_id: (row.group_id, row.state) for row in rows}


def delete_old(connection: Connection, *, limit: int) -> int:
    """Forget at most `limit` that have been gone for `KEEP_GONE`, the oldest first; how many."""
    old = instances.c.gone_at < ago(KEEP_GONE)
    oldest = select(instances.c.id).where(old).order_by(instances.c.gone_at).limit(limit)
    return connection.execute(delete(instances).where(instances.c.id.in_(oldest))).rowcount


def count_by_state(connection: Connection) -> dict[str, int]:
    """How many instances are in which state, among those that are not gone."""
    statement = select(instances.c.state, func.count()).where(instances.c.gone_at.is_(None)).group_by(instances.c.state)
    return {str(state): int(count) for state, count in connection.execute(statement)}


def _times(state: str) -> dict[str, Any]:
    """When an instance that has come to this state first ran, and since when it runs. What probes found of it before says nothing now."""
    unknown = dict.fromkeys(("probe", "probe_since", "probe_error"))
    if state != RUNNING:
        return {"running_since": None, **unknown}
    return {"ran_at": func.coalesce(instances.c.ran_at, func.now()), "running_since": func.now(), **unknown}


def _inserted(connection: Connection, values: Select[Any]) -> str | None:
    names = ["account_id", "group_id", "template_id", "rollout_id", "state"]
    statement = plain_insert(instances).from_select(names, values).returning(instances.c.id)
    return connection.execute(statement).scalar_one_or_none()


def _unchanged(group: DueGroup) -> ColumnElement[bool]:
    return exists(select(groups.c.id).where(groups.c.id == group.id, groups.c.generation == group.generation))
