"""One run of a task group on the node: its directories, its tasks' environments, and its JSON object."""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.sim.nomad.placement import Node
from dev.sim.nomad.shape import SECOND
from dev.sim.nomad.task import Task, Workplace
from dev.sim.nomad.template import fill_env

_DESCRIPTIONS = {
    "pending": "No tasks have started",
    "running": "Tasks are running",
    "complete": "All tasks have completed",
    "failed": "Failed tasks",
    "lost": "",
}
_TASK_PARTS = ("state", "failed", "restarts", "started_at", "finished_at", "restarted_at", "events")
#: Under everything else that a task finds in its environment. Real Nomad hands on the whole environment of its agent.
_BASE_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Setting:
    """What an allocation needs of the cluster."""

    node: Node
    node_env: Mapping[str, str]
    directory: Path
    now: Callable[[], float]
    changed: Callable[[Allocation], None]  #: called from any thread whenever something has happened


@dataclass
class Allocation:
    setting: Setting
    job: dict[str, Any]  #: as it was when this was placed
    job_version: int
    group: dict[str, Any]
    number: int
    eval_id: str
    index: int
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    desired_status: str = "run"
    desired_description: str = ""
    followup_eval_id: str = ""
    reschedule_tracker: dict[str, Any] | None = None
    lost: bool = False
    replaced: bool = False  #: a later allocation has taken over
    tasks: dict[str, Task] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.modify_index = self.index
        self.created_at = self.modified_at = self.setting.now()
        self.stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.tasks = {spec["Name"]: Task(spec, self._workplace(spec), self.setting.now, self._changed) for spec in self.group["Tasks"]}

    @property
    def directory(self) -> Path:
        return self.setting.directory / self.id

    def log(self, task: str, kind: str) -> Path:
        return self.directory / "alloc" / "logs" / f"{task}.{kind}.0"

    # Running

    def start(self, delay_seconds: float) -> None:
        for task in self.tasks.values():
            self._threads.append(threading.Thread(target=self._run, args=(task, delay_seconds), name="nomad-task", daemon=True))
        for thread in self._threads:
            thread.start()

    def _run(self, task: Task, delay_seconds: float) -> None:
        self.stopping.wait(delay_seconds)
        self.log(task.spec["Name"], "stdout").parent.mkdir(parents=True, exist_ok=True)
        for name in ("local", "secrets"):
            (task.place.directory / name).mkdir(parents=True, exist_ok=True)
        task.run()
        if task.failed:
            for other in self.tasks.values():
                other.stop()
        self._changed()

    def stop(self, description: str) -> None:
        """Ask its tasks to end; that takes as long as their KillTimeout."""
        if self.terminal:
            return
        self.desired_status, self.desired_description = "stop", description
        self.stopping.set()
        for task in self.tasks.values():
            task.stop()

    def join(self, deadline: float) -> None:
        """Until its tasks have ended, which is made so at the deadline (of time.monotonic)."""
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        for task in self.tasks.values():
            task.kill()
        for thread in self._threads:
            thread.join()

    def _changed(self) -> None:
        self.setting.changed(self)

    # What is said of it

    @property
    def client_status(self) -> str:
        if self.lost:
            return "lost"
        if any(task.failed for task in self.tasks.values()):
            return "failed"
        states = {task.state for task in self.tasks.values()}
        return "running" if "running" in states else "pending" if "pending" in states else "complete"

    @property
    def terminal(self) -> bool:
        """Nomad: over as soon as it is meant to be, though a process may be going still."""
        return self.desired_status != "run" or self.over

    @property
    def over(self) -> bool:
        return self.client_status in ("complete", "failed", "lost")

    def to_json(self) -> dict[str, Any]:
        status = self.client_status
        return {
            "ID": self.id,
            "EvalID": self.eval_id,
            "Name": f"{self.job['ID']}.{self.group['Name']}[{self.number}]",
            "Namespace": "default",
            "NodeID": self.setting.node.id,
            "NodeName": self.setting.node.name,
            "JobID": self.job["ID"],
            "JobType": self.job["Type"],
            "JobVersion": self.job_version,
            "TaskGroup": self.group["Name"],
            "DesiredStatus": self.desired_status,
            "DesiredDescription": self.desired_description,
            "ClientStatus": status,
            "ClientDescription": _DESCRIPTIONS[status],
            "DesiredTransition": {"ForceReschedule": None, "Migrate": None, "Reschedule": None},
            "TaskStates": {name: task.to_json() for name, task in self.tasks.items() if task.events} or None,
            "DeploymentStatus": None,
            "FollowupEvalID": self.followup_eval_id,
            "RescheduleTracker": self.reschedule_tracker,
            "PreemptedAllocations": None,
            "PreemptedByAllocation": "",
            "CreateIndex": self.index,
            "ModifyIndex": self.modify_index,
            "CreateTime": int(self.created_at * SECOND),
            "ModifyTime": int(self.modified_at * SECOND),
        }

    def to_row(self) -> dict[str, Any]:
        """For the state file."""
        kept = ("job", "job_version", "number", "eval_id", "index", "id", "desired_status", "desired_description")
        later = ("followup_eval_id", "reschedule_tracker", "lost", "replaced")
        rest = {"modify_index": self.modify_index, "created_at": self.created_at, "modified_at": self.modified_at}
        tasks = {name: {part: getattr(task, part) for part in _TASK_PARTS} for name, task in self.tasks.items()}
        return {name: getattr(self, name) for name in (*kept, *later)} | rest | {"group_name": self.group["Name"], "tasks": tasks}

    @classmethod
    def from_row(cls, setting: Setting, row: dict[str, Any]) -> Allocation:
        """One that still ran when the simulator went is lost: its process is gone."""
        row = dict(row)
        group_name, tasks = row.pop("group_name"), row.pop("tasks")
        rest = {name: row.pop(name) for name in ("modify_index", "created_at", "modified_at")}
        group = next(group for group in row["job"]["TaskGroups"] if group["Name"] == group_name)
        allocation = cls(setting=setting, group=group, **row)
        for name, value in rest.items():
            setattr(allocation, name, value)
        for name, parts in tasks.items():
            for part, value in parts.items():
                setattr(allocation.tasks[name], part, value)
        if not allocation.over:
            allocation.lost, allocation.desired_status = True, "stop"
            for task in allocation.tasks.values():
                task.state = "dead"
        return allocation

    # Where its tasks run

    def _workplace(self, spec: dict[str, Any]) -> Workplace:
        directory = self.directory / spec["Name"]
        env = self._env(spec, directory)
        return Workplace(directory, self.log(spec["Name"], "stdout").parent, env, env | self.setting.node.attributes())

    def _env(self, spec: dict[str, Any], directory: Path) -> dict[str, str]:
        """Nomad's order: what it says itself, under the node's environment, under the task's own."""
        job, node = self.job, self.setting.node
        meta = {**(job["Meta"] or {}), **(self.group["Meta"] or {}), **(spec["Meta"] or {})}
        env = {
            "NOMAD_ALLOC_DIR": str(self.directory / "alloc"),
            "NOMAD_ALLOC_ID": self.id,
            "NOMAD_ALLOC_INDEX": str(self.number),
            "NOMAD_ALLOC_NAME": f"{job['ID']}.{self.group['Name']}[{self.number}]",
            "NOMAD_CPU_LIMIT": str(spec["Resources"]["CPU"]),
            "NOMAD_DC": node.datacenter,
            "NOMAD_GROUP_NAME": self.group["Name"],
            "NOMAD_JOB_ID": job["ID"],
            "NOMAD_JOB_NAME": job["Name"],
            "NOMAD_MEMORY_LIMIT": str(spec["Resources"]["MemoryMB"]),
            "NOMAD_NAMESPACE": "default",
            "NOMAD_REGION": "global",
            "NOMAD_SECRETS_DIR": str(directory / "secrets"),
            "NOMAD_TASK_DIR": str(directory / "local"),
            "NOMAD_TASK_NAME": spec["Name"],
        }
        if job["ParentID"]:
            env["NOMAD_JOB_PARENT_ID"] = job["ParentID"]
        for key, value in meta.items():
            env |= {f"NOMAD_META_{_env_name(key)}": value, f"NOMAD_META_{_env_name(key).upper()}": value}
        env |= {**_BASE_ENV, "HOME": str(directory), **self.setting.node_env}
        names = env | node.attributes()
        return env | {key: fill_env(value, names) for key, value in (spec["Env"] or {}).items()}


def _env_name(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]", "_", key)
