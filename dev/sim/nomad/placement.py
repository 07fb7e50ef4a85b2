"""The one client node, and whether a task group may run on it."""

from __future__ import annotations

import platform
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

DRIVERS = frozenset(["raw_exec", "exec"])


@dataclass(frozen=True)
class Node:
    datacenter: str
    role: str | None
    name: str = "node1"
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def attributes(self) -> dict[str, str]:
        """What `${...}` may name, in constraints and in tasks."""
        meta = {} if self.role is None else {"meta.role": self.role}
        return meta | {
            "node.datacenter": self.datacenter,
            "node.region": "global",
            "node.unique.id": self.id,
            "node.unique.name": self.name,
            "node.class": "",
            "attr.kernel.name": platform.system().lower(),
            "attr.cpu.arch": {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
            **{f"attr.driver.{driver}": "1" for driver in DRIVERS},
        }


_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    **dict.fromkeys(["=", "==", "is"], lambda left, right: left == right),
    **dict.fromkeys(["!=", "not"], lambda left, right: left != right),
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
    "regexp": lambda left, right: re.search(right, left) is not None,
    **dict.fromkeys(["set_contains", "set_contains_all"], lambda left, right: _items(left) >= _items(right)),
    "set_contains_any": lambda left, right: bool(_items(left) & _items(right)),
}


def _items(text: str) -> set[str]:
    return {item.strip() for item in text.split(",")}


def obstacle(job: dict[str, Any], group: dict[str, Any], node: Node, placed: int) -> dict[str, Any] | None:
    """Why one more allocation has no place, as Nomad's metrics of it; None when it has one. `placed` are on the node already."""
    offered = {name: int(name == node.datacenter) for name in job["Datacenters"]}
    if node.datacenter not in job["Datacenters"]:
        return _metrics(offered, None)
    reason = _filtered_by(job, group, node, placed)
    return _metrics(offered, reason) if reason else None


def _filtered_by(job: dict[str, Any], group: dict[str, Any], node: Node, placed: int) -> str | None:
    tasks = group["Tasks"]
    if reason := _unmet(job["Constraints"], node):
        return reason
    if any(task["Driver"] not in DRIVERS for task in tasks):
        return "missing drivers"
    inner = [*(group["Constraints"] or []), *(constraint for task in tasks for constraint in task["Constraints"] or [])]
    if reason := _unmet(inner, node):
        return reason
    constraints = [*(job["Constraints"] or []), *inner]
    apart = any(row["Operand"] == "distinct_hosts" and row["RTarget"] != "false" for row in constraints)
    return "distinct_hosts" if apart and placed else None


def _unmet(constraints: list[dict[str, str]] | None, node: Node) -> str | None:
    for constraint in constraints or []:
        if not _holds(constraint, node):
            return f"{constraint['LTarget']} {constraint['Operand']} {constraint['RTarget']}"
    return None


def _holds(constraint: dict[str, str], node: Node) -> bool:
    operand = constraint["Operand"]
    if operand in ("distinct_hosts", "distinct_property"):
        return True
    left, right = _resolve(constraint["LTarget"], node), _resolve(constraint["RTarget"], node)
    if operand in ("is_set", "is_not_set"):
        return (left is not None) == (operand == "is_set")
    if operand in ("!=", "not"):
        return left != right
    compare = _OPERATORS.get(operand)  # version and semver are never met here
    return compare is not None and left is not None and right is not None and compare(left, right)


def _resolve(target: str, node: Node) -> str | None:
    if not target.startswith("${"):
        return target
    return node.attributes().get(target.removeprefix("${").removesuffix("}"))


def _metrics(offered: dict[str, int], reason: str | None) -> dict[str, Any]:
    filtered = int(reason is not None)
    return {
        "AllocationTime": 1000,
        "ClassExhausted": None,
        "ClassFiltered": None,
        "CoalescedFailures": 0,
        "ConstraintFiltered": {reason: 1} if reason else None,
        "DimensionExhausted": None,
        "NodesAvailable": offered,
        "NodesEvaluated": filtered,
        "NodesExhausted": 0,
        "NodesFiltered": filtered,
        "QuotaExhausted": None,
        "ResourcesExhausted": None,
        "ScoreMetaData": None,
        "Scores": None,
    }
