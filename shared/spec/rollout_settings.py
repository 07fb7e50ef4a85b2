"""How a rollout goes about it: how many instances more or fewer at a time, in which steps, and what it does about failures."""

import re
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, ClassVar, NamedTuple

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from shared.rules import END, refuse
from shared.spec.settings import FromJson, Settings

#: The form of the document.
VERSION = 1
#: Instances, elements, seconds.
MAX_COUNT, MAX_STEPS, MAX_SECONDS = 10_000, 100, 172_800

_PERCENT = re.compile(r"(0|[1-9][0-9]?|100)%\Z")


class OnFailure(StrEnum):
    """What a rollout does once it has failed too often, or gets no further."""

    PAUSE = "pause"
    STOP = "stop"
    ROLLBACK = "rollback"


class Protected(StrEnum):
    """What a rollout does about outdated members that are protected."""

    WAIT = "wait"
    SKIP = "skip"
    REPLACE = "replace"


class Amount(NamedTuple):
    """A number of instances, or per cent of the capacity."""

    number: int
    is_percent: bool = False

    def of(self, capacity: int, *, up: bool) -> int:
        """How many that is of a group of this capacity; shares are rounded up, or down."""
        if not self.is_percent:
            return self.number
        return -(-capacity * self.number // 100) if up else capacity * self.number // 100

    def shown(self) -> int | str:
        """As in JSON."""
        return f"{self.number}%" if self.is_percent else self.number


class Bounds(NamedTuple):
    """How many members there may be beside the capacity, and how many available ones may be missing."""

    surge: int
    unavailable: int


def _amount(value: object) -> Amount:
    if isinstance(value, Amount):
        return value
    if isinstance(value, str) and _PERCENT.match(value):
        return Amount(int(value[:-1]), is_percent=True)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT:
        return Amount(value)
    raise refuse(f'must be a number of instances, 0 to {MAX_COUNT}, or a share of the capacity: "0%" to "100%"')


_SHAPE = {"type": ["integer", "string"], "minimum": 0, "maximum": MAX_COUNT, "pattern": f"^{_PERCENT.pattern.removesuffix(END)}$"}
_Amount = Annotated[Amount, PlainValidator(_amount), PlainSerializer(Amount.shown), WithJsonSchema(_SHAPE)]


class Step(Settings):
    """A share of the capacity, and how long the rollout pauses once that share of members is new and available."""

    called: ClassVar[str] = "a step"

    percent: Annotated[int, Field(ge=1, le=100, description="Per cent of the capacity that is new after the step")]
    pause_seconds: Annotated[int, Field(ge=0, le=MAX_SECONDS, description="Seconds to pause after it")] = 0
    pause: Annotated[bool, Field(description="Whether to pause after it until somebody resumes the rollout")] = False

    @model_validator(mode="after")
    def _one_pause(self) -> "Step":
        if self.pause and self.pause_seconds:
            raise refuse("a step has pause (until it is resumed) or pause_seconds: give one of them")
        return self


def _ascending(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    shares = [step.percent for step in steps]
    if shares != sorted(set(shares)):
        raise refuse("must each have a larger percent than the one before")
    if shares[-1:] != [100]:
        raise refuse("must end with a step of percent 100")
    return steps


class RolloutSettings(Settings):
    """How a rollout goes about it."""

    called: ClassVar[str] = "a rollout"

    # Defaults as in JSON: the description shows them so.
    max_surge: _Amount = Field(
        default="25%", validate_default=True, description="Members above the capacity that may exist meanwhile; a share is rounded up"
    )
    max_unavailable: _Amount = Field(
        default=0,
        validate_default=True,
        description="Available members below the capacity that may be missing meanwhile; a share is rounded down",
    )
    steps: Annotated[
        tuple[Step, ...],
        FromJson,
        AfterValidator(_ascending),
        Field(
            max_length=MAX_STEPS,
            description="Shares of the capacity that are replaced, one step after the other; the last is 100",
            examples=[[{"percent": 100}]],
        ),
    ] = (Step(percent=100),)
    bake_seconds: Annotated[
        int,
        Field(
            ge=0, le=MAX_SECONDS, description="Seconds after the last step for which members are watched, before the rollout is Successful"
        ),
    ] = 300
    max_failures: Annotated[
        int, Field(ge=1, le=MAX_COUNT, description="Failures after which on_failure applies: launches and new members that failed")
    ] = 3
    progress_deadline_seconds: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_SECONDS,
            description="Seconds without progress after which on_failure applies; no suspension, ready_seconds, drain or outage counts",
        ),
    ] = 1800
    on_failure: Annotated[
        OnFailure,
        FromJson,
        Field(description="pause: wait for somebody. stop: end, and leave members as they are. rollback: bring the previous template back"),
    ] = OnFailure.PAUSE
    skip_matching: Annotated[
        bool, Field(description="Whether members whose template describes the same instances are kept, and count as new")
    ] = True
    in_place: Annotated[
        bool, Field(description="Whether a member is changed, not replaced, if only tags, metadata and firewall differ")
    ] = True
    protected: Annotated[
        Protected,
        FromJson,
        Field(description="What happens to protected members: wait for the end of their protection, skip them, or replace them anyway"),
    ] = Protected.WAIT

    @model_validator(mode="after")
    def _moves(self) -> "RolloutSettings":
        if not self.max_surge.number and not self.max_unavailable.number:
            raise refuse("max_surge and max_unavailable cannot both be 0: nothing could be replaced")
        return self

    def bounds(self, capacity: int) -> Bounds:
        """The bounds for a group of this capacity. Shares of which neither comes to a whole instance let one be unavailable."""
        bounds = Bounds(self.max_surge.of(capacity, up=True), self.max_unavailable.of(capacity, up=False))
        return bounds if any(bounds) else Bounds(0, 1)


def to_document(settings: RolloutSettings) -> str:
    """All values: a later release may have other defaults."""
    return settings.to_document(VERSION)


@lru_cache(maxsize=1024)
def from_document(text: str) -> RolloutSettings:
    """The settings in a document. `OtherRelease` for one that is not ours."""
    return RolloutSettings.from_document(text, VERSION)
