"""Reading the query of `GET /:login/machines`."""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dev.sim.cloudapi.errors import invalid_argument, validation_failed
from dev.sim.cloudapi.machine import GONE, Machine
from dev.sim.cloudapi.order import NAME
from dev.sim.cloudapi.tags import tag_filter
from dev.sim.common.wanted import is_uuid

MAX_LIMIT = 1000

_BRANDS = ("bhyve", "joyent", "joyent-minimal", "kvm", "lx")
# CloudAPI: `provisioning` and `stopping` mean no more than `active`.
_ACTIVE = ("active", "provisioning", "stopping")


@dataclass
class Listing:
    limit: int | None = MAX_LIMIT  #: None: all rows, and no x-query-limit
    offset: int = 0
    with_gone: bool = False  #: failed and deleted machines too
    has_wildcard: bool = False  #: a filter of tags has a `*`
    checks: list[Callable[[Machine], bool]] = field(default_factory=list)

    def page(self, machines: Iterator[Machine]) -> Iterator[Machine]:
        """Those wanted of one page; no machine past its end is looked at."""
        for check in self.checks:
            machines = filter(check, machines)
        end = None if self.limit is None else self.offset + self.limit
        return itertools.islice(machines, self.offset, end)


def read_listing(params: Mapping[str, Any]) -> Listing:
    """Raises ApiError. Unknown parameters are ignored, as CloudAPI does."""
    state_check, with_gone = _read_state(params)
    if params.get("tags") == "*":
        # CloudAPI: overrides every other filter, the active-only default included. Untagged machines stay out.
        return Listing(limit=None, with_gone=True, checks=[lambda machine: bool(machine.tags)])
    listing = Listing(
        limit=_read_number(params, "limit", MAX_LIMIT, 1, MAX_LIMIT),
        offset=_read_number(params, "offset", 0, 0, 1 << 31),
        with_gone=with_gone,
    )
    if state_check:
        listing.checks.append(state_check)
    listing.checks += _read_fields(params)
    listing.checks += _read_tags(params)
    listing.has_wildcard = any(name.startswith("tag.") and "*" in text for name, text in params.items())
    return listing


def _read_state(params: Mapping[str, Any]) -> tuple[Callable[[Machine], bool] | None, bool]:
    state = params.get("state")
    if state is None:
        return None, "tombstone" in params
    if state in _ACTIVE:
        return lambda machine: machine.state not in GONE, False
    if state in ("running", "stopped"):
        return lambda machine: machine.state == state, False
    if state == "destroyed":
        return lambda machine: machine.state == "deleted", True
    if state == "unknown":
        raise validation_failed("Invalid Parameters", "state", "Invalid", "Invalid state")
    raise invalid_argument(f"{state} is not a valid state")


def _read_number(params: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    text = params.get(name)
    if text is None:
        return default
    number = int(text) if re.fullmatch(r"-?\d{1,12}", str(text)) else -1
    if not low <= number <= high:
        raise validation_failed("Invalid Parameters", name, "Invalid", f"number must be between {low} and {high}")
    return number


def _read_fields(params: Mapping[str, Any]) -> list[Callable[[Machine], bool]]:
    checks: list[Callable[[Machine], bool]] = []
    if "name" in params:
        prefix = str(params["name"])
        if not NAME.fullmatch(prefix):
            raise validation_failed("Invalid Parameters", "alias", "Invalid", "String does not match regexp")
        checks.append(lambda machine: machine.name.startswith(prefix))
    if "image" in params:
        image = str(params["image"])
        if not is_uuid(image):
            raise validation_failed("Invalid Parameters", "image_uuid", "Invalid", "Invalid UUID")
        checks.append(lambda machine: machine.image.id == image)
    if "memory" in params:
        memory = _read_number(params, "memory", 0, 0, 1 << 31)
        checks.append(lambda machine: machine.package.memory == memory)
    if "brand" in params:
        brand = params["brand"]
        if brand not in _BRANDS:
            raise validation_failed("Invalid Parameters", "brand", "Invalid", "Must be one of: " + ", ".join(_BRANDS))
        checks.append(lambda machine: machine.brand == brand)
    if "type" in params:
        kind = params["type"]
        checks.append(lambda machine: machine.type == kind)
    if params.get("docker") == "true":
        checks.append(lambda _machine: False)
    return checks


def _read_tags(params: Mapping[str, Any]) -> list[Callable[[Machine], bool]]:
    checks: list[Callable[[Machine], bool]] = []
    for name, text in params.items():
        if not name.startswith("tag."):
            continue
        if text == "" or not isinstance(text, str):
            raise validation_failed("Invalid Parameters", name, "Invalid", "Invalid tag")
        checks.append(tag_filter(name.removeprefix("tag."), text))
    return checks
