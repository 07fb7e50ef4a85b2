"""What should be of a group, as SQL: a new group, or a change of one. The group is due at once, and an activity records it.

Each is one statement, whatever it writes: a POST takes one round trip to the database. It has two forms. The one that sends nothing costs
the server an eighth less, and does nothing for an account that has notifications.

Session first, never commits, no network.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

from shared.state import work
from shared.state.outbox import NONE_ASKED, SENT

#: An activity of what a request did, for the row of the table whose name follows.
_RECORDED = (
    "INSERT INTO tsg_activities (account_id, group_id, kind, status, description, cause, request_id, actor, started_at{columns})"
    " SELECT CAST(:owner AS uuid), id, CAST(:kind AS text), 'success', CAST(:description AS text), CAST(:cause AS text),"
    " CAST(:request_id AS text), (SELECT account_name FROM tsg_accounts WHERE id = :owner), now(){values} FROM"
)
#: Of a new group; and of a change, which may concern a machine or a rollout.
_RECORDED_NEW = _RECORDED.format(columns="", values="")
_RECORDED_CHANGE = _RECORDED.format(columns=", machine_id, rollout_id", values=", CAST(:machine_id AS uuid), CAST(:rollout_id AS uuid)")


#: Characters of a field's change in an activity.
MAX_CHANGE = 200


class Asker(NamedTuple):
    """Whose request it is, and which group it is about."""

    account_id: str
    group_id: str
    request_id: str | None

    def cause(self, what: str) -> str:
        """What the request did, as the first link of the cause of all that follows from it."""
        return what + (f", request {self.request_id}" if self.request_id else "")


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


def differences(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """What differs of two JSON objects, field by field in words: whole objects may be too long."""
    found = []
    for name in [*before, *(name for name in after if name not in before)]:
        if before.get(name) != after.get(name):
            text = f"{name} {json.dumps(before.get(name))} -> {json.dumps(after.get(name))}"
            found.append(text if len(text) <= MAX_CHANGE else f"{name} was changed")
    return found


def insertion(returned: str, *, sends: bool = True, has_job: bool = False) -> str:
    """The statement that creates a group and returns these columns of it; no row for an unknown template, or a taken name.

    With `has_job` the group's Nomad job is due. The template stays there until the transaction ends: a deletion locks it first
    (`templates.archive`).
    """
    due = f" job AS (INSERT INTO tsg_work (kind, subject, due_at) SELECT '{work.NOMAD_JOB}', id, now() FROM made)," if has_job else ""  # noqa: S608
    return (
        "WITH template AS (SELECT id FROM tsg_templates WHERE id = :template_id AND account_id = :owner AND NOT archived"  # noqa: S608 - of constants alone
        f"{_only_if(sends)} FOR SHARE),"
        " made AS (INSERT INTO tsg_groups (name, template_id, account_id, capacity, health_check_interval, request_id, cause, more,"
        " created_at, updated_at, archived, check_at, by_name)"
        " SELECT CAST(:its_name AS text), id, CAST(:owner AS uuid), CAST(:capacity AS bigint), CAST(:interval AS bigint),"
        " CAST(:request_id AS text), CAST(:cause AS text), CAST(:more AS text), now(), now(), false, NULL, false FROM template"
        f" ON CONFLICT (account_id, name) WHERE NOT archived DO NOTHING RETURNING {returned}),"
        f" state AS (INSERT INTO tsg_group_state (group_id, account_id) SELECT id, CAST(:owner AS uuid) FROM made),{due}"
        f" recorded AS ({_RECORDED_NEW} made{_sent(sends)}"
        f" SELECT {returned} FROM made"
    )


def update(returned: str, *, sends: bool = True) -> str:
    """The statement that changes a group, and returns these columns of it. Its launches wait no longer: what failed may succeed now."""
    return (
        "WITH changed AS (UPDATE tsg_groups SET template_id = COALESCE(CAST(:template_id AS uuid), template_id),"  # noqa: S608
        " previous_template_id = CASE WHEN CAST(:template_id AS uuid) = template_id THEN previous_template_id"
        " WHEN CAST(:template_id AS uuid) IS NULL THEN previous_template_id ELSE template_id END,"
        " capacity = COALESCE(CAST(:capacity AS bigint), capacity),"
        " health_check_interval = COALESCE(CAST(:interval AS bigint), health_check_interval),"
        " more = CASE WHEN CAST(:has_more AS boolean) THEN CAST(:more AS text) ELSE more END, archived = :archived,"
        " cause = COALESCE(:cause, cause), request_id = :request_id, generation = generation + 1, updated_at = now()"
        f" WHERE id = :its_id AND account_id = :owner AND NOT archived{_only_if(sends)} RETURNING {returned}),"
        " state AS (UPDATE tsg_group_state SET generation = changed.generation, changed_at = now(), check_at = now(), launch_at = NULL"
        " FROM changed WHERE group_id = changed.id),"
        f" job AS (UPDATE tsg_work SET due_at = now() FROM changed WHERE kind = '{work.NOMAD_JOB}' AND subject = changed.id),"
        f" recorded AS ({_RECORDED_CHANGE} changed WHERE CAST(:cause AS text) IS NOT NULL{_sent(sends)}"
        f" SELECT {returned} FROM changed"
    )


def _only_if(sends: bool) -> str:
    return "" if sends else f" AND {NONE_ASKED}"


def _sent(sends: bool) -> str:
    return SENT if sends else ")"


def parameters(change: Change) -> dict[str, object]:
    """Of the statement."""
    values = change._asdict()
    its_id, owner = values.pop("group_id"), values.pop("account_id")
    return {**values, "its_id": its_id, "owner": owner, "description": change.description or change.cause}
