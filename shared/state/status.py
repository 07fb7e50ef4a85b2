"""How far a group is on its way to what it should be, and what it waits for. Session first, never commits, no network."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Float, Row, Select, case, cast, exists, extract, func, select, true

from shared.errors import NotFound
from shared.reasons import MEANING, NEEDS_A_CHANGE, Reason, known
from shared.spec.rollout import Counts
from shared.state import decisions
from shared.state import groups as stored
from shared.state.decisions import Decision
from shared.state.feeds import WATCHING, is_in
from shared.state.instances import DELETING, ON_THE_WAY, RUNNING
from shared.state.rollouts import counts_of
from shared.store.paging import Entry
from shared.store.tables import accounts, feeds, group_state, groups, instances, policies, rollouts

_SHOWN = (
    *(groups.c.id, groups.c.account_id, groups.c.name, groups.c.capacity, groups.c.archived, groups.c.generation, groups.c.updated_at),
    *(group_state.c.observed_generation, group_state.c.emptied_at, group_state.c.failures, group_state.c.last_error),
    *(group_state.c.reason, group_state.c.reason_since, group_state.c.checked_at, group_state.c.check_at, group_state.c.launch_at),
)
#: The newest change has yet to be looked at.
UNSEEN = "No worker has looked at the newest change yet."
#: Where Nomad runs the scaling, and does not.
WITHOUT_NOMAD = "Nomad does not run the group's job: workers look after the group instead."


class NewestRollout(NamedTuple):
    """A group's newest rollout."""

    id: str
    #: A word of `shared.spec.rollout.State`, or of another release.
    state: str
    counts: Counts


class Status(NamedTuple):
    """How far a group is. A deleted group has one too, and says at last that nothing of it is left."""

    group_id: str
    account_id: str
    account_name: str
    name: str
    #: Instances wanted: 0 once the group is deleted.
    desired: int
    running: int
    #: On their way up, or asked for without an answer yet.
    provisioning: int
    #: There, and neither running nor coming up: they are replaced.
    failed: int
    deleting: int
    reason: Reason
    #: In a sentence or two.
    message: str
    since: datetime
    #: CloudAPI's words, or Nomad's, where the last look ran into trouble.
    last_error: str | None
    #: Looks in a row that ran into trouble.
    failures: int
    #: One more with every change of what should be; and the one that a worker looked at last.
    generation: int
    observed_generation: int
    checked_at: datetime | None
    #: Null when there is nothing to look at any more.
    next_attempt_at: datetime | None
    #: Seconds until then.
    next_look: float
    #: The newest one, under way or not.
    rollout: NewestRollout | None
    #: CloudAPI's changefeed tells when something happens to its machines; and why not, where that was tried.
    watched: bool
    watch_error: str | None
    #: The last one of each policy that has decided: why the group has this size, and what comes next.
    decisions: tuple[Decision, ...]

    @property
    def settled(self) -> bool:
        """The newest change was seen, and nothing is missing, failing or on its way."""
        return self.reason in {Reason.SETTLED, Reason.DELETED}

    @property
    def stuck(self) -> bool:
        """Time alone will not settle it: somebody has to change the group, its template, or the account."""
        return self.reason in NEEDS_A_CHANGE


def find(connection: Connection, group_id: str, *, account_id: str | None = None) -> Status | None:
    """How far a group is, deleted ones too; None when there is no such group, or `account_id` is given and it is not that account's.

    A group of another account takes the same statement and the same time as one that is not there: nothing is counted for either.
    """
    statement = _select().where(groups.c.id == group_id)
    if account_id is not None:
        statement = statement.where(groups.c.account_id == account_id)
    return next(iter(_read(connection, statement)), None)


def get_by_ids(connection: Connection, group_ids: Collection[str]) -> dict[str, Status]:
    """How far these groups are, by their ids."""
    return {found.group_id: found for found in _read(connection, _select().where(groups.c.id.in_(group_ids)))}


def list_entries(connection: Connection, account_id: str, *, limit: int, marker: str | None = None) -> list[Entry]:
    """The account's live groups, as `groups.list_entries` has them."""
    return stored.list_entries(connection, account_id, limit=limit, marker=marker)


def count(connection: Connection, account_id: str) -> int:
    """How many live groups the account has."""
    return stored.count(connection, account_id)


def _read(connection: Connection, statement: Select[Any]) -> list[Status]:
    rows = connection.execute(statement).all()
    decided: dict[str, list[Decision]] = {row.id: [] for row in rows if row.has_policies}
    for last in decisions.list_last(connection, decided) if decided else ():
        decided[last.group_id].append(last)
    return [_of_row(row, decided.get(row.id, ())) for row in rows]


def _select() -> Select[Any]:
    def count(*states: str) -> ColumnElement[int]:
        return func.count(case((instances.c.state.in_(states), 1)))

    counted = (
        select(
            count(RUNNING).label("running"),
            count(*ON_THE_WAY).label("coming"),
            count(DELETING).label("deleting"),
            func.count(instances.c.id).label("all"),
        )
        .where(instances.c.group_id == groups.c.id, instances.c.gone_at.is_(None))
        .lateral()
    )
    newest = (
        select(rollouts.c.id.label("rollout_id"), rollouts.c.state.label("rollout_state"), rollouts.c.counts.label("rollout_counts"))
        .where(rollouts.c.group_id == groups.c.id)
        .order_by(rollouts.c.created_at.desc(), rollouts.c.id.desc())
        .limit(1)
        .lateral()
    )
    return (
        select(*_SHOWN, accounts.c.account_name, group_state.c.job_error, counted, newest, _seconds_until(), *_watch(), _has_policies())
        .join_from(groups, accounts, groups.c.account_id == accounts.c.id)
        .outerjoin(group_state, group_state.c.group_id == groups.c.id)
        .join(counted, true())
        .outerjoin(newest, true())
    )


def _of_row(row: Row[Any], decided: Sequence[Decision]) -> Status:
    reason, since, problem = known(row.reason), row.reason_since or row.updated_at, row.last_error
    desired = 0 if row.archived else row.capacity
    message = MEANING[reason]
    if row.emptied_at is not None:
        reason, since, message = Reason.DELETED, row.emptied_at, MEANING[Reason.DELETED]
    elif (row.observed_generation or 0) < row.generation:
        reason, since, message = Reason.DELETING if row.archived else Reason.PROVISIONING, row.updated_at, UNSEEN
        if row.job_error:
            reason, problem = Reason.NOMAD_UNAVAILABLE, row.job_error
            message = MEANING[reason]
    elif row.job_error:
        message, problem = f"{message} {WITHOUT_NOMAD}", problem or row.job_error
    return Status(
        group_id=row.id,
        account_id=row.account_id,
        account_name=row.account_name,
        name=row.name,
        desired=desired,
        running=row.running,
        provisioning=row.coming,
        failed=row.all - row.running - row.coming - row.deleting,
        deleting=row.deleting,
        reason=reason,
        message=f"{row.running} of {desired} instances run. {message}",
        since=since,
        last_error=problem,
        failures=row.failures or 0,
        generation=row.generation,
        observed_generation=row.observed_generation or 0,
        checked_at=row.checked_at,
        # A group that pauses after launches that failed is looked at meanwhile, and nothing is launched.
        next_attempt_at=None if row.emptied_at else max(filter(None, (row.check_at, row.launch_at)), default=None),
        next_look=row.next_look,
        rollout=NewestRollout(row.rollout_id, row.rollout_state, counts_of(row.rollout_counts)) if row.rollout_id else None,
        watched=row.watched,
        watch_error=None if row.watched else row.watch_error,
        decisions=tuple(decided),
    )


def get(connection: Connection, account_id: str, group_id: str) -> Status:
    """How far a group of the account is, deleted ones too, or `NotFound`."""
    found = find(connection, group_id, account_id=account_id)
    if found is None:
        raise NotFound(f"There is no group {group_id}.")
    return found


def _watch() -> tuple[ColumnElement[Any], ...]:
    problem = select(feeds.c.problem).where(feeds.c.account_id == groups.c.account_id).scalar_subquery()
    return (is_in(groups.c.account_id, WATCHING).label("watched"), problem.label("watch_error"))


def _has_policies() -> ColumnElement[bool]:
    return exists(select(policies.c.id).where(policies.c.group_id == groups.c.id)).label("has_policies")


def _seconds_until() -> ColumnElement[float]:
    ahead = cast(extract("epoch", group_state.c.check_at - func.now()), Float)
    return func.coalesce(func.greatest(0.0, ahead), 0.0).label("next_look")
