"""A group, as its Nomad job. Pure. Nothing in it is secret, and nothing of it changes when the capacity does.

A job of 2018 held the whole template, the count and the account's private key. This one holds a group's id: what it runs finds the rest
in the database, with what its node's environment or configuration file tells it.
"""

import zlib
from typing import Any, NamedTuple

#: Nomad takes its durations in nanoseconds.
NANOSECONDS = 1_000_000_000
#: Seconds that a run is given to finish its requests when Nomad stops it.
KILL_TIMEOUT = 30

#: Divisors, so that a cron line runs at even distances.
_SECONDS = (30, 20, 15, 12, 10)
_MINUTES = (30, 20, 15, 12, 10, 6, 5, 4, 3, 2, 1)
_HOURS = (12, 8, 6, 4, 3, 2, 1)
_DAY = 86_400


class Shape(NamedTuple):
    """What the operator's settings say of all jobs."""

    datacenter: str
    role: str
    driver: str
    command: str
    image: str
    artifact: str
    config: str
    cpu: int
    memory: int
    namespace: str = ""
    region: str = ""


def plain_id(group_name: str, triton_uuid: str) -> str:
    """The id of 2018. A legal group name has only characters that Nomad takes; the UUID at its end keeps two names apart."""
    return f"{group_name}_{triton_uuid}"


def distinct_id(group_name: str, triton_uuid: str, group_id: str) -> str:
    """The id for a group whose plain one still belongs to a deleted group of the same name."""
    return f"{plain_id(group_name, triton_uuid)}_{group_id[:8]}"


def cron(interval: int, key: str) -> str:
    """The cron line that comes at least every `interval` seconds (10 or more), at even distances.

    The period is the longest one that fits in `interval` and divides a minute, an hour or a day. `key` decides where in its period a job
    runs, so that not all groups are checked in the same second. Nomad: 5 fields, or 7 with the seconds first and the year last.
    """
    offset = zlib.crc32(key.encode())
    if interval >= _DAY:
        return f"{offset % 60} {offset // 60 % 24} * * *"
    for hours in _HOURS:
        if interval >= hours * 3600:
            return f"{offset % 60} {offset // 60 % hours}-23/{hours} * * *"
    for minutes in _MINUTES:
        if interval >= minutes * 60:
            return f"{offset % minutes}-59/{minutes} * * * *"
    for seconds in _SECONDS:
        if interval >= seconds:
            return f"{offset % seconds}-59/{seconds} * * * * * *"
    raise ValueError(f"an interval of {interval} s is shorter than Nomad can be asked for")


def job(job_id: str, *, group_id: str, account_id: str, interval: int, shape: Shape) -> dict[str, Any]:
    """The periodic batch job that runs `tsg-scale --wait GROUP_ID`."""
    task: dict[str, Any] = {
        "Name": "scale",
        "Driver": shape.driver,
        "Config": _config(shape, group_id),
        "Resources": {"CPU": shape.cpu, "MemoryMB": shape.memory},
        "KillTimeout": KILL_TIMEOUT * NANOSECONDS,
        "LogConfig": {"MaxFiles": 2, "MaxFileSizeMB": 5},
    }
    if shape.artifact:
        task["Artifacts"] = [{"GetterSource": shape.artifact, "RelativeDest": "local/"}]
    made: dict[str, Any] = {
        "ID": job_id,
        "Name": job_id,
        "Type": "batch",
        "Datacenters": [shape.datacenter],
        "Meta": {"group_id": group_id, "account_id": account_id},
        "Periodic": {
            "Enabled": True,
            "SpecType": "cron",
            "Spec": cron(interval, group_id),
            "ProhibitOverlap": True,
            "TimeZone": "UTC",
        },
        "Constraints": [
            {"Operand": "distinct_hosts", "RTarget": "true"},
            {"LTarget": "${meta.role}", "Operand": "=", "RTarget": shape.role},
        ],
        "TaskGroups": [
            {
                "Name": "scale",
                "Count": 1,
                # What a run did not get done, the next one does: it is never run again for its own sake.
                "RestartPolicy": {"Attempts": 0, "Interval": 60 * NANOSECONDS, "Delay": 5 * NANOSECONDS, "Mode": "fail"},
                "ReschedulePolicy": {"Attempts": 0, "Interval": 60 * NANOSECONDS, "Unlimited": False},
                "Tasks": [task],
            }
        ],
    }
    return made | {name: value for name, value in (("Namespace", shape.namespace), ("Region", shape.region)) if value}


def _config(shape: Shape, group_id: str) -> dict[str, Any]:
    args = [*(["--config", shape.config] if shape.config else []), "--wait", group_id]
    given = {"command": shape.command, "args": args}
    return given | _container(shape) if shape.driver == "docker" else given


def _container(shape: Shape) -> dict[str, Any]:
    """The image, and the node's configuration file in the container under its own name: nothing else of the node is seen there.

    A `mount`, since Docker makes an empty directory of a missing file in `volumes`, and refuses to start with this.
    """
    mount = {"type": "bind", "source": shape.config, "target": shape.config, "readonly": True}
    return {"image": shape.image, **({"mount": [mount]} if shape.config else {})}
