"""What a policy may say: each kind of policy, field by field, with its rules, defaults and words.

The API's bodies, its description, the table in docs/autoscaling.md and the stored document (`tsg_policies.settings`) come from here.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from annotated_types import GroupedMetadata
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from shared.errors import OtherRelease
from shared.rules import documented, refuse
from shared.spec import changes, times
from shared.spec.changes import Change
from shared.spec.times import When

#: The stored document's version.
VERSION = 1

KINDS = ("schedule", "target", "step", "webhook")
ACTIVE, OUT_ONLY, SHADOW, OFF = MODES = ("active", "out_only", "shadow", "off")
#: Measures of CMON, by their unit.
CMON_MEASURES = {
    "cpu": "per cent of the cap, or of the package's vCPUs",
    "memory": "per cent of the limit; not of hardware VMs, whose zone says nothing of the guest",
    "net_out": "bytes a second",
    "net_in": "bytes a second",
    "connections": "established TCP connections",
}
#: Characters of a policy's name, of a PromQL query and of a cron expression.
MAX_NAME, MAX_QUERY, MAX_CRON = 128, 4096, 256
#: Seconds: the longest cooldown, stabilization and window.
DAY = 86_400
WEEK = 7 * DAY
#: Steps of one policy.
MAX_STEPS = 20
#: A value of which nothing else is known may be as large.
MOST = 1e15

METRIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}\Z")
#: croniter's own: another time at each look. R is in names of months and days, too.
_BY_CHANCE = re.compile(r"(?<![A-Za-z])[Rr](?![A-Za-z])")
#: In the list's directory, and no zones of it: they differ from machine to machine, or count leap seconds.
_NO_ZONES = frozenset({"localtime", "posixrules", "Factory", "posix", "right"})
_CRON = re.compile(r"[0-9A-Za-z*/,-]+(?: +[0-9A-Za-z*/,-]+){4}\Z")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?(?:[Zz]|[+-]\d\d:\d\d)\Z")


class Whole(GroupedMetadata):
    """The rule for a whole number: these, and all between."""

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def __iter__(self) -> Iterator[Any]:
        def check(value: int) -> int:
            if not self._least <= value <= self._most:
                raise refuse(f"must be a whole number from {self._least:,} to {self._most:,}")
            return value

        yield AfterValidator(check)
        yield documented(minimum=self._least, maximum=self._most)


class Number(GroupedMetadata):
    """The rule for any number from `least` (or above it, if it is `over`) to `most`."""

    def __init__(self, least: float, most: float, *, over: bool = False) -> None:
        self._least, self._most, self._over = least, most, over

    def __iter__(self) -> Iterator[Any]:
        def check(value: object) -> object:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not self._least <= value <= self._most or (self._over and value == self._least):  # type: ignore[operator]
                above = "over" if self._over else "from"
                raise refuse(f"must be a number {above} {self._least:g} to {self._most:g}")
            return float(value)  # type: ignore[arg-type]

        yield BeforeValidator(check)
        lowest = {"exclusiveMinimum" if self._over else "minimum": self._least}
        yield Field(json_schema_extra={**lowest, "maximum": self._most})


class Words(GroupedMetadata):
    """The rule for a word out of these."""

    def __init__(self, *known: str) -> None:
        self._known = known

    def __iter__(self) -> Iterator[Any]:
        def check(value: str) -> str:
            if value not in self._known:
                raise refuse(f"must be one of: {', '.join(self._known)}")
            return value

        yield AfterValidator(check)
        yield documented(enum=list(self._known))


def _name(value: str) -> str:
    if not value or len(value) > MAX_NAME or not value.isprintable():
        raise refuse(f"policy_name must have 1 to {MAX_NAME} printable characters")
    return value


def _metric_name(value: str) -> str:
    if not METRIC_NAME.match(value):
        raise refuse("must be a letter or '_', and up to 63 letters, digits and '_ . : -'")
    return value


def _cron(value: str) -> str:
    if len(value) > MAX_CRON or not _CRON.match(value) or _BY_CHANCE.search(value):
        raise refuse("must be five fields: minute, hour, day of the month, month, day of the week")
    try:
        if times.comes(value):
            return value
    except ValueError as error:
        raise refuse(f"cannot be read: {error}") from None
    raise refuse(f"cannot be {value}, which never comes")


def _zone(value: str) -> str:
    try:
        if value.partition("/")[0] in _NO_ZONES:
            raise ZoneInfoNotFoundError
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise refuse(f"cannot be {json.dumps(value[:64])}: it is no time zone of IANA's list, as Europe/Vienna is") from None
    return value


def _moment(value: object) -> object:
    """RFC 3339, with an offset: a moment without one is another in each zone."""
    if isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str) and _TIME.match(value):
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise refuse("must be a time with its offset, as 2026-12-24T18:00:00Z")


def _change(value: object) -> object:
    try:
        if isinstance(value, str | int) and not isinstance(value, bool):
            changes.read(value)
            return value
    except ValueError:
        pass
    raise refuse('must be "+N", "-N", "+N%", "-N%", "=N", or a whole number other than 0')


def _most_step(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[1-9]\d{0,3}%", value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= changes.MOST:
        return value
    raise refuse(f'must be a number of instances from 1 to {changes.MOST:,}, or a share as "10%"')


Name = Annotated[
    str, AfterValidator(_name), documented("[^\\u0000-\\u001f\\u007f]*", minLength=1, maxLength=MAX_NAME, examples=["evenings"])
]
MetricName = Annotated[str, AfterValidator(_metric_name), documented(METRIC_NAME.pattern)]
Moment = Annotated[datetime, BeforeValidator(_moment), documented(format="date-time")]
ChangeText = Annotated[
    Any, BeforeValidator(_change), WithJsonSchema({"type": ["string", "integer"], "pattern": r"^(?:[+-]\d{1,5}%?|=\d{1,5})$"})
]
StepSize = Annotated[
    Any, BeforeValidator(_most_step), WithJsonSchema({"type": ["string", "integer"], "minimum": 1, "pattern": r"^[1-9]\d{0,3}%$"})
]
Capacity = Annotated[int, Whole(0, changes.MOST)]


class _Part(BaseModel):
    """An object inside a policy. A key that it does not have is refused: it would be a setting that does nothing."""

    model_config = ConfigDict(strict=True, extra="forbid", validate_default=True)


class Cooldown(_Part):
    """Seconds after a change of the capacity in which the policy asks for no further growth, and for no further shrinkage."""

    out_seconds: Annotated[int, Whole(0, DAY)] = 60
    in_seconds: Annotated[int, Whole(0, DAY)] = 300


class Schedule(_Part):
    """When: a cron expression in a time zone, or one moment."""

    cron: Annotated[str, AfterValidator(_cron), documented(maxLength=MAX_CRON, examples=["0 8 * * mon-fri"])] | None = None
    time_zone: Annotated[str, AfterValidator(_zone), documented(examples=["Europe/Vienna"])] = "UTC"
    at: Moment | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.cron is None) == (self.at is None):
            raise refuse("schedule must have either cron or at")
        return self

    @property
    def when(self) -> When:
        return When(self.cron, self.time_zone, self.at)


class Setting(_Part):
    """What a schedule sets: one of these."""

    capacity: Capacity | None = None
    min_capacity: Capacity | None = None
    max_capacity: Capacity | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.capacity, self.min_capacity, self.max_capacity)) != 1:
            raise refuse("set must have one of capacity, min_capacity and max_capacity")
        return self


class Metric(_Part):
    """What is measured: by CMON, by Prometheus, or pushed by the group's owner."""

    source: Annotated[str, Words("cmon", "prometheus", "pushed")]
    measure: Annotated[str, Words(*CMON_MEASURES)] | None = None
    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY)] | None = None
    name: MetricName | None = None
    max_age_seconds: Annotated[int, Whole(1, 3600)] | None = None

    _needs: ClassVar[dict[str, str]] = {"cmon": "measure", "prometheus": "query", "pushed": "name"}

    @model_validator(mode="after")
    def _fits(self) -> Self:
        needed = self._needs[self.source]
        given = {name for name in ("measure", "query", "name") if getattr(self, name) is not None}
        if given != {needed}:
            others = " nor ".join(sorted({"measure", "query", "name"} - {needed}))
            raise refuse(f"metric of the source {self.source} must have {needed}, and neither {others}")
        if self.max_age_seconds is not None and self.source != "pushed":
            raise refuse("metric has max_age_seconds with the source pushed alone")
        return self


class Stabilization(_Part):
    """Seconds: growth follows the lowest recommendation of the last `out_seconds`, shrinkage the highest of the last `in_seconds`."""

    out_seconds: Annotated[int, Whole(0, 3600)] = 0
    in_seconds: Annotated[int, Whole(0, 3600)] = 300


class MaxStep(_Part):
    """The most that one decision adds, and takes away: instances, or per cent of the capacity."""

    out: StepSize | None = None
    in_: Annotated[StepSize | None, Field(alias="in")] = None

    model_config = ConfigDict(strict=True, extra="forbid", validate_by_alias=True, validate_by_name=True)


class Fallback(_Part):
    """A capacity for when the measure has been missing so often in a row."""

    after_failures: Annotated[int, Whole(1, 1000)] = 3
    capacity: Capacity
    only_if_higher: bool = True


class Step(_Part):
    """A range of the measure, `from` included and `to` not, and what happens in it."""

    from_: Annotated[Annotated[float, Number(-MOST, MOST)] | None, Field(alias="from")] = None
    to: Annotated[float, Number(-MOST, MOST)] | None = None
    change: ChangeText

    model_config = ConfigDict(strict=True, extra="forbid", validate_by_alias=True, validate_by_name=True)

    @property
    def low(self) -> float:
        return -float("inf") if self.from_ is None else self.from_

    @property
    def high(self) -> float:
        return float("inf") if self.to is None else self.to

    @property
    def then(self) -> Change:
        return changes.read(self.change)


def _steps(value: list[Step]) -> list[Step]:
    if not 1 <= len(value) <= MAX_STEPS:
        raise refuse(f"steps must have 1 to {MAX_STEPS} elements")
    ordered = sorted(value, key=lambda step: step.low)
    if empty := next((step for step in ordered if step.low >= step.high), None):
        raise refuse(f"steps has one from {empty.low:g} to {empty.high:g}, in which there is nothing")
    for one, other in pairwise(ordered):
        if other.low < one.high:
            raise refuse(f"steps overlap from {other.low:g} to {min(one.high, other.high):g}")
    return value


class Settings(BaseModel):
    """What all kinds of policy have."""

    model_config = ConfigDict(strict=True, extra="ignore", validate_default=True)

    policy_name: Name
    kind: Annotated[str, Words(*KINDS)]
    mode: Annotated[str, Words(*MODES)] = ACTIVE
    cooldown: Cooldown = Cooldown()

    def document(self) -> str:
        """As it is stored."""
        return json.dumps({"version": VERSION, **self.shown()})

    def shown(self) -> dict[str, Any]:
        """As its owner wrote it, and what was left out as its default."""
        return self.model_dump(mode="json", exclude_none=True, by_alias=True)

    def conflicts(self) -> list[tuple[str, str]]:
        """Fields that are right each by itself and do not go together: which, and why."""
        return []


class ScheduleSettings(Settings):
    """Sets a capacity or a bound at its time; with a duration, it is a floor or a ceiling for so long."""

    schedule: Schedule
    set: Setting
    duration_seconds: Annotated[int, Whole(60, WEEK)] | None = None
    misfire: Annotated[str, Words("run_once", "skip")] = "run_once"
    misfire_grace_seconds: Annotated[int, Whole(0, WEEK)] = 3600

    @property
    def duration(self) -> timedelta | None:
        return None if self.duration_seconds is None else timedelta(seconds=self.duration_seconds)

    def conflicts(self) -> list[tuple[str, str]]:
        if self.duration_seconds is not None and self.set.capacity is not None:
            return [("set", "set of a schedule with duration_seconds must be min_capacity, its floor, or max_capacity, its ceiling")]
        return []


class TargetSettings(Settings):
    """Keeps a measure at its target, by as many instances as that takes."""

    metric: Metric
    target: Annotated[float, Number(0, MOST, over=True)]
    per: Annotated[str, Words("instance", "group")] = "instance"
    tolerance: Annotated[float, Number(0, 1)] = 0.1
    stabilization: Stabilization = Stabilization()
    max_step: MaxStep = MaxStep()
    fallback: Fallback | None = None


class StepSettings(Settings):
    """Changes the capacity by the step in whose range the measure is."""

    metric: Metric
    steps: Annotated[list[Step], AfterValidator(_steps), documented(minItems=1, maxItems=MAX_STEPS)]
    for_seconds: Annotated[int, Whole(0, 3600)] = 0


class WebhookSettings(Settings):
    """Changes the capacity whenever its URL is called."""

    change: ChangeText
    on_bound: Annotated[str, Words("clamp", "reject")] = "clamp"

    @property
    def then(self) -> Change:
        return changes.read(self.change)


OF_KIND: dict[str, type[Settings]] = {
    "schedule": ScheduleSettings,
    "target": TargetSettings,
    "step": StepSettings,
    "webhook": WebhookSettings,
}


@lru_cache(maxsize=20_000)
def read(document: str) -> Settings:
    """Stored settings, which nobody changes: they are looked at again and again. `OtherRelease` for those that are not ours."""
    try:
        read = json.loads(document)
        if read.pop("version") == VERSION:
            return OF_KIND[read["kind"]].model_validate_json(json.dumps(read))
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise OtherRelease("a policy")
