"""Bodies and answers of policies, with the fields of `shared.spec.policy_settings`."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from shared.errors import FieldError
from shared.policies.verdict import Result
from shared.rules import Text, UuidForm, uuid
from shared.spec import policy_settings
from shared.spec.policy_settings import MOST, Settings
from shared.state.decisions import BY
from shared.state.policies import Stored
from tsg_api.schema import parse
from tsg_api.schema.parse import Body
from tsg_api.schema.responses import Id, Moment, Shown, utc

#: Characters of the unit of a pushed value.
MAX_UNIT = 32


class PolicyBody(Body):
    """A policy of a kind that there is not: what is wrong with the fields that all kinds have."""

    def problems(self) -> list[FieldError]:
        conflicts = self.conflicts() if isinstance(self, Settings) else []
        return [FieldError(field, message) for field, message in conflicts]


class _OfNoKind(PolicyBody, Settings):
    pass


class SchedulePolicy(PolicyBody, policy_settings.ScheduleSettings):
    """Sets a capacity or a bound at its time; with duration_seconds, it is a floor or a ceiling for so long."""


class TargetPolicy(PolicyBody, policy_settings.TargetSettings):
    """Keeps a measure at its target, by as many instances as that takes."""


class StepPolicy(PolicyBody, policy_settings.StepSettings):
    """Changes the capacity by the step in whose range the measure is."""


class WebhookPolicy(PolicyBody, policy_settings.WebhookSettings):
    """Changes the capacity whenever its URL is called."""


OF_KIND: dict[str, type[PolicyBody]] = {"schedule": SchedulePolicy, "target": TargetPolicy, "step": StepPolicy, "webhook": WebhookPolicy}


def body(data: bytes, *, max_capacity: int) -> Settings:
    """The policy that a body describes, or `Invalid` with every field that is wrong: by the rules of the kind that it says."""
    read = parse.body(OF_KIND.get(_kind(data), _OfNoKind), data, max_capacity=max_capacity)
    told = read.model_dump(mode="json", by_alias=True, exclude_none=True)
    return policy_settings.OF_KIND[told["kind"]].model_validate_json(json.dumps(told))


def _kind(data: bytes) -> str:
    try:
        told = json.loads(data)
    except ValueError:
        return ""
    found = [value for name, value in told.items() if name.casefold() == "kind"] if isinstance(told, Mapping) else []
    return found[0] if len(found) == 1 and isinstance(found[0], str) else ""


def shown(stored: Stored) -> dict[str, Any]:
    """A policy as its owner sees it: its settings, and until when it waits."""
    settings = {"policy_name": stored.name} if stored.settings is None else stored.settings.shown()
    progress = stored.progress
    state = {"out_until": _utc(progress.out_until), "in_until": _utc(progress.in_until), "failures": progress.failures}
    return {"id": stored.id, **settings, **state, "created_at": utc(stored.created_at), "updated_at": utc(stored.updated_at)}


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else utc(moment)


class MetricBody(Body):
    """A value of a metric: of the group as a whole, or of one of its members (a machine's id)."""

    value: Annotated[float, policy_settings.Number(-MOST, MOST)]
    unit: Annotated[Text | None, Field(max_length=MAX_UNIT)] = None
    member: Annotated[Annotated[str, uuid("member"), UuidForm] | None, Field()] = None


class Outcome(Shown):
    """What would be decided about a policy now, and why."""

    result: Annotated[str, Field(json_schema_extra={"enum": list(Result)})]
    by: Annotated[str, Field(json_schema_extra={"enum": sorted(set(BY.values()))})]
    message: str
    value: float | None
    target: float | None
    recommended: int | None
    capacity_before: int
    capacity_after: int
    next_at: Moment | None


class Preview(Shown):
    """What a policy would decide now by itself; and of a schedule, its next times."""

    outcomes: list[Outcome]
    next: list[Moment]


class Called(Shown):
    """The id of the decision that a call leads to."""

    decision_id: Id
