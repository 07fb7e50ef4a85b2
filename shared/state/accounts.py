"""Accounts and their management keys: rows of `tsg_accounts` and `tsg_keys`. Session first, never commits, no network."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, Float, Text, and_, bindparam, cast, delete, extract, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.errors import Conflict, NotFound
from shared.store.rows import all_of, columns, one_of
from shared.store.tables import accounts, keys, users


class Account(NamedTuple):
    """An account of Triton that this service knows."""

    id: str
    name: str
    triton_uuid: str | None
    enabled: bool
    #: CloudAPI was seen to know the account's management key.
    has_registered_key: bool

    @property
    def in_triton(self) -> str:
        """What CloudAPI is asked for: the UUID, since a login may be another account's by now. A row of 2018 may have the login alone."""
        return self.triton_uuid or self.name


class ManagementKey(NamedTuple):
    """The key pair by which the service acts for an account. `material` is sealed; see `shared.clients.keys`."""

    id: str
    name: str
    fingerprint: str
    material: str
    registered_at: datetime | None


#: Accounts of one login, all but one of which were renamed in Triton since they were seen.
MOST_CALLED = 5

_ACCOUNT = select(
    *columns(
        Account,
        accounts,
        name=accounts.c.account_name,
        enabled=~accounts.c.archived,
        has_registered_key=and_(keys.c.registered_at.is_not(None), ~keys.c.archived),
    )
).outerjoin_from(accounts, keys, accounts.c.key_id == keys.c.id)
_GET = _ACCOUNT.where(accounts.c.id == bindparam("its_id"), ~accounts.c.archived)
#: What a key is named here before it is the account's, and after, until it is gone from CloudAPI. See `shared.management.rotation`.
_NEXT, _RETIRED = "next:", "retired:"

_KEY = columns(ManagementKey, keys)


def get(connection: Connection, account_id: str) -> Account | None:
    """The live account of this id."""
    return one_of(Account, connection.execute(_GET, {"its_id": account_id}))


def get_by_triton_uuid(connection: Connection, triton_uuid: str) -> Account | None:
    """The live account with this UUID in Triton."""
    return one_of(Account, connection.execute(_ACCOUNT.where(accounts.c.triton_uuid == triton_uuid, ~accounts.c.archived)))


def find_enabled(connection: Connection, name: str) -> list[Account]:
    """The live accounts with this UUID in Triton, or that had this login when they were last seen; the one changed last first."""
    same = (accounts.c.account_name == name) | (accounts.c.triton_uuid == name)
    statement = _ACCOUNT.where(same, ~accounts.c.archived).order_by(accounts.c.updated_at.desc()).limit(MOST_CALLED)
    return all_of(Account, connection.execute(statement))


def is_disabled(connection: Connection, triton_uuid: str) -> bool:
    """Was an account with this UUID in Triton disabled here?"""
    statement = select(accounts.c.id).where(accounts.c.triton_uuid == triton_uuid, accounts.c.archived).limit(1)
    return connection.execute(statement).one_or_none() is not None


def list_all(connection: Connection) -> list[Account]:
    """All accounts, the disabled ones too, oldest first."""
    return all_of(Account, connection.execute(_ACCOUNT.order_by(accounts.c.created_at, accounts.c.id)))


def find(connection: Connection, name_or_uuid: str) -> list[Account]:
    """All accounts of this login, or of this UUID in Triton or here, the disabled ones too."""
    same = (accounts.c.account_name == name_or_uuid) | (accounts.c.triton_uuid == name_or_uuid)
    same |= cast(accounts.c.id, Text) == name_or_uuid.lower()
    return all_of(Account, connection.execute(_ACCOUNT.where(same).order_by(accounts.c.created_at, accounts.c.id)))


def mark_enabled(connection: Connection, account: Account, *, enabled: bool) -> None:
    """Let an account in again, or no longer. `Conflict` when another account of the same UUID in Triton is let in."""
    if enabled and account.triton_uuid is not None:
        other = get_by_triton_uuid(connection, account.triton_uuid)
        if other is not None and other.id != account.id:
            raise Conflict(f"The account {account.triton_uuid} has another row, {other.id}, which is enabled.")
    connection.execute(update(accounts).where(accounts.c.id == account.id).values(archived=not enabled, updated_at=func.now()))


def insert_account(connection: Connection, name: str, triton_uuid: str) -> Account:
    """The live account of this Triton UUID, made if there is none: two callers at once get the same one."""
    statement = (
        upsert(accounts)
        .values(account_name=name, triton_uuid=triton_uuid, created_at=func.now(), updated_at=func.now())
        .on_conflict_do_nothing(index_elements=["triton_uuid"], index_where=~accounts.c.archived)
    )
    connection.execute(statement)
    added = get_by_triton_uuid(connection, triton_uuid)
    if added is None:
        raise NotFound(f"The account {name} was disabled while it was being added.")
    return added


def mark_renamed(connection: Connection, account_id: str, name: str) -> None:
    """Follow an account that was renamed in Triton; its UUID is what counts."""
    connection.execute(update(accounts).where(accounts.c.id == account_id).values(account_name=name, updated_at=func.now()))


def get_key(connection: Connection, account_id: str) -> ManagementKey | None:
    """The management key of an account, or None while it has none."""
    source = select(*_KEY).join_from(accounts, keys, accounts.c.key_id == keys.c.id)
    return one_of(ManagementKey, connection.execute(source.where(accounts.c.id == account_id, ~keys.c.archived)))


def insert_key(connection: Connection, account_id: str, *, key_id: str, name: str, fingerprint: str, material: str) -> bool:
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


# Sub-users. CloudAPI alone knows what they may; the row says when it last let one in, and whether it may change something.


class LetIn(NamedTuple):
    """CloudAPI's last answer about a sub-user, and its age in seconds by the database's clock."""

    seconds_ago: float
    may_write: bool


def mark_let_in(connection: Connection, account_id: str, user: str, *, may_write: bool) -> None:
    """Note that CloudAPI let this sub-user of the account, as its keyId calls it, in just now."""
    said = {"updated_at": func.now(), "may_write": may_write}
    same = update(users).where(users.c.account_id == account_id, users.c.username == user)
    if not connection.execute(same.values(archived=False, **said)).rowcount:
        connection.execute(insert(users).values(account_id=account_id, username=user, created_at=func.now(), **said))


def mark_kept_out(connection: Connection, account_id: str, user: str) -> None:
    """Note that CloudAPI does not let this sub-user of the account in any more."""
    connection.execute(update(users).where(users.c.account_id == account_id, users.c.username == user).values(archived=True))


def get_let_in(connection: Connection, account_id: str, user: str) -> LetIn | None:
    """What CloudAPI said when it last let this sub-user in. None when it never did, or keeps it out since."""
    age = cast(extract("epoch", func.now() - users.c.updated_at), Float)
    statement = select(*columns(LetIn, users, seconds_ago=age))
    statement = statement.where(users.c.account_id == account_id, users.c.username == user, ~users.c.archived)
    return one_of(LetIn, connection.execute(statement.order_by(users.c.updated_at.desc()).limit(1)))


# Keys at rest


def list_key_materials(connection: Connection) -> list[tuple[str, str]]:
    """Id and material of every key that has any, old ones too."""
    rows = connection.execute(
        select(keys.c.id, keys.c.material).where(keys.c.material.is_not(None), keys.c.material != "").order_by(keys.c.id)
    )
    return [(key_id, material) for key_id, material in rows]


def replace_material(connection: Connection, key_id: str, old: str, new: str) -> bool:
    """Put `new` in the place of `old`. False, and nothing done, when something else is there."""
    statement = update(keys).where(keys.c.id == key_id, keys.c.material == old).values(material=new, updated_at=func.now())
    return connection.execute(statement.returning(keys.c.id)).one_or_none() is not None


# Replacing a key


def get_next_key(connection: Connection, account_id: str, name: str) -> ManagementKey | None:
    """The key that is to become the account's under this name, if one was written down."""
    statement = select(*_KEY).where(keys.c.account_id == account_id, keys.c.name == _NEXT + name, ~keys.c.archived)
    key = one_of(ManagementKey, connection.execute(statement.order_by(keys.c.created_at).limit(1)))
    return key._replace(name=name) if key else None


def insert_next_key(connection: Connection, account_id: str, *, key_id: str, name: str, fingerprint: str, material: str) -> None:
    """Write down a key that is to become the account's, unless one is written down already: two callers at once get the same one."""
    connection.execute(select(accounts.c.id).where(accounts.c.id == account_id).with_for_update())
    if get_next_key(connection, account_id, name) is None:
        values = {"id": key_id, "name": _NEXT + name, "fingerprint": fingerprint, "material": material, "account_id": account_id}
        connection.execute(insert(keys).values(created_at=func.now(), updated_at=func.now(), **values))


def switch_key(connection: Connection, account_id: str, old: ManagementKey, new: ManagementKey) -> bool:
    """Make `new` the account's key, and `old` a retired one. False, and nothing done, when `old` is not the account's key any more."""
    switched = update(accounts).where(accounts.c.id == account_id, accounts.c.key_id == old.id)
    if connection.execute(switched.values(key_id=new.id, updated_at=func.now()).returning(accounts.c.id)).one_or_none() is None:
        return False
    stamped = {"updated_at": func.now()}
    connection.execute(update(keys).where(keys.c.id == new.id).values(name=new.name, registered_at=func.now(), **stamped))
    retired = {
        "name": _RETIRED + old.name,
        "fingerprint": old.fingerprint,
        "archived": True,
        "registered_at": None,
        "account_id": account_id,
    }
    connection.execute(update(keys).where(keys.c.id == old.id).values(**retired, **stamped))
    return True


def list_retired_keys(connection: Connection, account_id: str) -> list[ManagementKey]:
    """The account's former keys that may be in CloudAPI still."""
    statement = select(*_KEY).where(keys.c.account_id == account_id, keys.c.name.startswith(_RETIRED), keys.c.archived)
    retired = all_of(ManagementKey, connection.execute(statement))
    return [key._replace(name=key.name.removeprefix(_RETIRED)) for key in retired]


def delete_retired_key(connection: Connection, key_id: str) -> None:
    """Forget a former key, private half and all."""
    connection.execute(delete(keys).where(keys.c.id == key_id, keys.c.name.startswith(_RETIRED), keys.c.archived))
