"""The cluster itself: jobs, their children, evaluations and allocations, and the clock that launches periodic jobs."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dev.sim.nomad.allocation import Allocation, Setting
from dev.sim.nomad.counters import Counters
from dev.sim.nomad.diff import job_diff
from dev.sim.nomad.errors import error_list, failed
from dev.sim.nomad.job import CHILD_MARK, Job, next_launch
from dev.sim.nomad.knobs import Knobs
from dev.sim.nomad.placement import Node, obstacle
from dev.sim.nomad.shape import SECOND
from dev.sim.nomad.validate import job_errors

#: How long tasks may take to end when the simulator is closed, whatever their KillTimeout.
CLOSE_SECONDS = 3.0

#: Nomad's own: how long a finished job stays listed.
FORGET_SECONDS = 4 * 3600.0

_OPEN_EVALS = ("pending", "blocked")


class Cluster:
    def __init__(
        self,
        node: Node,
        knobs: Knobs,
        *,
        node_env: Mapping[str, str],
        now: Callable[[], float] = time.time,
        state: Path | None = None,
    ) -> None:
        """`state` is a file that keeps jobs and what became of them over a restart."""
        self.knobs = knobs
        self.counters = Counters()
        self.closing = threading.Event()
        self.node = node
        self.index = 10
        self.jobs: dict[str, Job] = {}
        self.allocations: dict[str, Allocation] = {}
        self.evals: dict[str, dict[str, Any]] = {}
        self._due: list[tuple[float, Allocation]] = []  # failed allocations that are to be placed again
        self._clock, self._advanced = now, 0.0
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._state = state
        self._directory = Path(f"{state}.alloc") if state else Path(tempfile.mkdtemp(prefix="nomad-simulator-"))
        self._setting = Setting(node, dict(node_env), self._directory, self.now, self._changed)
        if state and state.exists():
            self._load(json.loads(state.read_text()))
        self._timekeeper = threading.Thread(target=self._keep_time, name="nomad-clock", daemon=True)
        self._timekeeper.start()

    # Time

    def now(self) -> float:
        return self._clock() + self._advanced

    def advance(self, seconds: float) -> None:
        """The clock goes forward at once. A job that became due is launched once, and that has happened when this returns."""
        with self._lock:
            self._advanced += seconds
            self._do_what_is_due()
            self._wake.notify_all()

    def _keep_time(self) -> None:
        with self._lock:
            while not self.closing.is_set():
                self._do_what_is_due()
                times = [job.next_launch for job in self.jobs.values() if job.next_launch] + [due for due, _ in self._due]
                pause = min(times) - self.now() if times else 1.0
                self._wake.wait(min(max(pause, 0.02), 1.0))

    def _do_what_is_due(self) -> None:
        if self.knobs.no_leader or self.closing.is_set():
            return
        now = self.now()
        for job in [job for job in self.jobs.values() if job.next_launch and job.next_launch <= now]:
            self._launch(job, job.next_launch or now)
        for due, allocation in [pair for pair in self._due if pair[0] <= now]:
            self._due.remove((due, allocation))
            self._replace(allocation)

    def _launch(self, job: Job, launch: float) -> None:
        self._forget()
        job.last_launch = launch
        self._schedule(job)
        if job.spec["Periodic"]["ProhibitOverlap"] and self.has_running_children(job.id):
            self.counters.count(job.id, "skips")
        else:
            self.counters.count(job.id, "launches")
            self._start_child(job, int(launch))
        self._save()

    def _forget(self) -> None:
        """What has been over for hours: jobs that have no schedule, their allocations and evaluations."""
        old = self.now() - FORGET_SECONDS
        live = {job.id for job in self.jobs.values() if job.is_periodic or self.status(job) != "dead" or job.submit_time > old * SECOND}
        live |= {row.job["ID"] for row in self.allocations.values() if not row.over or row.modified_at > old}
        self.jobs = {job_id: job for job_id, job in self.jobs.items() if job_id in live}
        self.evals = {eval_id: row for eval_id, row in self.evals.items() if row["JobID"] in live}
        for allocation in [row for row in self.allocations.values() if row.job["ID"] not in live]:
            del self.allocations[allocation.id]
            shutil.rmtree(allocation.directory, ignore_errors=True)

    def _schedule(self, job: Job) -> None:
        due = next_launch(job.spec, self.now()) if job.is_scheduled else None
        job.next_launch = due.timestamp() if due else None
        self._wake.notify_all()

    # What is asked of it

    def validate(self, spec: dict[str, Any]) -> list[str]:
        reason = self.knobs.refuse_validate
        return [*([reason] if reason else []), *job_errors(spec)]

    def register(self, spec: dict[str, Any], enforced_index: int | None) -> dict[str, Any]:
        """`enforced_index`: what the job's JobModifyIndex must be, 0 for a job that must not exist. Raises Refusal."""
        with self._lock:
            self._check(spec)
            old = self.jobs.get(spec["ID"])
            _check_index(old, enforced_index)
            _check_change(old, spec)
            self.counters.count(spec["ID"], "registers")
            evaluation: dict[str, Any] | None = None
            if old is None or old.spec != spec:
                self.counters.count(spec["ID"], "changes")
                job = self._put(spec, old)
                if not job.is_periodic:
                    self._stop_allocations(job.id)
                    evaluation = self._evaluate(job, "job-register")
                index = job.job_modify_index
                self._save()
            else:
                job, index = old, 0
            return {
                "EvalID": evaluation["ID"] if evaluation else "",
                "EvalCreateIndex": evaluation["CreateIndex"] if evaluation else 0,
                "JobModifyIndex": job.job_modify_index,
                "Index": index,
                "Warnings": "",
                "KnownLeader": False,
                "LastContact": 0,
            }

    def force(self, job_id: str) -> dict[str, Any]:
        """A child now, whatever is running. Raises Refusal."""
        with self._lock:
            job = self.jobs.get(job_id)
            if job is None:
                raise failed("job not found")
            if not job.is_periodic:
                raise failed("can't force launch non-periodic job")
            if not job.is_scheduled:
                raise failed(f'force launch for job "{job_id}" failed: can\'t force run non-tracked job "{job_id}" (default)')
            self.counters.count(job_id, "forces")
            evaluation = self._start_child(job, int(self.now()))
            self._save()
            index = evaluation["CreateIndex"]
            return {"EvalID": evaluation["ID"], "EvalCreateIndex": index, "Index": index}

    def deregister(self, job_id: str, *, purge: bool) -> dict[str, Any]:
        """Children of a periodic job go on; any other job's allocations are stopped."""
        with self._lock:
            self.counters.count(job_id, "deregisters")
            job, index = self.jobs.get(job_id), self._next_index()
            eval_id = "" if job and job.is_periodic else str(uuid.uuid4())
            if job:
                job.spec = job.spec | {"Stop": True}
                job.version += 1
                job.modify_index = job.job_modify_index = index
                self._schedule(job)
                self._stop_allocations(job_id)
            if purge:
                self.jobs.pop(job_id, None)
            self._save()
            return {
                "EvalID": eval_id,
                "EvalCreateIndex": index,
                "JobModifyIndex": index,
                "Index": index,
                "VolumeEvalID": "",
                "VolumeEvalIndex": 0,
                "KnownLeader": False,
                "LastContact": 0,
            }

    def plan(self, spec: dict[str, Any], *, with_diff: bool) -> dict[str, Any]:
        """Raises Refusal."""
        with self._lock:
            self._check(spec)
            old = self.jobs.get(spec["ID"])
            placed, failures = self._try(spec)
            index = old.job_modify_index if old else 0
            blocked = self._eval_row(spec, "queued-allocs", "blocked") | {"FailedTGAllocs": failures, "PreviousEval": str(uuid.uuid4())}
            due = next_launch(spec, self.now()) if spec["Periodic"] and spec["Periodic"]["Enabled"] else None
            nothing = dict.fromkeys(
                ("Canary", "DestructiveUpdate", "Ignore", "InPlaceUpdate", "Migrate", "Place", "Preemptions", "Stop"), 0
            )
            updates = {name: nothing | {"Place": count} for name, count in placed.items()}
            return {
                "Annotations": {"DesiredTGUpdates": updates, "PreemptedAllocs": None},
                "CreatedEvals": [blocked] if failures else None,
                "Diff": job_diff(old.spec if old else None, spec) if with_diff else None,
                "FailedTGAllocs": failures or None,
                "Index": index,
                "JobModifyIndex": index,
                "NextPeriodicLaunch": due.isoformat().replace("+00:00", "Z") if due else None,
                "Warnings": "",
            }

    def _check(self, spec: dict[str, Any]) -> None:
        if errors := self.validate(spec):
            raise failed(error_list(errors))
        if spec["Region"] != "global":
            raise failed("No path to region")
        if spec["Namespace"] != "default":
            raise failed(f'job "{spec["ID"]}" is in nonexistent namespace "{spec["Namespace"]}"')

    # What is known of it

    def read_job(self, job_id: str) -> dict[str, Any] | None:
        with self._lock:
            job = self.jobs.get(job_id)
            return job.to_json(self.status(job)) if job else None

    def list_jobs(self, prefix: str) -> list[dict[str, Any]]:
        """In the order of their ids, children with them."""
        with self._lock:
            found = sorted((job for job in self.jobs.values() if job.id.startswith(prefix)), key=lambda job: job.id)
            return [job.stub(self.status(job), self._summary(job)) for job in found]

    def list_allocations(self, job_id: str) -> list[dict[str, Any]]:
        """Also of a job that is gone: Nomad forgets allocations later than jobs."""
        with self._lock:
            return [allocation.to_json() for allocation in self._allocations_of(job_id)]

    def list_evals(self, job_id: str) -> list[dict[str, Any]]:
        with self._lock:
            return [row for row in self.evals.values() if row["JobID"] == job_id]

    def children(self, job_id: str) -> list[Job]:
        """The oldest first."""
        with self._lock:
            return sorted((job for job in self.jobs.values() if job.parent_id == job_id), key=lambda job: job.index)

    def has_running_children(self, job_id: str) -> bool:
        """Nomad: one that waits for a node counts too."""
        return any(self.status(child) != "dead" for child in self.children(job_id))

    def status(self, job: Job) -> str:
        if job.is_periodic:
            return "dead" if job.spec["Stop"] else "running"
        if any(not allocation.terminal for allocation in self._allocations_of(job.id)):
            return "running"
        return "pending" if any(row["Status"] in _OPEN_EVALS for row in self.list_evals(job.id)) else "dead"

    def _allocations_of(self, job_id: str) -> list[Allocation]:
        return [allocation for allocation in self.allocations.values() if allocation.job["ID"] == job_id]

    def _summary(self, job: Job) -> dict[str, Any]:
        states = [self.status(child) for child in self.children(job.id)]
        groups: dict[str, dict[str, int]] = {
            group["Name"]: dict.fromkeys(("Complete", "Failed", "Lost", "Queued", "Running", "Starting"), 0)
            for group in job.spec["TaskGroups"]
        }
        words = {"pending": "Starting", "running": "Running", "complete": "Complete", "failed": "Failed", "lost": "Lost"}
        for allocation in self._allocations_of(job.id):
            if allocation.group["Name"] in groups:
                groups[allocation.group["Name"]][words[allocation.client_status]] += 1
        for row in self.list_evals(job.id):
            for name in row.get("FailedTGAllocs") or {} if row["Status"] == "blocked" else ():
                groups[name]["Queued"] += 1
        return {
            "JobID": job.id,
            "Namespace": "default",
            "Summary": groups,
            "Children": {"Pending": states.count("pending"), "Running": states.count("running"), "Dead": states.count("dead")},
            "CreateIndex": job.index,
            "ModifyIndex": job.modify_index,
        }

    def list_state(self) -> list[dict[str, Any]]:
        """For /--sim/state: each job with its children and when it is due."""
        with self._lock:
            return [
                job.to_json(self.status(job)) | {"Children": [child.id for child in self.children(job.id)], "NextLaunch": job.next_launch}
                for job in self.jobs.values()
            ]

    def chance(self, share: float) -> bool:
        return share > 0 and random.random() < share

    # Placing

    def _put(self, spec: dict[str, Any], old: Job | None) -> Job:
        index = self._next_index()
        submitted = int(self.now() * SECOND)
        job = Job(spec, old.index if old else index, index, index, submitted, version=old.version + 1 if old else 0)
        self.jobs[job.id] = job
        self._schedule(job)
        return job

    def _start_child(self, job: Job, launch: int) -> dict[str, Any]:
        while f"{job.id}{CHILD_MARK}{launch}" in self.jobs:
            launch += 1  # real Nomad has one child for two launches in a second
        child = self._put(job.child_spec(launch), None)
        return self._evaluate(child, "periodic-job")

    def _evaluate(self, job: Job, trigger: str) -> dict[str, Any]:
        """Place what can be placed; for the rest an evaluation waits, for ever."""
        row = self._eval_row(job.spec, trigger, "complete") | {"JobModifyIndex": job.job_modify_index}
        self.evals[row["ID"]] = row
        failures: dict[str, Any] = {}
        for group, number, metrics in self._places(job.spec):
            if metrics is None:
                self._place(job, group, number, row["ID"])
            elif group["Name"] not in failures:
                failures[group["Name"]] = metrics
        row["QueuedAllocations"] = {group["Name"]: int(group["Name"] in failures) for group in job.spec["TaskGroups"]}
        if failures:
            blocked = self._eval_row(job.spec, "queued-allocs", "blocked")
            blocked |= {"PreviousEval": row["ID"], "FailedTGAllocs": failures, "JobModifyIndex": job.job_modify_index}
            row |= {"BlockedEval": blocked["ID"], "FailedTGAllocs": failures}
            self.evals[blocked["ID"]] = blocked
        return row

    def _try(self, spec: dict[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
        """How many allocations each group would have, and why some of them would not."""
        wanted = {group["Name"]: group["Count"] for group in spec["TaskGroups"]}
        failures: dict[str, Any] = {}
        for group, _number, metrics in self._places(spec):
            if metrics is not None:
                failures.setdefault(group["Name"], metrics)
        return wanted, failures

    def _places(self, spec: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int, dict[str, Any] | None]]:
        placed = 0
        for group in spec["TaskGroups"]:
            for number in range(group["Count"]):
                metrics = obstacle(spec, group, self.node, placed)
                placed += metrics is None
                yield group, number, metrics

    def _place(self, job: Job, group: dict[str, Any], number: int, eval_id: str) -> Allocation:
        allocation = Allocation(self._setting, job.spec, job.version, group, number, eval_id, self._next_index())
        self.allocations[allocation.id] = allocation
        job.modify_index = allocation.index
        allocation.start(self.knobs.start_seconds)
        return allocation

    def _stop_allocations(self, job_id: str) -> None:
        for row in self.list_evals(job_id):
            if row["Status"] in _OPEN_EVALS:
                row["Status"] = "canceled"
        for allocation in self._allocations_of(job_id):
            allocation.stop("alloc not needed due to job update")

    def _eval_row(self, spec: dict[str, Any], trigger: str, status: str) -> dict[str, Any]:
        now = int(self.now() * SECOND)
        index = self.index
        return {
            "ID": str(uuid.uuid4()),
            "Namespace": "default",
            "Priority": spec["Priority"],
            "Type": spec["Type"],
            "TriggeredBy": trigger,
            "JobID": spec["ID"],
            "Status": status,
            "SnapshotIndex": index,
            **({"StatusDescription": "created to place remaining allocations"} if status == "blocked" else {}),
            "CreateIndex": index,
            "ModifyIndex": index,
            "CreateTime": now,
            "ModifyTime": now,
        }

    # What the tasks tell

    def _changed(self, allocation: Allocation) -> None:
        with self._lock:
            allocation.modify_index, allocation.modified_at = self._next_index(), self.now()
            if allocation.over and (job := self.jobs.get(allocation.job["ID"])):
                job.modify_index = self.index
                self._reschedule(job, allocation)
            self._save()
            self._wake.notify_all()

    def _reschedule(self, job: Job, allocation: Allocation) -> None:
        """Nomad: a failed allocation of a batch job is placed once more after five seconds, unless its policy says otherwise."""
        policy = allocation.group["ReschedulePolicy"]
        tries = len((allocation.reschedule_tracker or {"Events": []})["Events"])
        may = policy["Unlimited"] or tries < policy["Attempts"]
        if not may or allocation.desired_status != "run" or allocation.client_status != "failed" or allocation.followup_eval_id:
            return
        row = self._eval_row(job.spec, "alloc-failure", "pending")
        self.evals[row["ID"]] = row
        allocation.followup_eval_id = row["ID"]
        self._due.append((self.now() + policy["Delay"] / SECOND, allocation))

    def _replace(self, old: Allocation) -> None:
        row = self.evals[old.followup_eval_id]
        job = self.jobs.get(old.job["ID"])
        if row["Status"] != "pending" or job is None:
            return
        row["Status"] = "complete"
        old.desired_status = "stop"
        new = self._place(job, old.group, old.number, row["ID"])
        event = {"PrevAllocID": old.id, "PrevNodeID": self.node.id, "RescheduleTime": int(self.now() * SECOND)}
        delay = {"Delay": old.group["ReschedulePolicy"]["Delay"]}
        new.reschedule_tracker = {"Events": [*(old.reschedule_tracker or {"Events": []})["Events"], event | delay]}
        self._save()

    # Staying

    def _next_index(self) -> int:
        self.index += 1
        return self.index

    def _save(self) -> None:
        if self._state is None:
            return
        rows = {
            "index": self.index,
            "jobs": [job.to_row() for job in self.jobs.values()],
            "evals": list(self.evals.values()),
            "allocations": [allocation.to_row() for allocation in self.allocations.values()],
        }
        fresh = self._state.with_name(f"{self._state.name}.new")
        fresh.write_text(json.dumps(rows))
        fresh.replace(self._state)

    def _load(self, rows: dict[str, Any]) -> None:
        """Nomad: a launch that was missed meanwhile is made good, once."""
        self.index = rows["index"]
        self.jobs = {job.id: job for job in (Job(**row) for row in rows["jobs"])}
        self.evals = {row["ID"]: row for row in rows["evals"]}
        self.allocations = {row["id"]: Allocation.from_row(self._setting, row) for row in rows["allocations"]}
        for job in self.jobs.values():
            job.next_launch = max(job.next_launch, self.now()) if job.next_launch else None
        for row in self.evals.values():
            if row["Status"] == "pending":
                row["Status"] = "canceled"

    def wait_until(self, condition: Callable[[], bool], *, seconds: float = 30) -> bool:
        """For tests: asked again whenever something has happened; whether it came true in time."""
        with self._lock:
            return self._wake.wait_for(condition, seconds)

    def close(self) -> None:
        """Ends every task, after a few seconds by force. Twice is once."""
        with self._lock:
            if self.closing.is_set():
                return
            self.closing.set()
            live = [allocation for allocation in self.allocations.values() if not allocation.over]
            self._wake.notify_all()
        self._timekeeper.join()
        for allocation in live:
            allocation.stop("the simulator is closed")
        deadline = time.monotonic() + CLOSE_SECONDS
        for allocation in live:
            allocation.join(deadline)
            allocation.lost = True
        with self._lock:
            self._save()
        if self._state is None:
            shutil.rmtree(self._directory, ignore_errors=True)


def _check_index(old: Job | None, wanted: int | None) -> None:
    if wanted is None:
        return
    if old is None:
        if wanted:
            raise failed(f"Enforcing job modify index {wanted}: job does not exist")
    elif wanted == 0:
        raise failed("Enforcing job modify index 0: job already exists")
    elif wanted != old.job_modify_index:
        raise failed(f"Enforcing job modify index {wanted}: job exists with conflicting job modify index: {old.job_modify_index}")


def _check_change(old: Job | None, spec: dict[str, Any]) -> None:
    if old is None:
        return
    if old.spec["Type"] != spec["Type"]:
        raise failed(f'cannot update job from type "{old.spec["Type"]}" to "{spec["Type"]}"')
    is_periodic = spec["Periodic"] is not None
    if old.is_periodic and not is_periodic:
        raise failed("cannot update periodic job to being non-periodic")
    if is_periodic and not old.is_periodic:
        raise failed("cannot update non-periodic job to being periodic")
