"""Tags: which ones a machine may carry, and how a list finds them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from dev.cloudapi.errors import validation_failed

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
    if wanted == "boolean" and not isinstance(value, bool) or wanted == "string" and not isinstance(value, str):
        return f'Triton tag "{key}" value must be a {wanted}: {_shown(value)}'
    return None if check(value) else f'Triton tag "{key}" value is not valid: {_shown(value)}'


def _shown(value: Any) -> str:
    kind = "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"
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


def _anything(value: Any) -> bool:
    return True


_SPECIAL: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "triton.cns.services": ("string", _cns_services),
    "triton.cns.disable": ("boolean", _anything),
    "triton.cns.reverse_ptr": ("string", lambda value: len(value) <= 255 and bool(_DNS_NAME.fullmatch(value))),
    "triton.cmon.groups": ("string", _cmon_groups),
    "triton.network.public": ("string", _anything),
    "triton.placement.exclude_virtual_servers": ("boolean", _anything),
}


def tag_filter(key: str, text: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a machine's tags answer `tag.KEY=text`.

    CloudAPI: `*` inside the text is a wildcard; `true` and `false` match booleans too, numeric text numbers too;
    keys and values containing `=` and negative numbers never match.
    """
    if "=" in key or "=" in text:
        return lambda tags: False
    if "*" in text:
        pattern = re.compile(".*".join(re.escape(part) for part in text.split("*")), re.DOTALL)
        return lambda tags: isinstance(tags.get(key), str) and bool(pattern.fullmatch(tags[key]))
    accepted: list[tuple[type, Any]] = [(str, text)]
    if text in ("true", "false"):
        accepted.append((bool, text == "true"))
    if _NUMBER.fullmatch(text):
        accepted += [(int, float(text)), (float, float(text))]
    if len(accepted) == 1:
        return lambda tags: tags.get(key) == text
    return lambda tags: any(type(tags.get(key)) is kind and tags[key] == value for kind, value in accepted)
