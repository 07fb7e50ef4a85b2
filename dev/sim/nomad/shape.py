"""The fields of a job: their types and defaults. What is not here, Nomad drops without a word, and so does this.

Only batch jobs are run here, so the defaults are those of a batch job.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dev.sim.nomad.errors import bad_request

SECOND = 1_000_000_000  #: Nomad's durations are nanoseconds


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


@dataclass(frozen=True)
class Kind:
    """A type by Go's name for it, which a refusal tells."""

    name: str
    accepts: Callable[[Any], bool]


TEXT = Kind("string", lambda value: isinstance(value, str))
FLAG = Kind("bool", lambda value: isinstance(value, bool))
INTEGER = Kind("int", _is_integer)
DURATION = Kind("time.Duration", _is_integer)
TEXTS = Kind("[]string", lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value))
TEXT_MAP = Kind("map[string]string", _is_text_map)
OBJECT = Kind("map[string]interface {}", lambda value: isinstance(value, dict))
ANY = Kind("interface {}", lambda _value: True)


@dataclass(frozen=True)
class Field:
    """`kind` is one value's; `many` makes it a list of objects."""

    kind: Kind | Shape
    default: Any = None
    many: bool = False


@dataclass(frozen=True)
class Shape:
    name: str
    fields: dict[str, Field]

    def read(self, value: Any, path: str) -> dict[str, Any]:
        """The object with every field, in Nomad's way: null is the default. Raises Refusal for the first wrong one that was sent."""
        sent = {name: self._read_field(self.fields[name], value[name], f"{path}.{name}") for name in value if name in self.fields}
        return {name: sent[name] if name in sent else copy.deepcopy(field.default) for name, field in self.fields.items()}

    def _read_field(self, field: Field, value: Any, path: str) -> Any:
        if value is None:
            return copy.deepcopy(field.default)
        if isinstance(field.kind, Kind):
            if not field.kind.accepts(value):
                raise self._refusal(value, path, field.kind.name)
            return value
        if not field.many:
            if not isinstance(value, dict):
                raise self._refusal(value, path, f"api.{field.kind.name}")
            return field.kind.read(value, path)
        if not isinstance(value, list):
            raise self._refusal(value, path, f"[]*api.{field.kind.name}")
        for item in value:
            if not isinstance(item, dict):
                raise self._refusal(item, path, f"api.{field.kind.name}")
        return [field.kind.read(item, path) for item in value] or None

    def _refusal(self, value: Any, path: str, wanted: str) -> Exception:
        return bad_request(f"json: cannot unmarshal {go_name(value)} into Go struct field {self.name}.{path} of type {wanted}")


def go_name(value: Any) -> str:
    """What Go calls a JSON value of a wrong type."""
    if isinstance(value, float):
        return f"number {value}"
    names: dict[type, str] = {str: "string", bool: "bool", int: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


_CONSTRAINT = Shape("Constraint", {"LTarget": Field(TEXT, ""), "Operand": Field(TEXT, ""), "RTarget": Field(TEXT, "")})
_PERIODIC = Shape(
    "PeriodicConfig",
    {
        "Enabled": Field(FLAG, True),
        "Spec": Field(TEXT, ""),
        "SpecType": Field(TEXT, "cron"),
        "ProhibitOverlap": Field(FLAG, False),
        "TimeZone": Field(TEXT, "UTC"),
    },
)
_RESTART = Shape(
    "RestartPolicy",
    {
        "Attempts": Field(INTEGER, 3),
        "Interval": Field(DURATION, 24 * 3600 * SECOND),
        "Delay": Field(DURATION, 15 * SECOND),
        "Mode": Field(TEXT, "fail"),
    },
)
_RESCHEDULE = Shape(
    "ReschedulePolicy",
    {
        "Attempts": Field(INTEGER, 1),
        "Interval": Field(DURATION, 24 * 3600 * SECOND),
        "Delay": Field(DURATION, 5 * SECOND),
        "DelayFunction": Field(TEXT, "constant"),
        "MaxDelay": Field(DURATION, 0),
        "Unlimited": Field(FLAG, False),
    },
)
_RESOURCES = Shape(
    "Resources",
    {
        "CPU": Field(INTEGER, 100),
        "Cores": Field(INTEGER, 0),
        "Devices": Field(ANY),
        "DiskMB": Field(INTEGER, 0),
        "IOPS": Field(INTEGER, 0),
        "MemoryMB": Field(INTEGER, 300),
        "MemoryMaxMB": Field(INTEGER, 0),
        "Networks": Field(ANY),
    },
)
_LOG_CONFIG = Shape("LogConfig", {"MaxFiles": Field(INTEGER, 10), "MaxFileSizeMB": Field(INTEGER, 10)})
_DISK = Shape("EphemeralDisk", {"Migrate": Field(FLAG, False), "SizeMB": Field(INTEGER, 300), "Sticky": Field(FLAG, False)})


def _defaults(shape: Shape) -> dict[str, Any]:
    return shape.read({}, shape.name)


_TASK = Shape(
    "Task",
    {
        "Name": Field(TEXT, ""),
        "Driver": Field(TEXT, ""),
        "User": Field(TEXT, ""),
        "Config": Field(OBJECT),
        "Constraints": Field(_CONSTRAINT, many=True),
        "Env": Field(TEXT_MAP),
        "Meta": Field(TEXT_MAP),
        "KillTimeout": Field(DURATION, 5 * SECOND),
        "KillSignal": Field(TEXT, ""),
        "Leader": Field(FLAG, False),
        "Kind": Field(TEXT, ""),
        "ShutdownDelay": Field(DURATION, 0),
        "LogConfig": Field(_LOG_CONFIG, _defaults(_LOG_CONFIG)),
        "Resources": Field(_RESOURCES, _defaults(_RESOURCES)),
        "RestartPolicy": Field(_RESTART),
        **dict.fromkeys(["Affinities", "Artifacts", "CSIPluginConfig", "DispatchPayload", "Lifecycle"], Field(ANY)),
        **dict.fromkeys(["ScalingPolicies", "Services", "Templates", "Vault", "VolumeMounts"], Field(ANY)),
    },
)
_GROUP = Shape(
    "TaskGroup",
    {
        "Name": Field(TEXT, ""),
        "Count": Field(INTEGER, 1),
        "Constraints": Field(_CONSTRAINT, many=True),
        "Consul": Field(ANY, {"Namespace": ""}),
        "EphemeralDisk": Field(_DISK, _defaults(_DISK)),
        "Meta": Field(TEXT_MAP),
        "ReschedulePolicy": Field(_RESCHEDULE, _defaults(_RESCHEDULE)),
        "RestartPolicy": Field(_RESTART, _defaults(_RESTART)),
        "Tasks": Field(_TASK, many=True),
        **dict.fromkeys(["Affinities", "Migrate", "Networks", "Scaling", "Services", "ShutdownDelay"], Field(ANY)),
        **dict.fromkeys(["Spreads", "StopAfterClientDisconnect", "Update", "Volumes"], Field(ANY)),
    },
)
_JOB = Shape(
    "Job",
    {
        "ID": Field(TEXT, ""),
        "Name": Field(TEXT),
        "ParentID": Field(TEXT, ""),
        "Namespace": Field(TEXT, "default"),
        "Region": Field(TEXT, "global"),
        "Type": Field(TEXT, "service"),
        "Priority": Field(INTEGER, 50),
        "AllAtOnce": Field(FLAG, False),
        "Constraints": Field(_CONSTRAINT, many=True),
        "Datacenters": Field(TEXTS),
        "Dispatched": Field(FLAG, False),
        "Meta": Field(TEXT_MAP),
        "Periodic": Field(_PERIODIC),
        "Stop": Field(FLAG, False),
        "TaskGroups": Field(_GROUP, many=True),
        "ConsulNamespace": Field(TEXT, ""),
        "ConsulToken": Field(TEXT, ""),
        "NomadTokenID": Field(TEXT, ""),
        "VaultNamespace": Field(TEXT, ""),
        "VaultToken": Field(TEXT, ""),
        **dict.fromkeys(["Affinities", "Multiregion", "ParameterizedJob", "Payload", "Spreads"], Field(ANY)),
    },
)
#: Nomad shows it of every batch job.
_NO_UPDATE = {
    "AutoPromote": False,
    "AutoRevert": False,
    "Canary": 0,
    "HealthCheck": "",
    "HealthyDeadline": 0,
    "MaxParallel": 0,
    "MinHealthyTime": 0,
    "ProgressDeadline": 0,
    "Stagger": 0,
}


def read_job(value: dict[str, Any]) -> dict[str, Any]:
    """A job as it was sent, with every default filled in. Raises Refusal for a field of a wrong type."""
    job = _JOB.read(value, "Job")
    job["Update"] = dict(_NO_UPDATE)
    if job["Name"] is None:
        job["Name"] = job["ID"]
    for group, sent in zip(job["TaskGroups"] or [], value.get("TaskGroups") or [], strict=True):
        for task, sent_task in zip(group["Tasks"] or [], sent.get("Tasks") or [], strict=True):
            own = {name: part for name, part in (sent_task.get("RestartPolicy") or {}).items() if part is not None}
            task["RestartPolicy"] = group["RestartPolicy"] | {name: own[name] for name in own if name in group["RestartPolicy"]}
    return job
