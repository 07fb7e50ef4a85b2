"""Notifications: where an account's activities are told, and which. Session first, never commits, no network."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from shared.errors import Conflict, NotFound
from shared.state.activities import KINDS
from shared.store.rows import all_of, columns, one_of
from shared.store.tables import accounts, deliveries, notifications

#: Notifications of one account.
MOST = 20
#: Families of kinds of activities, and what their names begin with.
FAMILIES = {"instance.*": "TSG_INSTANCE_", "rollout.*": "TSG_ROLLOUT_", "policy.*": "TSG_POLICY_", "group.*": "TSG_GROUP_"}
#: What may be asked for.
ASKED = ("*", *FAMILIES, *KINDS)


class Notification(NamedTuple):
    """One receiver. `secret` is sealed."""

    id: str
    account_id: str
    url: str
    #: Ids of groups, or `*`; and kinds of activities, families of them, or `*`.
    groups: list[str]
    kinds: list[str]
    enabled: bool
    #: Why the service has turned it off.
    disabled_why: str | None
    secret: str
    version: int
    #: Attempts in a row that failed.
    failures: int
    created_at: datetime
    updated_at: datetime


_NOTIFICATION = columns(Notification, notifications)


def insert_notification(
    connection: Connection, account_id: str, *, its_id: str, url: str, groups: list[str], kinds: list[str], enabled: bool, secret: str
) -> Notification:
    """Store a receiver. `Conflict` when the account has `MOST`."""
    connection.execute(select(accounts.c.id).where(accounts.c.id == account_id).with_for_update())
    if len(list_of_account(connection, account_id)) >= MOST:
        raise Conflict(f"The account has {MOST} notifications already, and can have no more.")
    values = {"id": its_id, "account_id": account_id, "url": url, "groups": groups, "kinds": kinds, "enabled": enabled, "secret": secret}
    statement = insert(notifications).values(**values, patterns=_patterns(kinds)).returning(*_NOTIFICATION)
    (made,) = all_of(Notification, connection.execute(statement))
    return made


def list_of_account(connection: Connection, account_id: str) -> list[Notification]:
    """An account's receivers, the oldest first."""
    statement = select(*_NOTIFICATION).where(notifications.c.account_id == account_id)
    return all_of(Notification, connection.execute(statement.order_by(notifications.c.created_at, notifications.c.id)))


def get(connection: Connection, account_id: str, notification_id: str) -> Notification:
    """The account's receiver of this id, or `NotFound`."""
    found = find(connection, notification_id)
    if found is None or found.account_id != account_id:
        raise NotFound(f"There is no notification {notification_id}.")
    return found


def find(connection: Connection, notification_id: str) -> Notification | None:
    return one_of(Notification, connection.execute(select(*_NOTIFICATION).where(notifications.c.id == notification_id)))


def update_notification(
    connection: Connection, account_id: str, notification_id: str, *, url: str, groups: list[str], kinds: list[str], enabled: bool
) -> Notification:
    """Tell another receiver, or tell it of other things. `NotFound`."""
    get(connection, account_id, notification_id)
    values = {"url": url, "groups": groups, "kinds": kinds, "patterns": _patterns(kinds), "enabled": enabled, "disabled_why": None}
    return _updated(connection, notification_id, {**values, "failures": 0})


def mark_rotated(connection: Connection, account_id: str, notification_id: str, secret: str) -> Notification:
    """Another secret, sealed. `NotFound`."""
    get(connection, account_id, notification_id)
    return _updated(connection, notification_id, {"secret": secret})


def mark_disabled(connection: Connection, notification_id: str, why: str) -> None:
    """The receiver wants no more."""
    connection.execute(
        update(notifications)
        .where(notifications.c.id == notification_id)
        .values(enabled=False, disabled_why=why, version=notifications.c.version + 1, updated_at=func.now())
    )


def mark_failures(connection: Connection, notification_id: str, failures: int) -> None:
    """Note how often in a row an attempt failed."""
    connection.execute(update(notifications).where(notifications.c.id == notification_id).values(failures=failures))


def delete_notification(connection: Connection, account_id: str, notification_id: str) -> None:
    """A receiver is no more, nor are its deliveries. `NotFound`."""
    get(connection, account_id, notification_id)
    connection.execute(delete(deliveries).where(deliveries.c.notification_id == notification_id))
    connection.execute(delete(notifications).where(notifications.c.id == notification_id))


def list_secrets(connection: Connection) -> list[tuple[str, str]]:
    """Id and sealed secret of every receiver."""
    return [(its_id, secret) for its_id, secret in connection.execute(select(notifications.c.id, notifications.c.secret))]


def replace_secret(connection: Connection, notification_id: str, old: str, new: str) -> bool:
    """Put `new` in the place of `old`. False, and nothing done, when something else is there."""
    statement = update(notifications).where(notifications.c.id == notification_id, notifications.c.secret == old)
    return connection.execute(statement.values(secret=new).returning(notifications.c.id)).one_or_none() is not None


def _patterns(kinds: Collection[str]) -> list[str]:
    """The kinds as SQL's LIKE has them."""
    begin = {"*": "%", **{family: f"{name}%".replace("_", r"\_") for family, name in FAMILIES.items()}}
    return [begin.get(kind, kind.replace("_", r"\_")) for kind in kinds]


def _updated(connection: Connection, notification_id: str, values: dict[str, object]) -> Notification:
    more = {"version": notifications.c.version + 1, "updated_at": func.now()}
    statement = update(notifications).where(notifications.c.id == notification_id).values(**values, **more)
    (made,) = all_of(Notification, connection.execute(statement.returning(*_NOTIFICATION)))
    return made
