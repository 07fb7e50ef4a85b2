"""Decisions of policies: one row for each result or recommendation that is another than the policy's last. Session first, never commits."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, literal, select, tuple_, update

from shared.errors import FieldError, Invalid
from shared.store.moments import ago, ahead
from shared.store.rows import all_of, columns
from shared.store.tables import decisions, policies

#: What leads to a decision, by the kind of its policy.
BY = {"schedule": "schedule", "target": "measure", "step": "measure", "webhook": "webhook"}


class Decision(NamedTuple):
    """What was decided about one policy, and why."""

    id: str
    group_id: str
    policy_id: str
    policy_name: str
    at: datetime
    #: How often it was decided so in a row, and when last.
    times: int
    last_at: datetime
    result: str
    by: str
    message: str
    value: float | None
    target: float | None
    samples: int | None
    reporting: int | None
    recommended: int | None
    capacity_before: int
    capacity_after: int
    next_at: datetime | None

    @property
    def observed(self) -> dict[str, float | int | None]:
        return {"value": self.value, "target": self.target, "samples": self.samples, "reporting": self.reporting}


_DECISION = columns(Decision, decisions)
_PLACE = (decisions.c.at, decisions.c.id)


def insert_decision(connection: Connection, account_id: str, made: Decision, *, place: int = 0) -> None:
    """Write down a decision that was made now, for the first time: `at`, `last_at` and `times` of it do not matter.

    `place`: how many were made before it at this moment. Each is written a microsecond later, so that they are read in their order.
    """
    values = {name: value for name, value in made._asdict().items() if name not in {"at", "times", "last_at"}}
    at = ahead(place / 1e6)
    connection.execute(insert(decisions).values(account_id=account_id, at=at, last_at=at, **values))


def mark_repeated(connection: Connection, decision_ids: Collection[str]) -> None:
    """It was decided so once more."""
    statement = update(decisions).where(decisions.c.id.in_(sorted(decision_ids)))
    connection.execute(statement.values(times=decisions.c.times + 1, last_at=func.now()))


def list_newest(
    connection: Connection, group_id: str, *, limit: int, before: str | None = None, policy_id: str | None = None
) -> list[Decision]:
    """A group's decisions, or a policy's, the newest first; those before the one with the id `before`, or `Invalid`."""
    statement = select(*_DECISION).where(decisions.c.group_id == group_id)
    if policy_id is not None:
        statement = statement.where(decisions.c.policy_id == policy_id)
    if before is not None:
        place = connection.execute(select(*_PLACE).where(decisions.c.id == before, decisions.c.group_id == group_id)).one_or_none()
        if place is None:
            raise Invalid([FieldError("before", f"before: the group has no decision {before}")])
        values = (literal(value, column.type) for value, column in zip(place, _PLACE, strict=True))
        statement = statement.where(tuple_(*_PLACE) < tuple_(*values))
    return all_of(Decision, connection.execute(statement.order_by(*(column.desc() for column in _PLACE)).limit(limit)))


def list_last(connection: Connection, group_ids: Collection[str]) -> list[Decision]:
    """The last decision of each policy of these groups, that of a group's oldest policy first."""
    statement = select(*_DECISION).join_from(decisions, policies, policies.c.decision_id == decisions.c.id)
    statement = statement.where(policies.c.group_id.in_(group_ids)).order_by(policies.c.created_at, policies.c.id)
    return all_of(Decision, connection.execute(statement))


def delete_old(connection: Connection, *, days: int, limit: int) -> int:
    """Forget at most `limit` decisions that were made last more than `days` ago; how many."""
    old = select(decisions.c.id).where(decisions.c.at < ago(days * 86_400.0), decisions.c.last_at < ago(days * 86_400.0))
    return connection.execute(delete(decisions).where(decisions.c.id.in_(old.order_by(decisions.c.at).limit(limit)))).rowcount
