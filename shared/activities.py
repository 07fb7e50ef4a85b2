"""What was done for a group, or refused: one row for each, written only when something changed or failed.

Session first, never commits, no network.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select

from shared.models import activities

#: The vocabulary of 2018.
LAUNCH = "TSG_INSTANCE_LAUNCH"
LAUNCH_ERROR = "TSG_INSTANCE_LAUNCH_ERROR"
TERMINATE = "TSG_INSTANCE_TERMINATE"
TERMINATE_ERROR = "TSG_INSTANCE_TERMINATE_ERROR"
NO_OP = "TSG_INSTANCE_NO_OP"
#: Ours.
JOB_SUBMITTED = "TSG_JOB_SUBMIT"
JOB_ERROR = "TSG_JOB_SUBMIT_ERROR"
JOB_REMOVED = "TSG_JOB_REMOVE"
JOB_REMOVE_ERROR = "TSG_JOB_REMOVE_ERROR"

DONE, FAILED = "success", "failed"


class Activity(NamedTuple):
    """One thing that was done, or tried."""

    id: str
    group_id: str
    kind: str
    status: str
    description: str
    machine_id: str | None
    error_code: str | None
    cloudapi_request_id: str | None
    request_id: str | None
    actor: str
    at: datetime


_ACTIVITY = (
    activities.c.id,
    activities.c.group_id,
    activities.c.kind,
    activities.c.status,
    activities.c.description,
    activities.c.machine_id,
    activities.c.error_code,
    activities.c.cloudapi_request_id,
    activities.c.request_id,
    activities.c.actor,
    activities.c.at,
)


def record(connection: Connection, *, account_id: str, group_id: str, kind: str, status: str, description: str, **more: Any) -> None:
    """Write an activity down. `more` are columns of it: machine_id, error_code, cloudapi_request_id, request_id, actor."""
    values: Mapping[str, Any] = {"account_id": account_id, "group_id": group_id, "kind": kind, "status": status, **more}
    connection.execute(insert(activities).values(description=description[:2000], **values))


def of_group(connection: Connection, group_id: str, *, limit: int) -> list[Activity]:
    """A group's activities, the newest first."""
    statement = select(*_ACTIVITY).where(activities.c.group_id == group_id)
    rows = connection.execute(statement.order_by(activities.c.at.desc(), activities.c.id).limit(limit))
    return [Activity._make(row) for row in rows]
