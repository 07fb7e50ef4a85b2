"""How far the Nomad job of a group is behind the group. Only where Nomad runs the scaling.

A job is submitted once for each generation of its group, looked after once in each of the group's check intervals, and removed when the
group is deleted and empty. `job_check_at` says when there is something to do. Session first, never commits, no network.
"""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, case, func, literal, or_, select, update

from shared.state.leases import RING_AGAIN
from shared.state.looks import INTERVAL
from shared.store.moments import ahead
from shared.store.tables import accounts, groups

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
    failures: int
    request_id: str | None
    #: Which claim this is, and until when it holds.
    claimed_until: datetime


class DueJob(NamedTuple):
    """A job for which there is something to do."""

    group_id: str
    is_over: bool


_WORK = (
    groups.c.id,
    groups.c.account_id,
    func.coalesce(accounts.c.triton_uuid, accounts.c.id.cast(accounts.c.triton_uuid.type)),
    groups.c.name,
    groups.c.job_id,
    groups.c.generation,
    groups.c.job_generation,
    INTERVAL,
    groups.c.emptied_at.is_not(None),
    groups.c.job_failures,
    groups.c.request_id,
    groups.c.job_claimed_until,
)


def claim(connection: Connection, group_id: str) -> JobWork | None:
    """Take on a group's job. None when another has, or when there is no such group."""
    free = or_(groups.c.job_claimed_until.is_(None), groups.c.job_claimed_until < func.now())
    claimed = update(groups).where(groups.c.id == group_id, free).values(job_claimed_until=ahead(CLAIM_SECONDS)).returning(groups.c.id)
    if connection.execute(claimed).one_or_none() is None:
        return None
    source = select(*_WORK).join_from(groups, accounts, groups.c.account_id == accounts.c.id)
    row: Row[tuple[object, ...]] = connection.execute(source.where(groups.c.id == group_id)).one()
    return JobWork._make(row)


def renew(connection: Connection, work: JobWork) -> JobWork | None:
    """Go on having the group's job. None when the claim has ended and another has it, or had it."""
    renewed = update(groups).where(*_claimed(work)).values(job_claimed_until=ahead(CLAIM_SECONDS)).returning(groups.c.job_claimed_until)
    claimed_until = connection.execute(renewed).scalar_one_or_none()
    return None if claimed_until is None else work._replace(claimed_until=claimed_until)


def name(connection: Connection, work: JobWork, plain: str, distinct: str) -> str:
    """Give the group's job its id: the plain one, or the distinct one while a deleted group still has the plain one."""
    taken = connection.execute(select(groups.c.id).where(groups.c.job_id == plain, groups.c.id != work.group_id)).one_or_none()
    job_id = distinct if taken else plain
    connection.execute(update(groups).where(*_claimed(work)).values(job_id=job_id))
    return job_id


def submitted(connection: Connection, work: JobWork) -> None:
    """A run was started for this generation; the job is looked after again in one check interval, or at once if the group changed."""
    _done(connection, work, after=work.interval, job_generation=work.generation, job_failures=0)


def put_off(connection: Connection, work: JobWork, *, after: float) -> None:
    """Nomad did not do it: try again so many seconds later."""
    statement = update(groups).where(*_claimed(work))
    connection.execute(statement.values(job_claimed_until=None, job_failures=work.failures + 1, job_check_at=ahead(after)))


def postponed(connection: Connection, work: JobWork, *, after: float) -> None:
    """It is not time yet, and nothing is wrong."""
    _done(connection, work, after=after)


def removed(connection: Connection, work: JobWork) -> None:
    """The job is gone, and its id is free."""
    statement = update(groups).where(*_claimed(work))
    connection.execute(statement.values(job_id=None, job_check_at=None, job_claimed_until=None, job_failures=0))


def claim_due(connection: Connection, *, limit: int) -> list[DueJob]:
    """Jobs for which there is something to do: each is told to one clock, and again only if nobody answers the bell."""
    due = select(groups.c.id).where(groups.c.job_check_at <= func.now()).order_by(groups.c.job_check_at).limit(limit)
    statement = (
        update(groups)
        .where(groups.c.id.in_(due), groups.c.job_check_at <= func.now())
        .values(job_check_at=ahead(RING_AGAIN))
        .returning(groups.c.id, groups.c.emptied_at.is_not(None))
    )
    return [DueJob._make(row) for row in connection.execute(statement)]


def resubmit(connection: Connection, group_id: str) -> bool:
    """Have the group's job submitted and run again, now. False when the group is gone, and its job with it."""
    statement = update(groups).where(groups.c.id == group_id, groups.c.emptied_at.is_(None))
    again = statement.values(job_generation=0, job_check_at=func.now(), job_failures=0, job_claimed_until=None)
    return connection.execute(again.returning(groups.c.id)).one_or_none() is not None


def _done(connection: Connection, work: JobWork, *, after: float, **values: int) -> None:
    unchanged = (groups.c.generation == work.generation) & (groups.c.emptied_at.is_not(None) == literal(work.is_over))
    statement = update(groups).where(*_claimed(work))
    check_at = case((unchanged, ahead(after)), else_=func.now())
    connection.execute(statement.values(job_claimed_until=None, job_check_at=check_at, **values))


def _claimed(work: JobWork) -> tuple[ColumnElement[bool], ...]:
    """The condition that everything is noted under: an actor that was overtaken notes nothing."""
    return (groups.c.id == work.group_id, groups.c.job_claimed_until == work.claimed_until)
