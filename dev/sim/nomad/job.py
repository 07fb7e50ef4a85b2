"""One periodic job: what makes it invalid, when it is due, and why no node would take it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, CroniterError, croniter

#: Between a periodic job's id and the time of a launch.
CHILD_MARK = "/periodic-"
DRIVERS = frozenset(["raw_exec", "exec"])
#: What the server says of a job, and nobody submits.
SERVED = ("Status", "CreateIndex", "JobModifyIndex")


@dataclass(frozen=True)
class Node:
    """The one client node."""

    datacenter: str
    role: str | None


@dataclass
class Job:
    spec: dict[str, Any]  #: as it was submitted
    index: int
    modify_index: int
    next_launch: float | None = None

    @property
    def id(self) -> str:
        return str(self.spec["ID"])

    def to_json(self) -> dict[str, Any]:
        return self.spec | {"Status": "running", "CreateIndex": self.index, "JobModifyIndex": self.modify_index}

    def to_row(self) -> dict[str, Any]:
        return asdict(self)


def task_of(spec: dict[str, Any]) -> dict[str, Any]:
    """The service's job has one task group with one task."""
    task: dict[str, Any] = spec["TaskGroups"][0]["Tasks"][0]
    return task


def job_errors(spec: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a job, in Nomad's words; nothing for a valid one. Only what the simulator runs is valid."""
    if not spec.get("ID"):
        yield "Missing job ID"
    elif " " in spec["ID"] or "\0" in spec["ID"]:
        yield "Job ID contains a space"
    if spec.get("Type") != "batch":
        yield f'Invalid job type: "{spec.get("Type")}"'
    if not spec.get("Datacenters"):
        yield "Missing job datacenters"
    elif not all(spec["Datacenters"]):
        yield "Job datacenter must be non-empty string"
    yield from _task_errors(spec)
    try:
        next_launch(spec, 0.0)
    except (CroniterError, KeyError, TypeError, ValueError) as error:
        yield f'Invalid cron spec "{(spec.get("Periodic") or {}).get("Spec")}": {error}'


def _task_errors(spec: dict[str, Any]) -> Iterator[str]:
    groups = spec.get("TaskGroups") or []
    if not groups:
        yield "Missing job task groups"
    for task in (task for group in groups for task in group.get("Tasks") or [{}]):
        if not task.get("Driver"):
            yield "Missing task driver"
        if not (task.get("Config") or {}).get("command"):
            yield "Missing required argument: command"


def next_launch(spec: dict[str, Any], after: float) -> float | None:
    """The first time after `after` (Unix seconds) that the job is due; None when it never is. Raises CroniterError, KeyError or TypeError.

    Nomad takes 5 fields, 6 with the year at the end, or 7 with the seconds at the front as well.
    """
    fields = str(spec["Periodic"]["Spec"]).split()
    line = " ".join(["0", *fields] if len(fields) == 6 else fields)
    start = datetime.fromtimestamp(after, ZoneInfo(spec["Periodic"].get("TimeZone") or "UTC"))
    try:
        return float(croniter(line, start, second_at_beginning=True).get_next(float))
    except CroniterBadDateError:
        return None


def obstacle(spec: dict[str, Any], node: Node) -> dict[str, Any] | None:
    """Why the node does not take the job, as a plan's `FailedTGAllocs` says it; None when it takes it."""
    is_there = node.datacenter in spec["Datacenters"]
    reason = _filtered_by(spec, node) if is_there else None
    if is_there and reason is None:
        return None
    available = {name: int(name == node.datacenter) for name in spec["Datacenters"]}
    metrics = {"NodesAvailable": available, "ConstraintFiltered": {reason: 1} if reason else None, "DimensionExhausted": None}
    return {group["Name"]: metrics for group in spec["TaskGroups"]}


def _filtered_by(spec: dict[str, Any], node: Node) -> str | None:
    for constraint in spec.get("Constraints") or []:
        if constraint.get("LTarget") == "${meta.role}" and constraint["RTarget"] != node.role:
            return f"{constraint['LTarget']} {constraint['Operand']} {constraint['RTarget']}"
    return None if task_of(spec)["Driver"] in DRIVERS else "missing drivers"
