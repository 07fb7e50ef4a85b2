"""Tags: which ones a machine may carry, and how a list finds them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from dev.sim.cloudapi.errors import validation_failed
from dev.sim.cloudapi.machine import Machine

#: CloudAPI: as fields of a tag call these name something else (`account` and `machine` even replace the URL's).
UNUSABLE = frozenset(["account", "machine", "uuid", "owner_uuid", "context", "image"])

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_CNS_SERVICE = re.compile(rf"{_LABEL}(?::(\d+))?((?::[a-z]+=\d+)*)")
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_CMON_GROUP = re.compile(r"[A-Za-z0-9_-]{1,100}")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def check_tags(tags: Mapping[str, Any], doing: str) -> None:
    """Refuse what CloudAPI refuses; `doing` begins the message ("error adding tags"). Raises ApiError."""
    for key, value in tags.items():
        complaint = _complaint(key, value)
        if complaint:
            raise validation_failed(f"{doing}: Invalid tag parameters", f"tags.{key}", "Invalid", complaint)


def _complaint(key: str, value: Any) -> str | None:
    if not isinstance(value, (str, int, float, bool)):
        return f"tag value for {key} must be a string, number or boolean"
    if not key.startswith("triton."):
        return None
    if key not in _SPECIAL:
        return f'Unrecognized special triton tag "{key}"'
    wanted, check = _SPECIAL[key]
    if not isinstance(value, wanted):
        return f'Triton tag "{key}" value must be a {_KINDS[wanted]}: {_shown(value)}'
    return None if check(value) else f'Triton tag "{key}" value is not valid: {_shown(value)}'


def _shown(value: Any) -> str:
    kind = _KINDS.get(type(value), "number")
    text = str(value).lower() if kind == "boolean" else str(value)
    return f'"{text}" ({kind})'


def _cns_services(value: str) -> bool:
    return all(_cns_service(service.strip()) for service in value.split(","))


def _cns_service(service: str) -> bool:
    match = _CNS_SERVICE.fullmatch(service)
    if not match or (match[1] and not 1 <= int(match[1]) <= 65535):
        return False
    properties = [entry.split("=") for entry in match[2].split(":")[1:]]
    return all(name in ("priority", "weight") and int(number) <= 65535 for name, number in properties)


def _cmon_groups(value: str) -> bool:
    groups = value.split(",")
    return len(groups) <= 100 and all(_CMON_GROUP.fullmatch(group) for group in groups)


def _anything(_value: Any) -> bool:
    return True


_KINDS: dict[type, str] = {bool: "boolean", str: "string"}
_SPECIAL: dict[str, tuple[type, Callable[[Any], bool]]] = {
    "triton.cns.services": (str, _cns_services),
    "triton.cns.disable": (bool, _anything),
    "triton.cns.reverse_ptr": (str, lambda value: len(value) <= 255 and bool(_DNS_NAME.fullmatch(value))),
    "triton.cmon.groups": (str, _cmon_groups),
    "triton.network.public": (str, _anything),
    "triton.placement.exclude_virtual_servers": (bool, _anything),
}


def tag_filter(key: str, text: str) -> Callable[[Machine], bool]:
    """Whether a machine answers `tag.KEY=text`.

    CloudAPI: `*` inside the text is a wildcard; `true` and `false` match booleans too, numeric text numbers too;
    keys and values containing `=` and negative numbers never match.
    """
    if "=" in key or "=" in text:
        return lambda _machine: False
    if "*" in text:
        pattern = re.compile(".*".join(re.escape(part) for part in text.split("*")), re.DOTALL)
        return lambda machine: isinstance(machine.tags.get(key), str) and bool(pattern.fullmatch(machine.tags[key]))
    accepted: list[tuple[type, Any]] = [(str, text)]
    if text in ("true", "false"):
        accepted.append((bool, text == "true"))
    if _NUMBER.fullmatch(text):
        accepted += [(int, float(text)), (float, float(text))]
    if len(accepted) == 1:
        return lambda machine: machine.tags.get(key) == text
    return lambda machine: any(type(machine.tags.get(key)) is kind and machine.tags[key] == value for kind, value in accepted)
