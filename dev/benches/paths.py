"""The hot paths: what the programs ask the database for all the time, as they ask for it."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from dev.benches import fill
from dev.benches.numbered import Size, uuid_of
from shared.reasons import Reason
from shared.spec.group_settings import DEFAULT
from shared.state import (
    accounts,
    activities,
    clock,
    decisions,
    deliveries,
    feed_messages,
    feeds,
    group_state,
    groups,
    idempotency,
    instance_lists,
    instances,
    leases,
    members,
    notifications,
    outbox,
    policies,
    probes,
    status,
    templates,
    work,
)
from shared.state.group_state import Check
from tsg_workers.reconcilers import retention

OWNER, PAGE = "bench", 100


class Subject(NamedTuple):
    """What the paths are about: an account like the most, and something of each kind that it has."""

    account: str
    group: str
    template: str
    machine: str
    notification: str
    scaled_group: str


def subject_of(connection: Connection, size: Size) -> Subject:
    """An account like the most that has a notification, and a group of it with policies."""
    number = fill.SCALED
    group = next(one for one in size.groups_of(number) if one % fill.SCALED == 0 or one == size.groups_of(number)[-1])
    found = connection.execute(text("SELECT id::text FROM tsg_notifications WHERE account_id = :its"), {"its": uuid_of("account", number)})
    scaled = uuid_of("group", fill.SCALED * (size.large // fill.SCALED + 1))
    machine = uuid_of("machine", group * size.instances + 1)
    return Subject(uuid_of("account", number), uuid_of("group", group), uuid_of("template", number), machine, found.scalars().one(), scaled)


def paths(subject: Subject) -> Mapping[str, Callable[[Connection], Any]]:
    """Each path by its name. They write, too."""
    account, group = subject.account, subject.group
    return {
        "scheduler: whose groups are due": lambda connection: leases.claim_due(connection, limit=1000),
        "scheduler: when the next group is due": group_state.get_next_due,
        "scheduler: whose policies are due": lambda connection: work.claim_wake_ups(connection, work.POLICIES, limit=1000),
        "scheduler: which deliveries are due": lambda connection: work.claim_wake_ups(connection, outbox.DELIVERIES, limit=1000),
        "scheduler: which feeds have ended": feeds.mark_unwatched,
        "scheduler: groups of such feeds": feed_messages.bring_back,
        "scheduler: backlog": lambda connection: group_state.get_backlog(connection, late=60),
        "scheduler: groups by reason": group_state.count_by_reason,
        "scheduler: instances by state": instances.count_by_state,
        "scheduler: clock mending": clock.bring_back,
        "scheduler: retention of instances": lambda connection: instances.delete_old(connection, limit=retention.BATCH),
        "scheduler: retention of activities": lambda connection: activities.delete_old(connection, days=30, limit=retention.BATCH),
        "scheduler: retention of decisions": lambda connection: decisions.delete_old(connection, days=30, limit=retention.BATCH),
        "scheduler: retention of deliveries": lambda connection: deliveries.delete_old(connection, days=30, limit=retention.BATCH),
        "scheduler: retention of answers": lambda connection: idempotency.delete_old(connection, limit=retention.BATCH),
        "worker: a check of an account": lambda connection: _check(connection, account),
        "worker: a launch and a deletion": lambda connection: _act(connection, account),
        "worker: whose machines are these": lambda connection: _owners(connection, account, group),
        "worker: policies of a group": lambda connection: _decide(connection, subject.scaled_group),
        "worker: deliveries of a receiver": lambda connection: _deliver(connection, subject.notification),
        "prober: is any group probed": probes.are_wanted,
        "prober: targets of a range": lambda connection: probes.list_targets(connection, probes.RANGES[:1]),
        "feed: a message": lambda connection: feed_messages.mark_groups_due(
            connection, [feed_messages.FeedMessage(account, subject.machine, group, "group-1")]
        ),
        "feed: events that it should have reported": lambda connection: feed_messages.list_events(connection, after=10, until=60),
        "feed: the accounts that have groups": feeds.list_accounts,
        "API: who calls": lambda connection: accounts.get_by_triton_uuid(connection, account),
        "API: a group": lambda connection: groups.get(connection, account, group),
        "API: list of groups": lambda connection: groups.list_entries(connection, account, limit=PAGE),
        "API: the next page of groups": lambda connection: groups.list_entries(connection, account, limit=PAGE, marker=group),
        "API: list of templates": lambda connection: templates.list_entries(connection, account, limit=PAGE),
        "API: status of a group": lambda connection: status.get(connection, account, group),
        "API: members of a group": lambda connection: members.list_entries(connection, group, limit=PAGE),
        "API: activities of a group": lambda connection: activities.list_of_group(connection, group, limit=PAGE),
        "API: decisions of a group": lambda connection: decisions.list_newest(connection, subject.scaled_group, limit=PAGE),
        "API: notifications": lambda connection: notifications.list_of_account(connection, account),
        "API: deliveries of a receiver": lambda connection: deliveries.list_newest(connection, subject.notification, limit=PAGE),
        "API: a repeated request": lambda connection: idempotency.find(connection, account, "k1"),
        "API: another capacity": lambda connection: groups.increment(connection, account, group, by=1, maximum=100, request_id=None),
    }


def _check(connection: Connection, account: str) -> None:
    """What `GroupReconciler` asks for an account whose groups are all due, and settled."""
    group_state.mark_all_due(connection, account)
    lease = leases.claim(connection, account, OWNER, seconds=30)
    if lease is None:
        raise RuntimeError("the account is claimed")
    due = group_state.list_due(connection, account, limit=1000)
    accounts.get(connection, account)
    accounts.get_key(connection, account)
    instance_lists.list_of_groups(connection, {group.id for group in due})
    group_state.mark_checked(connection, lease, [Check(group, 300.0, 0, None, Reason.SETTLED) for group in due])
    leases.renew(connection, lease, seconds=30)
    leases.release(connection, lease, budget_left=30)


def _act(connection: Connection, account: str) -> None:
    lease = leases.claim(connection, account, OWNER, seconds=30)
    group_state.mark_all_due(connection, account)
    group = group_state.list_due(connection, account, limit=1)[0]
    if lease is None:
        raise RuntimeError("the account is claimed")
    templates.get_by_ids(connection, [group.template_id])
    launch = instances.insert_launch(connection, lease, group)
    if launch is None:
        raise RuntimeError("the group was changed")
    machine = uuid_of("bench", 1)
    instances.mark_launched(connection, launch, machine, "provisioning")
    activities.insert_activity(
        connection, account_id=account, group_id=group.id, kind=activities.LAUNCH, status=activities.DONE, description="", actor=OWNER
    )
    instances.mark_state(connection, lease, launch, "running")
    instances.may_delete(connection, lease, group)
    instances.mark_deleting(connection, launch)
    instances.get_owners(connection, account, [machine])
    leases.release(connection, lease, budget_left=30)


def _decide(connection: Connection, group: str) -> None:
    claimed = work.claim(connection, work.POLICIES, group, owner=OWNER, seconds=30)
    policies.find_scaled(connection, group)
    policies.list_of_group(connection, group)
    policies.list_available(connection, group, DEFAULT)
    policies.list_waiting(connection, group)
    decisions.list_last(connection, [group])
    if claimed is not None:
        work.mark_done(connection, claimed, after=15)


def _deliver(connection: Connection, notification: str) -> None:
    notifications.find(connection, notification)
    due = deliveries.list_due(connection, notification)
    activities.get_by_ids(connection, [one.activity_id for one in due])
    for one in due[:1]:
        deliveries.mark_delivered(connection, one.id, 200)
        deliveries.mark_failed(connection, one.id, status=500, error="", after=10)
    deliveries.mark_put_off(connection, notification, after=10)
    deliveries.get_next_due(connection, notification)


def _owners(connection: Connection, account: str, group: str) -> None:
    group_state.list_owners(connection, account, ids=[group], names=())
    group_state.list_owners(connection, account, ids=[group], names=["group-1"])
