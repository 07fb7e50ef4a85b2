"""The cluster itself: periodic jobs, their runs, and the clock that launches them."""

import json
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dev.sim.nomad.counters import Counters
from dev.sim.nomad.errors import error_list, failed
from dev.sim.nomad.job import CHILD_MARK, SERVED, Job, Node, job_errors, next_launch, obstacle
from dev.sim.nomad.knobs import Knobs
from dev.sim.nomad.run import Run

#: How long tasks may take to end when the simulator is closed, whatever their KillTimeout.
CLOSE_SECONDS = 3.0
#: Nomad's own: how long a finished run stays listed.
FORGET_SECONDS = 4 * 3600.0


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
        self.runs: dict[str, Run] = {}  #: by the child's id
        self._node_env = dict(node_env)
        self._clock, self._advanced = now, 0.0
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._state = state
        self._directory = Path(f"{state}.alloc") if state else Path(tempfile.mkdtemp(prefix="nomad-simulator-"))
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
            self._launch_due()
            self._wake.notify_all()

    def _keep_time(self) -> None:
        with self._lock:
            while not self.closing.is_set():
                self._launch_due()
                times = [job.next_launch for job in self.jobs.values() if job.next_launch]
                self._wake.wait(min(max(min(times) - self.now(), 0.02), 1.0) if times else 1.0)

    def _launch_due(self) -> None:
        if self.knobs.no_leader or self.closing.is_set():
            return
        now = self.now()
        for job in [job for job in self.jobs.values() if job.next_launch and job.next_launch <= now]:
            launch = job.next_launch or now
            self._forget_old_runs()
            job.next_launch = next_launch(job.spec, now)
            if any(self.status(run) != "dead" for run in self._runs_of(job.id)) and job.spec["Periodic"].get("ProhibitOverlap"):
                self.counters.count(job.id, "skips")
            else:
                self.counters.count(job.id, "launches")
                self._start_run(job, int(launch))
            self._save()

    # What is asked of it

    def validate(self, spec: dict[str, Any]) -> list[str]:
        reason = self.knobs.refuse_validate
        return [*([reason] if reason else []), *job_errors(spec)]

    def register(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Make the job, or change it in place; an identical one stays as it is. Raises Refusal."""
        with self._lock:
            self._check(spec)
            spec = {name: value for name, value in spec.items() if name not in SERVED}
            old = self.jobs.get(spec["ID"])
            self.counters.count(spec["ID"], "registers")
            if old is None or old.spec != spec:
                self.counters.count(spec["ID"], "changes")
                index = self._next_index()
                self.jobs[spec["ID"]] = Job(spec, old.index if old else index, index, next_launch(spec, self.now()))
                self._wake.notify_all()
                self._save()
            return {"EvalID": "", "JobModifyIndex": self.jobs[spec["ID"]].modify_index, "Warnings": ""}

    def force(self, job_id: str) -> dict[str, Any]:
        """A run now, whatever is running. Raises Refusal."""
        with self._lock:
            job = self.jobs.get(job_id)
            if job is None:
                raise failed("job not found")
            self.counters.count(job_id, "forces")
            self._start_run(job, int(self.now()))
            self._save()
            return {"EvalID": "an evaluation", "EvalCreateIndex": self.index}

    def plan(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Raises Refusal."""
        with self._lock:
            self._check(spec)
            old = self.jobs.get(spec["ID"])
            return {"FailedTGAllocs": obstacle(spec, self.node), "JobModifyIndex": old.modify_index if old else 0, "Diff": None}

    def deregister(self, job_id: str) -> dict[str, Any]:
        """Without a trace. The runs of a periodic job go on; a run that is named itself is stopped."""
        with self._lock:
            self.counters.count(job_id, "deregisters")
            self.jobs.pop(job_id, None)
            run = self.runs.pop(job_id, None)
            if run is not None:
                run.stop()
            self._save()
            return {"EvalID": "", "JobModifyIndex": self._next_index()}

    # What is known of it

    def read_job(self, job_id: str) -> dict[str, Any] | None:
        with self._lock:
            job = self.jobs.get(job_id)
            return job.to_json() if job else None

    def list_jobs(self, prefix: str) -> list[dict[str, Any]]:
        """Jobs and runs, in the order of their ids."""
        with self._lock:
            stubs = [(job.id, "", "running") for job in self.jobs.values()]
            stubs += [(run.job_id, run.parent_id, self.status(run)) for run in self.runs.values()]
        return [
            {"ID": job_id, "ParentID": parent_id, "Type": "batch", "Status": status, "Periodic": not parent_id}
            for job_id, parent_id, status in sorted(stubs)
            if job_id.startswith(prefix)
        ]

    def list_allocations(self, job_id: str) -> list[dict[str, Any]]:
        """Of a run; none where no node took it."""
        with self._lock:
            run = self.runs.get(job_id)
            return [run.to_json()] if run and run.status != "unplaced" else []

    def status(self, run: Run) -> str:
        """The run's, as a job: Nomad calls it running from the moment that a node has taken it."""
        return "dead" if run.over else "pending" if run.status == "unplaced" else "running"

    def list_state(self) -> dict[str, Any]:
        """For /--sim/state: each job with when it is due, and each run."""
        with self._lock:
            jobs = [job.to_json() | {"NextLaunch": job.next_launch} for job in self.jobs.values()]
            return {"jobs": jobs, "allocations": [run.to_json() for run in self.runs.values()]}

    def chance(self, share: float) -> bool:
        return share > 0 and random.random() < share

    def _check(self, spec: dict[str, Any]) -> None:
        if errors := self.validate(spec):
            raise failed(error_list(errors))

    # Runs

    def _runs_of(self, job_id: str) -> list[Run]:
        return [run for run in self.runs.values() if run.parent_id == job_id]

    def _start_run(self, job: Job, launch: int) -> None:
        if self.knobs.lose_runs:
            return
        while (child_id := f"{job.id}{CHILD_MARK}{launch}") in self.runs:
            launch += 1  # real Nomad has one child for two launches in a second
        run = Run(child_id, job.id, job.spec, self._next_index())
        self.runs[child_id] = run
        if obstacle(job.spec, self.node):
            run.status = "unplaced"
        else:
            run.start(self._directory / run.id, self._node_env, self.knobs.fail_runs, self._changed)

    def _forget_old_runs(self) -> None:
        old = self.now() - FORGET_SECONDS
        for run in [run for run in self.runs.values() if run.over and int(run.job_id.rpartition("-")[2]) < old]:
            del self.runs[run.job_id]
            shutil.rmtree(self._directory / run.id, ignore_errors=True)

    def _changed(self) -> None:
        with self._lock:
            self._save()
            self._wake.notify_all()

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
            "runs": [run.to_row() for run in self.runs.values()],
        }
        fresh = self._state.with_name(f"{self._state.name}.new")
        fresh.write_text(json.dumps(rows))
        fresh.replace(self._state)

    def _load(self, rows: dict[str, Any]) -> None:
        """Nomad: a launch that was missed meanwhile is made good, once. A run that was under way is lost: its process is gone."""
        self.index = rows["index"]
        self.jobs = {job.id: job for job in (Job(**row) for row in rows["jobs"])}
        self.runs = {run.job_id: run for run in (Run(**row) for row in rows["runs"])}
        for job in self.jobs.values():
            job.next_launch = max(job.next_launch, self.now()) if job.next_launch else None
        for run in self.runs.values():
            if not run.over and run.status != "unplaced":
                run.status = "lost"

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
            live = [run for run in self.runs.values() if not run.over]
            self._wake.notify_all()
        self._timekeeper.join()
        for run in live:
            run.stop()
        deadline = time.monotonic() + CLOSE_SECONDS
        for run in live:
            run.join(max(deadline - time.monotonic(), 0.0))
        with self._lock:
            self._save()
        if self._state is None:
            shutil.rmtree(self._directory, ignore_errors=True)
