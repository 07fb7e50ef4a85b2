"""What a plan says has changed: Nomad's Diff, as far as the fields of shape.py go that are objects or plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NONE, _ADDED, _DELETED, _EDITED = "None", "Added", "Deleted", "Edited"

_JOB_FIELDS = ("AllAtOnce", "Dispatched", "Meta", "Name", "Namespace", "Priority", "Region", "Stop", "Type")
_GROUP_FIELDS = ("Count", "Meta")
_GROUP_OBJECTS = ("RestartPolicy", "ReschedulePolicy", "EphemeralDisk")
_TASK_FIELDS = ("Driver", "Env", "KillSignal", "KillTimeout", "Kind", "Leader", "Meta", "ShutdownDelay", "User")
_TASK_OBJECTS = ("Config", "Resources", "LogConfig")

Row = dict[str, Any]


def job_diff(old: Row | None, new: Row) -> Row:
    before = old or {}
    objects = [
        *_set_diff("Datacenters", before.get("Datacenters"), new["Datacenters"]),
        *_objects_diff("Constraint", before.get("Constraints"), new["Constraints"]),
        *_object_diff("Periodic", before.get("Periodic"), new["Periodic"]),
    ]
    fields = _fields(_pick(before, _JOB_FIELDS), _pick(new, _JOB_FIELDS))
    groups = [_group_diff(*pair) for pair in _pairs(before.get("TaskGroups"), new["TaskGroups"])]
    return {
        "Type": _ADDED if old is None else _edited([*fields, *objects, *groups]),
        "ID": new["ID"],
        "Fields": fields or None,
        "Objects": objects or None,
        "TaskGroups": groups,
    }


def _group_diff(old: Row | None, new: Row | None) -> Row:
    fields = _fields(_pick(old, _GROUP_FIELDS), _pick(new, _GROUP_FIELDS))
    objects = _objects_diff("Constraint", (old or {}).get("Constraints"), (new or {}).get("Constraints"))
    for name in _GROUP_OBJECTS:
        objects += _object_diff(name, (old or {}).get(name), (new or {}).get(name))
    tasks = [_task_diff(*pair) for pair in _pairs((old or {}).get("Tasks"), (new or {}).get("Tasks"))]
    kind = _kind(old, new) or _edited([*fields, *objects, *tasks])
    count = new["Count"] if new else 0
    return {
        "Type": kind,
        "Name": (new or old or {})["Name"],
        "Fields": [row | {"Annotations": ["forces create"]} if row["Name"] == "Count" else row for row in fields] or None,
        "Objects": objects or None,
        "Tasks": tasks or None,
        "Updates": {"create": count} if count else None,
    }


def _task_diff(old: Row | None, new: Row | None) -> Row:
    fields = _fields(_pick(old, _TASK_FIELDS), _pick(new, _TASK_FIELDS))
    objects = _objects_diff("Constraint", (old or {}).get("Constraints"), (new or {}).get("Constraints"))
    for name in _TASK_OBJECTS:
        objects += _object_diff(name, (old or {}).get(name), (new or {}).get(name))
    kind = _kind(old, new) or _edited([*fields, *objects])
    annotations = {_ADDED: ["forces create"], _EDITED: ["forces create/destroy update"]}
    return {
        "Type": kind,
        "Name": (new or old or {})["Name"],
        "Annotations": annotations.get(kind),
        "Fields": fields or None,
        "Objects": objects or None,
    }


def _pairs(old: list[Row] | None, new: list[Row] | None) -> list[tuple[Row | None, Row | None]]:
    before, after = ({row["Name"]: row for row in rows or []} for rows in (old, new))
    return [(before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())]


def _kind(old: object, new: object) -> str | None:
    if old is None:
        return _ADDED
    return _DELETED if new is None else None


def _edited(parts: list[Row]) -> str:
    return _EDITED if any(part["Type"] != _NONE for part in parts) else _NONE


def _pick(row: Row | None, names: tuple[str, ...]) -> Row:
    return {name: row[name] for name in names if name in row} if row else {}


def _object_diff(name: str, old: Row | None, new: Row | None) -> list[Row]:
    if old == new:
        return []
    fields = _fields(old or {}, new or {}, with_unchanged=True)
    return [{"Type": _kind(old, new) or _EDITED, "Name": name, "Fields": fields or None, "Objects": None}]


def _objects_diff(name: str, old: list[Row] | None, new: list[Row] | None) -> list[Row]:
    gone = [row for row in old or [] if row not in (new or [])]
    come = [row for row in new or [] if row not in (old or [])]
    return [part for row in gone for part in _object_diff(name, row, None)] + [
        part for row in come for part in _object_diff(name, None, row)
    ]


def _set_diff(name: str, old: list[str] | None, new: list[str] | None) -> list[Row]:
    before, after = set(old or []), set(new or [])
    if before == after:
        return []
    fields = [_field(name, item if item in before else "", item if item in after else "") for item in sorted(before | after)]
    kind = _ADDED if before < after else _DELETED if after < before else _EDITED
    return [{"Type": kind, "Name": name, "Fields": fields, "Objects": None}]


def _fields(old: Row, new: Row, *, with_unchanged: bool = False) -> list[Row]:
    before, after = _flat(old), _flat(new)
    rows = [_field(name, before.get(name, ""), after.get(name, "")) for name in sorted(before.keys() | after.keys())]
    return [row for row in rows if row["Type"] != _NONE or with_unchanged]


def _field(name: str, old: str, new: str) -> Row:
    kind = _NONE if old == new else _ADDED if not old else _DELETED if not new else _EDITED
    return {"Type": kind, "Name": name, "Old": old, "New": new, "Annotations": None}


def _flat(row: Mapping[str, Any]) -> dict[str, str]:
    """Plain values by their path: `Meta[key]` of a map, `args[0]` of a list."""
    flat: dict[str, str] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}[{key}]": _text(item) for key, item in value.items()}
        elif isinstance(value, list):
            flat |= {f"{name}[{number}]": _text(item) for number, item in enumerate(value)}
        elif value is not None:
            flat[name] = _text(value)
    return flat


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
