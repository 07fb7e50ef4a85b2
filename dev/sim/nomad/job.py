"""One job: a periodic one, a child of it, or a batch job that runs once."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from dev.sim.nomad.cron import Cron, zone

#: Between a periodic job's id and the time of a launch.
CHILD_MARK = "/periodic-"


@dataclass
class Job:
    spec: dict[str, Any]  #: what `read_job` gave: everything but what the server says
    index: int  #: CreateIndex
    modify_index: int
    job_modify_index: int
    submit_time: int  #: nanoseconds
    version: int = 0
    last_launch: float | None = None  #: by the schedule
    next_launch: float | None = None

    @property
    def id(self) -> str:
        job_id: str = self.spec["ID"]
        return job_id

    @property
    def parent_id(self) -> str:
        parent_id: str = self.spec["ParentID"]
        return parent_id

    @property
    def is_periodic(self) -> bool:
        return self.spec["Periodic"] is not None

    @property
    def is_scheduled(self) -> bool:
        return self.is_periodic and self.spec["Periodic"]["Enabled"] and not self.spec["Stop"]

    def child_spec(self, launch: int) -> dict[str, Any]:
        child_id = f"{self.id}{CHILD_MARK}{launch}"
        return copy.deepcopy(self.spec) | {"ID": child_id, "Name": child_id, "ParentID": self.id, "Periodic": None}

    def to_json(self, status: str) -> dict[str, Any]:
        return self.spec | {
            "Stable": False,
            "Status": status,
            "StatusDescription": "",
            "CreateIndex": self.index,
            "ModifyIndex": self.modify_index,
            "JobModifyIndex": self.job_modify_index,
            "SubmitTime": self.submit_time,
            "Version": self.version,
        }

    def stub(self, status: str, summary: dict[str, Any]) -> dict[str, Any]:
        kept = ("ID", "ParentID", "Name", "Namespace", "Datacenters", "Multiregion", "Type", "Priority", "Stop")
        whole = self.to_json(status)
        served = ("Status", "StatusDescription", "CreateIndex", "ModifyIndex", "JobModifyIndex", "SubmitTime")
        return {name: whole[name] for name in (*kept, *served)} | {
            "Periodic": self.is_periodic,
            "ParameterizedJob": self.spec["ParameterizedJob"] is not None,
            "JobSummary": summary,
        }

    def to_row(self) -> dict[str, Any]:
        return asdict(self)


def next_launch(spec: dict[str, Any], after: float) -> datetime | None:
    """The first time after `after` (Unix seconds) that a valid periodic job is due, in its zone; None when it never is."""
    periodic = spec["Periodic"]
    return Cron(periodic["Spec"]).next(datetime.fromtimestamp(after, zone(periodic["TimeZone"])))
