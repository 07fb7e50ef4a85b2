"""Bodies from the wire: every limit and message of the contract is here. All that is wrong with a body is told at once."""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from shared.clients.cloudapi import MAX_BODY_BYTES, encode
from shared.errors import FieldError, Invalid
from shared.state.activities import KINDS, STATUSES
from shared.state.machines import creation_body, instance_name, instance_tags
from shared.state.templates import Spec
from tsg_api.schema import tags
from tsg_api.schema.responses import Shown

#: Characters. CloudAPI and Nomad name things after a group; 182 leaves room for their suffixes.
MAX_GROUP_NAME = 182
MAX_TEMPLATE_NAME = 255
#: Stands for the bound of a capacity, which is a setting.
MAX_CAPACITY = "TSG_MAX_CAPACITY"
#: Objects that may be asked for by `limit`.
MAX_PAGE = 1000
#: Seconds that `wait` may ask for.
MAX_WAIT = 60

#: Seconds between checks of a group that is as it should be.
SHORTEST_INTERVAL, LONGEST_INTERVAL = 10, 86_400

#: Tags that begin so are how this service knows its machines.
RESERVED_TAGS = "tsg."

#: The end of a text in Python's patterns; in JSON Schema's it is a dollar sign, which means something else here.
END = r"\Z"

_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_LIMIT = re.compile(r"[0-9]{1,9}\Z")
_SECONDS = re.compile(r"[0-9]{1,3}(\.[0-9]{1,9})?\Z")
_GROUP_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*\Z")

#: What no text may hold, and no name: neither PostgreSQL nor CloudAPI takes it.
_NOT_NUL = "[^\\u0000]*"
_NOT_CONTROL = "[^\\u0000-\\u001f\\u007f-\\u009f]*"

_COUNTS = "only positive integers are allowed for instance count & max and min range"

_TYPES = {
    "string_type": "must be a string",
    "string_unicode": "must be valid Unicode",
    "bool_type": "must be a boolean",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing_size": "is too large",
    "list_type": "must be an array",
    "dict_type": "must be an object",
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


class Unreadable(Invalid):
    """The body is not a JSON object."""

    def __init__(self, message: str) -> None:
        super().__init__([FieldError("body", message)])


def is_uuid(text: str) -> bool:
    """A UUID in its plain form: no braces, no `urn:`."""
    return _UUID.match(text) is not None


def _documented(pattern: str | None = None, **schema: Any) -> Any:
    """What a validator in Python asks for, in the words of JSON Schema: for the API's own description."""
    return Field(json_schema_extra=schema if pattern is None else {**schema, "pattern": f"^{pattern.removesuffix(END)}$"})


def _refuse(message: str) -> PydanticCustomError:
    # The text may hold braces of the user's: it goes in as a value, not as a format.
    return PydanticCustomError("contract", "{message}", {"message": message})


def _uuid(called: str) -> AfterValidator:
    def check(value: str) -> str:
        if not is_uuid(value):
            raise _refuse(f"{called} must be a valid UUID")
        return value

    return AfterValidator(check)


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise _refuse("cannot contain a NUL character")
    return value


def _template_name(value: str) -> str:
    if not value:
        raise _refuse("template name cannot be empty")
    if len(value) > MAX_TEMPLATE_NAME:
        raise _refuse(f"template name cannot be more than {MAX_TEMPLATE_NAME} characters")
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise _refuse("template name cannot contain control characters")
    return value


def _group_name(value: str) -> str:
    if not value:
        raise _refuse("group name cannot be empty")
    if len(value) > MAX_GROUP_NAME:
        raise _refuse(f"group name cannot be more than {MAX_GROUP_NAME} characters")
    if not _GROUP_NAME.match(value):
        raise _refuse("group name must begin with a letter or a digit and hold only letters, digits, '_', '.' and '-'")
    return value


def _capacity(value: int, info: ValidationInfo) -> int:
    if value < 0:
        raise _refuse("group capacity cannot be a negative number")
    most = (info.context or {})["max_capacity"]
    if value > most:
        raise _refuse(f"group capacity cannot be more than {most} compute instances")
    return value


def _interval(value: int | None) -> int | None:
    if value is not None and not SHORTEST_INTERVAL <= value <= LONGEST_INTERVAL:
        raise _refuse(f"health_check_interval must be {SHORTEST_INTERVAL} to {LONGEST_INTERVAL} seconds")
    return value


def _count(value: int | None) -> int | None:
    if value is None or value < 0:
        raise _refuse(_COUNTS)
    return value


def _maximum(value: int | None, info: ValidationInfo) -> int | None:
    most = (info.context or {})["max_capacity"]
    if value is not None and value > most:
        raise _refuse(f"max_instance cannot be more than {most} compute instances")
    return value


def _tags(value: dict[str, str] | None) -> dict[str, str] | None:
    for name, text in (value or {}).items():
        if not name:
            raise _refuse("tags cannot have an empty name")
        if name.startswith(RESERVED_TAGS):
            raise _refuse(f"tags cannot begin with {RESERVED_TAGS!r}: those are this service's own")
        if wrong := tags.problem(name, text):
            raise _refuse(wrong)
    return value


def _metadata(value: dict[str, str] | None) -> dict[str, str] | None:
    if value and "" in value:
        raise _refuse("metadata cannot have an empty name")
    return value


def _limit(value: object) -> object:
    if not isinstance(value, str) or not _LIMIT.match(value) or not 1 <= int(value) <= MAX_PAGE:
        raise _refuse(f"limit must be an integer from 1 to {MAX_PAGE}")
    return int(value)


def _last(called: str, kind: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if not isinstance(value, str) or not is_uuid(value):
            raise _refuse(f"{called} must be the id of the last {kind} of the page before")
        return value.lower()

    return check


def _one_of(called: str, known: Sequence[str]) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value not in known:
            raise _refuse(f"{called} must be one of: {', '.join(known)}")
        return value

    return check


def _wait(value: object) -> object:
    if not isinstance(value, str) or not _SECONDS.match(value) or float(value) > MAX_WAIT:
        raise _refuse(f"wait must be 0 to {MAX_WAIT} seconds")
    return float(value)


class Body(BaseModel):
    """JSON types are taken as they are (no "5" for 5, no 10.0 for 10), and names in any case; unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, data: Any, info: ValidationInfo) -> Any:
        """The fields under the model's own names. Go's decoder, and so the 2018 service, takes `Capacity` for `capacity`."""
        if not isinstance(data, dict):
            return data
        spelled: dict[str, list[str]] = {}
        for name in data:
            spelled.setdefault(name if name in cls.model_fields else name.casefold(), []).append(name)
        (info.context or {})["spelled"] = {field: names for field, names in spelled.items() if field in cls.model_fields}
        # Go clients send null for an empty array.
        return {field: data[names[0]] for field, names in spelled.items() if data[names[0]] is not None}

    def problems(self) -> list[FieldError]:
        """What is wrong with fields that are right each by itself."""
        return []

    @property
    def left_out(self) -> set[str]:
        """The fields that the body did not have, or had as null."""
        return set(type(self).model_fields) - self.model_fields_set


Uuid = _documented(_UUID.pattern, format="uuid")
Text = Annotated[str, AfterValidator(_no_nul), _documented(_NOT_NUL)]
Pairs = dict[Text, Text] | None
Count = Annotated[int | None, AfterValidator(_count), _documented(minimum=0)]


class TemplateBody(Body):
    """What instances are made from. A template never changes."""

    template_name: Annotated[
        str, AfterValidator(_template_name), _documented(_NOT_CONTROL, minLength=1, maxLength=MAX_TEMPLATE_NAME, examples=["web-1"])
    ] = ""
    package: Annotated[str, _uuid("package"), Uuid] = ""
    image_id: Annotated[str, _uuid("imageID"), Uuid] = ""
    firewall_enabled: bool = False
    networks: list[Annotated[str, _uuid("each network"), Uuid]] = []
    userdata: Text = ""
    metadata: Annotated[Pairs, AfterValidator(_metadata), _documented(propertyNames={"minLength": 1, "pattern": f"^{_NOT_NUL}$"})] = None
    tags: Annotated[
        Pairs,
        AfterValidator(_tags),
        _documented(propertyNames={"minLength": 1, "pattern": f"^{_NOT_NUL}$", "not": {"pattern": f"^{re.escape(RESERVED_TAGS)}"}}),
    ] = None

    def spec(self) -> Spec:
        return Spec(
            name=self.template_name,
            package=self.package,
            image_id=self.image_id,
            firewall_enabled=self.firewall_enabled,
            networks=self.networks,
            userdata=self.userdata,
            metadata=self.metadata,
            tags=self.tags,
        )

    def problems(self) -> list[FieldError]:
        """CloudAPI would refuse each instance of a template over its limit, with the service's own tags and the longest group name."""
        spec = self.spec()
        fixed = _instance_bytes(Spec(spec.name, spec.package, spec.image_id))
        used, room = _instance_bytes(spec) - fixed, MAX_BODY_BYTES - fixed
        if used <= room:
            return []
        largest = max(("userdata", "metadata", "tags", "networks"), key=lambda name: len(encode({"": getattr(self, name)})))
        text = f"the template is {used - room} bytes too large for CloudAPI: of {MAX_BODY_BYTES} bytes, {room} are left for userdata,"
        return [FieldError(largest, f"{text} metadata, tags and networks, which take {used} here")]


def _instance_bytes(spec: Spec) -> int:
    """Bytes of the largest request for an instance of this template."""
    some_id = "0" * 36
    tags = instance_tags(group_name="x" * MAX_GROUP_NAME, group_id=some_id, template_id=some_id, launch_id=some_id)
    return len(encode(creation_body(spec, name=instance_name(some_id), tags=tags)))


class GroupBody(Body):
    """So many instances of one template. The Go SDK leaves out a capacity of 0, and no client of 2018 knows of an interval."""

    group_name: Annotated[
        str, AfterValidator(_group_name), _documented(_GROUP_NAME.pattern, minLength=1, maxLength=MAX_GROUP_NAME, examples=["web"])
    ] = ""
    template_id: Annotated[str, _uuid("template ID"), Uuid] = ""
    capacity: Annotated[int, AfterValidator(_capacity), _documented(minimum=0, maximum=MAX_CAPACITY)] = 0
    health_check_interval: Annotated[
        int | None, AfterValidator(_interval), _documented(minimum=SHORTEST_INTERVAL, maximum=LONGEST_INTERVAL)
    ] = None


class IncrementBody(Body):
    """So many instances more, up to a maximum."""

    instance_count: Count = None
    max_instance: Annotated[Count, AfterValidator(_maximum), _documented(minimum=0, maximum=MAX_CAPACITY)] = None

    def step(self) -> dict[str, int]:
        return {"by": self.instance_count or 0, "maximum": self.max_instance or 0}


class DecrementBody(Body):
    """So many instances fewer, down to a minimum."""

    instance_count: Count = None
    min_instance: Count = None

    def step(self) -> dict[str, int]:
        return {"by": self.instance_count or 0, "minimum": self.min_instance or 0}


class Page(BaseModel):
    """Which part of a list: the query of every GET that answers with one."""

    limit: Annotated[int | None, BeforeValidator(_limit), _documented(minimum=1, maximum=MAX_PAGE)] = None
    marker: Annotated[str | None, BeforeValidator(_last("marker", "object")), Uuid] = None


class ActivitiesQuery(BaseModel):
    """Which of a group's activities: the newest first, from before one of them on."""

    limit: Annotated[int | None, BeforeValidator(_limit), _documented(minimum=1, maximum=MAX_PAGE)] = None
    before: Annotated[str | None, BeforeValidator(_last("before", "activity")), Uuid] = None
    status: Annotated[str | None, BeforeValidator(_one_of("status", STATUSES)), _documented(enum=list(STATUSES))] = None
    kind: Annotated[str | None, BeforeValidator(_one_of("kind", KINDS)), _documented(enum=list(KINDS))] = None


class StatusQuery(BaseModel):
    """Seconds to wait for the end."""

    wait: Annotated[float, BeforeValidator(_wait), _documented(minimum=0, maximum=MAX_WAIT)] = 0.0


B = TypeVar("B", bound=Body)
Q = TypeVar("Q", bound=BaseModel)


def _encoding_of(data: bytes) -> str | None:
    """What the bytes of a body are, if they are no text in UTF-8 that begins at once."""
    for begins, encoding in _ENCODINGS.items():
        if data.startswith(begins):
            return encoding
    # An object of JSON begins with two characters of ASCII, of which other encodings fill up the bytes with zeros.
    if data[:4].count(0) in {2, 3}:
        return "in UTF-16" if data[:4].count(0) == 2 else "in UTF-32"
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"not in UTF-8 (byte {error.start + 1})"
    return None


def body(model: type[B], data: bytes, *, max_capacity: int) -> B:
    """The body as its model, or `Invalid` with every field that is wrong (`Unreadable` when it is no JSON object at all)."""
    if wrong_encoding := _encoding_of(data):
        raise Unreadable(f"the body is {wrong_encoding}; it must be JSON in UTF-8, without a byte order mark and not compressed")
    if not data.strip():
        raise Unreadable("the body is empty; it must be a JSON object")
    context: dict[str, Any] = {"max_capacity": max_capacity, "spelled": {}}
    details: list[ErrorDetails] = []
    try:
        read = model.model_validate_json(data, context=context)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
    for detail in details:
        if detail["type"] == "json_invalid":
            raise Unreadable(f"the body is not JSON: {detail['msg'].removeprefix('Invalid JSON: ')}")
        if not detail["loc"]:
            raise Unreadable("the body must be a JSON object")
    wrong = [_twice(field, names) for field, names in context["spelled"].items() if len(names) > 1]
    wrong += [_field_error(detail["type"], detail["loc"], detail["msg"]) for detail in details]
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
    properties = {name: _field_schema(field, max_capacity) for name, field in drawn["properties"].items()}
    for name, field in properties.items():
        default = field.pop("default", None)
        if name not in required:
            field |= {"type": [field["type"], "null"], "default": default}
    return {"type": "object", "description": drawn["description"], "required": required, "properties": properties}


def shown_schema(model: type[Shown]) -> dict[str, Any]:
    """An answer as JSON Schema."""
    drawn = model.model_json_schema(by_alias=False, mode="serialization", ref_template="#/components/schemas/{model}")
    properties = {name: _field_schema(field, 0) for name, field in drawn["properties"].items()}
    for name, field in properties.items():
        field.pop("default", None)
        if {"type": "null"} in drawn["properties"][name].get("anyOf", ()):
            field["type"] = [field["type"], "null"]
    return {"type": "object", "description": drawn["description"], "required": drawn["required"], "properties": properties}


def query_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The parameters of a query as JSON Schema, by their names."""
    return {name: _field_schema(field, 0) for name, field in model.model_json_schema()["properties"].items()}


def _field_schema(told: Mapping[str, Any], max_capacity: int) -> dict[str, Any]:
    # An optional field of pydantic is "this or null": what is not null says what it is.
    (kind,) = [kind for kind in told.get("anyOf", [told]) if kind.get("type") != "null"]
    field = {key: value for key, value in {**kind, **told}.items() if key not in {"anyOf", "title"}}
    if field.get("maximum") == MAX_CAPACITY:
        field["maximum"] = max_capacity
    if "patternProperties" in field:  # what the names must be is said by propertyNames
        (field["additionalProperties"],) = field.pop("patternProperties").values()
    return field


def query(model: type[Q], parameters: Mapping[str, object]) -> Q:
    """What a query asks for, or `Invalid` with every parameter that is wrong. Those we don't know are ignored."""
    try:
        return model.model_validate(parameters)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise Invalid([_field_error(detail["type"], detail["loc"], detail["msg"]) for detail in details]) from None


def _twice(field: str, names: Sequence[str]) -> FieldError:
    return FieldError(field, f"{field} is given {len(names)} times, as {', '.join(names)}: give it once")


def _field_error(kind: str, location: tuple[int | str, ...], message: str) -> FieldError:
    name = ".".join(str(part) for part in location if part != "[key]")
    if kind == "contract":
        needs_name = message.startswith("cannot ")
        return FieldError(name, f"{name} {message}" if needs_name else message)
    return FieldError(name, f"{name} {_TYPES.get(kind, message)}")
