"""The groups of all accounts, and their jobs, for an operator's eyes. Session first, never commits, no network."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Text, case, cast, func, select

from shared.reasons import Reason
from shared.state import work as works
from shared.state.instances import RUNNING
from shared.store.rows import all_of, columns
from shared.store.tables import accounts, group_state, groups, instances, work


class Line(NamedTuple):
    """One group in a list of all."""

    id: str
    account: str
    name: str
    desired: int
    running: int
    #: A word of `shared.reasons`, and since when.
    reason: str
    since: datetime
    #: Looks in a row that ran into trouble.
    failures: int
    next_attempt_at: datetime | None


class Job(NamedTuple):
    """The Nomad job of a group."""

    group_id: str
    account: str
    group: str
    job_id: str | None
    #: The generation of the group, and the one that the job last ran for.
    generation: int
    job_generation: int
    failures: int
    #: When a run of it last came to the group.
    ran_at: datetime | None
    #: What is wrong with it; None while Nomad takes it and runs it.
    error: str | None
    next_attempt_at: datetime | None


class Named(NamedTuple):
    """A group that a name or an id stands for."""

    id: str
    account_id: str
    account: str
    name: str


def list_groups(connection: Connection, *, account_id: str | None = None, reason: str | None = None, limit: int) -> list[Line]:
    """Groups that are not gone, by account and name; of one account, or those that wait for one thing, where that is asked for."""
    running = (
        select(func.count())
        .where(instances.c.group_id == groups.c.id, instances.c.gone_at.is_(None), instances.c.state == RUNNING)
        .correlate(groups)
        .scalar_subquery()
    )
    waits_for = func.coalesce(group_state.c.reason, Reason.PROVISIONING.value)
    asked: list[ColumnElement[bool]] = [group_state.c.emptied_at.is_(None)]
    asked += [groups.c.account_id == account_id] if account_id else []
    asked += [waits_for == reason] if reason else []
    statement = (
        select(
            *columns(
                Line,
                *(groups, group_state),
                account=accounts.c.account_name,
                desired=case((groups.c.archived, 0), else_=groups.c.capacity),
                running=running,
                reason=waits_for,
                since=func.coalesce(group_state.c.reason_since, groups.c.updated_at),
                next_attempt_at=group_state.c.check_at,
            )
        )
        .join_from(groups, accounts, groups.c.account_id == accounts.c.id)
        .join(group_state, group_state.c.group_id == groups.c.id)
        .where(*asked)
        .order_by(accounts.c.account_name, groups.c.name, groups.c.id)
        .limit(limit)
    )
    return all_of(Line, connection.execute(statement))


def list_jobs(connection: Connection, *, limit: int) -> list[Job]:
    """Jobs that Nomad has of us, and those that it is to have, those in trouble first."""
    statement = (
        select(
            *columns(
                Job,
                *(groups, group_state),
                group_id=groups.c.id,
                account=accounts.c.account_name,
                group=groups.c.name,
                failures=work.c.failures,
                ran_at=group_state.c.job_ran_at,
                error=group_state.c.job_error,
                next_attempt_at=work.c.due_at,
            )
        )
        .join_from(groups, accounts, groups.c.account_id == accounts.c.id)
        .join(group_state, group_state.c.group_id == groups.c.id)
        .join(work, (work.c.kind == works.NOMAD_JOB) & (work.c.subject == groups.c.id))
        .order_by(group_state.c.job_error.is_(None), work.c.failures.desc(), accounts.c.account_name, groups.c.name, groups.c.id)
        .limit(limit)
    )
    return all_of(Job, connection.execute(statement))


def find_groups(connection: Connection, name_or_id: str) -> list[Named]:
    """All groups of this name that are not deleted, or the one of this id, deleted or not."""
    same = (groups.c.name == name_or_id) & ~groups.c.archived | (cast(groups.c.id, Text) == name_or_id.lower())
    statement = select(*columns(Named, groups, account=accounts.c.account_name))
    statement = statement.join_from(groups, accounts, groups.c.account_id == accounts.c.id).where(same)
    return all_of(Named, connection.execute(statement.order_by(groups.c.id)))
