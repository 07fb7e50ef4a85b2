"""What a list lacks, and whether it is to be believed. Pure."""

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime

from shared.clients.cloudapi import Machine
from shared.plan.census import LISTED_AFTER, is_overdue
from shared.plan.limits import Limits
from shared.spec.machines import TAG_LAUNCH
from shared.state.group_state import DueGroup
from shared.state.instances import DELETING, FAILED, GONE, MISSING, Instance


def unlisted_machines(rows: Iterable[Instance], listed: Container[str], now: datetime) -> list[Instance]:
    """Instances whose machine should be in the list and is not. What failed, or is unknown to CloudAPI, is in no list.

    A new machine may be listed late. One that was seen running has been listed.
    """
    return [
        instance
        for instance in rows
        if instance.machine_id is not None
        and instance.state not in {GONE, FAILED, MISSING}
        and instance.machine_id not in listed
        and (instance.ran_at is not None or (now - instance.launched_at).total_seconds() > LISTED_AFTER)
    ]


def unlisted_launches(rows: Iterable[Instance], machines: Iterable[Machine], now: datetime, limits: Limits) -> list[Instance]:
    """Launches without an answer whose machine should be in the list by now and is not."""
    listed = {str(machine.tags.get(TAG_LAUNCH)) for machine in machines}
    return [instance for instance in rows if instance.id not in listed and is_overdue(instance, now, limits)]


def is_doubtful(machines: Mapping[str, Machine], rows: Sequence[Instance], due: Sequence[DueGroup], now: datetime, limits: Limits) -> bool:
    """Is the list worth a second one? Where a single machine is missing, a question about that one costs as much.

    Not where the list has none at all: then it may lack what no row knows.
    """
    missing = [instance for instance in unlisted_machines(rows, machines, now) if instance.state != DELETING]
    unlisted = len(missing) + len(unlisted_launches(rows, machines.values(), now, limits))
    if unlisted > 1 or (unlisted and not machines):
        return True
    # Groups of 2018 that were never looked at: what they have is in the list, or nowhere.
    return not machines and not rows and any(group.by_name and group.desired for group in due)
