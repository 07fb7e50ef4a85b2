"""Policies of groups. Each change of one makes its group's policies due at once, and is an activity of the group.

Who changes a policy, or decides by policies, holds the group's row: so what is decided is decided from what is there.
Session first, never commits, no network.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.errors import Conflict, FieldError, Invalid, NotFound, OtherRelease
from shared.spec import group_settings, policy_settings
from shared.spec.group_settings import GroupSettings, Suspension
from shared.spec.policy import Policy, Progress, from_memory, to_memory
from shared.spec.policy_settings import Settings
from shared.state import activities, changes, work
from shared.state import groups as state_of_groups
from shared.state.changes import Asker
from shared.state.instances import HEALTHY, RUN, RUNNING, UNHEALTHY
from shared.store.moments import ago
from shared.store.rows import all_of, columns, one_of
from shared.store.tables import accounts, groups, hook_calls, instances, policies

#: Policies of one group.
MOST = 50
#: Calls of webhooks that one decision answers.
CALLS = 100
#: Seconds for which a call is known by its key.
KEPT = 86_400.0


class Stored(NamedTuple):
    """A policy as it is stored. `settings` is None where another version of this service wrote them."""

    id: str
    account_id: str
    group_id: str
    name: str
    settings: Settings | None
    #: One more with every change of what its owner asks for.
    version: int
    created_at: datetime
    updated_at: datetime
    progress: Progress
    #: Its last decision, with what it came to.
    decision_id: str | None
    result: str | None
    recommended: int | None

    @property
    def policy(self) -> Policy | None:
        return None if self.settings is None else Policy(self.id, self.settings, self.progress)


class _Row(NamedTuple):
    id: str
    account_id: str
    group_id: str
    name: str
    settings: str
    version: int
    created_at: datetime
    updated_at: datetime
    out_until: datetime | None
    in_until: datetime | None
    ran_until: datetime | None
    failures: int
    memory: str | None
    decision_id: str | None
    result: str | None
    recommended: int | None


class Scaled(NamedTuple):
    """A group as its policies see it."""

    id: str
    account_id: str
    account_name: str
    triton_uuid: str | None
    name: str
    template_id: str
    capacity: int
    generation: int
    more: str | None
    archived: bool
    #: Members that are available, and the database's time.
    available: int
    now: datetime

    @property
    def settings(self) -> GroupSettings:
        """What its owner asks for beside. `OtherRelease` where another one wrote it."""
        return group_settings.from_document(self.more)

    @property
    def is_suspended(self) -> bool:
        return self.settings.is_suspended(Suspension.POLICIES, self.now)


class Waiting(NamedTuple):
    """A call of a webhook that is not decided about."""

    id: str
    policy_id: str


_ROW = columns(_Row, policies)
_OF_GROUP = select(*_ROW).where(policies.c.group_id == bindparam("its_group")).order_by(policies.c.created_at, policies.c.id)


def find_scaled(connection: Connection, group_id: str) -> Scaled | None:
    """The group as its policies see it; None when there is none."""
    given = {"archived": groups.c.archived, "available": literal(0), "now": func.now()}
    statement = select(*columns(Scaled, groups, accounts, **given)).join_from(groups, accounts, groups.c.account_id == accounts.c.id)
    found = one_of(Scaled, connection.execute(statement.where(groups.c.id == group_id)))
    return found and found._replace(available=len(list_available(connection, group_id, found.settings)))


def lock_group(connection: Connection, group_id: str) -> None:
    """Nobody else changes the group, or its policies, until the transaction ends."""
    connection.execute(select(groups.c.id).where(groups.c.id == group_id).with_for_update())


def list_available(connection: Connection, group_id: str, settings: GroupSettings) -> list[str]:
    """The machines of the group's available members, by the rule of the plan (`shared.plan.census.is_available`)."""
    statement = select(instances.c.machine_id).where(
        instances.c.group_id == group_id,
        instances.c.machine_id.is_not(None),
        instances.c.gone_at.is_(None),
        instances.c.state == RUNNING,
        instances.c.desired == RUN,
        instances.c.draining_since.is_(None),
        instances.c.vote.is_distinct_from(UNHEALTHY),
        instances.c.state_since <= ago(float(settings.ready_seconds)),
    )
    if settings.health_check is not None:
        statement = statement.where(instances.c.probe == HEALTHY)
    return list(connection.execute(statement.order_by(instances.c.machine_id)).scalars())


def list_of_group(connection: Connection, group_id: str) -> list[Stored]:
    """A group's policies, the oldest first."""
    return [_stored(row) for row in all_of(_Row, connection.execute(_OF_GROUP, {"its_group": group_id}))]


def get(connection: Connection, group_id: str, policy_id: str) -> Stored:
    """The group's policy of this id, or `NotFound`."""
    found = one_of(_Row, connection.execute(select(*_ROW).where(policies.c.id == policy_id, policies.c.group_id == group_id)))
    if found is None:
        raise NotFound(f"There is no policy {policy_id} of this group.")
    return _stored(found)


def insert_policy(connection: Connection, asker: Asker, settings: Settings, *, token_hash: str | None) -> Stored:
    """Give a group another policy. `NotFound` for the group; `Conflict` for a taken name, or when it has `MOST`."""
    state_of_groups.get_locked(connection, asker.account_id, asker.group_id)
    there = list_of_group(connection, asker.group_id)
    if len(there) >= MOST:
        raise Conflict(f"The group has {MOST} policies already, and can have no more.")
    _require_free_name(there, settings)
    whose = {"account_id": asker.account_id, "group_id": asker.group_id}
    values = {**whose, "name": settings.policy_name, "settings": settings.document(), "token_hash": token_hash}
    row = one_of(_Row, connection.execute(insert(policies).values(values).returning(*_ROW)))
    assert row is not None  # noqa: S101 - for the type checker
    _mark_changed(connection, asker, activities.POLICY_CREATED, f"{_named(row.name)} ({settings.kind}) was created by POST")
    return _stored(row)


def update_policy(connection: Connection, asker: Asker, policy_id: str, settings: Settings) -> Stored:
    """Give a policy other settings: it begins anew, but for its cooldowns. `NotFound`; `Conflict` for a name; `Invalid` for its kind."""
    state_of_groups.get_locked(connection, asker.account_id, asker.group_id)
    there = list_of_group(connection, asker.group_id)
    current = get(connection, asker.group_id, policy_id)
    if current.settings is not None and current.settings.kind != settings.kind:
        raise Invalid([FieldError("kind", f"kind is {current.settings.kind}, and cannot be changed: make another policy")])
    _require_free_name([one for one in there if one.id != policy_id], settings)
    values = {
        "name": settings.policy_name,
        "settings": settings.document(),
        "version": policies.c.version + 1,
        "updated_at": func.now(),
        "ran_until": func.now(),
        "failures": 0,
        "memory": None,
        "result": None,
    }
    changed = changes.differences(current.settings.shown(), settings.shown()) if current.settings else []
    what = f"{_named(current.name)}: {', '.join(changed) or 'begins anew'} by PUT"
    return _updated(connection, asker, policy_id, values, what)


def mark_rotated(connection: Connection, asker: Asker, policy_id: str, token_hash: str) -> Stored:
    """Give a webhook another token: the old one is nobody's from now on. `NotFound`; `Conflict` for another kind."""
    state_of_groups.get_locked(connection, asker.account_id, asker.group_id)
    current = get(connection, asker.group_id, policy_id)
    if current.settings is None or current.settings.kind != "webhook":
        raise Conflict("Only a webhook policy has a URL that can be rotated.")
    values = {"token_hash": token_hash, "version": policies.c.version + 1, "updated_at": func.now()}
    return _updated(connection, asker, policy_id, values, f"{_named(current.name)}: another URL by POST")


def delete_policy(connection: Connection, asker: Asker, policy_id: str) -> None:
    """A policy is no more; its decisions stay. `NotFound`."""
    state_of_groups.get_locked(connection, asker.account_id, asker.group_id)
    current = get(connection, asker.group_id, policy_id)
    connection.execute(delete(hook_calls).where(hook_calls.c.policy_id == policy_id))
    connection.execute(delete(policies).where(policies.c.id == policy_id))
    _mark_changed(connection, asker, activities.POLICY_DELETED, f"{_named(current.name)} was deleted by DELETE")


def delete_of_group(connection: Connection, group_id: str) -> None:
    """The group is deleted: so are its policies, and nobody's call is waited for."""
    connection.execute(delete(hook_calls).where(hook_calls.c.group_id == group_id))
    connection.execute(delete(policies).where(policies.c.group_id == group_id))


def mark_progress(connection: Connection, policy_id: str, progress: Progress, **more: Any) -> None:
    """Note what a policy has behind it now; `more` are columns of its last decision."""
    values = {
        "out_until": progress.out_until,
        "in_until": progress.in_until,
        "ran_until": progress.ran_until,
        "failures": progress.failures,
        "memory": to_memory(progress),
        **more,
    }
    connection.execute(update(policies).where(policies.c.id == policy_id).values(values))


# Webhooks


def insert_call(connection: Connection, token_hash: str, *, call_id: str, key: str | None) -> str | None:
    """Note a call of the webhook with this token; its group is due. None, and nothing noted, for an unknown token and a known key."""
    called = select(policies.c.id, policies.c.group_id).join_from(policies, groups, policies.c.group_id == groups.c.id)
    row = connection.execute(called.where(policies.c.token_hash == token_hash, ~groups.c.archived)).one_or_none()
    if row is None:
        return None
    statement = upsert(hook_calls).values(id=call_id, policy_id=row.id, group_id=row.group_id, key=key).on_conflict_do_nothing()
    if connection.execute(statement.returning(hook_calls.c.id)).one_or_none() is None:
        return None
    work.mark_due(connection, work.POLICIES, row.group_id)
    return str(row.group_id)


def list_waiting(connection: Connection, group_id: str) -> list[Waiting]:
    """The oldest calls that wait for a decision, `CALLS` at most."""
    statement = select(*columns(Waiting, hook_calls)).where(hook_calls.c.group_id == group_id, hook_calls.c.decided_at.is_(None))
    return all_of(Waiting, connection.execute(statement.order_by(hook_calls.c.at, hook_calls.c.id).limit(CALLS)))


def mark_decided(connection: Connection, call_ids: Collection[str]) -> None:
    """These calls were decided about."""
    connection.execute(update(hook_calls).where(hook_calls.c.id.in_(call_ids)).values(decided_at=func.now()))


def delete_old_calls(connection: Connection, *, limit: int) -> int:
    """Forget calls that were decided about a day ago, the oldest first and at most so many; how many."""
    old = select(hook_calls.c.id).where(hook_calls.c.at < ago(KEPT), hook_calls.c.decided_at.is_not(None))
    return connection.execute(delete(hook_calls).where(hook_calls.c.id.in_(old.order_by(hook_calls.c.at).limit(limit)))).rowcount


def _require_free_name(there: list[Stored], settings: Settings) -> None:
    if any(one.name == settings.policy_name for one in there):
        raise Conflict(f'The group has a policy named "{settings.policy_name}" already.')


def _updated(connection: Connection, asker: Asker, policy_id: str, values: Mapping[str, Any], what: str) -> Stored:
    row = one_of(_Row, connection.execute(update(policies).where(policies.c.id == policy_id).values(values).returning(*_ROW)))
    assert row is not None  # noqa: S101 - for the type checker
    _mark_changed(connection, asker, activities.POLICY_UPDATED, what)
    return _stored(row)


def _mark_changed(connection: Connection, asker: Asker, kind: str, what: str) -> None:
    """The group's policies are due, and an activity says which request changed what of them."""
    work.mark_due(connection, work.POLICIES, asker.group_id)
    cause = asker.cause(what)
    activities.insert_activity(
        connection,
        account_id=asker.account_id,
        group_id=asker.group_id,
        kind=kind,
        status=activities.DONE,
        description=cause,
        cause=cause,
        request_id=asker.request_id,
    )


def _named(name: str) -> str:
    return f'policy "{name}"'


def _stored(row: _Row) -> Stored:
    try:
        settings = policy_settings.read(row.settings)
    except OtherRelease:
        settings = None
    progress = from_memory(row.memory)._replace(
        out_until=row.out_until, in_until=row.in_until, ran_until=row.ran_until, failures=row.failures
    )
    told = {name: value for name, value in row._asdict().items() if name in Stored._fields}
    return Stored(**{**told, "settings": settings, "progress": progress})
