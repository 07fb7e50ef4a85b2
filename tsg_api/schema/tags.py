"""Tags that mean something to Triton itself: CloudAPI refuses each instance with one that it does not know, or whose value is wrong."""

import re
from collections.abc import Callable

#: CloudAPI keeps tags that begin so to those it knows.
TRITON_TAGS = "triton."

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_SERVICE = re.compile(rf"{_LABEL}(?::(\d{{1,5}}))?((?::(?:priority|weight)=\d{{1,5}})*)\Z")
_DNS_NAME = re.compile(rf"(?=.{{1,255}}\Z){_LABEL}(?:\.{_LABEL})*\.?\Z")
_CMON_GROUP = re.compile(r"[A-Za-z0-9_-]{1,100}\Z")
_MOST_CMON_GROUPS = 100
_MOST = 65_535


def _is_services(value: str) -> bool:
    found = [_SERVICE.match(service.strip()) for service in value.split(",")]
    return all(
        service and 1 <= int(service[1] or 1) <= _MOST and all(int(number) <= _MOST for number in re.findall(r"=(\d+)", service[2]))
        for service in found
    )


def _is_cmon_groups(value: str) -> bool:
    groups = value.split(",")
    return len(groups) <= _MOST_CMON_GROUPS and all(_CMON_GROUP.match(group) for group in groups)


_CHECKS: dict[str, tuple[Callable[[str], object], str]] = {
    "triton.cns.services": (_is_services, "must be a list of NAME[:PORT][:priority=N][:weight=N] with commas between"),
    "triton.cns.reverse_ptr": (_DNS_NAME.match, "must be a DNS name"),
    "triton.cmon.groups": (_is_cmon_groups, "must be at most 100 names of A-Z a-z 0-9 _ - with commas between"),
    "triton.network.public": (lambda _value: True, ""),
}
#: CloudAPI takes a boolean alone, and the tags of templates are strings.
_BOOLEANS = ("triton.cns.disable", "triton.placement.exclude_virtual_servers")


def problem(name: str, value: str) -> str | None:
    """Why CloudAPI would refuse an instance with this tag, or None."""
    if not name.startswith(TRITON_TAGS):
        return None
    if name in _BOOLEANS:
        return f"the tag {name} must be a boolean for CloudAPI, and the tags of a template are strings"
    if name not in _CHECKS:
        return f"CloudAPI has no tag {name}: those that begin with {TRITON_TAGS!r} are its own"
    is_right, form = _CHECKS[name]
    return None if is_right(value) else f"the tag {name} {form}"
