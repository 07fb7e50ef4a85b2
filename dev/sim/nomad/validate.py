"""What makes a job invalid, in Nomad's words and order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dev.sim.nomad.cron import Cron, CronError, zone
from dev.sim.nomad.errors import error_list
from dev.sim.nomad.shape import SECOND

_TYPES = ("service", "batch", "system", "_core")
_COMPARISONS = ("=", "==", "is", "!=", "not", "<", "<=", ">", ">=")
_SETS = ("set_contains", "set_contains_all", "set_contains_any")
_PRESENCE = ("is_set", "is_not_set")
_OPERANDS = (*_COMPARISONS, *_SETS, *_PRESENCE, "regexp", "distinct_hosts", "distinct_property", "version", "semver")
_MIN_INTERVAL = 5 * SECOND


def job_errors(job: dict[str, Any]) -> list[str]:
    """Nothing for a valid job; `job` is one that `read_job` has filled in."""
    return [
        *_identity(job),
        *_datacenters(job),
        *([] if job["TaskGroups"] else ["Missing job task groups"]),
        *_constraints(job["Constraints"]),
        *_group_names(job["TaskGroups"] or []),
        *_groups(job["TaskGroups"] or []),
        *_periodic(job),
        *(["job type cannot be core"] if job["Type"] == "_core" else []),
    ]


def _identity(job: dict[str, Any]) -> Iterator[str]:
    if not job["ID"]:
        yield "Missing job ID"
    elif " " in job["ID"]:
        yield "Job ID contains a space"
    elif "\0" in job["ID"]:
        yield "Job ID contains a null character"
    if not job["Name"]:
        yield "Missing job name"
    elif "\0" in job["Name"]:
        yield "Job Name contains a null character"
    if not job["Type"]:
        yield "Missing job type"
    elif job["Type"] not in _TYPES:
        yield f'Invalid job type: "{job["Type"]}"'
    if not 1 <= job["Priority"] <= 100:
        yield "Job priority must be between [1, 100]"


def _datacenters(job: dict[str, Any]) -> list[str]:
    if not job["Datacenters"]:
        return ["Missing job datacenters"]
    return ["Job datacenter must be non-empty string" for name in job["Datacenters"] if not name]


def _constraints(constraints: list[dict[str, str]] | None) -> list[str]:
    found = [(number, list(_constraint(constraint))) for number, constraint in enumerate(constraints or [], 1)]
    return [f"Constraint {number} validation failed: {error_list(errors)}" for number, errors in found if errors]


def _constraint(constraint: dict[str, str]) -> Iterator[str]:
    operand, right = constraint["Operand"], constraint["RTarget"]
    if not operand:
        yield "Missing constraint operand"
    if operand in _SETS and not right:
        yield "Set contains constraint requires an RTarget"
    if operand in _COMPARISONS and not right:
        yield f'Operator "{operand}" requires an RTarget'
    if operand in _PRESENCE and right:
        yield f'Operator "{operand}" does not support an RTarget'
    if operand == "regexp":
        yield from _regexp(right)
    if operand not in _OPERANDS:
        yield f'Unknown constraint type "{operand}"'
    if operand != "distinct_hosts" and not constraint["LTarget"]:
        yield "No LTarget provided but is required by constraint"


def _regexp(text: str) -> list[str]:
    try:
        re.compile(text)
    except re.error as error:
        return [f"Regular expression failed to compile: error parsing regexp: {error.msg}: `{text}`"]
    return []


def _group_names(groups: list[dict[str, Any]]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for number, group in enumerate(groups, 1):
        name = group["Name"]
        if not name:
            yield f"Job task group {number} missing name"
        elif name in seen:
            yield f"Job task group {number} redefines '{name}' from group {seen[name]}"
        else:
            seen[name] = number


def _groups(groups: list[dict[str, Any]]) -> Iterator[str]:
    for group in groups:
        if errors := [*_group(group)]:
            yield f"Task group {group['Name']} validation failed: {error_list(errors)}"


def _group(group: dict[str, Any]) -> Iterator[str]:
    tasks = group["Tasks"] or []
    if not group["Name"]:
        yield "Missing task group name"
    if group["Count"] < 0:
        yield "Task group count can't be negative"
    if not tasks:
        yield "Missing tasks for task group"
    yield from _constraints(group["Constraints"])
    if errors := [*_restart_policy(group["RestartPolicy"])]:
        yield error_list(errors)
    seen: dict[str, int] = {}
    for number, task in enumerate(tasks, 1):
        if not task["Name"]:
            yield f"Task {number} missing name"
        elif task["Name"] in seen:
            yield f"Task {number} redefines '{task['Name']}' from task {seen[task['Name']]}"
        else:
            seen[task["Name"]] = number
    for task in tasks:
        if errors := [*_task(task, group["EphemeralDisk"])]:
            yield f"Task {task['Name']} validation failed: {error_list(errors)}"


def _restart_policy(policy: dict[str, Any]) -> Iterator[str]:
    attempts, interval, delay = policy["Attempts"], policy["Interval"], policy["Delay"]
    if policy["Mode"] not in ("delay", "fail"):
        yield f'Unsupported restart mode: "{policy["Mode"]}"'
    if attempts == 0 and policy["Mode"] != "fail":
        yield f'Restart policy "{policy["Mode"]}" with 0 attempts is ambiguous'
    if interval < _MIN_INTERVAL:
        yield f"Interval can not be less than 5s (got {duration(interval)})"
    if attempts * delay > interval:
        yield (
            f"Nomad can't restart the TaskGroup {attempts} times in an interval of {duration(interval)} with a delay of {duration(delay)}"
        )


def _task(task: dict[str, Any], disk: dict[str, Any]) -> Iterator[str]:
    if not task["Name"]:
        yield "Missing task name"
    if "/" in task["Name"] or "\\" in task["Name"]:
        yield "Task name cannot include slashes"
    elif "\0" in task["Name"]:
        yield "Task name cannot include null characters"
    if not task["Driver"]:
        yield "Missing task driver"
    if task["KillTimeout"] < 0:
        yield "KillTimeout must be a positive value"
    yield from _resources(task["Resources"])
    files, size = task["LogConfig"]["MaxFiles"], task["LogConfig"]["MaxFileSizeMB"]
    log_errors = [f"minimum number of files is 1; got {files}"] * (files < 1) + [f"minimum file size is 1MB; got {size}"] * (size < 1)
    if log_errors:
        yield error_list(log_errors)
    yield from _constraints(task["Constraints"])
    if disk["SizeMB"] <= files * size:
        yield f"log storage ({files * size} MB) must be less than requested disk capacity ({disk['SizeMB']} MB)"


def _resources(resources: dict[str, Any]) -> list[str]:
    cpu, memory = resources["CPU"], resources["MemoryMB"]
    errors = [f"minimum CPU value is 1; got {cpu}"] * (cpu < 1) + [f"minimum MemoryMB value is 10; got {memory}"] * (memory < 10)
    return [error_list([error_list(errors)])] if errors else []


def _periodic(job: dict[str, Any]) -> Iterator[str]:
    periodic = job["Periodic"]
    if periodic is None or not periodic["Enabled"]:
        return
    if job["Type"] != "batch":
        yield 'Periodic can only be used with "batch" scheduler'
    if errors := [*_schedule(periodic)]:
        yield error_list(errors)


def _schedule(periodic: dict[str, Any]) -> Iterator[str]:
    if not periodic["Spec"]:
        yield "Must specify a spec"
    try:
        zone(periodic["TimeZone"])
    except (KeyError, OSError, ValueError):
        yield f'Invalid time zone "{periodic["TimeZone"]}": unknown time zone {periodic["TimeZone"]}'
    if periodic["SpecType"] != "cron":
        yield f'Unknown periodic specification type "{periodic["SpecType"]}"'
        return
    try:
        Cron(periodic["Spec"])
    except CronError as error:
        yield f'Invalid cron spec "{periodic["Spec"]}": {error}'


def duration(nanoseconds: int) -> str:
    """As Go writes it: 1ns, 1.5ms, 5s, 1m0s, 24h0m0s."""
    if nanoseconds < SECOND:
        for unit, name in ((1_000_000, "ms"), (1_000, "µs")):
            if nanoseconds >= unit:
                return f"{nanoseconds / unit:.6f}".rstrip("0").rstrip(".") + name
        return f"{nanoseconds}ns" if nanoseconds else "0s"
    minutes, rest = divmod(nanoseconds, 60 * SECOND)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / SECOND:.9f}".rstrip("0").rstrip(".") + "s"
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + seconds
