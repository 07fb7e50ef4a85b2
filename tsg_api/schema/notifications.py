"""Bodies and answers of notifications."""

from typing import Annotated

from pydantic import AfterValidator, Field

from shared.rules import documented, is_uuid, refuse
from shared.state.deliveries import STATES
from shared.state.notifications import ASKED
from tsg_api.schema.parse import Body
from tsg_api.schema.responses import Count, Id, Moment, Shown

#: Characters of a URL; groups and kinds of one notification.
MAX_URL, MAX_LISTED = 2000, 100
#: What its owner says of it.
FIELDS = {"url", "groups", "kinds", "enabled"}

_LISTED = documented(minItems=1, maxItems=MAX_LISTED)


def _groups(value: list[str]) -> list[str]:
    if not 1 <= len(value) <= MAX_LISTED or any(one != "*" and not is_uuid(one) for one in value):
        raise refuse(f'groups must be ["*"], or the ids of 1 to {MAX_LISTED} groups')
    return [one.lower() for one in value]


def _kinds(value: list[str]) -> list[str]:
    wrong = [one for one in value if one not in ASKED]
    if wrong or not 1 <= len(value) <= MAX_LISTED:
        raise refuse(f"kinds must be some of: {', '.join(ASKED)}")
    return value


class NotificationBody(Body):
    """Where activities are told, and which: of all groups and all kinds unless it says otherwise."""

    url: Annotated[str, Field(min_length=1, max_length=MAX_URL), documented(examples=["https://example.com/hooks/tsg"])]
    groups: Annotated[list[str], AfterValidator(_groups), _LISTED] = Field(default_factory=lambda: ["*"])
    kinds: Annotated[list[str], AfterValidator(_kinds), _LISTED] = Field(default_factory=lambda: ["*"])
    enabled: bool = True


class Notification(Shown):
    """Where activities are told. `secret` is there once: when it is made."""

    id: Id
    url: str
    groups: list[str]
    kinds: list[str]
    enabled: bool
    disabled_why: str | None
    failures: Count
    created_at: Moment
    updated_at: Moment


class Delivery(Shown):
    """One activity told to one receiver."""

    id: Id
    group_id: Id
    activity_id: Id
    kind: str
    state: Annotated[str, Field(json_schema_extra={"enum": list(STATES)})]
    attempts: Count
    status: int | None
    last_error: str | None
    due_at: Moment
    at: Moment
    ended_at: Moment | None
