"""Accounts and their management keys: rows of `tsg_accounts` and `tsg_keys`. Session first, never commits, no network."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, and_, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.errors import NotFound
from shared.models import accounts, keys


class Account(NamedTuple):
    """An account of Triton that this service knows."""

    id: str
    name: str
    triton_uuid: str | None
    enabled: bool
    #: CloudAPI was seen to know the account's management key.
    has_registered_key: bool


class ManagementKey(NamedTuple):
    """The key pair by which the service acts for an account. `material` is sealed; see `shared.keys`."""

    id: str
    name: str
    fingerprint: str
    material: str
    registered_at: datetime | None


_ACCOUNT = select(
    accounts.c.id,
    accounts.c.account_name,
    accounts.c.triton_uuid,
    ~accounts.c.archived,
    and_(keys.c.registered_at.is_not(None), ~keys.c.archived),
).outerjoin_from(accounts, keys, accounts.c.key_id == keys.c.id)
_KEY = (keys.c.id, keys.c.name, keys.c.fingerprint, keys.c.material, keys.c.registered_at)


def get(connection: Connection, account_id: str) -> Account | None:
    """The live account of this id."""
    row = connection.execute(_ACCOUNT.where(accounts.c.id == account_id, ~accounts.c.archived)).one_or_none()
    return Account._make(row) if row else None


def of_triton(connection: Connection, triton_uuid: str) -> Account | None:
    """The live account with this UUID in Triton."""
    row = connection.execute(_ACCOUNT.where(accounts.c.triton_uuid == triton_uuid, ~accounts.c.archived)).one_or_none()
    return Account._make(row) if row else None


def called(connection: Connection, name: str) -> Account | None:
    """The live account of this login, or of this UUID in Triton. None when there are several of that login."""
    same = (accounts.c.account_name == name) | (accounts.c.triton_uuid == name)
    rows = connection.execute(_ACCOUNT.where(same, ~accounts.c.archived).limit(2)).all()
    return Account._make(rows[0]) if len(rows) == 1 else None


def is_disabled(connection: Connection, triton_uuid: str) -> bool:
    """Was an account with this UUID in Triton disabled here?"""
    statement = select(accounts.c.id).where(accounts.c.triton_uuid == triton_uuid, accounts.c.archived).limit(1)
    return connection.execute(statement).one_or_none() is not None


def listed(connection: Connection) -> list[Account]:
    """All accounts, the disabled ones too, oldest first."""
    rows = connection.execute(_ACCOUNT.order_by(accounts.c.created_at, accounts.c.id))
    return [Account._make(row) for row in rows]


def add(connection: Connection, name: str, triton_uuid: str) -> Account:
    """The live account of this Triton UUID, made if there is none: two callers at once get the same one."""
    statement = (
        upsert(accounts)
        .values(account_name=name, triton_uuid=triton_uuid, created_at=func.now(), updated_at=func.now())
        .on_conflict_do_nothing(index_elements=["triton_uuid"], index_where=~accounts.c.archived)
    )
    connection.execute(statement)
    found = of_triton(connection, triton_uuid)
    if found is None:
        raise NotFound(f"The account {name} was disabled while it was being added.")
    return found


def rename(connection: Connection, account_id: str, name: str) -> None:
    """Follow an account that was renamed in Triton; its UUID is what counts."""
    connection.execute(update(accounts).where(accounts.c.id == account_id).values(account_name=name, updated_at=func.now()))


def key_of(connection: Connection, account_id: str) -> ManagementKey | None:
    """The management key of an account, or None while it has none."""
    source = select(*_KEY).join_from(accounts, keys, accounts.c.key_id == keys.c.id)
    row = connection.execute(source.where(accounts.c.id == account_id, ~keys.c.archived)).one_or_none()
    return ManagementKey._make(row) if row else None


def give_key(connection: Connection, account_id: str, *, key_id: str, name: str, fingerprint: str, material: str) -> bool:
    """Make this the account's management key, unless it has one. False, and nothing done, when it has."""
    values = {"id": key_id, "name": name, "fingerprint": fingerprint, "material": material, "account_id": account_id}
    keyless = select(accounts.c.key_id).where(accounts.c.id == account_id).with_for_update()
    if connection.execute(keyless).scalar_one() is not None:
        return False
    connection.execute(insert(keys).values(created_at=func.now(), updated_at=func.now(), **values))
    connection.execute(update(accounts).where(accounts.c.id == account_id).values(key_id=key_id, updated_at=func.now()))
    return True


def mark_registered(connection: Connection, key_id: str, *, registered: bool) -> None:
    """Note that CloudAPI knows the key, or that it does not know it any more."""
    when = func.now() if registered else None
    connection.execute(update(keys).where(keys.c.id == key_id).values(registered_at=when, updated_at=func.now()))
