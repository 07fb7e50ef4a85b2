"""Answers of the service. Fields that this version does not know are kept as they are, and are in the way of nothing."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Json = dict[str, Any]


class Model(BaseModel):
    """An answer. `as_json()` is what the service sent."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def as_json(self) -> Json:
        """As the service sent it, with fields that this version does not know."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


class Tagged(Model):
    """An object with an entity tag, for `if_match`."""

    etag: Annotated[str | None, Field(exclude=True)] = None


class Template(Tagged):
    """What instances are made from. It has further fields where they were given: docs/templates.md."""

    id: str
    template_name: str
    package: str
    image_id: str
    firewall_enabled: bool | None = None
    networks: Sequence[Any] = ()
    userdata: str | None = None
    metadata: Mapping[str, Any] | None = None
    tags: Mapping[str, Any] | None = None
    created_at: datetime


class Group(Tagged):
    """A template, and how many instances of it there should be."""

    id: str
    group_name: str
    template_id: str
    capacity: int
    created_at: datetime
    updated_at: datetime
    #: A service before these fields does not say.
    min_capacity: int = 0
    max_capacity: int | None = None


class Health(Model):
    """What probes, or the application's own vote, say of a member."""

    status: str
    since: datetime | None = None
    last_error: str | None = None


class Member(Model):
    """A machine of a group, as far as the service knows it."""

    machine_id: str
    name: str | None = None
    state: str
    template_id: str | None = None
    outdated: bool = False
    launched_at: datetime
    running_since: datetime | None = None
    available: bool = False
    health: Health
    protected: bool = False
    protected_until: datetime | None = None
    draining_since: datetime | None = None
    compute_node: str | None = None
    primary_ip: str | None = None

    @property
    def id(self) -> str:
        return self.machine_id

    @property
    def flags(self) -> str:
        """In letters, as `triton` has those of an instance: D draining, N not available, O outdated, P protected."""
        marks = {"D": self.draining_since is not None, "N": not self.available, "O": self.outdated, "P": self.protected}
        return "".join(letter for letter, is_so in marks.items() if is_so)


class Policy(Tagged):
    """What changes a group's capacity by itself. It has the fields of its kind: `as_json()`."""

    id: str
    policy_name: str
    kind: str
    mode: str = "active"
    failures: int = 0
    created_at: datetime
    updated_at: datetime
    #: There once, when it is made.
    webhook_url: str | None = None


class Decision(Model):
    """What was decided about a policy, and why."""

    id: str
    policy_id: str
    policy_name: str
    at: datetime
    times: int = 1
    last_at: datetime
    result: str
    by: str = ""
    message: str = ""
    observed: Mapping[str, Any] = {}
    recommended: int | None = None
    capacity_before: int
    capacity_after: int
    next_at: datetime | None = None


class Outcome(Model):
    """What would be decided about a policy now."""

    result: str
    message: str = ""
    value: float | None = None
    recommended: int | None = None
    capacity_before: int
    capacity_after: int
    next_at: datetime | None = None


class Preview(Model):
    """What a policy would decide now by itself; and of a schedule, its next times."""

    outcomes: Sequence[Outcome] = ()
    next: Sequence[datetime] = ()


class RolloutCounts(Model):
    """The group's members, as a rollout saw them at the last check."""

    wanted: int = 0
    new: int = 0
    new_available: int = 0
    outdated: int = 0
    draining: int = 0
    failed: int = 0


class Rollout(Model):
    """A changed template on its way to the members. It has its settings besides: `as_json()`."""

    id: str
    group_id: str
    template_id: str
    previous_template_id: str
    state: str
    reason: str | None = None
    message: str | None = None
    step: int = 0
    counts: RolloutCounts
    percent_complete: int = 0
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    next_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """It has ended, or goes on only when somebody says so."""
        return self.ended_at is not None or (self.state == "Paused" and self.next_at is None)


class Notification(Tagged):
    """Where activities are sent."""

    id: str
    url: str
    groups: Sequence[str] = ()
    kinds: Sequence[str] = ()
    enabled: bool = True
    disabled_why: str | None = None
    failures: int = 0
    created_at: datetime
    updated_at: datetime
    #: By which deliveries are signed. There once, when it is made.
    secret: str | None = None


class Delivery(Model):
    """One activity on its way to one receiver."""

    id: str
    group_id: str
    activity_id: str
    kind: str
    state: str
    attempts: int = 0
    status: int | None = None
    last_error: str | None = None
    due_at: datetime | None = None
    at: datetime
    ended_at: datetime | None = None


class CapacityChange(Model):
    """The capacity before and after."""

    before: Annotated[int, Field(alias="from")]
    after: Annotated[int, Field(alias="to")]


class PlannedChange(Model):
    """What becomes of a member; or launches: `count` of the template."""

    action: str
    count: int | None = None
    template_id: str | None = None
    machine_id: str | None = None
    why: str | None = None


class Plan(Model):
    """What workers would do. The same request with `if_match=plan.etag` does that, or raises `Changed`."""

    etag: str
    capacity: CapacityChange
    changes: Sequence[PlannedChange] = ()
    waves: Sequence[Json] = ()
    warnings: Sequence[str] = ()


class Status(Tagged):
    """How far a group is, and what it waits for."""

    group_id: str
    group_name: str
    desired: int
    running: int
    provisioning: int
    failed: int
    deleting: int
    settled: bool
    #: Time alone will not settle it. A service before this field does not say.
    stuck: bool = False
    reason: str
    message: str
    since: datetime
    last_error: str | None = None
    failures: int = 0
    checked_at: datetime | None = None
    next_attempt_at: datetime | None = None
    generation: int = 0
    observed_generation: int = 0
    #: The last one of each policy.
    decisions: Sequence[Decision] = ()


class Activity(Model):
    """What was done for a group, or refused."""

    id: str
    group_id: str
    kind: str
    status: str
    description: str
    cause: str | None = None
    instance_ids: Sequence[str] = ()
    error_code: str | None = None
    cloudapi_request_id: str | None = None
    actor: str = ""
    request_id: str | None = None
    started_at: datetime
    ended_at: datetime


class Problem(Model):
    """What is wrong with one field."""

    field: str
    message: str
    code: str = ""


class Verification(Model):
    """Whether CloudAPI could make an instance from a template now."""

    template_id: str
    launchable: bool
    errors: Sequence[Problem] = ()
