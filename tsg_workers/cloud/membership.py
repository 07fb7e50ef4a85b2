"""Which group a machine that no row knows belongs to: the one of its tag `tsg.group`.

A machine that the 2018 service made has no such tag: it belongs to the group of that service whose name is in its tag `tsg.name`.
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence

from sqlalchemy import Connection

from shared import log
from shared.clients.cloudapi import Machine
from shared.spec.machines import TAG_GROUP, TAG_NAME, find_owner
from shared.state import group_state, instance_lists, instances
from shared.state.group_state import DueGroup
from shared.state.instances import GONE
from shared.state.leases import Lease

_log = log.get(__name__)

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")


def owners_of(machines: Iterable[Machine], group_ids: Container[str], by_name: Mapping[str, str]) -> dict[str, str]:
    """Of the machines that belong to these groups, the group of each; `by_name` has the groups of 2018."""
    return {machine.id: owner for machine in machines if (owner := find_owner(machine.tags, group_ids, by_name)) is not None}


def groups_by_name(connection: Connection, account_id: str, due: Sequence[DueGroup]) -> dict[str, str]:
    """The due groups of 2018 by name. Of two groups of one name, the machines are the living one's, due or not."""
    living = {group.name: group.id for group in due if group.by_name and not group.archived}
    deleted = {group.name: group.id for group in due if group.by_name and group.archived and group.name not in living}
    if deleted:
        for owner in group_state.list_owners(connection, account_id, ids=(), names=deleted):
            if not owner.archived:
                del deleted[owner.name]
    return living | deleted


def find_orphans(connection: Connection, lease: Lease, machines: Sequence[Machine]) -> list[str]:
    """Of machines with our tags that no due group owns, those that no group of the account owns. Late ones make their group due again.

    Late: the group was deleted and empty before its machine turned up.
    """
    if not machines:
        return []
    ids = {machine.id: str(machine.tags[TAG_GROUP]) for machine in machines if machine.tags.get(TAG_GROUP) is not None}
    names = {machine.id: str(machine.tags.get(TAG_NAME)) for machine in machines if machine.id not in ids}
    sound = {group_id for group_id in ids.values() if _UUID.match(group_id)}
    owners = group_state.list_owners(connection, lease.account_id, ids=sound, names=set(names.values()))
    emptied = {owner.id for owner in owners if owner.is_emptied}
    if emptied:
        _, rows = instance_lists.list_of_groups(connection, emptied)
        # CloudAPI may go on listing for a moment what it said was gone.
        gone = {instance.machine_id for instance in rows if instance.state == GONE}
        late = {group_id for machine_id, group_id in ids.items() if group_id in emptied and machine_id not in gone}
        if late:
            _log.warning("machines_turned_up_late", groups=sorted(late))
            group_state.mark_reopened(connection, lease, late)
    # Somebody changed the tags of a machine that rows know: it stays its group's.
    for machine_id in instances.get_owners(connection, lease.account_id, {machine.id for machine in machines}):
        ids.pop(machine_id, None)
        names.pop(machine_id, None)
    known = {owner.id for owner in owners}
    known_names = {owner.name for owner in owners if owner.by_name and not owner.is_emptied}
    return [one for one, group_id in ids.items() if group_id not in known] + [one for one in names if names[one] not in known_names]
