"""Answers: each field once, in the order and the form of the contract. What is stored is read by the names of its own attributes."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from shared.errors import INVALID, MISSING, OtherRelease
from shared.plan.census import is_available
from shared.plan.preview import Preview
from shared.policies.verdict import Result
from shared.reasons import Reason
from shared.rules import documented
from shared.spec import fields, group_settings
from shared.spec.rollout import Rollout as StoredRollout
from shared.spec.rollout import State
from shared.state.activities import KINDS, STATUSES
from shared.state.decisions import BY
from shared.state.groups import Group as StoredGroup
from shared.state.instances import HEALTHY, UNHEALTHY
from shared.state.members import UNKNOWN
from shared.state.members import Member as StoredMember
from shared.state.templates import Template


class Shown(BaseModel):
    """Made by `Model.model_validate(stored)`: it trusts what is stored, and checks types alone."""

    model_config = ConfigDict(from_attributes=True)


def utc(when: datetime) -> datetime:
    return when if when.tzinfo is UTC else when.astimezone(UTC)


def _ids(of_one: str | None) -> list[str]:
    return [of_one] if of_one else []


def _enum(*words: str) -> Any:
    """Of these words, and in rows of another version perhaps another one."""
    return Field(json_schema_extra={"enum": list(words)})


Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
#: RFC 3339 in UTC, with Z and microseconds if there are any.
Moment = Annotated[datetime, AfterValidator(utc)]
Count = Annotated[int, Field(json_schema_extra={"minimum": 0})]


def template(stored: Template) -> dict[str, Any]:
    """A template as clients know it: the fields of 2018, and of the others those that were given."""
    values = stored.spec.values
    shown = {field.name: stored.spec.get(field) for field in fields.FIELDS if field.column}
    more = {field.name: values[field.name] for field in fields.FIELDS if field.name in values and not field.column}
    return {"id": stored.id, "template_name": stored.spec.name, **shown, "created_at": utc(stored.created_at), **more}


# No model, whose making takes four times as long: lists hold thousands of them.
class Group(TypedDict):
    """A group as clients know it. Behind these fields come its settings."""

    id: Id
    group_name: str
    template_id: Id
    capacity: Count
    created_at: Moment
    updated_at: Moment
    health_check_interval: int | None


def group(stored: StoredGroup, *, max_capacity: int) -> dict[str, Any]:
    """A group with its settings. Without a max_capacity of its own it has the operator's."""
    settings = _settings_in(stored.more)
    bound = max_capacity if settings["max_capacity"] is None else settings["max_capacity"]
    return {**group_of_2018(stored), **settings, "max_capacity": bound}


def group_of_2018(stored: StoredGroup) -> Group:
    """A group without its settings."""
    return Group(
        id=stored.id,
        group_name=stored.name,
        template_id=stored.template_id,
        capacity=stored.capacity,
        created_at=utc(stored.created_at),
        updated_at=utc(stored.updated_at),
        health_check_interval=stored.health_check_interval,
    )


@lru_cache(maxsize=1024)
def _settings_in(document: str | None) -> Mapping[str, Any]:
    """The settings of a group in their document, as JSON has them. Most groups have the same ones, and they take longer than the rest."""
    shown: Mapping[str, Any] = group_settings.from_document(document).model_dump(mode="json")
    return shown


class Health(Shown):
    """How a member is, by the application's vote or by probes."""

    status: Annotated[str, _enum(HEALTHY, UNHEALTHY, UNKNOWN)]
    since: Moment | None
    last_error: str | None


class Member(Shown):
    """A machine of a group, as far as the service knows it."""

    machine_id: Id
    name: str | None
    state: str
    template_id: Id | None
    outdated: bool
    launched_at: Moment
    running_since: Moment | None
    available: bool
    health: Health
    protected: Annotated[bool, Field(validation_alias="is_protected")]
    protected_until: Moment | None
    draining_since: Moment | None
    compute_node: Id | None
    primary_ip: str | None


def member(group: StoredGroup, stored: StoredMember) -> Member:
    """A member of this group. It is outdated when it was not made from the group's template."""
    instance = stored.instance
    known = {
        "outdated": instance.template_id != group.template_id,
        "available": is_available(instance, group.settings, stored.now),
        "health": stored.health(group.settings),
    }
    return Member.model_validate({**instance._asdict(), **stored._asdict(), **known})


class RolloutCounts(Shown):
    """The group's members, as a rollout saw them at the last check."""

    wanted: Count
    new: Count
    new_available: Count
    outdated: Count
    draining: Count
    failed: Count


class Rollout(Shown):
    """A rollout. Behind these fields come its settings."""

    id: Id
    group_id: Id
    template_id: Id
    previous_template_id: Id
    state: Annotated[str, _enum(*State)]
    reason: str | None
    message: str | None
    step: Count
    counts: RolloutCounts
    percent_complete: Count
    created_at: Moment
    started_at: Moment | None
    ended_at: Moment | None
    next_at: Moment | None


def rollout(stored: StoredRollout) -> dict[str, Any]:
    """A rollout with its settings; without them where another release wrote them: it can be looked at and cancelled all the same."""
    shown = Rollout.model_validate(stored).model_dump()
    try:
        return shown | stored.settings.model_dump()
    except OtherRelease:
        return shown


class NewestRollout(Shown):
    """A group's newest rollout, in its status."""

    id: Id
    state: Annotated[str, _enum(*State)]
    counts: RolloutCounts


class CapacityChange(Shown):
    """The capacity before and after."""

    before: Annotated[Count, Field(serialization_alias="from")]
    after: Annotated[Count, Field(serialization_alias="to")]


class PlannedChange(Shown):
    """What becomes of a member; or launches beside: so many of the template."""

    action: Annotated[str, _enum("launch", "terminate", "drain", "replace", "update", "take_back")]
    count: Annotated[Count | None, Field(exclude_if=lambda value: value is None)] = None
    template_id: Annotated[Id | None, Field(exclude_if=lambda value: value is None)] = None
    machine_id: Annotated[Id | None, Field(exclude_if=lambda value: value is None)] = None
    why: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None


class Wave(Shown):
    """What is done at one time; and the seconds that are paused for then, null until somebody resumes."""

    launch: Count
    terminate: list[Id]
    drain: list[Id]
    update: list[Id]
    pause_seconds: Count | None


class Plan(Shown):
    """What workers would do. Sent again without dry_run and with If-Match it is done, or refused: 412."""

    etag: str
    as_of: Moment | None
    capacity: CapacityChange
    changes: list[PlannedChange]
    waves: list[Wave]
    warnings: list[str]


def plan(foreseen: Preview, *, etag: str, as_of: datetime | None, capacity: tuple[int, int]) -> Plan:
    """What was foreseen, for a group with this entity tag; `as_of` is when its members were last looked at."""
    changes = [
        PlannedChange(action=one.action, count=one.launches, template_id=one.template_id)
        if one.action == "launch"
        else PlannedChange(action=one.action, machine_id=one.machine_id, why=one.why)
        for one in foreseen.changes
    ]
    waves = [Wave.model_validate(wave._asdict()) for wave in foreseen.waves]
    before, after = capacity
    return Plan(
        etag=etag,
        as_of=as_of,
        capacity=CapacityChange(before=before, after=after),
        changes=changes,
        waves=waves,
        warnings=list(foreseen.warnings),
    )


class Decision(Shown):
    """What was decided about a policy, and why."""

    id: Id
    policy_id: Id
    policy_name: str
    at: Moment
    times: int
    last_at: Moment
    result: Annotated[str, _enum(*Result)]
    by: Annotated[str, _enum(*sorted(set(BY.values())))]
    message: str
    observed: Annotated[dict[str, float | int | None], documented(description="value, target; and of members, samples and reporting")]
    recommended: int | None
    capacity_before: int
    capacity_after: int
    next_at: Moment | None


class Status(Shown):
    """How far a group is."""

    group_id: Id
    group_name: Annotated[str, Field(validation_alias="name")]
    desired: Count
    running: Count
    provisioning: Count
    failed: Count
    deleting: Count
    settled: bool
    stuck: bool
    reason: Annotated[str, _enum(*Reason)]
    message: str
    since: Moment
    last_error: str | None
    failures: Count
    checked_at: Moment | None
    next_attempt_at: Moment | None
    generation: Count
    observed_generation: Count
    watched: bool
    watch_error: str | None
    rollout: NewestRollout | None
    decisions: list[Decision]


class Activity(Shown):
    """One thing that was done for a group, or refused."""

    id: Id
    group_id: Id
    kind: Annotated[str, _enum(*KINDS)]
    status: Annotated[str, _enum(*STATUSES)]
    description: str
    cause: str | None
    instance_ids: Annotated[list[Id], Field(validation_alias="machine_id"), BeforeValidator(_ids)]
    rollout_id: Id | None
    error_code: str | None
    cloudapi_request_id: str | None
    actor: str
    request_id: str | None
    started_at: Annotated[Moment, Field(validation_alias="began_at")]
    ended_at: Annotated[Moment, Field(validation_alias="at")]


class Problem(Shown):
    """What is wrong with one field of a request."""

    field: str
    message: str
    code: Annotated[str, _enum(MISSING, INVALID)]


class Verification(Shown):
    """Whether CloudAPI could make an instance from a template now: `errors` has what is in the way."""

    template_id: Id
    launchable: bool
    errors: list[Problem]


class Error(Shown):
    """An error in CloudAPI's form. `errors` is there where fields are wrong."""

    code: str
    message: str
    errors: Annotated[list[Problem], Field(exclude_if=lambda errors: not errors)] = []
