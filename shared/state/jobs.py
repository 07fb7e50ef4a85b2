"""How far the Nomad job of a group is behind the group. Only where Nomad runs the scaling.

A job is submitted once for each generation of its group, looked after once in each of the group's check intervals, and removed when the
group is deleted and empty. When there is something to do stands in a row of work of the kind `nomad_job`. Each run notes that it
came to the group, so one that fails, or never happens, is missed; `job_error` is what is wrong until a run comes.
Session first, never commits, no network.
"""

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Float, cast, exists, extract, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.state import work as works
from shared.state.group_state import INTERVAL
from shared.state.work import NOMAD_JOB, Claim
from shared.store.rows import one_of
from shared.store.tables import accounts, group_state, groups, work


class JobWork(NamedTuple):
    """A group, as those see it who look after its job."""

    group_id: str
    account_id: str
    triton_uuid: str
    group_name: str
    #: The job's id, once it was given one.
    job_id: str | None
    generation: int
    #: The generation for which a run was started last.
    job_generation: int
    interval: int
    #: The group is deleted and has no instance left: the job is to go.
    is_over: bool
    #: What is wrong with the job; None while all is well.
    error: str | None
    #: Has a run come to the group since we last had one started?
    has_run: bool
    #: Seconds since one was started or came, whichever was last.
    silent_for: float
    request_id: str | None
    claim: Claim

    @property
    def failures(self) -> int:
        """How often in a row Nomad did not do it."""
        return self.claim.failures


class DueJob(NamedTuple):
    """A job for which there is something to do."""

    group_id: str
    is_over: bool


_SILENT_FOR = extract("epoch", func.now() - func.greatest(group_state.c.job_ran_at, group_state.c.job_forced_at))
#: The fields of `JobWork`, but for the claim.
_WORK = (
    groups.c.id.label("group_id"),
    groups.c.account_id,
    func.coalesce(accounts.c.triton_uuid, accounts.c.id.cast(accounts.c.triton_uuid.type)).label("triton_uuid"),
    groups.c.name.label("group_name"),
    group_state.c.job_id,
    groups.c.generation,
    group_state.c.job_generation,
    INTERVAL.label("interval"),
    group_state.c.emptied_at.is_not(None).label("is_over"),
    group_state.c.job_error.label("error"),
    func.coalesce(group_state.c.job_ran_at > group_state.c.job_forced_at, literal(False)).label("has_run"),
    func.coalesce(cast(_SILENT_FOR, Float), literal(0.0)).label("silent_for"),
    groups.c.request_id,
)


def get(connection: Connection, claimed: Claim) -> JobWork | None:
    """The job of the group that was claimed. None when there is no such group."""
    source = (
        select(*_WORK)
        .join_from(groups, accounts, groups.c.account_id == accounts.c.id)
        .join(group_state, group_state.c.group_id == groups.c.id)
    )
    return one_of(JobWork, connection.execute(source.where(groups.c.id == claimed.subject)), claim=claimed)


def claim_id(connection: Connection, work: JobWork, plain: str, distinct: str) -> str:
    """Give the group's job its id: the plain one, or the distinct one while a deleted group still has the plain one."""
    others = (group_state.c.job_id == plain, group_state.c.group_id != work.group_id)
    taken = connection.execute(select(group_state.c.group_id).where(*others)).one_or_none()
    job_id = distinct if taken else plain
    connection.execute(update(group_state).where(*_claimed(work)).values(job_id=job_id))
    return job_id


def mark_submitted(connection: Connection, work: JobWork, *, error: str | None) -> None:
    """A run was started for this generation.

    `error` is why it will not come to the group; what was wrong before stands until a run comes.
    """
    _mark(connection, work, job_generation=work.generation, job_error=error or work.error, job_forced_at=func.now())


def mark_left_to_run(connection: Connection, work: JobWork) -> None:
    """The run that was started last is for this generation too."""
    _mark(connection, work, job_generation=work.generation)


def mark_failing(connection: Connection, work: JobWork, *, error: str | None) -> None:
    """What is wrong with the job; None when it is as it should be and its runs come to the group."""
    _mark(connection, work, job_error=error)


def mark_waiting(connection: Connection, work: JobWork) -> None:
    """It is not time yet. A job that was submitted before runs were noted is counted from here on."""
    _mark(connection, work, job_forced_at=func.coalesce(group_state.c.job_forced_at, func.now()))


def mark_run(connection: Connection, group_id: str) -> None:
    """A run of the group's job has come to the group: whatever was wrong with the job is over."""
    statement = update(group_state).where(group_state.c.group_id == group_id)
    connection.execute(statement.values(job_ran_at=func.now(), job_error=None))


def count_failing(connection: Connection) -> int:
    """How many jobs Nomad refused, does not run, or could not be asked for."""
    return int(connection.execute(select(func.count()).where(group_state.c.job_error.is_not(None))).scalar_one())


def mark_removed(connection: Connection, work: JobWork) -> None:
    """The job is gone, and its id is free."""
    _mark(connection, work, job_id=None, job_error=None)


def claim_due(connection: Connection, *, limit: int) -> list[DueJob]:
    """Jobs for which there is something to do: each goes to one scheduler, and again only if no worker takes it on."""
    due = works.claim_wake_ups(connection, NOMAD_JOB, limit=limit)
    over = select(group_state.c.group_id).where(group_state.c.group_id.in_(due), group_state.c.emptied_at.is_not(None))
    are_over = set(connection.execute(over).scalars()) if due else set()
    return [DueJob(group_id, group_id in are_over) for group_id in due]


def insert_missing(connection: Connection) -> None:
    """Make due the jobs of groups that have none, as after a change from workers to Nomad."""
    has_row = exists(select(work.c.subject).where(work.c.kind == NOMAD_JOB, work.c.subject == group_state.c.group_id))
    without = select(literal(NOMAD_JOB), group_state.c.group_id, func.now()).where(group_state.c.emptied_at.is_(None), ~has_row)
    connection.execute(insert(work).from_select(["kind", "subject", "due_at"], without).on_conflict_do_nothing())


def mark_unsubmitted(connection: Connection, group_id: str) -> bool:
    """Have the group's job submitted and run again, now. False when the group is gone, and its job with it."""
    statement = update(group_state).where(group_state.c.group_id == group_id, group_state.c.emptied_at.is_(None))
    if connection.execute(statement.values(job_generation=0).returning(group_state.c.group_id)).one_or_none() is None:
        return False
    works.mark_due(connection, NOMAD_JOB, group_id)
    return True


def _mark(connection: Connection, work: JobWork, **values: Any) -> None:
    connection.execute(update(group_state).where(*_claimed(work)).values(values))


def _claimed(work: JobWork) -> tuple[ColumnElement[bool], ...]:
    """The condition that everything is noted under: an actor that was overtaken notes nothing."""
    return (group_state.c.group_id == work.group_id, works.is_held(work.claim))
