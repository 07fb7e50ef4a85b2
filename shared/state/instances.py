"""Instances: the launches and machines of groups, as far as this service knows them.

A launch is written down before CloudAPI is asked, and its id goes with the machine as the tag `tsg.launch`; so whatever becomes of the
answer, a later list tells what became of the launch. Everything a worker writes here is written under its lease, and a launch or a
deletion moreover only while the group is still what it was when it was planned.

Session first, never commits, no network.
"""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, delete, exists, func, literal, or_, select, update
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.state.group_state import DueGroup
from shared.state.leases import Lease, is_held
from shared.store.moments import ago
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


_INSTANCE = columns(Instance, instances)


def list_of_groups(connection: Connection, group_ids: Collection[str]) -> tuple[datetime, list[Instance]]:
    """The database's time, and all instances of these groups that are there or went a short while ago."""
    recent = or_(instances.c.gone_at.is_(None), instances.c.gone_at > ago(FORGET_AFTER))
    now: datetime = connection.execute(select(func.now())).scalar_one()
    return now, all_of(Instance, connection.execute(select(*_INSTANCE).where(instances.c.group_id.in_(group_ids), recent)))


def insert_launch(connection: Connection, lease: Lease, group: DueGroup) -> str | None:
    """Write down a launch that is about to be asked for; its id. None when the lease or the group is not what it was."""
    values = select(
        literal(lease.account_id, instances.c.account_id.type),
        literal(group.id, instances.c.group_id.type),
        literal(group.template_id, instances.c.template_id.type),
        literal(LAUNCHING),
    )
    return _inserted(connection, values.where(is_held(lease), _unchanged(group)))


def mark_launched(connection: Connection, launch_id: str, machine_id: str, state: str) -> None:
    """CloudAPI has made the machine. Without a lease: it has happened."""
    statement = (
        update(instances)
        .where(instances.c.id == launch_id, instances.c.machine_id.is_(None))
        .values(machine_id=machine_id, state=state, state_since=func.now(), gone_at=None, ran_at=_ran_at(state))
    )
    connection.execute(statement)


def mark_doubted(connection: Connection, launch_id: str) -> None:
    """CloudAPI failed over the launch: the next lists show whether it made a machine."""
    statement = update(instances).where(instances.c.id == launch_id, instances.c.machine_id.is_(None))
    connection.execute(statement.values(state=DOUBTED, state_since=func.now()))


def delete_launch(connection: Connection, launch_id: str) -> None:
    """CloudAPI has made no machine: the launch never was."""
    connection.execute(delete(instances).where(instances.c.id == launch_id, instances.c.machine_id.is_(None)))


def insert_found(connection: Connection, lease: Lease, group_id: str, machine_id: str, state: str) -> Instance:
    """Write down a machine of the group that this service did not know, or took for gone. One that is not coming up has run before."""
    ran_at = None if state == PROVISIONING else func.now()
    statement = (
        upsert(instances)
        .values(account_id=lease.account_id, group_id=group_id, machine_id=machine_id, state=state, ran_at=ran_at)
        .on_conflict_do_update(
            index_elements=["account_id", "machine_id"],
            set_={"group_id": group_id, "state": state, "state_since": func.now(), "gone_at": None, "ran_at": ran_at},
        )
        .returning(*_INSTANCE)
    )
    (instance,) = all_of(Instance, connection.execute(statement))
    return instance


def mark_state(connection: Connection, lease: Lease, instance_id: str, state: str) -> None:
    """Write down the state a machine was seen in. One that is being deleted stays so until it is gone, and what is gone stays gone."""
    gone_at = func.now() if state == GONE else None
    statement = update(instances).where(instances.c.id == instance_id, instances.c.state != state, is_held(lease))
    if state != GONE:
        statement = statement.where(instances.c.state.not_in((DELETING, GONE)))
    connection.execute(statement.values(state=state, state_since=func.now(), gone_at=gone_at, ran_at=_ran_at(state)))


def may_delete(connection: Connection, lease: Lease, group: DueGroup) -> bool:
    """Is a deletion that was planned for this group still right? False when the lease or the group is not what it was."""
    return bool(connection.execute(select(and_(is_held(lease), _unchanged(group)))).scalar_one())


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


def _ran_at(state: str) -> ColumnElement[datetime]:
    return func.coalesce(instances.c.ran_at, func.now()) if state == RUNNING else instances.c.ran_at


def _inserted(connection: Connection, values: Select[tuple[str, str, str | None, str]]) -> str | None:
    statement = plain_insert(instances).from_select(["account_id", "group_id", "template_id", "state"], values).returning(instances.c.id)
    return connection.execute(statement).scalar_one_or_none()


def _unchanged(group: DueGroup) -> ColumnElement[bool]:
    return exists(select(groups.c.id).where(groups.c.id == group.id, groups.c.generation == group.generation))
