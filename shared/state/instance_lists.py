"""The instances of groups, as checks and previews read them: often, and many at once, so by a prepared statement.

Session first, no network.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, func, or_, select

from shared.state.instances import FORGET_AFTER, INSTANCE, Instance
from shared.store.moments import ago
from shared.store.paging import array, by_ids
from shared.store.tables import instances

_RECENT = or_(instances.c.gone_at.is_(None), instances.c.gone_at > ago(FORGET_AFTER))
_OF_GROUPS = by_ids(Instance, instances.c.group_id, INSTANCE, _RECENT)


def list_of_groups(connection: Connection, group_ids: Collection[str]) -> tuple[datetime, list[Instance]]:
    """The database's time, and all instances of these groups that are there or went a short while ago."""
    now: datetime = connection.execute(select(func.now())).scalar_one()
    return now, _OF_GROUPS.all(connection, array(group_ids))


def list_for_preview(connection: Connection, group_id: str) -> tuple[datetime, list[tuple[Instance, datetime | None, str]]]:
    """The same of one group, each with its machine's time of creation and its server, as far as rows know them."""
    now, found = list_of_groups(connection, [group_id])
    statement = select(instances.c.id, instances.c.created_at, instances.c.compute_node).where(instances.c.group_id == group_id)
    known = {row.id: (row.created_at, row.compute_node or "") for row in connection.execute(statement)}
    return now, [(instance, *known[instance.id]) for instance in found if instance.id in known]
