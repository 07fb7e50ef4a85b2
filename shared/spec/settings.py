"""What settings of groups and rollouts have in common: objects whose fields are declared once, with their limits, words and defaults.

A class says what is accepted and refused, how it is described, and what is stored: a JSON document with a version.
"""

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Strict, model_validator

from shared.errors import OtherRelease
from shared.rules import refuse

#: What a name in a message may hold.
_SHOWN = re.compile(r"[^ -~]")
#: RFC 3339: a date, a time, and the zone.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)\Z", re.ASCII)


class Settings(BaseModel):
    """Immutable. JSON types are taken as they are; a name that is not known is refused, and null is the default."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    #: The object's name in messages: "a health_check".
    called: ClassVar[str] = "the object"

    @model_validator(mode="before")
    @classmethod
    def _known(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name in data:
            if name not in cls.model_fields:
                raise refuse(f"{cls.called} has no {_SHOWN.sub('?', str(name)[:64])!r}: it has {', '.join(cls.model_fields)}")
        return {name: value for name, value in data.items() if value is not None}

    def to_document(self, version: int) -> str:
        """The text of a JSON document with all values."""
        return json.dumps({"version": version, "fields": self.model_dump(mode="json")})

    @classmethod
    def from_document(cls, text: str, version: int) -> Self:
        """Settings from a document, by the rules that they came in by; what it lacks is default. `OtherRelease` if it is not ours."""
        try:
            document = json.loads(text)
            if document["version"] == version:
                return cls.model_validate_json(json.dumps(document["fields"]))
        except (ValueError, KeyError, TypeError):
            pass
        raise OtherRelease(f"the settings of {cls.called}")


def _moment(value: object) -> datetime:
    if isinstance(value, str) and _MOMENT.match(value):
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):  # the 31st of February, and one that is in the year 10000 in UTC
            pass
    raise refuse("must be a moment as RFC 3339 has it, such as 2026-11-27T09:30:00Z")


#: A tuple from an array of JSON, or a word of an enumeration from a string.
FromJson = Strict(False)
#: A moment with its zone, from a text of RFC 3339.
Moment = Annotated[datetime, BeforeValidator(_moment)]


def _once_each(value: tuple[str, ...]) -> tuple[str, ...]:
    for one in value:
        if value.count(one) > 1:
            raise refuse(f"cannot have {one} more than once")
    return value


#: The rule for an array without repetitions.
OnceEach = AfterValidator(_once_each)
