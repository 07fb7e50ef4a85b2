"""Bodies from the wire: every limit and message of the contract is here. All that is wrong with a body is named at once."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from shared.clients.cloudapi import MAX_BODY_BYTES, encode
from shared.errors import INVALID, MISSING, FieldError, Invalid
from shared.rules import COMPLETE, documented, is_uuid, refuse, uuid
from shared.rules import UuidForm as Uuid
from shared.spec import fields, near_misses
from shared.spec.fields import Field as SpecField
from shared.spec.group_settings import MAX_CAPACITY, GroupSettings
from shared.spec.machines import Instance
from shared.spec.rollout_settings import RolloutSettings
from shared.spec.settings import FromJson, Moment
from shared.spec.spec import Spec, conflicts, request
from shared.state.activities import KINDS, STATUSES
from shared.state.deliveries import STATES
from shared.state.groups import Wish

#: Characters. CloudAPI and Nomad name things after a group; 182 leaves room for their suffixes.
MAX_GROUP_NAME = 182
MAX_TEMPLATE_NAME = 255
#: Objects that may be asked for by `limit`.
MAX_PAGE = 1000
#: Machines that one request may name, and characters of a note.
MAX_NAMED, MAX_NOTE = 1000, 255
#: Seconds that `wait` may ask for.
MAX_WAIT = 60

#: Seconds between checks of a group that is as it should be.
SHORTEST_INTERVAL, LONGEST_INTERVAL = 10, 86_400

_LIMIT = re.compile(r"[0-9]{1,9}\Z")
_SECONDS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,9})?\Z")
_GROUP_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")

#: What no name may hold.
_NOT_CONTROL = "[^\\u0000-\\u001f\\u007f-\\u009f]*"

_COUNTS = "only positive integers are allowed for instance count & max and min range"

_TYPES = {
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode",
    "bool_type": "must be a boolean",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing_size": "is too large",
    **dict.fromkeys(("list_type", "tuple_type"), "must be an array"),
    "dict_type": "must be an object",
    "extra_forbidden": "is unknown",
    "missing": "is required",
}


#: How bodies begin that are not JSON in UTF-8, and what they are. Of UTF-32's the mark begins as that of UTF-16 does.
_ENCODINGS = {
    b"\x1f\x8b": "compressed (gzip)",
    b"\x28\xb5\x2f\xfd": "compressed (zstd)",
    **dict.fromkeys((b"\x78\x01", b"\x78\x9c", b"\x78\xda"), "compressed (deflate)"),
    **dict.fromkeys((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff"), "in UTF-32"),
    **dict.fromkeys((b"\xff\xfe", b"\xfe\xff"), "in UTF-16"),
    b"\xef\xbb\xbf": "UTF-8 with a byte order mark (BOM)",
}
_BEGINNINGS = tuple(_ENCODINGS)


class Unreadable(Invalid):
    """The body is not a JSON object."""

    def __init__(self, message: str) -> None:
        super().__init__([FieldError("body", message)])


def _template_name(value: str) -> str:
    if not value:
        raise refuse("template name cannot be empty")
    if len(value) > MAX_TEMPLATE_NAME:
        raise refuse(f"template name cannot be more than {MAX_TEMPLATE_NAME} characters")
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise refuse("template name cannot contain control characters")
    return value


def _group_name(value: str) -> str:
    if not value:
        raise refuse("group name cannot be empty")
    if len(value) > MAX_GROUP_NAME:
        raise refuse(f"group name cannot be more than {MAX_GROUP_NAME} characters")
    if not _GROUP_NAME.match(value):
        raise refuse("group name must begin with a letter or a digit and hold only letters, digits, '_', '.' and '-'")
    return value


def _capacity(value: int, info: ValidationInfo) -> int:
    if value < 0:
        raise refuse("group capacity cannot be a negative number")
    most = (info.context or {})["max_capacity"]
    if value > most:
        raise refuse(f"group capacity cannot be more than {most} compute instances")
    return value


def _interval(value: int | None) -> int | None:
    if value is not None and not SHORTEST_INTERVAL <= value <= LONGEST_INTERVAL:
        raise refuse(f"health_check_interval must be {SHORTEST_INTERVAL} to {LONGEST_INTERVAL} seconds")
    return value


def _count(value: int | None) -> int | None:
    if value is None or value < 0:
        raise refuse(_COUNTS)
    return value


def _maximum(value: int | None, info: ValidationInfo) -> int | None:
    most = (info.context or {})["max_capacity"]
    if value is not None and value > most:
        raise refuse(f"max_instance cannot be more than {most} compute instances")
    return value


def _limit(value: object) -> object:
    if not isinstance(value, str) or not _LIMIT.match(value) or not 1 <= int(value) <= MAX_PAGE:
        raise refuse(f"limit must be an integer from 1 to {MAX_PAGE}")
    return int(value)


def _last(called: str, kind: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if not isinstance(value, str) or not is_uuid(value):
            raise refuse(f"{called} must be the id of the last {kind} of the page before")
        return value.lower()

    return check


def _one_of(called: str, known: Sequence[str]) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value not in known:
            raise refuse(f"{called} must be one of: {', '.join(known)}")
        return value

    return check


def _yes_or_no(called: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value not in ("true", "false"):
            raise refuse(f"{called} must be true or false")
        return value == "true"

    return check


def _wait(value: object) -> object:
    if not isinstance(value, str) or not _SECONDS.match(value) or float(value) > MAX_WAIT:
        raise refuse(f"wait must be 0 to {MAX_WAIT} seconds")
    return float(value)


def _distinct(value: list[str]) -> list[str]:
    lowered = [one.lower() for one in value]
    for one in lowered:
        if lowered.count(one) > 1:
            raise refuse(f"cannot have {one} more than once")
    return value


class Vote(StrEnum):
    """How an application says that a member is."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


_Named = Annotated[
    list[Annotated[str, uuid("each of the instances"), Uuid]], Field(min_length=1, max_length=MAX_NAMED), AfterValidator(_distinct)
]
#: A line for people.
Note = Annotated[str, Field(max_length=MAX_NOTE, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class Body(BaseModel):
    """JSON types are taken as they are (no "5" for 5, no 10.0 for 10), and names in any case; unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", validate_default=True)

    #: Fields in which null is not the same as nothing.
    resettable: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, data: Any, info: ValidationInfo) -> Any:
        """The fields under the model's own names. Go's decoder, and so the 2018 service, takes `Capacity` for `capacity`."""
        if not isinstance(data, dict):
            return data
        context = info.context or {}
        context["given"] = given = data if data.keys() <= cls.model_fields.keys() else cls._renamed(data, context)
        # Go clients send null for an empty array.
        return {field: value for field, value in given.items() if value is not None or field in cls.resettable}

    @classmethod
    def _renamed(cls, data: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
        known, given, names = cls.model_fields, dict[str, Any](), dict[str, str]()
        for name, value in data.items():
            field = name if name in known else name.casefold()
            if field not in known:
                if value is not None and (refusal := cls.refusal(name)) is not None:
                    context["refused"].append(refusal)
            elif field in given:
                context["more_names"].setdefault(field, [names[field]]).append(name)
            else:
                given[field], names[field] = value, name
        return given

    @classmethod
    def refusal(cls, _name: str) -> FieldError | None:
        """Why a field that is not known is refused, if it is not ignored."""
        return None

    def problems(self) -> list[FieldError]:
        """What is wrong with fields that are right each by itself."""
        return []

    @property
    def left_out(self) -> set[str]:
        """The fields that the body did not have, or had as null."""
        return set(type(self).model_fields) - self.model_fields_set


Count = Annotated[int | None, AfterValidator(_count), documented(minimum=0)]


class TemplateBody(Body):
    """What instances are made from. A template never changes."""

    template_name: Annotated[
        str, AfterValidator(_template_name), documented(_NOT_CONTROL, minLength=1, maxLength=MAX_TEMPLATE_NAME, examples=["web-1"])
    ] = ""

    @classmethod
    def refusal(cls, name: str) -> FieldError | None:
        message = near_misses.problem(name, cls.model_fields)
        return FieldError(name, message) if message else None

    def spec(self) -> Spec:
        """The template, without what was not given."""
        given = {name: getattr(self, name) for name in type(self).model_fields if name != "template_name"}
        return Spec(self.template_name, {name: value for name, value in given.items() if value is not None})

    def problems(self) -> list[FieldError]:
        """Fields that don't go together. And CloudAPI would refuse each instance of a template over its limit."""
        spec = self.spec()
        if wrong := [FieldError(name, message) for name, message in conflicts(spec)]:
            return wrong
        required = {field.name: spec.values[field.name] for field in fields.FIELDS if field.is_required}
        fixed = _instance_bytes(Spec(spec.name, required))
        used, room = _instance_bytes(spec) - fixed, MAX_BODY_BYTES - fixed
        if used <= room:
            return []
        largest = max(spec.values, key=lambda name: len(encode({"": spec.values[name]})))
        text = f"the template is {used - room} bytes too large for CloudAPI: of {MAX_BODY_BYTES} bytes, {room} are left for all but"
        return [FieldError(largest, f"{text} {' and '.join(required)}, and they take {used} here")]


def template_body() -> type[TemplateBody]:
    """The body of a template, with the fields that there are."""
    return _template_body(fields.FIELDS)


@cache
def _template_body(known: tuple[SpecField, ...]) -> type[TemplateBody]:
    declared: dict[str, Any] = {field.name: (_annotation(field), "" if field.is_required else field.default) for field in known}
    return create_model("TemplateBody", __base__=TemplateBody, __doc__=TemplateBody.__doc__, **declared)


def _annotation(field: SpecField) -> Any:
    shown = Field(description=field.words, examples=list(field.examples))
    return Annotated[field.type if field.is_required or field.default is not None else field.type | None, shown]


def _instance_bytes(spec: Spec) -> int:
    """Bytes of the largest request for an instance of this template."""
    some_id = "0" * 36
    return len(encode(request(spec, Instance(some_id, "x" * MAX_GROUP_NAME, some_id, some_id))))


class GroupBody(Body):
    """A number of instances of one template. The Go SDK leaves out a capacity of 0, and no client of 2018 knows of the fields behind it."""

    resettable: ClassVar[frozenset[str]] = frozenset(GroupSettings.model_fields)

    group_name: Annotated[
        str, AfterValidator(_group_name), documented(_GROUP_NAME.pattern, minLength=1, maxLength=MAX_GROUP_NAME, examples=["web"])
    ] = ""
    template_id: Annotated[str, uuid("template ID"), Uuid] = ""
    capacity: Annotated[int, AfterValidator(_capacity), documented(minimum=0, maximum=MAX_CAPACITY)] = 0
    health_check_interval: Annotated[
        int | None, AfterValidator(_interval), documented(minimum=SHORTEST_INTERVAL, maximum=LONGEST_INTERVAL)
    ] = None

    def wish(self) -> Wish:
        """What is asked for: settings that were not given stay as they are, those given as null are default."""
        named = self.model_fields_set
        capacity = self.capacity if "capacity" in named else None
        given = {name: getattr(self, name) for name in named & self.resettable}
        return Wish(self.group_name, self.template_id.lower(), capacity, self.health_check_interval, given)


@cache
def group_body() -> type[GroupBody]:
    """The body of a group, with its settings: each may be null, or left out."""
    declared: dict[str, Any] = {name: (_setting(field), None) for name, field in GroupSettings.model_fields.items()}
    return create_model("GroupBody", __base__=GroupBody, __doc__=GroupBody.__doc__, **declared)


def _setting(field: FieldInfo) -> Any:
    extra = Field(json_schema_extra=field.json_schema_extra)
    rules = Annotated[field.annotation, *field.metadata, extra]  # type: ignore[name-defined]
    return Annotated[rules | None, Field(description=field.description)]


class RolloutBody(Body):
    """A rollout that is to begin. Without a template it makes the group's members anew."""

    template_id: Annotated[Annotated[str, uuid("template ID"), Uuid] | None, Field(description="Without it, the group's own")] = None

    def settings(self) -> RolloutSettings:
        """How it goes about it."""
        return RolloutSettings(**{name: getattr(self, name) for name in RolloutSettings.model_fields if name in self.model_fields_set})

    def problems(self) -> list[FieldError]:
        """Settings that don't go together."""
        try:
            self.settings()
        except ValidationError as error:
            return [FieldError("max_surge", one["msg"]) for one in error.errors(include_url=False, include_input=False)]
        return []


@cache
def rollout_body() -> type[RolloutBody]:
    """The body of a rollout, with its settings."""
    declared: dict[str, Any] = {name: (_setting(field), None) for name, field in RolloutSettings.model_fields.items()}
    return create_model("RolloutBody", __base__=RolloutBody, __doc__=RolloutBody.__doc__, **declared)


class IncrementBody(Body):
    """More instances, up to a maximum."""

    instance_count: Count = None
    max_instance: Annotated[Count, AfterValidator(_maximum), documented(minimum=0, maximum=MAX_CAPACITY)] = None

    def step(self) -> dict[str, int]:
        return {"by": self.instance_count or 0, "maximum": self.max_instance or 0}


class DecrementBody(Body):
    """Fewer instances, down to a minimum. With `instances` those go, and the other fields may be left out."""

    instance_count: Count = None
    min_instance: Count = None
    instances: Annotated[_Named | None, Field(description="The ids of the machines that go, and no others")] = None

    @model_validator(mode="before")
    @classmethod
    def _counted(cls, data: Any) -> Any:
        """What may be left out where machines are named. Runs before fields are put under their own names."""
        named = next((value for name, value in data.items() if name.casefold() == "instances"), None) if isinstance(data, dict) else None
        if not isinstance(named, list):
            return data
        given = {name.casefold() for name, value in data.items() if value is not None}
        left_out = {"instance_count": len(named), "min_instance": 0}
        return {**data, **{name: value for name, value in left_out.items() if name not in given}}

    def problems(self) -> list[FieldError]:
        """Machines are named once each, and counted rightly."""
        if self.instances is not None and self.instance_count != len(self.instances):
            return [FieldError("instance_count", f"instance_count is {self.instance_count}, and instances are {len(self.instances)}")]
        return []

    def step(self) -> dict[str, Any]:
        machine_ids = [one.lower() for one in self.instances or ()]
        return {"by": self.instance_count or 0, "minimum": self.min_instance or 0, "machine_ids": machine_ids}


class ProtectionBody(Body):
    """Whether scale-in and rollouts leave a member alone."""

    protected: bool
    until: Annotated[Moment | None, Field(description="When the protection ends by itself; null: not before it is taken back")] = None
    note: Annotated[Note | None, Field(description="Why, for the activities")] = None


class HealthBody(Body):
    """The application's own vote on the health of a member."""

    status: Annotated[Vote, FromJson]
    note: Annotated[Note | None, Field(description="Why, for the activities")] = None


class AdoptionBody(Body):
    """A machine of the account that becomes a member."""

    machine_id: Annotated[str, uuid("machine_id"), Uuid]


class DetachmentBody(Body):
    """How a member is detached."""

    decrement: Annotated[bool, Field(description="Whether the capacity falls by one; otherwise another instance is launched")] = False


class Page(BaseModel):
    """Which part of a list: the query of every GET that answers with one."""

    limit: Annotated[int | None, BeforeValidator(_limit), documented(minimum=1, maximum=MAX_PAGE)] = None
    marker: Annotated[str | None, BeforeValidator(_last("marker", "object")), Uuid] = None


class ActivitiesQuery(BaseModel):
    """Which of a group's activities: the newest first, from before one of them on."""

    limit: Annotated[int | None, BeforeValidator(_limit), documented(minimum=1, maximum=MAX_PAGE)] = None
    before: Annotated[str | None, BeforeValidator(_last("before", "activity")), Uuid] = None
    status: Annotated[str | None, BeforeValidator(_one_of("status", STATUSES)), documented(enum=list(STATUSES))] = None
    kind: Annotated[str | None, BeforeValidator(_one_of("kind", KINDS)), documented(enum=list(KINDS))] = None


class DecisionsQuery(BaseModel):
    """Which decisions: the newest first, from before one of them on."""

    limit: Annotated[int | None, BeforeValidator(_limit), documented(minimum=1, maximum=MAX_PAGE)] = None
    before: Annotated[str | None, BeforeValidator(_last("before", "decision")), Uuid] = None


class DeliveriesQuery(BaseModel):
    """Which deliveries of a notification: the newest first, from before one of them on."""

    limit: Annotated[int | None, BeforeValidator(_limit), documented(minimum=1, maximum=MAX_PAGE)] = None
    before: Annotated[str | None, BeforeValidator(_last("before", "delivery")), Uuid] = None
    state: Annotated[str | None, BeforeValidator(_one_of("state", STATES)), documented(enum=list(STATES))] = None


class TemplateQuery(BaseModel):
    """Whether CloudAPI is asked about a template before it is made."""

    verify: Annotated[bool, BeforeValidator(_yes_or_no("verify")), documented()] = False


class RemovalQuery(BaseModel):
    """What becomes of the capacity when a member goes."""

    decrement: Annotated[bool, BeforeValidator(_yes_or_no("decrement")), documented()] = False


class DryRunQuery(BaseModel):
    """Whether nothing is changed, and the answer says what would be done."""

    dry_run: Annotated[bool, BeforeValidator(_yes_or_no("dry_run")), documented()] = False


class StatusQuery(BaseModel):
    """Seconds to wait for the end."""

    wait: Annotated[float, BeforeValidator(_wait), documented(minimum=0, maximum=MAX_WAIT)] = 0.0


B = TypeVar("B", bound=Body)
Q = TypeVar("Q", bound=BaseModel)


def _encoding_of(data: bytes) -> str | None:
    """What the bytes of a body are, if they are no text in UTF-8 that begins at once."""
    if data.startswith(_BEGINNINGS):
        return next(encoding for begins, encoding in _ENCODINGS.items() if data.startswith(begins))
    # An object of JSON begins with two characters of ASCII, of which other encodings fill up the bytes with zeros.
    if data[:4].count(0) in {2, 3}:
        return "in UTF-16" if data[:4].count(0) == 2 else "in UTF-32"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"not in UTF-8 (byte {error.start + 1})"
    return None


def _no_json(data: bytes, why: str) -> str:
    if wrong_encoding := _encoding_of(data):
        return f"the body is {wrong_encoding}; it must be JSON in UTF-8, without a byte order mark and not compressed"
    return f"the body is not JSON: {why}" if data.strip() else "the body is empty; it must be a JSON object"


def body(model: type[B], data: bytes, *, max_capacity: int) -> B:
    """The body as its model, or `Invalid` with every field that is wrong (`Unreadable` when it is no JSON object at all)."""
    context: dict[str, Any] = {"max_capacity": max_capacity, "more_names": {}, "refused": []}
    details: list[ErrorDetails] = []
    try:
        read = model.model_validate_json(data, context=context)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    for detail in details:
        if detail["type"] == "json_invalid":
            raise Unreadable(_no_json(data, detail["msg"].removeprefix("Invalid JSON: ")))
        if not detail["loc"]:
            raise Unreadable("the body must be a JSON object")
    wrong = [_twice(field, names) for field, names in context["more_names"].items()]
    wrong += context["refused"]
    wrong += [_field_error(detail["type"], detail["loc"], detail["msg"], context["given"]) for detail in details]
    if not details:
        wrong += read.problems()
    if wrong:
        raise Invalid(wrong)
    return read


def schema(model: type[Body], *, max_capacity: int) -> dict[str, Any]:
    """A body as JSON Schema: a field that an empty body is refused for is required, and any other may be null."""
    try:
        body(model, b"{}", max_capacity=max_capacity)
        required: list[str] = []
    except Invalid as error:
        required = [field.field for field in error.fields]
    drawn = model.model_json_schema()
    properties = {name: _field_schema(field, max_capacity, drawn.get("$defs")) for name, field in drawn["properties"].items()}
    for name, field in properties.items():
        default = field.pop("default", None)
        if name not in required:
            _or_null(field)
            field["default"] = default
    return {"type": "object", "description": drawn["description"], "required": required, "properties": properties}


def shown_schema(shown: type) -> dict[str, Any]:
    """An answer as JSON Schema."""
    drawn = TypeAdapter(shown).json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
    properties = {name: _field_schema(field, 0) for name, field in drawn["properties"].items()}
    for name, field in properties.items():
        field.pop("default", None)
        if {"type": "null"} in drawn["properties"][name].get("anyOf", ()):
            _or_null(field)
    return {"type": "object", "description": drawn["description"], "required": drawn["required"], "properties": properties}


def _or_null(field: dict[str, Any]) -> None:
    if "$ref" in field:
        field["anyOf"] = [{"$ref": field.pop("$ref")}, {"type": "null"}]
        return
    kinds = field["type"]
    field["type"] = [*([kinds] if isinstance(kinds, str) else kinds), "null"]
    if "enum" in field:
        field["enum"] = [*field["enum"], None]


def query_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The parameters of a query as JSON Schema, by their names."""
    return {name: _field_schema(field, 0) for name, field in model.model_json_schema()["properties"].items()}


def _field_schema(drawn: Mapping[str, Any], max_capacity: int, parts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`parts` are what references in it lead to, to be put in their places."""
    if parts:
        drawn = _without_references(drawn, parts)
    # An optional field of pydantic is "this or null": what is not null says what it is.
    (kind,) = [kind for kind in drawn.get("anyOf", [drawn]) if kind.get("type") != "null"]
    field = {key: value for key, value in {**kind, **drawn}.items() if key not in {"anyOf", "title"}}
    if field.get("maximum") == MAX_CAPACITY:
        field["maximum"] = max_capacity
    if "patternProperties" in field:  # what the names must be is said by propertyNames
        (field["additionalProperties"],) = field.pop("patternProperties").values()
    return field


def _without_references(drawn: Any, parts: Mapping[str, Any]) -> Any:
    if isinstance(drawn, list):
        return [_without_references(one, parts) for one in drawn]
    if not isinstance(drawn, dict):
        return drawn
    if "$ref" in drawn:
        beside = {key: value for key, value in drawn.items() if key != "$ref"}
        return _without_references({**parts[drawn["$ref"].rpartition("/")[2]], **beside}, parts)
    found = {key: _without_references(one, parts) for key, one in drawn.items() if not (key == "title" and isinstance(one, str))}
    if found.get("type") == "object":
        for field in found.get("properties", {}).values():
            # In settings null is the default.
            if "default" in field and "type" in field and "null" not in field["type"]:
                _or_null(field)
    if found.get("type") == "array" and "maxLength" in found:
        found["maxItems"] = found.pop("maxLength")
    return found


def query(model: type[Q], parameters: Mapping[str, object]) -> Q:
    """What a query asks for, or `Invalid` with every parameter that is wrong. Those we don't know are ignored."""
    try:
        return model.model_validate(parameters)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise Invalid([_field_error(detail["type"], detail["loc"], detail["msg"], parameters) for detail in details]) from None


def _twice(field: str, names: Sequence[str]) -> FieldError:
    return FieldError(field, f"{field} is given {len(names)} times, as {', '.join(names)}: give it once")


def _field_error(kind: str, location: tuple[int | str, ...], message: str, given: Mapping[str, object]) -> FieldError:
    """`given` are the fields that the body has. What is wrong with another one, or with null, is that it is missing."""
    name = ".".join(str(part) for part in location if part != "[key]")
    code = MISSING if kind == "missing" or given.get(str(location[0])) is None else INVALID
    if kind == COMPLETE:
        needs_name = message.startswith(("cannot ", "must "))
        return FieldError(name, f"{name} {message}" if needs_name else message, code)
    return FieldError(name, f"{name} {_TYPES.get(kind) or _words(message)}", code)


def _words(message: str) -> str:
    """A message of pydantic behind the name of its field."""
    text = re.sub(r"^\w+ should", "must", message)
    return text[:1].lower() + text[1:]
