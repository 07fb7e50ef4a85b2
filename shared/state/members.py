"""Members: the instances of a group that have a machine, as rows know them, and what their owner asks of them.

A member stays one whatever its tags say; its row decides. What a request asks raises the group's generation, so that no step that was
planned before is carried out on it.

Session first, never commits, no network.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.errors import Conflict, FieldError, Invalid, NotFound, Refused
from shared.spec.group_settings import GroupSettings
from shared.state import activities, groups
from shared.state.changes import Asker, Change
from shared.state.groups import Group
from shared.state.instances import DELETING, GONE, INSTANCE, LEAVE, RUN, UNHEALTHY, Instance
from shared.store.paging import Entry
from shared.store.rows import all_of, columns
from shared.store.tables import instances

#: Nobody has said anything of its health.
UNKNOWN = "unknown"


class Member(NamedTuple):
    """A machine of a group."""

    instance: Instance
    name: str | None
    running_since: datetime | None
    vote_note: str | None
    voted_at: datetime | None
    probe_error: str | None
    compute_node: str | None
    #: The database's time.
    now: datetime

    @property
    def machine_id(self) -> str:
        return str(self.instance.machine_id)

    def health(self, settings: GroupSettings) -> "Health":
        """What is known of its health: a vote that it is unhealthy counts before what probes found."""
        vote, probe = self.instance.vote, self.instance.probe if settings.health_check else None
        if vote is not None and (vote == UNHEALTHY or probe is None):
            return Health(vote, self.voted_at, self.vote_note)
        return Health(UNKNOWN) if probe is None else Health(probe, self.instance.probe_since, self.probe_error)


class Health(NamedTuple):
    """The health of a member."""

    status: str
    since: datetime | None = None
    #: Why, where somebody said.
    last_error: str | None = None


class Adoptee(NamedTuple):
    """A machine that is to become a member."""

    machine_id: str
    name: str
    state: str
    compute_node: str | None
    primary_ip: str | None


#: What members have beside their instances.
_MORE = tuple(func.now().label(name) if name == "now" else instances.c[name] for name in Member._fields[1:])
_PLACE = (instances.c.launched_at, instances.c.id)


def list_entries(connection: Connection, group_id: str, *, limit: int, marker: str | None = None) -> list[Entry]:
    """The group's members, oldest first; those behind the machine `marker`. `Invalid` when the group never had it."""
    statement = select(*columns(Entry, instances, id=instances.c.machine_id, size=literal(0))).where(*_of_group(group_id))
    if marker is not None:
        known = select(*_PLACE).where(instances.c.machine_id == marker, instances.c.group_id == group_id)
        place = connection.execute(known).one_or_none()
        if place is None:
            raise Invalid([FieldError("marker", f"marker: there is nothing with the id {marker} in this list")])
        behind = tuple_(*(literal(value, column.type) for value, column in zip(place, _PLACE, strict=True)))
        statement = statement.where(tuple_(*_PLACE) > behind)
    return all_of(Entry, connection.execute(statement.order_by(*_PLACE).limit(limit)))


def get_by_machine_ids(connection: Connection, group_id: str, machine_ids: Collection[str]) -> dict[str, Member]:
    """The group's members with these machines, by the machine's id."""
    statement = select(*INSTANCE, *_MORE).where(*_of_group(group_id), instances.c.machine_id.in_(machine_ids))
    found = (Member(Instance._make(row[: len(INSTANCE)]), *row[len(INSTANCE) :]) for row in connection.execute(statement))
    return {member.machine_id: member for member in found}


def get(connection: Connection, group_id: str, machine_id: str) -> Member:
    """The group's member with this machine, or `NotFound`."""
    found = get_by_machine_ids(connection, group_id, [machine_id]).get(machine_id)
    if found is None:
        raise NotFound(f"The group has no member {machine_id}.")
    return found


def count(connection: Connection, group_id: str) -> int:
    """How many members the group has."""
    return int(connection.execute(select(func.count()).where(*_of_group(group_id))).scalar_one())


def protect(connection: Connection, asker: Asker, machine_id: str, *, until: datetime | None, note: str | None) -> tuple[Group, Member]:
    """Have scale-in and rollouts leave a member alone, until then or until it is taken back.

    `NotFound`; `Invalid` for a time that is over.
    """
    values = {"protected": True, "protected_until": until, "protected_note": note}
    ends = f" until {until.isoformat()}" if until else ""
    found = _updated(connection, asker, machine_id, values, activities.PROTECTED, f"protection of {machine_id}{ends}{_noted(note)} by PUT")
    if until is not None and until <= found[1].now:
        raise Invalid([FieldError("until", f"until is over: it is {found[1].now.isoformat()} now")])
    return found


def unprotect(connection: Connection, asker: Asker, machine_id: str, *, note: str | None) -> tuple[Group, Member]:
    """Take a member's protection back. `NotFound`."""
    values = {"protected": False, "protected_until": None, "protected_note": None}
    return _updated(
        connection, asker, machine_id, values, activities.PROTECTED, f"end of the protection of {machine_id}{_noted(note)} by PUT"
    )


def vote(connection: Connection, asker: Asker, machine_id: str, *, status: str, note: str | None) -> tuple[Group, Member]:
    """The application says how a member is: an unhealthy one is replaced. `NotFound`."""
    values = {"vote": status, "vote_note": note, "voted_at": func.now()}
    return _updated(connection, asker, machine_id, values, activities.VOTED, f"vote that {machine_id} is {status}{_noted(note)} by PUT")


def remove(connection: Connection, asker: Asker, machine_id: str, *, lowers: bool) -> Group:
    """Have a member go. With `lowers` the capacity falls by one, else it is replaced.

    `NotFound`; `Conflict` when it is on its way out already; `Refused` when the capacity may not fall.
    """
    group = groups.get_locked(connection, asker.account_id, asker.group_id)
    _require_staying(get(connection, group.id, machine_id))
    capacity = _lowered(group) if lowers else group.capacity
    _mark_leaving(connection, group.id, [machine_id])
    what = f"removal of {machine_id}" + (f", capacity {group.capacity} -> {capacity}" if lowers else "")
    return _change(connection, asker, activities.REMOVED, f"{what} by DELETE", machine_id=machine_id, capacity=capacity)


def decrement(
    connection: Connection,
    account_id: str,
    group_id: str,
    *,
    by: int,
    minimum: int,
    machine_ids: Sequence[str] = (),
    request_id: str | None,
) -> Group:
    """Lower the capacity. With machines named those go, and no others.

    All or none: `Invalid` for those that are no members, or are on their way out already, and outside the group's bounds. `Refused` when
    the capacity would fall below `minimum`. Without: as `groups.decrement`.
    """
    if not machine_ids:
        return groups.decrement(connection, account_id, group_id, by=by, minimum=minimum, request_id=request_id)
    group = groups.get_locked(connection, account_id, group_id)
    capacity = group.capacity - len(machine_ids)
    if capacity < minimum:
        raise Refused(f"The group capacity would be {capacity}, which is under the minimum of {minimum}.")
    groups.require_within(group.settings, capacity)
    leaving = _mark_leaving(connection, group.id, machine_ids)
    if wrong := [
        FieldError(f"instances.{number}", f"{one} is no member of the group, or on its way out already")
        for number, one in enumerate(machine_ids)
        if one not in leaving
    ]:
        raise Invalid(wrong)
    what = f"capacity {group.capacity} -> {capacity} by decrement, removal of {', '.join(machine_ids)}"
    return _change(connection, Asker(account_id, group_id, request_id), activities.REMOVED, what, capacity=capacity)


def adopt(connection: Connection, asker: Asker, adoptee: Adoptee, *, most: int) -> tuple[Group, Member]:
    """Make a machine a member: in the place of a launch where the group is short, else the capacity rises by one.

    One that is a member already stays so. `Conflict` for a machine of another group, `Invalid` when the capacity may not rise.
    """
    group = groups.get_locked(connection, asker.account_id, asker.group_id)
    owner = _owner(connection, asker.account_id, adoptee.machine_id)
    if owner == group.id:
        return group, get(connection, group.id, adoptee.machine_id)
    if owner is not None:
        raise Conflict(f"The machine {adoptee.machine_id} is a member of the group {owner}: detach it there first.")
    capacity = group.capacity
    if _count_staying(connection, group.id) >= capacity:
        capacity += 1
        groups.require_within(group.settings, capacity)
        if capacity > most:
            raise Invalid([FieldError("capacity", f"group capacity cannot be more than {most} compute instances")])
    values = {**adoptee._asdict(), "group_id": group.id, "template_id": None, "ran_at": func.now(), "running_since": func.now()}
    # Nothing stays of what was asked or known of it elsewhere.
    anew = dict.fromkeys(("rollout_id", "protected_until", "protected_note", "vote", "vote_note", "voted_at", "probe"))
    anew |= dict.fromkeys(("probe_since", "probe_error", "draining_since", "drained_at", "gone_at"))
    times = {"launched_at": func.now(), "state_since": func.now(), "desired": RUN, "protected": False}
    statement = upsert(instances).values(account_id=asker.account_id, **values)
    statement = statement.on_conflict_do_update(
        index_elements=["account_id", "machine_id"], set_={**values, **anew, **times}, where=instances.c.gone_at.is_not(None)
    )
    if connection.execute(statement.returning(instances.c.id)).one_or_none() is None:
        raise Conflict(f"The machine {adoptee.machine_id} has just become a member of another group.")
    risen = f", capacity {group.capacity} -> {capacity}" if capacity != group.capacity else ", in the place of a launch"
    what = f"adoption of {adoptee.machine_id}{risen} by POST"
    changed = _change(connection, asker, activities.ADOPTED, what, machine_id=adoptee.machine_id, capacity=capacity)
    return changed, get(connection, group.id, adoptee.machine_id)


def hold(connection: Connection, asker: Asker, machine_id: str, *, lowers: bool) -> tuple[Group, Member]:
    """Before a member is detached: from now on no worker has it deleted as one too many, and none carries out what it had planned.

    Raises what `detach` would raise.
    """
    group = groups.get_locked(connection, asker.account_id, asker.group_id)
    _require_detachable(get(connection, group.id, machine_id), lowers=lowers)
    if lowers:
        _lowered(group)
    values = {"protected": True, "protected_until": None, "protected_note": "is being detached"}
    return _updated(connection, asker, machine_id, values, activities.DETACHED, f"begin of the detachment of {machine_id} by POST")


def detach(connection: Connection, asker: Asker, machine_id: str, *, lowers: bool) -> Group:
    """Forget a member; its machine stays. With `lowers` the capacity falls by one, else another is launched. Raises as `remove`.

    Its row says that it is gone: a worker that has read CloudAPI's list before takes the machine for one that was listed too long.
    """
    group = groups.get_locked(connection, asker.account_id, asker.group_id)
    _require_detachable(get(connection, group.id, machine_id), lowers=lowers)
    capacity = _lowered(group) if lowers else group.capacity
    statement = update(instances).where(instances.c.group_id == group.id, instances.c.machine_id == machine_id)
    connection.execute(statement.values(state=GONE, state_since=func.now(), gone_at=func.now(), protected=False, protected_note=None))
    what = f"detachment of {machine_id}" + (f", capacity {group.capacity} -> {capacity}" if lowers else "")
    return _change(connection, asker, activities.DETACHED, f"{what} by POST", machine_id=machine_id, capacity=capacity)


def _of_group(group_id: str) -> tuple[ColumnElement[bool], ...]:
    return (instances.c.group_id == group_id, instances.c.gone_at.is_(None), instances.c.machine_id.is_not(None))


def _stays() -> ColumnElement[bool]:
    return and_(
        *(instances.c.gone_at.is_(None), instances.c.state != DELETING, instances.c.desired == RUN), instances.c.draining_since.is_(None)
    )


def _count_staying(connection: Connection, group_id: str) -> int:
    """Launches without a machine too."""
    return int(connection.execute(select(func.count()).where(instances.c.group_id == group_id, _stays())).scalar_one())


def _owner(connection: Connection, account_id: str, machine_id: str) -> str | None:
    statement = select(instances.c.group_id).where(instances.c.account_id == account_id, instances.c.machine_id == machine_id)
    return connection.execute(statement.where(instances.c.gone_at.is_(None))).scalar_one_or_none()


def _require_staying(member: Member) -> None:
    instance = member.instance
    if instance.is_unwanted or instance.state == DELETING or instance.draining_since is not None:
        raise Conflict(f"The member {member.machine_id} is on its way out already.")


def _require_detachable(member: Member, *, lowers: bool) -> None:
    """One that drains can still be kept: it does not count as capacity any more."""
    if lowers:
        _require_staying(member)
    if member.instance.state == DELETING:
        raise Conflict(f"The member {member.machine_id} is being deleted already.")


def _lowered(group: Group) -> int:
    if group.capacity <= group.settings.min_capacity:
        raise Refused(f"The group capacity is at the group's min_capacity of {group.settings.min_capacity}, and cannot fall.")
    return group.capacity - 1


def _mark_leaving(connection: Connection, group_id: str, machine_ids: Sequence[str]) -> set[str]:
    """Which of them were members, and had not been asked to go before."""
    statement = update(instances).where(*_of_group(group_id), _stays(), instances.c.machine_id.in_(machine_ids))
    return set(connection.execute(statement.values(desired=LEAVE).returning(instances.c.machine_id)).scalars())


def _updated(connection: Connection, asker: Asker, machine_id: str, values: dict[str, Any], kind: str, what: str) -> tuple[Group, Member]:
    group = groups.get_locked(connection, asker.account_id, asker.group_id)
    statement = update(instances).where(*_of_group(group.id), instances.c.machine_id == machine_id)
    connection.execute(statement.values(values))
    member = get(connection, group.id, machine_id)
    return _change(connection, asker, kind, what, machine_id=machine_id), member


def _change(connection: Connection, asker: Asker, kind: str, what: str, **changed: Any) -> Group:
    return groups.change(connection, Change(asker.account_id, asker.group_id, kind, asker.cause(what), asker.request_id, **changed))


def _noted(note: str | None) -> str:
    return f" ({note})" if note else ""
