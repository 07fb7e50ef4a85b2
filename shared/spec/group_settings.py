"""What a group's owner asks for beyond the columns of 2018: each field once, with its limits, words and default.

The defaults are what the 2018 service did; a group that has them all has no document.
"""

import re
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, ValidationInfo, WithJsonSchema, model_serializer, model_validator

from shared.rules import UuidForm, documented, refuse, uuid
from shared.spec.rollout_settings import RolloutSettings
from shared.spec.settings import FromJson, Moment, OnceEach, Settings

#: The form of the document.
VERSION = 1
#: Stands for the bound of a capacity, which is a setting.
MAX_CAPACITY = "TSG_MAX_CAPACITY"
#: Characters.
MAX_PATH, MAX_REASON = 1024, 255

_PATH = re.compile(r"/[!-~]*\Z")
_LINE = re.compile(r"[^\x00-\x1f\x7f-\x9f]*\Z")


class Suspension(StrEnum):
    """What the service may be asked not to do for now."""

    LAUNCH = "launch"
    TERMINATE = "terminate"
    REPLACE = "replace"
    POLICIES = "policies"


class Termination(StrEnum):
    """Which members go first, of those that are alike otherwise."""

    OUTDATED = "outdated"
    OLDEST = "oldest"
    NEWEST = "newest"
    UNREADY = "unready"
    CROWDED_SERVER = "crowded_server"


class Strategy(StrEnum):
    """What a PUT with another template does to running members."""

    MANUAL = "manual"
    ROLLING = "rolling"


class Probe(StrEnum):
    """How an instance's health is probed."""

    HTTP = "http"
    TCP = "tcp"


def _path(value: str) -> str:
    if not _PATH.match(value) or len(value) > MAX_PATH:
        raise refuse(f"must begin with / and have at most {MAX_PATH} printable ASCII characters, no blanks")
    return value


def _expect(value: tuple[int, int]) -> tuple[int, int]:
    if not 100 <= value[0] <= value[1] <= 599:
        raise refuse("must be two HTTP statuses from 100 to 599, the lower one first")
    return value


def _line(value: str) -> str:
    if not _LINE.match(value) or len(value) > MAX_REASON:
        raise refuse(f"must have at most {MAX_REASON} characters, and no control characters")
    return value


def _capacity(value: int, info: ValidationInfo) -> int:
    most = (info.context or {}).get("max_capacity")
    if value < 0 or (most is not None and value > most):
        raise refuse("cannot be negative" if most is None else f"must be 0 to {most}")
    return value


#: A bound of the capacity: up to the operator's own, where that is known.
_Capacity = Annotated[int, AfterValidator(_capacity), documented(minimum=0, maximum=MAX_CAPACITY)]


class HealthCheck(Settings):
    """Probes of an instance's address."""

    called: ClassVar[str] = "a health_check"

    type: Annotated[
        Probe,
        FromJson,
        Field(description="http: a GET is answered with an expected status. tcp: a connection is accepted"),
    ]
    port: Annotated[int, Field(ge=1, le=65_535, description="The port of the instance")]
    path: Annotated[
        str, AfterValidator(_path), documented(_PATH.pattern, maxLength=MAX_PATH), Field(description="Of http: the path of the GET")
    ] = "/"
    interval_seconds: Annotated[int, Field(ge=1, le=3_600, description="Seconds between probes")] = 10
    timeout_seconds: Annotated[int, Field(ge=1, le=60, description="Seconds to wait for an answer")] = 3
    unhealthy_after: Annotated[int, Field(ge=1, le=100, description="Probes in a row that fail before it is unhealthy")] = 3
    healthy_after: Annotated[int, Field(ge=1, le=100, description="Probes in a row that succeed before it is healthy")] = 2
    grace_seconds: Annotated[
        int,
        Field(ge=0, le=86_400, description="Seconds after its start in which failures do not count; they end at the first success"),
    ] = 300
    expect: Annotated[
        tuple[int, int],
        FromJson,
        AfterValidator(_expect),
        WithJsonSchema({"type": "array", "items": {"type": "integer", "minimum": 100, "maximum": 599}, "minItems": 2, "maxItems": 2}),
        Field(description="Of http: the lowest and the highest status of a success"),
    ] = (200, 399)
    network: Annotated[
        Annotated[str, uuid("the network of a health_check"), UuidForm] | None,
        Field(description="The network whose address is probed; without it, the primary address"),
    ] = None

    @model_validator(mode="after")
    def _fits(self) -> "HealthCheck":
        if self.timeout_seconds > self.interval_seconds:
            raise refuse("the timeout_seconds of a health_check cannot be more than its interval_seconds")
        return self


class Drain(Settings):
    """How a healthy instance is taken out of service before it is deleted."""

    called: ClassVar[str] = "a drain"

    seconds: Annotated[int, Field(ge=0, le=3_600, description="Seconds between the start of the drain and the deletion")]
    cns: Annotated[bool, Field(description="Whether it is taken out of DNS first, if its template has CNS services")] = True


class Update(RolloutSettings):
    """What a PUT with another template does to running members; and of rolling, the settings of the rollout."""

    called: ClassVar[str] = "an update"

    strategy: Annotated[
        Strategy,
        FromJson,
        Field(description="manual: nothing; only new instances use it. rolling: a rollout begins"),
    ] = Strategy.MANUAL

    @model_serializer(mode="wrap")
    def _short(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """As in 2018 it is one word."""
        return {"strategy": self.strategy} if self == Update() else whole(self)

    @property
    def rollout(self) -> RolloutSettings:
        """The settings alone."""
        return RolloutSettings.model_construct(**{name: getattr(self, name) for name in RolloutSettings.model_fields})


class GroupSettings(Settings):
    """What a group's owner asks for beyond name, template, capacity and interval."""

    called: ClassVar[str] = "a group"

    min_capacity: Annotated[_Capacity, Field(description="The least capacity that a request may ask for")] = 0
    #: None: the operator's maximum.
    max_capacity: Annotated[_Capacity | None, Field(description="The most capacity that a request may ask for")] = None
    ready_seconds: Annotated[
        int,
        Field(ge=0, le=3_600, description="Seconds for which an instance must run, and be healthy, before it is available"),
    ] = 0
    health_check: Annotated[HealthCheck | None, Field(description="How the health of instances is probed; null: not at all")] = None
    drain: Annotated[
        Drain | None, Field(description="How instances are taken out of service before they are deleted; null: not at all")
    ] = None
    termination_policy: Annotated[
        tuple[Annotated[Termination, FromJson], ...],
        FromJson,
        OnceEach,
        Field(description="Which members go first when there are too many: the first word decides, each later one breaks ties"),
    ] = (Termination.OUTDATED, Termination.OLDEST)
    update: Annotated[Update, Field(description="What a PUT with another template does to running members")] = Update()
    suspended: Annotated[
        tuple[Annotated[Suspension, FromJson], ...],
        FromJson,
        OnceEach,
        Field(description="What the service does not do until further notice"),
    ] = ()
    suspend_reason: Annotated[
        Annotated[str, AfterValidator(_line), documented(_LINE.pattern, maxLength=MAX_REASON)] | None,
        Field(description="The reason of the suspension, which the status shows"),
    ] = None
    suspended_until: Annotated[
        Moment | None, Field(description="When the suspension ends by itself; null: it ends when `suspended` is emptied")
    ] = None

    def is_suspended(self, what: Suspension, now: datetime) -> bool:
        """Is the service not to do this now?"""
        return what in self.suspended and (self.suspended_until is None or now < self.suspended_until)


#: As in 2018.
DEFAULT = GroupSettings()


def to_document(settings: GroupSettings) -> str | None:
    """What is not default, as the text of a JSON document; None when there is nothing."""
    return None if settings == DEFAULT else settings.to_document(VERSION)


@lru_cache(maxsize=1024)
def from_document(text: str | None) -> GroupSettings:
    """The settings in a document. `OtherRelease` for one that is not ours."""
    return DEFAULT if text is None else GroupSettings.from_document(text, VERSION)
