"""Tags that mean something to Triton itself: CloudAPI refuses each instance with one that it does not know, or whose value is wrong."""

import re
from collections.abc import Callable
from typing import Any

#: CloudAPI keeps tags that begin so to those it knows.
TRITON_TAGS = "triton."
#: The names under which CNS finds an instance, and the groups in which CMON's scrapers do.
SERVICES, CMON_GROUPS = "triton.cns.services", "triton.cmon.groups"

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
SERVICE = re.compile(rf"{_LABEL}(?::(\d{{1,5}}))?((?::(?:priority|weight)=\d{{1,5}})*)\Z", re.ASCII)
_CMON_GROUP = re.compile(r"[A-Za-z0-9_-]{1,100}\Z")
_MOST_CMON_GROUPS = 100
_MOST = 65_535


def is_services(value: str) -> bool:
    """Is this a list of services, as the tag has it?"""
    found = [SERVICE.match(service.strip()) for service in value.split(",")]
    return all(
        service and 1 <= int(service[1] or 1) <= _MOST and all(int(number) <= _MOST for number in re.findall(r"=(\d+)", service[2]))
        for service in found
    )


def _is_cmon_groups(value: str) -> bool:
    groups = value.split(",")
    return len(groups) <= _MOST_CMON_GROUPS and all(_CMON_GROUP.match(group) for group in groups)


_CHECKS: dict[str, tuple[type, Callable[[Any], object], str]] = {
    SERVICES: (str, is_services, "must be a list of NAME[:PORT][:priority=N][:weight=N] with commas between"),
    CMON_GROUPS: (str, _is_cmon_groups, "must be at most 100 names of A-Z a-z 0-9 _ - with commas between"),
    "triton.network.public": (str, lambda _value: True, "must be a string"),
    "triton.cns.disable": (bool, lambda _value: True, "must be a boolean: true or false, without quotes"),
    "triton.placement.exclude_virtual_servers": (bool, lambda _value: True, "must be a boolean: true or false, without quotes"),
}
_REVERSE = "triton.cns.reverse_ptr"


def problem(name: str, value: object) -> str | None:
    """Why CloudAPI would refuse an instance with this tag, or it would be of no use to a group; None when it is fine."""
    if not name.startswith(TRITON_TAGS):
        return None
    if name == _REVERSE:
        return f"the tag {name} is one name, and cannot serve all instances of a group: tag single machines"
    if name not in _CHECKS:
        return f"CloudAPI has no tag {name}: those that begin with {TRITON_TAGS!r} are its own"
    kind, is_right, form = _CHECKS[name]
    return None if isinstance(value, kind) and is_right(value) else f"the tag {name} {form}"
