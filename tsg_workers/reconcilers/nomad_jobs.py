"""Bring a group's Nomad job to what the group is: submitted, run once for each change, looked after, and removed in the end.

A run notes in the group's row that it came to the group. Where none came that should have, Nomad is asked what became of the runs, and the
answer stands in `job_error`: the group's status and `tsg-admin jobs list` show it, and workers take the group over.

Level-triggered, as the reconciler of groups: each call looks at the group and at Nomad, and does what is missing. When Nomad refuses or
does not answer, the error stands in the log and the group's activities, and the job is tried again after growing pauses.
"""

import re
import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from shared import log
from shared.backoff import LONGEST, backoff
from shared.clients.nomad import Nomad, NomadError, Unavailable
from shared.clients.queue import REMOVE_JOB, SUBMIT_JOB
from shared.state import activities, jobs
from shared.state.jobs import JobWork
from shared.state.work import NOMAD_JOB, Claim
from shared.store.db import Database
from tsg_workers.reconcilers.jobspec import Shape, distinct_id, plain_id
from tsg_workers.reconcilers.jobspec import job as make_job
from tsg_workers.runner import After, Failed, Gone, Keeper, NotYet, Reconciler, Result

_log = log.get(__name__)

#: Seconds in which a run that was started comes to its group, or shows why not.
RUN_SHOWS = 10.0
#: Seconds until a job is looked at again whose last run is finishing.
RUN_IS_ENDING = 2.0
#: Seconds in which a Nomad that was away is not asked again: each try may hold a thread for as long as a timeout.
AWAY = 5.0
#: Seconds: a Nomad that is back is asked for every job again within this time.
BACK_WITHIN = 60.0


class _Job:
    """A group's job, while this worker holds the claim on it."""

    def __init__(self, nomad: Nomad, work: JobWork, keeper: Keeper) -> None:
        self.work = work
        self._nomad = nomad
        self._keeper = keeper

    def ask(self) -> Nomad:
        """Nomad, for one request; `ClaimLost` when another worker may have the job by now."""
        self._keeper.renew()
        return self._nomad


class NomadJobReconciler(Reconciler[Claim]):
    """Submits and removes the jobs of groups; a subject is a group's id. One for a process; thread-safe."""

    kind = NOMAD_JOB
    #: Both mean the same, and the rows say what is to be done: two queues because the previous release listens to both.
    queues = (SUBMIT_JOB, REMOVE_JOB)
    #: A claim is renewed before each request to Nomad, and none of those takes longer: one that submits can't put back what another has
    #: removed meanwhile.
    claim_seconds = 10

    def __init__(self, database: Database, nomad: Nomad, shape: Shape, *, grace: float, actor: str) -> None:
        """`grace`: seconds that a run may take, from when it was due, until it comes to its group."""
        self._db = database
        self._nomad = nomad
        self._shape = shape
        self._grace = grace
        self._actor = actor
        #: Until when, by the monotonic clock, Nomad is not asked, and why.
        self._away = (0.0, "")

    @classmethod
    def claim_due(cls, connection: Connection, *, limit: int, late: float = 0) -> list[tuple[str, str]]:
        """Jobs for which there is something to do, whether runs are late or not."""
        del late
        return [(REMOVE_JOB if job.is_over else SUBMIT_JOB, job.group_id) for job in jobs.claim_due(connection, limit=limit)]

    def reconcile(self, claimed: Claim, keeper: Keeper) -> Result:
        """See to it that the group's job is there and as it should be, and that it has run for the group's newest generation.

        A job that is as it should be is left alone, and a run under way goes on: Nomad changes jobs in place. The job of an emptied group,
        and every run of it, is removed.
        """
        with self._db.read() as connection:
            work = jobs.get(connection, claimed)
        if work is None:
            return Gone()
        try:
            self._spare_nomad()
            job = _Job(self._nomad, work, keeper)
            return self._remove(job) if work.is_over else self._submit(job)
        except NomadError as error:
            is_away = isinstance(error, Unavailable)
            if is_away:
                self._found_away(str(error))
            pause = backoff(work.failures + 1, BACK_WITHIN if is_away else LONGEST)
            with self._db.read() as connection:
                jobs.mark_failing(connection, work, error=str(error))
            _log.warning("nomad_failed", group_id=work.group_id, job_id=work.job_id, error=str(error), again_in=round(pause, 1))
            # Said once at the beginning, not at each try; the log has them all.
            if work.error is None:
                kind = activities.JOB_REMOVE_ERROR if work.is_over else activities.JOB_ERROR
                self._tell(work, kind, activities.FAILED, str(error))
            return Failed(pause, str(error))

    def _spare_nomad(self) -> None:
        """`Unavailable` when Nomad was away a moment ago: one finds it out for all."""
        until, problem = self._away
        if time.monotonic() < until:
            raise Unavailable(problem)

    def _found_away(self, problem: str) -> None:
        if time.monotonic() >= self._away[0]:
            self._away = (time.monotonic() + AWAY, problem)

    def _submit(self, job: _Job) -> Result:
        work = job.work
        job_id = work.job_id or self._db.transact(
            lambda connection: jobs.claim_id(
                connection,
                work,
                plain_id(work.group_name, work.triton_uuid),
                distinct_id(work.group_name, work.triton_uuid, work.group_id),
            )
        )
        spec = make_job(job_id, group_id=work.group_id, account_id=work.account_id, interval=work.interval, shape=self._shape)
        job.ask().validate(spec)
        job.ask().register(spec)
        if work.job_generation < work.generation:
            if not self._has_run_to_come(work):
                return self._run(job, spec)
            text = f"the run of job {job_id} that is to come is for generation {work.generation} too"
            self._tell(work, activities.JOB_SUBMITTED, activities.DONE, text)
            with self._db.read() as connection:
                jobs.mark_left_to_run(connection, work)
        return self._look_at_runs(job, spec)

    def _has_run_to_come(self, work: JobWork) -> bool:
        """Has a run been started that has not come to the group yet, and will see what the group is then?

        Another one would come after it. On a busy node, one for each change would pile up.
        """
        return work.job_generation > 0 and not work.has_run and work.error is None and work.silent_for < RUN_SHOWS + self._grace

    def _run(self, job: _Job, spec: Mapping[str, Any]) -> Result:
        """Have the job run for the group's newest generation."""
        work, job_id = job.work, spec["ID"]
        problem = _no_place(job.ask().plan(spec))
        job.ask().force(job_id)
        _log.info("job_submitted", group_id=work.group_id, job_id=job_id, request_id=work.request_id)
        self._tell(work, activities.JOB_SUBMITTED, activities.DONE, f"job {job_id} was run for generation {work.generation}")
        if problem:
            self._tell_failing(work, activities.JOB_ERROR, problem)
        with self._db.read() as connection:
            jobs.mark_submitted(connection, work, error=problem)
        return After(RUN_SHOWS)

    def _look_at_runs(self, job: _Job, spec: Mapping[str, Any]) -> Result:
        """See whether runs come to the group as they should: the one that was started last, and then one in each interval."""
        work = job.work
        in_time = (work.interval if work.has_run else 0.0) + RUN_SHOWS
        if work.silent_for < in_time:
            # Until the next one would be missing.
            after = in_time - work.silent_for
            with self._db.read() as connection:
                if work.has_run:
                    jobs.mark_failing(connection, work, error=None)
                else:
                    jobs.mark_waiting(connection, work)
            return After(after) if work.has_run else NotYet(after)
        problem = self._missing_run(job, spec, late=work.silent_for > in_time - RUN_SHOWS + self._grace)
        if problem is None:
            with self._db.read() as connection:
                jobs.mark_waiting(connection, work)
            return NotYet(RUN_SHOWS)
        self._tell_failing(work, activities.JOB_RUN_ERROR, problem)
        with self._db.read() as connection:
            jobs.mark_failing(connection, work, error=problem)
        return Failed(backoff(work.failures + 1, BACK_WITHIN), problem)

    def _missing_run(self, job: _Job, spec: Mapping[str, Any], *, late: bool) -> str | None:
        """Why no run came to the group; None when the newest may still come, which is not said of one that is `late`."""
        silence = f"no run of the job has come to the group for {job.work.silent_for:.0f} s"
        newest = max(job.ask().children(spec["ID"]), key=_launched_at, default=None)
        if newest is None:
            return f"{silence}: Nomad has started none" if late else None
        if newest.get("Status") == "pending":
            return _no_place(job.ask().plan(spec)) or (f"{silence}: the newest waits for a node" if late else None)
        failure = _failure(job.ask().allocations(str(newest["ID"])))
        if failure:
            return f"Nomad could not run the job: {failure}"
        return f"{silence}: the newest is {newest.get('Status')}" if late else None

    def _tell_failing(self, work: JobWork, kind: str, problem: str) -> None:
        _log.warning("nomad_job_fails", group_id=work.group_id, job_id=work.job_id, error=problem)
        if work.error is None:
            self._tell(work, kind, activities.FAILED, problem)

    def _remove(self, job: _Job) -> Result:
        work = job.work
        if work.job_id is not None:
            # The parent first, so that it starts no more runs. One that is under way sees the group empty and ends by itself.
            job.ask().deregister(work.job_id)
            children = job.ask().children(work.job_id)
            running = [child for child in children if child.get("Status") == "running"]
            # Pending is also what a run stays that found no node.
            for child in children:
                if child not in running:
                    job.ask().deregister(str(child["ID"]))
            if running:
                with self._db.read() as connection:
                    jobs.mark_waiting(connection, work)
                return NotYet(RUN_IS_ENDING)
            _log.info("job_removed", group_id=work.group_id, job_id=work.job_id, request_id=work.request_id)
            self._tell(work, activities.JOB_REMOVED, activities.DONE, f"job {work.job_id} was removed")
        with self._db.read() as connection:
            jobs.mark_removed(connection, work)
        return Gone()

    def _tell(self, work: JobWork, kind: str, status: str, description: str) -> None:
        with self._db.read() as connection:
            activities.insert_activity(
                connection,
                account_id=work.account_id,
                group_id=work.group_id,
                kind=kind,
                status=status,
                description=description,
                request_id=work.request_id,
                actor=self._actor,
            )


def _no_place(planned: Mapping[str, Any]) -> str:
    """Why no node of Nomad would run the job now, out of its plan; nothing when one would."""
    failed = planned.get("FailedTGAllocs") or {}
    reasons = []
    for metric in failed.values():
        nodes = metric.get("NodesAvailable") or {}
        reasons += [f"no node in datacenter {datacenter}" for datacenter, count in nodes.items() if not count]
        if not any(nodes.values()) and not reasons:
            reasons.append("no node in the job's datacenter")
        reasons += [f"{count} filtered by {constraint}" for constraint, count in (metric.get("ConstraintFiltered") or {}).items()]
        reasons += [f"{count} exhausted: {dimension}" for dimension, count in (metric.get("DimensionExhausted") or {}).items()]
    return f"Nomad has no node for the job: {'; '.join(reasons) or 'it does not say why'}" if failed else ""


def _launched_at(child: Mapping[str, Any]) -> int:
    """The Unix second in the id of a run: `JOB/periodic-1795749186`."""
    second = str(child.get("ID", "")).rpartition("-")[2]
    return int(second) if second.isdigit() else 0


def _failure(allocations: list[Mapping[str, Any]]) -> str | None:
    """What failed in the newest allocation of a run, in Nomad's words; None when nothing did."""
    newest = max(allocations, key=lambda allocation: int(allocation.get("CreateIndex", 0)), default=None)
    if newest is None or newest.get("ClientStatus") not in {"failed", "lost"}:
        return None
    tasks = (newest.get("TaskStates") or {}).values()
    events = [event for task in tasks if task.get("Failed") for event in task.get("Events") or [] if event.get("Type") not in _CONSEQUENCES]
    if not events:
        return f"its allocation is {newest['ClientStatus']}"
    return _without_credentials(f"{events[-1].get('Type')}: {events[-1].get('DisplayMessage')}")


#: Events of a task that follow from what went wrong, and do not say what it was.
_CONSEQUENCES = frozenset({"Not Restarting", "Restarting", "Killing", "Killed"})


def _without_credentials(text: str) -> str:
    """The text without the user, the password and the query of the addresses in it: an artifact's may hold a secret."""
    return re.sub(r"(\w+://)(?:[^\s/@\"]*@)?([^\s?\"]*)(?:\?[^\s\"]*)?", r"\1\2", text)
