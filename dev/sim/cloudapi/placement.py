"""Affinity and locality: which servers a new machine may stand on.

CloudAPI reads the rules (lib/triton-affinity.js); DAPI turns them into machines to be near or far from, and then into servers
(sdc-designation: lib/algorithms/shared/affinity.js, hard- and soft-filter-locality-hints.js).
"""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dev.sim.cloudapi.errors import ApiError, invalid_argument
from dev.sim.cloudapi.machine import Machine
from dev.sim.cloudapi.tags import tag_filter
from dev.sim.common.wanted import is_uuid

_OPERATORS = ("==", "!=")
_KEY = r"^[a-z_][a-z0-9\-_.]+$"
_VALUE = r"^[-a-z0-9:_\s.*/()?+[\]\\^$|]+$"


@dataclass(frozen=True)
class Rule:
    """`KEY==VALUE` is near, `KEY!=VALUE` is far; with a `~` after the operator it is soft."""

    key: str
    near: bool
    soft: bool
    value: str

    @property
    def is_about_instances(self) -> bool:
        return self.key in ("instance", "container")


@dataclass(frozen=True)
class Hints:
    """Machines to be near to and far from. Strict: hold them, or have no server."""

    near: Sequence[str] = ()
    far: Sequence[str] = ()
    strict: bool = False


class NoServerError(Exception):
    """The rules leave no server."""


def read_rules(affinity: Sequence[Any]) -> list[Rule]:
    """Raises ApiError."""
    if not all(isinstance(text, str) for text in affinity):
        raise ApiError(500, None, "opts.affinity ([string]) is required")
    return [_read_rule(text) for text in affinity]


def _read_rule(text: str) -> Rule:
    operator = next((operator for operator in _OPERATORS if operator in text), None)
    if operator is None:
        raise invalid_argument(f'could not find operator in affinity rule: expected one of "==", "!=": {json.dumps(text)}')
    key, _, value = text.partition(operator)
    soft = value.startswith("~")
    value = value.removeprefix("~")
    for what, part, pattern in (("key", key, _KEY), ("value", value, _VALUE)):
        if not re.fullmatch(pattern, part, re.IGNORECASE | re.ASCII):
            raise invalid_argument(f"invalid {what} in affinity rule: {json.dumps(text)}: {json.dumps(part)} does not match /{pattern}/i")
    return Rule(key, operator == "==", soft, value)


def hints_of_rules(rules: Sequence[Rule], machines: Collection[Machine]) -> Hints:
    """What the rules mean among the owner's machines; failed and deleted ones are not among them.

    DAPI: beside a hard rule the soft ones are dropped; so is a rule that matches nothing, unless it is a hard `==`.
    Raises NoServerError, and ApiError for a `/.../` that is no regular expression.
    """
    strict = any(not rule.soft for rule in rules)
    near: list[str] = []
    far: list[str] = []
    for rule in rules:
        if (strict and rule.soft) or rule.key == "image":
            continue
        found = _matches(rule, machines)
        if not found and strict and rule.near:
            raise NoServerError
        (near if rule.near else far).extend(found)
    return Hints(near, far, strict)


def _matches(rule: Rule, machines: Collection[Machine]) -> list[str]:
    if rule.is_about_instances and is_uuid(rule.value):
        return [rule.value]  # also one that isn't there
    matches = _by_name(rule.value) if rule.is_about_instances else _by_tag(rule.key, rule.value)
    return [machine.id for machine in machines if matches(machine)]


def _by_name(value: str) -> Callable[[Machine], bool]:
    expression = _expression(value)
    if expression:
        return lambda machine: bool(expression.search(machine.name))
    glob = re.compile(".*".join(map(re.escape, value.split("*"))))
    return lambda machine: bool(glob.fullmatch(machine.name))


def _by_tag(key: str, value: str) -> Callable[[Machine], bool]:
    """CloudAPI: a tag, or a label of Docker."""
    keys = (key, f"docker:label:{key}")
    expression = _expression(value)
    if expression:
        return lambda machine: any(key in machine.tags and bool(expression.search(_text(machine.tags[key]))) for key in keys)
    filters = [tag_filter(key, value) for key in keys]
    return lambda machine: any(matches(machine) for matches in filters)


def _expression(value: str) -> re.Pattern[str] | None:
    if len(value) < 3 or not (value.startswith("/") and value.endswith("/")):
        return None
    try:
        return re.compile(value[1:-1])
    except re.error:
        # CloudAPI looks at no expression: a broken one breaks the placement.
        raise ApiError(500, "InternalError", "Internal error") from None


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def narrow(servers: Sequence[str], hints: Hints, machines: Mapping[str, Machine]) -> Sequence[str]:
    """The servers that hold the hints, of the owner's `machines` by id. DAPI: far wins over near, and a soft hint over no server."""
    far = {machines[other].compute_node for other in hints.far if other in machines}
    away = [server for server in servers if server not in far]
    servers = away if away or hints.strict else servers
    if not hints.near:
        return servers
    near = [machines[other].compute_node if other in machines else "" for other in hints.near]
    wanted = all if hints.strict else any
    close = [server for server in servers if wanted(server == other for other in near)]
    return close if close or hints.strict else servers
