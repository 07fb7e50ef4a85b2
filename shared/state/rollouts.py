"""Rollouts: one template in the place of another, member by member. One at a time for a group.

Requests write what is asked for: `insert_rollout` and `ask`. Each raises the group's generation and makes it due, so that a worker that
writes only while the generation is the one it saw never overwrites what a request has written. Workers write how far it is.

Session first, never commits, no network.
"""

import json
from typing import Any

from sqlalchemy import Connection, Result, Row, delete, exists, func, insert, literal, or_, select, text, tuple_, update

from shared.errors import Conflict, FieldError, Invalid, NotFound
from shared.spec import rollout_settings
from shared.spec.rollout import ASKS, ENDED, Ask, Counts, Rollout, State
from shared.spec.rollout_settings import OnFailure, RolloutSettings
from shared.state import activities, changes, templates
from shared.state.changes import Change
from shared.store.moments import ago
from shared.store.rows import columns
from shared.store.tables import groups, rollouts

#: Rollouts of a group that are not forgotten, however long ago they ended: the newest of them can be rolled back.
KEPT = 10

_COLUMNS = columns(Rollout, rollouts, document=rollouts.c.settings)
_PLACE = (rollouts.c.created_at, rollouts.c.id)
#: A group of the account, which nobody else changes until the transaction ends.
_GROUP = text(
    "SELECT template_id, previous_template_id, capacity FROM tsg_groups"
    " WHERE id = :group_id AND account_id = :account_id AND NOT archived FOR UPDATE"
)
_CHANGE = text(changes.update("id, generation"))


def insert_rollout(
    connection: Connection,
    account_id: str,
    group_id: str,
    *,
    template_id: str | None,
    settings: RolloutSettings,
    request_id: str | None,
) -> Rollout:
    """Begin a rollout of a template, of the group's own without one: the group's template is this from now on.

    `NotFound` for a group that the account does not have, `Invalid` for such a template, `Conflict` while another rollout is under way.
    """
    group = _locked(connection, account_id, group_id)
    wanted = template_id or group.template_id
    if settings.on_failure == OnFailure.ROLLBACK and wanted == group.template_id:
        message = "on_failure cannot be rollback where the group keeps its template: there is no other one to go back to"
        raise Invalid([FieldError("on_failure", message)])
    if not templates.is_live(connection, account_id, wanted):
        raise Invalid([FieldError("template_id", f"there is no template {wanted}")])
    require_none(connection, group_id)
    statement = insert(rollouts).values(
        account_id=account_id,
        group_id=group_id,
        template_id=wanted,
        previous_template_id=group.template_id,
        settings=rollout_settings.to_document(settings),
        state=State.PENDING,
        counts=json.dumps(Counts(wanted=group.capacity)._asdict()),
        progress_at=func.now(),
        request_id=request_id,
    )
    (made,) = _rollouts(connection.execute(statement.returning(*_COLUMNS)))
    what = f"reload of template {wanted}" if made.is_reload else f"template {group.template_id} -> {wanted}"
    _turn(connection, made, wanted, activities.ROLLOUT_STARTED, f"rollout {made.id} ({what}) was started")
    return made


def ask(connection: Connection, account_id: str, group_id: str, rollout_id: str, what: Ask, *, request_id: str | None) -> Rollout:
    """Pause, resume, cancel or roll back: the row says so at once, and a worker acts on it.

    `NotFound`; `Conflict` in a state that does not allow it, and with a rollback whose template is deleted, or of which nothing is known.
    """
    group = _locked(connection, account_id, group_id)
    found = get(connection, group_id, rollout_id)
    allowed, state = ASKS[what]
    # One in a state of another release can be cancelled, as all can that are under way.
    if found.state not in allowed and not (what == Ask.CANCEL and found.ended_at is None):
        raise Conflict(f"The rollout {found.id} is {found.state}: {what} is for one that is {', '.join(sorted(allowed))}.")
    if what == Ask.ROLLBACK:
        _require_way_back(connection, account_id, found)
    is_over = state in ENDED
    values: dict[str, Any] = {"state": state, "asked": what, "reason": None, "message": f"{what} was asked for", "next_at": None}
    values |= {"progress_at": func.now(), "ended_at": func.now() if is_over else None, "request_id": request_id}
    statement = update(rollouts).where(rollouts.c.id == found.id).values(values).returning(*_COLUMNS)
    (asked,) = _rollouts(connection.execute(statement))
    template_id = found.previous_template_id if what == Ask.ROLLBACK else group.template_id
    _turn(connection, asked, template_id, activities.ROLLOUT_ASKED[what], f"{what} of rollout {asked.id} was asked for")
    return asked


def mark_progress(connection: Connection, rollout: Rollout, *, generation: int) -> bool:
    """Note how far a rollout is, under the account's lease. False, and nothing noted, when it has ended or the group was changed."""
    unchanged = exists(select(groups.c.id).where(groups.c.id == rollout.group_id, groups.c.generation == generation))
    statement = update(rollouts).where(rollouts.c.id == rollout.id, rollouts.c.ended_at.is_(None), unchanged)
    names = ("state", "asked", "reason", "message", "step", "failures", "progress_at", "next_at", "started_at", "ended_at")
    values = {name: getattr(rollout, name) for name in names} | {"counts": json.dumps(rollout.counts._asdict())}
    return connection.execute(statement.values(values).returning(rollouts.c.id)).one_or_none() is not None


def mark_put_off(connection: Connection, account_id: str) -> None:
    """Nothing could be done for the account's groups: that is no delay of their rollouts. Where one is suspended no time runs anyway."""
    is_running = (rollouts.c.ended_at.is_(None), rollouts.c.progress_at.is_not(None))
    connection.execute(update(rollouts).where(rollouts.c.account_id == account_id, *is_running).values(progress_at=func.now()))


def give_back_template(connection: Connection, rollout: Rollout) -> None:
    """The group gets the template from before the rollout, and is due at once."""
    kind = activities.ROLLOUT_ASKED[Ask.ROLLBACK]
    change = Change(rollout.account_id, rollout.group_id, kind, None, rollout.request_id, template_id=rollout.previous_template_id)
    connection.execute(_CHANGE, changes.parameters(change))


def get(connection: Connection, group_id: str, rollout_id: str) -> Rollout:
    """The group's rollout of this id, or `NotFound`."""
    found = _rollouts(connection.execute(select(*_COLUMNS).where(rollouts.c.id == rollout_id, rollouts.c.group_id == group_id)))
    if not found:
        raise NotFound(f"There is no rollout {rollout_id} of this group.")
    return found[0]


def find_under_way(connection: Connection, group_id: str) -> Rollout | None:
    """The group's rollout that has not ended, if there is one."""
    return list_under_way(connection, [group_id]).get(group_id)


def require_none(connection: Connection, group_id: str) -> None:
    """`Conflict` while a rollout of the group is under way."""
    if found := find_under_way(connection, group_id):
        raise Conflict(f"The rollout {found.id} of the group is under way ({found.state}): cancel it first, or wait for its end.")


def list_under_way(connection: Connection, group_ids: list[str]) -> dict[str, Rollout]:
    """Of these groups the rollouts that have not ended, by the group's id."""
    if not group_ids:
        return {}
    rows = connection.execute(select(*_COLUMNS).where(rollouts.c.group_id.in_(group_ids), rollouts.c.ended_at.is_(None)))
    return {one.group_id: one for one in _rollouts(rows)}


def find_newest(connection: Connection, group_id: str) -> Rollout | None:
    """The group's newest rollout, if it ever had one."""
    return next(iter(list_of_group(connection, group_id, limit=1)), None)


def list_of_group(connection: Connection, group_id: str, *, limit: int, marker: str | None = None) -> list[Rollout]:
    """A group's rollouts, the newest first; those behind the one with the id `marker`. `Invalid` when the group has none such."""
    statement = select(*_COLUMNS).where(rollouts.c.group_id == group_id)
    if marker is not None:
        place = connection.execute(select(*_PLACE).where(rollouts.c.id == marker, rollouts.c.group_id == group_id)).one_or_none()
        if place is None:
            raise Invalid([FieldError("marker", f"marker: there is nothing with the id {marker} in this list")])
        before = tuple_(*(literal(value, column.type) for value, column in zip(place, _PLACE, strict=True)))
        statement = statement.where(tuple_(*_PLACE) < before)
    return _rollouts(connection.execute(statement.order_by(*(column.desc() for column in _PLACE)).limit(limit)))


def count(connection: Connection, group_id: str) -> int:
    """How many rollouts the group has had."""
    return int(connection.execute(select(func.count()).where(rollouts.c.group_id == group_id)).scalar_one())


def cancel_of_deleted(connection: Connection, group_id: str) -> None:
    """The group is deleted: so its rollout ends."""
    statement = update(rollouts).where(rollouts.c.group_id == group_id, rollouts.c.ended_at.is_(None))
    connection.execute(statement.values(state=State.CANCELLED, asked=None, message="The group was deleted.", ended_at=func.now()))


def delete_old(connection: Connection, *, days: int, limit: int) -> int:
    """Forget at most `limit` rollouts that ended more than `days` ago, the oldest first; how many.

    The `KEPT` newest of each group stay until the group is deleted.
    """
    newer = rollouts.alias()
    behind = tuple_(newer.c.created_at, newer.c.id) > tuple_(*_PLACE)
    has_newer = exists(select(newer.c.id).where(newer.c.group_id == rollouts.c.group_id, behind).offset(KEPT - 1).limit(1))
    is_deleted = exists(select(groups.c.id).where(groups.c.id == rollouts.c.group_id, groups.c.archived))
    old = select(rollouts.c.id).where(rollouts.c.ended_at < ago(days * 86_400.0), or_(has_newer, is_deleted))
    return connection.execute(delete(rollouts).where(rollouts.c.id.in_(old.order_by(rollouts.c.ended_at).limit(limit)))).rowcount


def counts_of(text: str | None) -> Counts:
    """What a row's column holds. Another release may count other things beside."""
    counts = json.loads(text or "{}")
    return Counts(**{name: counts[name] for name in Counts._fields if name in counts})


def _locked(connection: Connection, account_id: str, group_id: str) -> Row[Any]:
    row = connection.execute(_GROUP, {"group_id": group_id, "account_id": account_id}).one_or_none()
    if row is None:
        raise NotFound(f"There is no group {group_id}.")
    return row


def _require_way_back(connection: Connection, account_id: str, found: Rollout) -> None:
    if found.is_reload:
        raise Conflict(f"The rollout {found.id} is a reload, which has no template to go back to: cancel it, or start another one.")
    if (newest := find_newest(connection, found.group_id)) and newest.id != found.id:
        raise Conflict(f"The rollout {found.id} is not the group's newest, which is {newest.id}: start one of the template that you want.")
    if not templates.is_live(connection, account_id, found.previous_template_id):
        raise Conflict(f"The template {found.previous_template_id} that the rollout would go back to is deleted.")


def _turn(connection: Connection, rollout: Rollout, template_id: str, kind: str, what: str) -> None:
    """Give the group this template, and tell why."""
    cause = what + (f", request {rollout.request_id}" if rollout.request_id else "")
    change = Change(rollout.account_id, rollout.group_id, kind, cause, rollout.request_id, what, template_id, rollout_id=rollout.id)
    connection.execute(_CHANGE, changes.parameters(change))


def _rollouts(result: Result[Any]) -> list[Rollout]:
    return [Rollout(**{**row, "counts": counts_of(row["counts"])}) for row in result.mappings()]
