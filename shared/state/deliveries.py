"""Deliveries: one activity told to one receiver. They are made with their activities (`shared.state.outbox`).

Session first, never commits, no network.
"""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, literal, select, tuple_, update

from shared.errors import FieldError, Invalid, NotFound
from shared.state import work
from shared.state.outbox import DELIVERIES
from shared.store.moments import ago, ahead
from shared.store.rows import all_of, columns
from shared.store.tables import deliveries

WAITING, DELIVERED, DEAD = STATES = ("waiting", "delivered", "dead")
#: Seconds after which a delivery that fails is dead.
LIFE = 86_400.0
#: Deliveries that one turn sends.
TURN = 50


class Delivery(NamedTuple):
    """One activity told to one receiver."""

    id: str
    notification_id: str
    group_id: str
    activity_id: str
    kind: str
    state: str
    attempts: int
    #: The HTTP status of the last attempt, or what kept it from one.
    status: int | None
    last_error: str | None
    due_at: datetime
    at: datetime
    ended_at: datetime | None


_DELIVERY = columns(Delivery, deliveries)
_PLACE = (deliveries.c.at, deliveries.c.id)


def list_due(connection: Connection, notification_id: str) -> list[Delivery]:
    """Those that wait and whose time has come, in the order of their activities; `TURN` at most.

    Those behind one of the same group whose time has not come yet wait for it.
    """
    first = deliveries.alias("first")
    behind = select(first.c.id).where(
        first.c.notification_id == notification_id,
        first.c.state == WAITING,
        first.c.group_id == deliveries.c.group_id,
        first.c.due_at > func.now(),
        tuple_(first.c.at, first.c.id) < tuple_(deliveries.c.at, deliveries.c.id),
    )
    statement = select(*_DELIVERY).where(
        deliveries.c.notification_id == notification_id,
        deliveries.c.state == WAITING,
        deliveries.c.due_at <= func.now(),
        ~behind.exists(),
    )
    return all_of(Delivery, connection.execute(statement.order_by(*_PLACE).limit(TURN)))


def get_next_due(connection: Connection, notification_id: str) -> float | None:
    """Seconds until the next that waits is due; None when none waits."""
    seconds = func.extract("epoch", func.min(deliveries.c.due_at) - func.now())
    found = connection.execute(
        select(seconds).where(deliveries.c.notification_id == notification_id, deliveries.c.state == WAITING)
    ).scalar_one()
    return None if found is None else max(0.0, float(found))


def mark_delivered(connection: Connection, delivery_id: str, status: int) -> None:
    """The receiver has it."""
    values = {"state": DELIVERED, "attempts": deliveries.c.attempts + 1, "status": status, "last_error": None, "ended_at": func.now()}
    connection.execute(update(deliveries).where(deliveries.c.id == delivery_id).values(values))


def mark_failed(connection: Connection, delivery_id: str, *, status: int | None, error: str, after: float) -> bool:
    """It is tried again `after` these seconds; True when it has been for too long, and is dead."""
    statement = update(deliveries).where(deliveries.c.id == delivery_id)
    values: dict[str, Any] = {"attempts": deliveries.c.attempts + 1, "status": status, "last_error": error[:1000], "due_at": ahead(after)}
    connection.execute(statement.values(values))
    died = statement.where(deliveries.c.first_at < ago(LIFE - after)).values(state=DEAD, ended_at=func.now())
    return connection.execute(died.returning(deliveries.c.id)).one_or_none() is not None


def mark_put_off(connection: Connection, notification_id: str, *, after: float) -> None:
    """Nothing is sent to this receiver for these seconds."""
    waits = (deliveries.c.notification_id == notification_id, deliveries.c.state == WAITING, deliveries.c.due_at < ahead(after))
    connection.execute(update(deliveries).where(*waits).values(due_at=ahead(after)))


def mark_all_dead(connection: Connection, notification_id: str, why: str) -> None:
    """The receiver wants no more."""
    waits = (deliveries.c.notification_id == notification_id, deliveries.c.state == WAITING)
    connection.execute(update(deliveries).where(*waits).values(state=DEAD, last_error=why, ended_at=func.now()))


def mark_replayed(connection: Connection, notification_id: str, delivery_id: str) -> Delivery:
    """Send one once more, whatever became of it. `NotFound`."""
    values = {"state": WAITING, "due_at": func.now(), "first_at": func.now(), "ended_at": None, "attempts": 0}
    statement = update(deliveries).where(deliveries.c.id == delivery_id, deliveries.c.notification_id == notification_id)
    found = all_of(Delivery, connection.execute(statement.values(values).returning(*_DELIVERY)))
    if not found:
        raise NotFound(f"There is no delivery {delivery_id} of this notification.")
    work.mark_due(connection, DELIVERIES, notification_id)
    return found[0]


def list_newest(
    connection: Connection, notification_id: str, *, limit: int, before: str | None = None, state: str | None = None
) -> list[Delivery]:
    """A receiver's deliveries, the newest first; those before the one with the id `before`, or `Invalid`."""
    statement = select(*_DELIVERY).where(deliveries.c.notification_id == notification_id)
    if state is not None:
        statement = statement.where(deliveries.c.state == state)
    if before is not None:
        mine = (deliveries.c.id == before, deliveries.c.notification_id == notification_id)
        place = connection.execute(select(*_PLACE).where(*mine)).one_or_none()
        if place is None:
            raise Invalid([FieldError("before", f"before: the notification has no delivery {before}")])
        values = (literal(value, column.type) for value, column in zip(place, _PLACE, strict=True))
        statement = statement.where(tuple_(*_PLACE) < tuple_(*values))
    return all_of(Delivery, connection.execute(statement.order_by(*(column.desc() for column in _PLACE)).limit(limit)))


def count_waiting(connection: Connection) -> int:
    """How many wait for their receivers."""
    return int(connection.execute(select(func.count()).where(deliveries.c.state == WAITING)).scalar_one())


def delete_old(connection: Connection, *, days: int, limit: int) -> int:
    """Forget at most `limit` deliveries that ended over `days` days ago; how many."""
    old = select(deliveries.c.id).where(deliveries.c.ended_at < ago(days * 86_400.0)).order_by(deliveries.c.ended_at).limit(limit)
    return connection.execute(delete(deliveries).where(deliveries.c.id.in_(old))).rowcount
