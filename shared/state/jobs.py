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

#: Seconds for which one actor has a group's job to itself, and for which a killed one stands in the way. A claim is renewed before each
#: request to Nomad, and none of those takes longer: one that submits can't put back what another has removed meanwhile.
CLAIM_SECONDS = 10


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


def claim(connection: Connection, group_id: str) -> JobWork | None:
    """Take on a group's job. None when another has, or when there is no such group."""
    source = (
        select(*_WORK)
        .join_from(groups, accounts, groups.c.account_id == accounts.c.id)
        .join(group_state, group_state.c.group_id == groups.c.id)
    )
    statement = source.where(groups.c.id == group_id)
    if connection.execute(statement).one_or_none() is None:
        return None
    claimed = works.claim(connection, NOMAD_JOB, group_id, owner="", seconds=CLAIM_SECONDS)
    # Read after it was claimed: another may have given the job its id meanwhile.
    return None if claimed is None else one_of(JobWork, connection.execute(statement), claim=claimed)


def renew(connection: Connection, work: JobWork) -> JobWork | None:
    """Go on having the group's job. None when the claim has ended and another has it, or had it."""
    return work if works.renew(connection, work.claim, seconds=CLAIM_SECONDS) else None


def claim_id(connection: Connection, work: JobWork, plain: str, distinct: str) -> str:
    """Give the group's job its id: the plain one, or the distinct one while a deleted group still has the plain one."""
    others = (group_state.c.job_id == plain, group_state.c.group_id != work.group_id)
    taken = connection.execute(select(group_state.c.group_id).where(*others)).one_or_none()
    job_id = distinct if taken else plain
    connection.execute(update(group_state).where(*_claimed(work)).values(job_id=job_id))
    return job_id


def mark_submitted(connection: Connection, work: JobWork, *, after: float, error: str | None) -> None:
    """A run was started for this generation; whether it comes to the group is looked at `after` seconds.

    `error` is why it will not; what was wrong before stands until a run comes.
    """
    _note(connection, work, job_generation=work.generation, job_error=error or work.error, job_forced_at=func.now())
    works.mark_done(connection, work.claim, after=after)


def mark_well(connection: Connection, work: JobWork, *, after: float) -> None:
    """The job is as it should be and its runs come to the group: it is looked after again in so many seconds."""
    _note(connection, work, job_error=None)
    works.mark_done(connection, work.claim, after=after)


def mark_failed(connection: Connection, work: JobWork, *, after: float, error: str) -> None:
    """Nomad did not take the job, or does not run it: look again so many seconds later."""
    _note(connection, work, job_error=error)
    works.mark_failed(connection, work.claim, after=after, error=error)


def mark_postponed(connection: Connection, work: JobWork, *, after: float) -> None:
    """It is not time yet, and nothing more is wrong than was."""
    # A job that was submitted before runs were noted is counted from here on.
    _note(connection, work, job_forced_at=func.coalesce(group_state.c.job_forced_at, func.now()))
    works.mark_postponed(connection, work.claim, after=after)


def mark_run(connection: Connection, group_id: str) -> None:
    """A run of the group's job has come to the group: whatever was wrong with the job is over."""
    statement = update(group_state).where(group_state.c.group_id == group_id)
    connection.execute(statement.values(job_ran_at=func.now(), job_error=None))


def count_failing(connection: Connection) -> int:
    """How many jobs Nomad refused, does not run, or could not be asked for."""
    return int(connection.execute(select(func.count()).where(group_state.c.job_error.is_not(None))).scalar_one())


def mark_removed(connection: Connection, work: JobWork) -> None:
    """The job is gone, and its id is free."""
    _note(connection, work, job_id=None, job_error=None)
    works.delete_work(connection, work.claim)


def claim_due(connection: Connection, *, limit: int) -> list[DueJob]:
    """Jobs for which there is something to do: each is told to one scheduler, and again only if nobody takes it on."""
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


def _note(connection: Connection, work: JobWork, **values: Any) -> None:
    connection.execute(update(group_state).where(*_claimed(work)).values(values))


def _claimed(work: JobWork) -> tuple[ColumnElement[bool], ...]:
    """The condition that everything is noted under: an actor that was overtaken notes nothing."""
    return (group_state.c.group_id == work.group_id, works.is_held(work.claim))
