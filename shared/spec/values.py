"""The types of a template's fields. What CloudAPI would drop silently, or refuse only at the launch, is refused here."""

import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Required

from pydantic import AfterValidator, BeforeValidator, ConfigDict, PlainValidator, WithJsonSchema, with_config
from typing_extensions import TypedDict

from shared.rules import END, NOT_NUL, Text, UuidForm, at_most, documented, is_uuid, one_of, refuse, uuid
from shared.spec import tags

#: Characters of a package's name, and of an affinity rule.
MAX_PACKAGE, MAX_RULE = 255, 255
#: Elements of arrays.
MAX_RULES, MAX_NETWORKS, MAX_VOLUMES, MAX_DISKS = 10, 32, 8, 8
#: Bytes of a script.
MAX_SCRIPT = 65_536
#: Characters of an instance's name: a label of DNS. CloudAPI takes no more where the account has CNS.
MAX_NAME = 63
#: Integers beyond it are other numbers in CloudAPI's JavaScript.
MAX_INTEGER = 2**53 - 1
#: Bytes of a block.
BLOCKS = tuple(2**power for power in range(9, 18))

#: Tags that begin so are how this service knows its machines.
RESERVED_TAGS = "tsg."

#: What an instance's name may hold in place of its own: the first 8 characters of the instance's id, and the group's name.
SHORT_ID, GROUP = "{{shortId}}", "{{group}}"
SHORT_ID_LENGTH = 8
#: Characters that an instance's name has for that of its group, at least.
MIN_GROUP = 8

_PACKAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]*\Z")
_KEY = re.compile(r"[a-z_][a-z0-9_.-]+\Z", re.IGNORECASE | re.ASCII)
_VALUE = re.compile(r"[-a-z0-9:_\s.*/()?+[\]\\^$|]+\Z", re.IGNORECASE | re.ASCII)
#: Valid in Python's regular expressions and not in those of JavaScript, once classes and escaped characters are out of the way.
_NOT_JAVASCRIPT = re.compile(r"\(\?(?!:)|[*+?]\+")
_CLASS_OR_ESCAPED = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,255}\Z")
_MOUNTPOINT = re.compile(r"/+[^/\0][^\0]*\Z")
_METADATA = re.compile(r"[a-zA-Z0-9_]")
_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?\Z")

_Schema = dict[str, Any]


def _package(value: str) -> str:
    if not _PACKAGE.match(value) or len(value) > MAX_PACKAGE:
        raise refuse("package must be a valid UUID or the name of a package: letters, digits, '_', '.', '+' and '-', 255 at most")
    return value


def _network(value: object) -> object:
    if isinstance(value, str):
        if not is_uuid(value):
            raise refuse("each network must be a valid UUID")
        return value
    if not isinstance(value, dict):
        raise refuse('each network must be a valid UUID, or an object: {"ipv4_uuid": UUID}')
    network = value.get("ipv4_uuid")
    if not isinstance(network, str) or not is_uuid(network):
        raise refuse('the "ipv4_uuid" of a network must be a valid UUID')
    if "ipv4_ips" in value:
        raise refuse('leave out "ipv4_ips" of a network: the instances of a group cannot share an address')
    if value.get("ipv4_count", 1) != 1 or isinstance(value.get("ipv4_count"), bool):
        raise refuse('"ipv4_count" of a network can be 1 alone: CloudAPI gives an instance one address in each network')
    _only("a network", value, ("ipv4_uuid", "ipv4_count"))
    return value


def _networks(value: list[Any]) -> list[Any]:
    if len({type(one) for one in value}) > 1:
        raise refuse("networks must be UUIDs alone, or objects alone: CloudAPI takes no mixture")
    ids = [(one["ipv4_uuid"] if isinstance(one, dict) else one).lower() for one in value]
    for one in ids:
        if ids.count(one) > 1:
            raise refuse(f"networks has {one} more than once")
    return value


def _only(called: str, value: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in value:
        if key not in known:
            raise refuse(f"{called} has no {json.dumps(key[:64], ensure_ascii=False)}: it has {', '.join(known)}")


def _keys(called: str, *known: str) -> BeforeValidator:
    """The rule for an object's keys."""

    def check(value: object) -> object:
        if isinstance(value, dict):
            _only(called, value, known)
        return value

    return BeforeValidator(check)


def _scalar(value: object) -> object:
    """The value of a tag or of metadata."""
    if isinstance(value, str):
        if "\0" in value:
            raise refuse("cannot contain a NUL character")
    elif isinstance(value, float):
        if not abs(value) < float("inf"):
            raise refuse("cannot be so large a number")
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise refuse(f"cannot be a number beyond {MAX_INTEGER}, which CloudAPI would change: write it as a string")
    else:
        raise refuse("cannot be anything but a string, a number or a boolean")
    return value


def _tags(value: dict[str, Any]) -> dict[str, Any]:
    for name, one in value.items():
        if not name:
            raise refuse("tags cannot have an empty name")
        if name.startswith(RESERVED_TAGS):
            raise refuse(f"tags cannot begin with {RESERVED_TAGS!r}: those are this service's own")
        if wrong := tags.problem(name, one):
            raise refuse(wrong)
    return value


#: Metadata that CloudAPI takes for something else, and why it is of no use here.
_METADATA_OF_CLOUDAPI = {
    "credentials": "CloudAPI takes it out, and this service would store the passwords",
    "root_authorized_keys": "CloudAPI writes the account's own keys there; add the key to the account",
}


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if not name:
            raise refuse("metadata cannot have an empty name")
        if why := _METADATA_OF_CLOUDAPI.get(name):
            raise refuse(f"metadata cannot have {name}: {why}")
        if not _METADATA.match(name):
            raise refuse(f"metadata cannot have {name!r}: CloudAPI drops names that do not begin with a letter, a digit or '_'")
        if name.endswith("_pw"):
            raise refuse(f"metadata cannot have {name!r}: CloudAPI drops names that end in '_pw'")
    return value


def _affinity(value: object) -> object:
    rules = [value] if isinstance(value, str) else value
    if not isinstance(rules, list):
        raise refuse("affinity must be a rule, or an array of rules")
    if len(rules) > MAX_RULES:
        raise refuse(f"affinity cannot have more than {MAX_RULES} rules")
    soft = {_is_soft(rule) for rule in rules}
    if len(soft) > 1:
        raise refuse("affinity cannot have hard rules (==, !=) beside soft ones (==~, !=~): CloudAPI would drop the soft ones")
    return value


def _is_soft(rule: object) -> bool:
    """Whether a rule is a mere preference. It is read as CloudAPI reads it."""
    if not isinstance(rule, str):
        raise refuse("affinity must be a rule, or an array of rules: each a string, such as role!=~web")
    shown = json.dumps(rule[:80], ensure_ascii=False)
    if len(rule) > MAX_RULE:
        raise refuse(f"the affinity rule {shown}... cannot be longer than {MAX_RULE} characters")
    operator = next((one for one in ("==", "!=") if one in rule), None)
    if operator is None:
        raise refuse(f"the affinity rule {shown} needs an operator, one of ==, !=, ==~ and !=~: such as role!=~web")
    key, _, value = rule.partition(operator)
    is_soft = value.startswith("~")
    value = value.removeprefix("~")
    if not _KEY.match(key):
        raise refuse(
            f"the affinity rule {shown} must begin with instance or the name of a tag: 2 or more letters, digits, '_', '-' and '.',"
            " the first one a letter or '_', and no blanks"
        )
    if key == "image":
        raise refuse(f"the affinity rule {shown} is about the image, which CloudAPI ignores: use instance or the name of a tag")
    if not _VALUE.match(value) or value != value.strip():
        raise refuse(
            f"the affinity rule {shown} needs a value after its operator: letters, digits and -:_.*/()?+[]\\^$|, without blanks around it"
        )
    if len(value) > 1 and value.startswith("/") and value.endswith("/") and not _is_expression(value[1:-1]):
        raise refuse(f"the affinity rule {shown} has an invalid regular expression")
    return is_soft


def _is_expression(text: str) -> bool:
    """A regular expression of JavaScript, which is what CloudAPI makes of it."""
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError):
        return False
    return not _NOT_JAVASCRIPT.search(_CLASS_OR_ESCAPED.sub("x", text))


def _volume_name(value: str) -> str:
    if not _VOLUME.match(value):
        raise refuse("the name of a volume must have 2 to 256 letters, digits, '_', '.' and '-', and begin with a letter or a digit")
    return value


def _mountpoint(value: str) -> str:
    if not _MOUNTPOINT.match(value):
        raise refuse("the mountpoint of a volume must be an absolute path, such as /data")
    return value


def _volumes(value: list[Any]) -> list[Any]:
    places = [re.sub("/+", "/", volume["mountpoint"]).rstrip("/") for volume in value]
    for place in places:
        if places.count(place) > 1:
            raise refuse(f"volumes has the mountpoint {place} more than once")
    return value


@with_config(ConfigDict(strict=True, extra="forbid"))
class Volume(TypedDict, total=False):
    """A volume and where it is mounted."""

    name: Required[Annotated[str, AfterValidator(_volume_name), documented(_VOLUME.pattern, minLength=2, maxLength=256)]]
    mountpoint: Required[Annotated[str, AfterValidator(_mountpoint), documented(r"/+[^/\u0000][^\u0000]*")]]
    mode: one_of("the mode of a volume", ("ro", "rw"))  # type: ignore[valid-type]
    type: one_of("the type of a volume", ("tritonnfs",))  # type: ignore[valid-type]


def _size(value: object) -> object:
    is_size = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_INTEGER
    if value != "remaining" and not is_size:
        raise refuse('the size of a disk must be a whole number of MiB, or "remaining"')
    return value


def _block_size(value: int) -> int:
    if value not in BLOCKS:
        raise refuse(f"the block_size of a disk must be a power of two from {BLOCKS[0]} to {BLOCKS[-1]}")
    return value


def _boot(value: bool) -> bool:
    if not value:
        raise refuse("leave out the boot of a disk: an instance boots from the first one")
    return value


@with_config(ConfigDict(strict=True, extra="forbid"))
class Disk(TypedDict, total=False):
    """A disk of a virtual machine."""

    size: Annotated[Any, PlainValidator(_size), WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "remaining"}]})]
    block_size: Annotated[int, AfterValidator(_block_size), documented(enum=list(BLOCKS))]
    boot: Annotated[bool, AfterValidator(_boot)]


def _disks(value: list[Any]) -> list[Any]:
    boot, *others = value
    if "block_size" in boot:
        raise refuse("the first of the disks is the image's own, which has its block_size: leave it out")
    if not all("size" in disk for disk in others):
        raise refuse('each of the disks but the first must have a size: MiB, or "remaining"')
    if sum(disk.get("size") == "remaining" for disk in value) > 1:
        raise refuse('only one of the disks can have the size "remaining"')
    if any("boot" in disk for disk in others):
        raise refuse("only the first of the disks can have boot: an instance boots from it")
    return value


def _script(called: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        if len(value.encode()) > MAX_SCRIPT:
            raise refuse(f"{called} cannot be longer than {MAX_SCRIPT} bytes: have it fetch the rest")
        return value

    return check


def script(called: str) -> Any:
    """The type of a script's text."""
    return Annotated[Text, AfterValidator(_script(called)), documented(NOT_NUL, maxLength=MAX_SCRIPT)]


def _service(value: str) -> str:
    if "," in value or value != value.strip() or not tags.is_services(value):
        raise refuse("each of the cns_services must be NAME[:PORT][:priority=N][:weight=N], with letters, digits and '-' in NAME")
    return value


def _instance_name(value: str) -> str:
    if SHORT_ID not in value:
        raise refuse(f"instance_name must have {SHORT_ID} in it: no two instances of an account can have one name")
    plain = value.replace(SHORT_ID, "x").replace(GROUP, "x")
    if not _NAME.match(plain):
        raise refuse(
            f"instance_name must be letters, digits and '-', with {SHORT_ID} and {GROUP} among them, and '-' neither first nor last"
        )
    if value.count(GROUP) > 1:
        raise refuse(f"instance_name cannot have {GROUP} more than once")
    length = len(instance_name(value, group_name="x" * MIN_GROUP, short_id="x" * SHORT_ID_LENGTH, most=None))
    if length > MAX_NAME:
        raise refuse(
            f"instance_name cannot be longer than {MAX_NAME} characters: with {SHORT_ID_LENGTH} for {SHORT_ID}"
            f" and {MIN_GROUP} for {GROUP} it has {length}"
        )
    return value


def instance_name(pattern: str, *, group_name: str, short_id: str = SHORT_ID, most: int | None = MAX_NAME) -> str:
    """The pattern filled in. The group's name becomes a label of DNS, cut so that the whole has `most` characters once it is an id's."""
    room = None
    if most is not None:
        fixed = pattern.replace(GROUP, "")
        room = most - len(fixed) - fixed.count(SHORT_ID) * (SHORT_ID_LENGTH - len(SHORT_ID))
    label = re.sub("[^a-z0-9]", "-", group_name.lower())[:room].rstrip("-")
    return pattern.replace(GROUP, label).replace(SHORT_ID, short_id)


_NETWORK: _Schema = {
    "type": ["string", "object"],
    "format": "uuid",
    "pattern": UuidForm.json_schema_extra["pattern"],
    "properties": {
        "ipv4_uuid": {"type": "string", **UuidForm.json_schema_extra},
        "ipv4_count": {"const": 1},
    },
    "required": ["ipv4_uuid"],
    "additionalProperties": False,
}
_SCALAR: _Schema = {"type": ["string", "number", "boolean"], "pattern": f"^{NOT_NUL}$"}
_RULE: _Schema = {
    "type": "string",
    "maxLength": MAX_RULE,
    "pattern": r"^[A-Za-z_][A-Za-z0-9_.-]+(==|!=)~?[-A-Za-z0-9:_\s.*/()?+\[\]\\^$|]+$",
}
_NOT_EMPTY: _Schema = {"minLength": 1, "pattern": f"^{NOT_NUL}$"}

Scalar = Annotated[Any, PlainValidator(_scalar), WithJsonSchema(_SCALAR)]

Package = Annotated[str, AfterValidator(_package), documented(_PACKAGE.pattern, maxLength=MAX_PACKAGE)]
Image = Annotated[str, uuid("imageID"), UuidForm]
Networks = Annotated[
    list[Annotated[Any, PlainValidator(_network), WithJsonSchema(_NETWORK)]],
    at_most("networks", MAX_NETWORKS),
    AfterValidator(_networks),
    documented(maxItems=MAX_NETWORKS),
]
Metadata = Annotated[dict[Text, Scalar], AfterValidator(_metadata), documented(propertyNames=_NOT_EMPTY)]
Tags = Annotated[
    dict[Text, Scalar], AfterValidator(_tags), documented(propertyNames={**_NOT_EMPTY, "not": {"pattern": f"^{re.escape(RESERVED_TAGS)}"}})
]
Affinity = Annotated[
    Any, PlainValidator(_affinity), WithJsonSchema({**_RULE, "type": ["string", "array"], "items": _RULE, "maxItems": MAX_RULES})
]
Spread = one_of("spread", ("none", "prefer", "require"))
Volumes = Annotated[
    list[Annotated[Volume, _keys("a volume", "name", "mountpoint", "mode", "type")]],
    at_most("volumes", MAX_VOLUMES),
    AfterValidator(_volumes),
    documented(maxItems=MAX_VOLUMES),
]
Disks = Annotated[
    list[Annotated[Disk, _keys("a disk", "size", "block_size", "boot")]],
    at_most("disks", MAX_DISKS, least=1),
    AfterValidator(_disks),
    documented(minItems=1, maxItems=MAX_DISKS),
]
Brand = one_of("brand", ("bhyve", "kvm"))
CnsServices = Annotated[list[Annotated[str, AfterValidator(_service), documented(tags.SERVICE.pattern.removesuffix(END))]], documented()]
InstanceName = Annotated[str, AfterValidator(_instance_name), documented(minLength=len(SHORT_ID))]
