"""Groups: a number of instances of one template. Every change of what should be raises `generation` and makes the group due at once.

Session first, never commits, no network.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, text

from shared.errors import Conflict, FieldError, Invalid, NotFound, Refused
from shared.spec import group_settings
from shared.spec.group_settings import DEFAULT, GroupSettings, Strategy
from shared.state import activities, changes, probes, rollouts, templates
from shared.state.changes import Change
from shared.store import paging
from shared.store.prepared import Prepared
from shared.store.rows import columns
from shared.store.tables import groups


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
    health_check_interval: int | None
    #: The document of its settings.
    more: str | None = None

    @property
    def settings(self) -> GroupSettings:
        """What its owner asks for beyond the columns of 2018. `OtherRelease` where another one wrote it."""
        return group_settings.from_document(self.more)


class Wish(NamedTuple):
    """What a PUT asks of a group. None: nothing was said."""

    name: str
    template_id: str
    #: Without one it is 0, as in 2018.
    capacity: int | None
    interval: int | None = None
    #: Settings by name; None for the default.
    settings: Mapping[str, Any] = MappingProxyType({})


_GROUP = columns(Group, groups)
_FIELDS = ", ".join(Group._fields)


class _Write:
    """A statement of `changes` in its two forms: of an account, one of them does nothing."""

    def __init__(self, form: Callable[..., str], **how: bool) -> None:
        # As text: SQLAlchemy compiles an INSERT with ON CONFLICT anew each time, and is slower with nested statements.
        self._silent, self._sending = (Prepared(Group, text(form(_FIELDS, sends=sends, **how))) for sends in (False, True))

    def one(self, connection: Connection, parameters: Mapping[str, Any]) -> Group | None:
        return self._silent.one(connection, parameters) or self._sending.one(connection, parameters)


# Statements of the requests, built once: to build one takes longer than to have it answered.
_MINE = (groups.c.id == bindparam("its_id"), groups.c.account_id == bindparam("owner"), ~groups.c.archived)
_BY_IDS = paging.by_ids(Group, groups.c.id, _GROUP)
_GET = Prepared(Group, select(*_GROUP).where(*_MINE))
_LOCK = Prepared(Group, select(*_GROUP).where(*_MINE).with_for_update())
_NAMED = Prepared(
    Group, select(*_GROUP).where(groups.c.account_id == bindparam("owner"), groups.c.name == bindparam("its_name"), ~groups.c.archived)
)
_CREATE, _CREATE_WITH_JOB = _Write(changes.insertion), _Write(changes.insertion, has_job=True)
_CHANGE = _Write(changes.update)


def insert_group(
    connection: Connection, account_id: str, wish: Wish, *, interval: int, request_id: str | None, has_job: bool = False
) -> Group:
    """Store a group, due at once: one statement. `interval` is for one that has none. With `has_job` its Nomad job is due too.

    `Invalid` for a template that the account does not have, or a capacity outside the bounds; `Conflict` for a taken name.
    """
    settings = _asked(DEFAULT, wish)
    capacity, why = _bounded(None, wish.capacity, DEFAULT, settings)
    cause = _cause(f"created with capacity {capacity}{why}", "POST", request_id)
    values = {
        "its_name": wish.name,
        "template_id": wish.template_id,
        "owner": account_id,
        "capacity": capacity,
        "interval": wish.interval or interval,
        "more": group_settings.to_document(settings),
        "request_id": request_id,
        "kind": activities.GROUP_CREATED,
        "description": f"group {wish.name} was {cause}",
        "cause": cause,
    }
    group = (_CREATE_WITH_JOB if has_job else _CREATE).one(connection, values)
    if group is None:
        _require_template(connection, account_id, wish.template_id)
        raise Conflict(f'Cannot create group "{wish.name}", group name conflicts with existing group.')
    return group


def get(connection: Connection, account_id: str, group_id: str) -> Group:
    """The account's live group of this id, or `NotFound`."""
    return _one(connection, _GET, group_id, {"owner": account_id, "its_id": group_id})


def get_locked(connection: Connection, account_id: str, group_id: str) -> Group:
    """The same, and nobody else changes it until the transaction ends."""
    return _one(connection, _LOCK, group_id, {"owner": account_id, "its_id": group_id})


def get_by_name(connection: Connection, account_id: str, name: str) -> Group:
    """The account's live group of this name, or `NotFound`."""
    return _one(connection, _NAMED, f'named "{name}"', {"owner": account_id, "its_name": name})


def list_entries(connection: Connection, account_id: str, *, limit: int, marker: str | None = None) -> list[paging.Entry]:
    """The account's live groups, oldest first; those behind the one with the id `marker`. `Invalid` for a marker that never was."""
    return paging.list_entries(connection, groups, (), account_id, limit=limit, marker=marker)


def get_by_ids(connection: Connection, group_ids: Collection[str]) -> dict[str, Group]:
    """Groups by id, the deleted ones too."""
    return {group.id: group for group in _BY_IDS.all(connection, paging.array(group_ids))}


def count(connection: Connection, account_id: str) -> int:
    """How many live groups the account has."""
    return paging.count(connection, groups, account_id)


def is_by_name(connection: Connection, group_id: str) -> bool:
    """Was the group made by the 2018 service, whose machines carry no group id?"""
    return bool(connection.execute(select(groups.c.by_name).where(groups.c.id == group_id)).scalar_one_or_none())


def update_group(connection: Connection, account_id: str, group_id: str, wish: Wish, *, request_id: str | None) -> Group:
    """Give a group another template, capacity, interval or settings. What the wish says nothing of stays, but for the capacity.

    Another template begins a rollout where the group's update is so set: `Conflict` while another one is under way.
    `Refused` when the name is not the group's: a name can't be changed.
    """
    current = get_locked(connection, account_id, group_id)
    if current.name != wish.name:
        raise Refused(f'The group name "{wish.name}" does not match the name on the record.')
    settings = _asked(current.settings, wish)
    capacity, why = _bounded(current.capacity, wish.capacity, current.settings, settings)
    has_template, rolls = current.template_id != wish.template_id, settings.update.strategy == Strategy.ROLLING
    if has_template:
        _require_template(connection, account_id, wish.template_id)
        rollouts.require_none(connection, group_id)
    if settings.health_check is None and current.settings.health_check is not None:
        probes.forget(connection, group_id)
    differing = _settings_changed(current.settings, settings)
    changed = [
        *_differences(("capacity", current.capacity, capacity), why=why),
        *_differences(("template", current.template_id, wish.template_id if not rolls else current.template_id)),
        *_differences(("health_check_interval", current.health_check_interval, wish.interval or current.health_check_interval)),
        *differing,
    ]
    kind = activities.GROUP_UPDATED if has_template or differing else activities.CAPACITY_CHANGED
    wanted = Change(account_id, group_id, kind, _cause(", ".join(changed), "PUT", request_id) if changed else None, request_id)
    if differing:
        wanted = wanted._replace(more=group_settings.to_document(settings), has_more=True)
    if not (has_template and rolls):
        return change(connection, wanted._replace(template_id=wish.template_id, capacity=capacity, interval=wish.interval))
    if changed:
        change(connection, wanted._replace(capacity=capacity, interval=wish.interval))
    rollouts.insert_rollout(
        connection, account_id, group_id, template_id=wish.template_id, settings=settings.update.rollout, request_id=request_id
    )
    return get(connection, account_id, group_id)


def increment(connection: Connection, account_id: str, group_id: str, *, by: int, maximum: int, request_id: str | None) -> Group:
    """Raise the capacity by `by`, at most to `maximum`. `Refused` when it is there already. Two at once both count."""
    current = get_locked(connection, account_id, group_id)
    if current.capacity >= maximum:
        raise Refused(f"The group capacity is already at or over the maximum of {maximum}.")
    return _step(connection, account_id, current, min(current.capacity + by, maximum), "increment", request_id)


def decrement(connection: Connection, account_id: str, group_id: str, *, by: int, minimum: int, request_id: str | None) -> Group:
    """Lower the capacity by `by`, at most to `minimum`. `Refused` when it is there already. Two at once both count."""
    current = get_locked(connection, account_id, group_id)
    if current.capacity <= minimum:
        raise Refused(f"The group capacity is already at or under the minimum of {minimum}.")
    return _step(connection, account_id, current, max(current.capacity - by, minimum), "decrement", request_id)


def scale(connection: Connection, account_id: str, group_id: str, *, capacity: int, settings: GroupSettings, cause: str) -> Group:
    """Give a group the capacity and the settings that its policies decided on, and tell why. `NotFound` for one that is deleted."""
    more = group_settings.to_document(settings)
    wanted = Change(account_id, group_id, activities.POLICY_SCALED, cause, None, capacity=capacity, more=more, has_more=True)
    return change(connection, wanted)


def delete_group(connection: Connection, account_id: str, group_id: str, *, request_id: str | None) -> Group:
    """Delete a group: its name is free at once, its instances go in the background. `NotFound` the second time."""
    current = get_locked(connection, account_id, group_id)
    cause = _cause("deleted", "DELETE", request_id)
    description = f"group {current.name} of capacity {current.capacity} was {cause}"
    rollouts.cancel_of_deleted(connection, group_id)
    return change(connection, Change(account_id, group_id, activities.GROUP_DELETED, cause, request_id, description, archived=True))


def _step(connection: Connection, account_id: str, current: Group, capacity: int, how: str, request_id: str | None) -> Group:
    require_within(current.settings, capacity)
    changed = _differences(("capacity", current.capacity, capacity))
    cause = _cause(", ".join(changed), how, request_id) if changed else None
    return change(connection, Change(account_id, current.id, activities.CAPACITY_CHANGED, cause, request_id, capacity=capacity))


def change(connection: Connection, wanted: Change) -> Group:
    """Write down what should be of a group from now on, and the activity. Without a cause it is looked at again, and is what it was."""
    return _one(connection, _CHANGE, wanted.group_id, changes.parameters(wanted))


def require_within(settings: GroupSettings, capacity: int) -> None:
    """`Invalid`, naming the bound, for a capacity that the group may not have."""
    if capacity < settings.min_capacity:
        message = f"group capacity cannot be {capacity}: it is less than the group's min_capacity of {settings.min_capacity}"
        raise Invalid([FieldError("capacity", message)])
    if settings.max_capacity is not None and capacity > settings.max_capacity:
        message = f"group capacity cannot be {capacity}: it is more than the group's max_capacity of {settings.max_capacity}"
        raise Invalid([FieldError("capacity", message)])


def _bounded(before: int | None, asked: int | None, old: GroupSettings, new: GroupSettings) -> tuple[int, str]:
    """The capacity that a request comes to, and the reason where it is not the one asked for.

    A bound that this request moves past the capacity takes it along, where the request says no other capacity. Otherwise `Invalid`.
    """
    if new.max_capacity is not None and new.min_capacity > new.max_capacity:
        message = f"min_capacity cannot be {new.min_capacity}: it is more than the group's max_capacity of {new.max_capacity}"
        raise Invalid([FieldError("min_capacity", message)])
    capacity, says_nothing_new = asked or 0, asked is None or asked == before
    if says_nothing_new and capacity < new.min_capacity != old.min_capacity:
        return new.min_capacity, f" (min_capacity is {new.min_capacity} now)"
    if says_nothing_new and new.max_capacity is not None and capacity > new.max_capacity != old.max_capacity:
        return new.max_capacity, f" (max_capacity is {new.max_capacity} now)"
    require_within(new, capacity)
    return capacity, " (the request had no capacity, which means 0)" if asked is None and before else ""


def _asked(settings: GroupSettings, wish: Wish) -> GroupSettings:
    """The settings with those that are asked for."""
    if not wish.settings:
        return settings
    return settings.model_copy(update={name: getattr(DEFAULT, name) if value is None else value for name, value in wish.settings.items()})


def _settings_changed(old: GroupSettings, new: GroupSettings) -> list[str]:
    """Each in words: whole objects may be too long."""
    if old == new:
        return []
    return changes.differences(old.model_dump(mode="json"), new.model_dump(mode="json"))


def _differences(pair: tuple[str, object, object], *, why: str = "") -> list[str]:
    name, before, after = pair
    return [f"{name} {before} -> {after}{why}"] if before != after else []


def _cause(what: str, how: str, request_id: str | None) -> str:
    """The first link of the chain that everything done on account of this change has."""
    return f"{what} by {how}" + (f", request {request_id}" if request_id else "")


def _require_template(connection: Connection, account_id: str, template_id: str) -> None:
    if not templates.is_live(connection, account_id, template_id):
        raise Invalid([FieldError("template_id", f"there is no template {template_id}")])


def _one(connection: Connection, statement: Prepared[Group] | _Write, what: str, parameters: Mapping[str, Any]) -> Group:
    group = statement.one(connection, parameters)
    if group is None:
        raise _not_found(what)
    return group


def _not_found(what: str) -> NotFound:
    return NotFound(f"There is no group {what}.")
