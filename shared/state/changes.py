"""A change of a group's desired state: its generation rises, the group is due at once, and an activity records it. One statement.

Session first, never commits, no network.
"""

from typing import NamedTuple

from shared.state import work
from shared.state.outbox import SENT

#: One more activity, of what a request did, for each row of the table whose name follows.
TOLD = (
    "INSERT INTO tsg_activities (account_id, group_id, kind, status, description, cause, request_id, actor, machine_id, rollout_id,"
    " started_at)"
    " SELECT CAST(:owner AS uuid), id, CAST(:kind AS text), 'success', CAST(:description AS text), CAST(:cause AS text),"
    " CAST(:request_id AS text), (SELECT account_name FROM tsg_accounts WHERE id = :owner), CAST(:machine_id AS uuid),"
    " CAST(:rollout_id AS uuid), now() FROM"
)


class Change(NamedTuple):
    """A change of a group. None: as it was."""

    account_id: str
    group_id: str
    kind: str
    #: What led to it: the first link of the cause of all that follows from it. Without one there is no activity.
    cause: str | None
    request_id: str | None
    #: In words, where they are not those of the cause.
    description: str | None = None
    template_id: str | None = None
    capacity: int | None = None
    interval: int | None = None
    archived: bool = False
    #: The document of the group's settings, and whether it is another one.
    more: str | None = None
    has_more: bool = False
    #: Whom it concerns.
    machine_id: str | None = None
    rollout_id: str | None = None


def statement(returned: str) -> str:
    """The statement, which returns these columns of the group. Launches that failed before may go better now: none waits for the next."""
    return (
        "WITH changed AS (UPDATE tsg_groups SET template_id = COALESCE(CAST(:template_id AS uuid), template_id),"  # noqa: S608
        " previous_template_id = CASE WHEN CAST(:template_id AS uuid) = template_id THEN previous_template_id"
        " WHEN CAST(:template_id AS uuid) IS NULL THEN previous_template_id ELSE template_id END,"
        " capacity = COALESCE(CAST(:capacity AS bigint), capacity),"
        " health_check_interval = COALESCE(CAST(:interval AS bigint), health_check_interval),"
        " more = CASE WHEN CAST(:has_more AS boolean) THEN CAST(:more AS text) ELSE more END, archived = :archived,"
        " cause = COALESCE(:cause, cause), request_id = :request_id, generation = generation + 1, updated_at = now()"
        f" WHERE id = :its_id AND account_id = :owner AND NOT archived RETURNING {returned}),"
        " state AS (UPDATE tsg_group_state SET generation = changed.generation, changed_at = now(), check_at = now(), launch_at = NULL"
        " FROM changed WHERE group_id = changed.id),"
        f" job AS (UPDATE tsg_work SET due_at = now() FROM changed WHERE kind = '{work.NOMAD_JOB}' AND subject = changed.id),"
        f" told AS ({TOLD} changed WHERE CAST(:cause AS text) IS NOT NULL{SENT}"
        f" SELECT {returned} FROM changed"
    )


def parameters(change: Change) -> dict[str, object]:
    """Of the statement."""
    values = change._asdict()
    its_id, owner = values.pop("group_id"), values.pop("account_id")
    return {**values, "its_id": its_id, "owner": owner, "description": change.description or change.cause}
