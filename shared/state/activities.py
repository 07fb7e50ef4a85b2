"""What was done for a group, or refused: one row for each, written only when something changed or failed.

A row of a change of what should be is written in the transaction of the change, by the functions that make it; the rest after it was done.
Session first, never commits, no network.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, literal, select, text, tuple_

from shared.errors import FieldError, Invalid
from shared.reasons import Reason
from shared.state.outbox import SENT
from shared.store.moments import ago
from shared.store.paging import Entry, array, by_ids
from shared.store.rows import all_of, columns
from shared.store.tables import activities

#: The vocabulary of 2018.
LAUNCH = "TSG_INSTANCE_LAUNCH"
LAUNCH_ERROR = "TSG_INSTANCE_LAUNCH_ERROR"
TERMINATE = "TSG_INSTANCE_TERMINATE"
TERMINATE_ERROR = "TSG_INSTANCE_TERMINATE_ERROR"
NO_OP = "TSG_INSTANCE_NO_OP"
#: Ours. What the API did.
GROUP_CREATED = "TSG_GROUP_CREATE"
GROUP_UPDATED = "TSG_GROUP_UPDATE"
CAPACITY_CHANGED = "TSG_CAPACITY_CHANGE"
GROUP_DELETED = "TSG_GROUP_DELETE"
#: What policies did, and what requests did to policies.
POLICY_SCALED = "TSG_POLICY_SCALE"
POLICY_CREATED, POLICY_UPDATED, POLICY_DELETED = "TSG_POLICY_CREATE", "TSG_POLICY_UPDATE", "TSG_POLICY_DELETE"
ROLLOUT_STARTED = "TSG_ROLLOUT_START"
#: What a worker did about it: another state or step, and members that it replaced.
ROLLOUT_STATE, ROLLOUT_WAVE = "TSG_ROLLOUT_STATE", "TSG_ROLLOUT_WAVE"
#: By what was asked of it.
ROLLOUT_ASKED = {what: f"TSG_ROLLOUT_{what.upper()}" for what in ("pause", "resume", "cancel", "rollback")}
#: What a request said of a member: that it is protected, how it is, that it goes, that it came, that it is one no more.
PROTECTED, VOTED, REMOVED = "TSG_INSTANCE_PROTECT", "TSG_INSTANCE_VOTE", "TSG_INSTANCE_REMOVE"
ADOPTED, DETACHED = "TSG_INSTANCE_ADOPT", "TSG_INSTANCE_DETACH"
#: What a worker saw: a machine without a row, one that failed or stopped, one that is gone, an answer that never came.
FOUND = "TSG_INSTANCE_FOUND"
UNHEALTHY = "TSG_INSTANCE_UNHEALTHY"
LOST = "TSG_INSTANCE_LOST"
LAUNCH_LOST = "TSG_INSTANCE_LAUNCH_LOST"
#: What a worker did to an instance beside: it drains, stays after all, was changed to what another template says.
DRAIN, DRAIN_ERROR = "TSG_INSTANCE_DRAIN", "TSG_INSTANCE_DRAIN_ERROR"
UNDRAIN, UNDRAIN_ERROR = "TSG_INSTANCE_UNDRAIN", "TSG_INSTANCE_UNDRAIN_ERROR"
UPDATE, UPDATE_ERROR = "TSG_INSTANCE_UPDATE", "TSG_INSTANCE_UPDATE_ERROR"
#: The group's job.
JOB_SUBMITTED = "TSG_JOB_SUBMIT"
JOB_ERROR = "TSG_JOB_SUBMIT_ERROR"
JOB_RUN_ERROR = "TSG_JOB_RUN_ERROR"
JOB_REMOVED = "TSG_JOB_REMOVE"
JOB_REMOVE_ERROR = "TSG_JOB_REMOVE_ERROR"
#: Reasons without an activity of their own: all goes well, or those of the Nomad job say it.
_NO_NEWS = frozenset(
    {*(Reason.PROVISIONING, Reason.DELETING, Reason.DRAINING), *(Reason.ROLLING_OUT, Reason.ROLLOUT_PAUSED), Reason.NOMAD_UNAVAILABLE}
)
#: What the group waits for from now on: it settled, or it is kept from it.
REASONS: dict[Reason, str] = {reason: f"TSG_GROUP_{reason.name}" for reason in Reason if reason not in _NO_NEWS}

KINDS = (
    *(GROUP_CREATED, GROUP_UPDATED, CAPACITY_CHANGED, GROUP_DELETED),
    *(POLICY_SCALED, POLICY_CREATED, POLICY_UPDATED, POLICY_DELETED),
    *(PROTECTED, VOTED, REMOVED, ADOPTED, DETACHED),
    *(ROLLOUT_STARTED, *ROLLOUT_ASKED.values(), ROLLOUT_STATE, ROLLOUT_WAVE),
    *(DRAIN, DRAIN_ERROR, UNDRAIN, UNDRAIN_ERROR, UPDATE, UPDATE_ERROR),
    *(LAUNCH, LAUNCH_ERROR, LAUNCH_LOST, TERMINATE, TERMINATE_ERROR, FOUND, UNHEALTHY, LOST),
    *(JOB_SUBMITTED, JOB_ERROR, JOB_RUN_ERROR, JOB_REMOVED, JOB_REMOVE_ERROR),
    *REASONS.values(),
)

DONE, FAILED = "success", "failed"
STATUSES = (DONE, FAILED)


class Activity(NamedTuple):
    """One thing that was done, or tried."""

    id: str
    group_id: str
    kind: str
    status: str
    description: str
    #: What led to it, the first cause first, joined by semicolons.
    cause: str | None
    machine_id: str | None
    rollout_id: str | None
    error_code: str | None
    cloudapi_request_id: str | None
    request_id: str | None
    actor: str
    started_at: datetime | None
    #: When it was done.
    at: datetime

    @property
    def began_at(self) -> datetime:
        """When it was begun, as far as that is known."""
        return self.started_at or self.at


_ACTIVITY = columns(Activity, activities)
#: With the deliveries to those that ask for it.
_RECORD = text(
    "WITH recorded AS (INSERT INTO tsg_activities (account_id, group_id, kind, status, description, cause, machine_id, rollout_id,"  # noqa: S608
    " error_code, cloudapi_request_id, request_id, actor, started_at)"
    " VALUES (CAST(:account_id AS uuid), CAST(:group_id AS uuid), :kind, :status, :description, :cause, CAST(:machine_id AS uuid),"
    " CAST(:rollout_id AS uuid), :error_code, :cloudapi_request_id, :request_id,"
    " COALESCE(CAST(:actor AS text), (SELECT account_name FROM tsg_accounts WHERE id = CAST(:account_id AS uuid))),"
    " now() - CAST(:took AS interval))"
    f"{SENT} SELECT count(*) FROM recorded"
)
_OPTIONAL = dict.fromkeys(("cause", "machine_id", "rollout_id", "error_code", "cloudapi_request_id", "request_id", "actor"))
_BY_IDS = by_ids(Activity, activities.c.id, _ACTIVITY)
_PLACE = (activities.c.at, activities.c.id)


def insert_activity(
    connection: Connection, *, account_id: str, group_id: str, kind: str, status: str, description: str, took: float = 0.0, **more: Any
) -> None:
    """Write down what was done just now, and how many seconds it `took`.

    `more` are columns of it: cause, machine_id, rollout_id, error_code, cloudapi_request_id, request_id, actor. Without an actor it is
    the account.
    """
    values = {"account_id": account_id, "group_id": group_id, "kind": kind, "status": status, "description": description[:2000], **more}
    connection.execute(_RECORD, {**_OPTIONAL, **values, "took": timedelta(seconds=took)})


def list_of_group(
    connection: Connection, group_id: str, *, limit: int, before: str | None = None, status: str | None = None, kind: str | None = None
) -> list[Activity]:
    """A group's activities, the newest first; those before the one with the id `before`. `Invalid` when the group has none such."""
    entries = list_entries(connection, group_id, limit=limit, before=before, status=status, kind=kind)
    found = get_by_ids(connection, [entry.id for entry in entries])
    return [found[entry.id] for entry in entries if entry.id in found]


def get_by_ids(connection: Connection, activity_ids: Collection[str]) -> dict[str, Activity]:
    """Activities by id."""
    return {activity.id: activity for activity in _BY_IDS.all(connection, array(activity_ids))}


def list_entries(
    connection: Connection, group_id: str, *, limit: int, before: str | None = None, status: str | None = None, kind: str | None = None
) -> list[Entry]:
    """The same list by ids and sizes alone: a page of it may be long."""
    sizes = func.octet_length(activities.c.description) + func.coalesce(func.octet_length(activities.c.cause), 0)
    statement = select(*columns(Entry, activities, size=sizes)).where(activities.c.group_id == group_id)
    if status is not None:
        statement = statement.where(activities.c.status == status)
    if kind is not None:
        statement = statement.where(activities.c.kind == kind)
    if before is not None:
        place = connection.execute(select(*_PLACE).where(activities.c.id == before, activities.c.group_id == group_id)).one_or_none()
        if place is None:
            raise Invalid([FieldError("before", f"before: the group has no activity {before}")])
        statement = statement.where(
            tuple_(*_PLACE) < tuple_(*(literal(value, column.type) for value, column in zip(place, _PLACE, strict=True)))
        )
    return all_of(Entry, connection.execute(statement.order_by(*(column.desc() for column in _PLACE)).limit(limit)))


def delete_old(connection: Connection, *, days: int, limit: int) -> int:
    """Forget at most `limit` activities that are older than `days`; how many."""
    old = activities.c.at < ago(days * 86_400.0)
    oldest = select(activities.c.id).where(old).order_by(activities.c.at).limit(limit)
    return connection.execute(delete(activities).where(activities.c.id.in_(oldest))).rowcount
