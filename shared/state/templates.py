"""Templates: what an instance is made from. Immutable: made, read, archived. Session first, never commits, no network."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.errors import Conflict, NotFound
from shared.spec import fields
from shared.spec.spec import Spec, from_document, to_columns, to_document
from shared.store import paging
from shared.store.prepared import Prepared
from shared.store.rows import columns
from shared.store.tables import groups, rollouts, templates


class Template(NamedTuple):
    """A template as it is stored."""

    id: str
    created_at: datetime
    spec: Spec
    #: Columns that hold something else than they should, and are left out of `spec`: no instance can be made from it.
    unreadable: tuple[str, ...] = ()


class _Row(NamedTuple):
    """A template in the columns of 2018, and the document of what these can't say."""

    id: str
    created_at: datetime
    template_name: str
    package: str
    image_id: str
    firewall_enabled: bool | None
    networks: str | None
    userdata: str | None
    metadata: str | None
    tags: str | None
    more: str | None


_COLUMNS = columns(_Row, templates)
_READS = [(field.name, field.column.read, field.is_required) for field in fields.FIELDS if field.column]
#: Columns of any size.
_LONG = (*(templates.c[field.name] for field in fields.FIELDS if field.column and field.column.is_long), templates.c.more)

# Built once: to build a statement takes longer than to have it answered.
_MINE = (templates.c.id == bindparam("its_id"), templates.c.account_id == bindparam("owner"), ~templates.c.archived)
_GET = Prepared(_Row, select(*_COLUMNS).where(*_MINE))
_BY_IDS = paging.by_ids(_Row, templates.c.id, _COLUMNS)
_SHARE = select(templates.c.id).where(*_MINE).with_for_update(read=True)


def create(connection: Connection, account_id: str, spec: Spec) -> Template:
    """Store a template. `Conflict` when a live one of the account has its name."""
    statement = (
        upsert(templates)
        .values(
            template_name=spec.name,
            account_id=account_id,
            **to_columns(spec),
            more=to_document(spec),
            created_at=func.now(),
            archived=False,
        )
        .on_conflict_do_nothing(index_elements=["account_id", "template_name"], index_where=~templates.c.archived)
        .returning(*_COLUMNS)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise Conflict(f'Cannot create template "{spec.name}", conflicts with another template.')
    return _template(row)


def get(connection: Connection, account_id: str, template_id: str) -> Template:
    """The account's live template of this id, or `NotFound`."""
    row = _GET.one(connection, {"its_id": template_id, "owner": account_id})
    if row is None:
        raise NotFound(f"There is no template {template_id}.")
    return _template(row)


def list_entries(connection: Connection, account_id: str, *, limit: int, marker: str | None = None) -> list[paging.Entry]:
    """The account's live templates, oldest first; those behind the one with the id `marker`. `Invalid` for a marker that never was."""
    return paging.list_entries(connection, templates, _LONG, account_id, limit=limit, marker=marker)


def count(connection: Connection, account_id: str) -> int:
    """How many live templates the account has."""
    return paging.count(connection, templates, account_id)


def archive(connection: Connection, account_id: str, template_id: str) -> None:
    """Delete a template: `NotFound`, or `Conflict` while a live group is made from it.

    The row is locked first and the groups are read afterwards. `groups.insert_group` and `groups.update_group` lock it too, so that no
    group can start to use a template that is being deleted.
    """
    locked = select(templates.c.id).where(*_MINE).with_for_update()
    if connection.execute(locked, {"its_id": template_id, "owner": account_id}).one_or_none() is None:
        raise NotFound(f"There is no template {template_id}.")
    used = select(groups.c.id).where(groups.c.template_id == template_id, ~groups.c.archived).limit(1)
    # The newest rollout that has not ended may go back to it.
    needed = select(rollouts.c.id).where(rollouts.c.previous_template_id == template_id, rollouts.c.ended_at.is_(None)).limit(1)
    if any(connection.execute(statement).one_or_none() is not None for statement in (used, needed)):
        raise Conflict(f'Cannot delete template "{template_id}" while in use, must be removed from all groups first.')
    connection.execute(update(templates).where(templates.c.id == template_id).values(archived=True))


def is_live(connection: Connection, account_id: str, template_id: str) -> bool:
    """Does the account have this template? Until the transaction ends it goes on having it."""
    return connection.execute(_SHARE, {"its_id": template_id, "owner": account_id}).one_or_none() is not None


def get_by_ids(connection: Connection, template_ids: Collection[str]) -> dict[str, Template]:
    """Templates by id, the archived ones too."""
    return {row.id: _template(row) for row in _BY_IDS.all(connection, paging.array(template_ids))} if template_ids else {}


def _template(row: _Row | Row[Any]) -> Template:
    values: dict[str, Any] = {}
    unreadable = []
    for name, read, is_required in _READS:
        value = None
        try:
            value = read(getattr(row, name))
        except ValueError:
            unreadable.append(name)
        if value is not None:
            values[name] = value
        elif is_required:
            unreadable.append(name)
    try:
        values |= from_document(row.more)
    except ValueError:
        unreadable.append("more")
    return Template(row.id, row.created_at, Spec(row.template_name, values), tuple(unreadable))
