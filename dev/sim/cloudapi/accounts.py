"""Accounts, their users and their keys."""

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Self

from dev.sim.cloudapi.errors import invalid_argument, not_found
from dev.sim.cloudapi.keys import Key, read_key
from dev.sim.cloudapi.machine import Machine

#: Failed and deleted machines that an account keeps: then it forgets the oldest, as operators purge history.
HISTORY_KEPT = 10_000


class Keyring:
    """The keys of an account or of one of its users."""

    def __init__(self) -> None:
        self._keys: list[Key] = []

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._keys))

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, name_or_fingerprint: str) -> Key | None:
        return next((key for key in self if key.answers_to(name_or_fingerprint)), None)

    def get(self, name_or_fingerprint: str) -> Key:
        """Raises ApiError (404)."""
        key = self.find(name_or_fingerprint)
        if key is None:
            raise not_found(f"{name_or_fingerprint} does not exist")
        return key

    def to_rows(self) -> list[list[str]]:
        return [[key.openssh, key.name] for key in self]

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[str]]) -> Self:
        keyring = cls()
        for line, name in rows:
            keyring.add(line, name)
        return keyring

    def add(self, line: str, name: str | None = None) -> Key:
        """Raises ApiError. CloudAPI has one message for a name or fingerprint already there and for a line it can't read."""
        if len(line.split(" ")) < 2:
            raise invalid_argument("key is invalid")
        try:
            key = read_key(line, name)
        except ValueError:
            raise invalid_argument("key already exists or is invalid") from None
        if self.find(key.name) or self.find(key.fingerprint):
            raise invalid_argument("key already exists or is invalid")
        self._keys = [*self._keys, key]
        return key

    def remove(self, name_or_fingerprint: str) -> None:
        """Raises ApiError (404)."""
        gone = self.get(name_or_fingerprint)
        self._keys = [key for key in self._keys if key is not gone]


@dataclass(eq=False)
class User:
    """A sub-user. Of CloudAPI's roles and policies there is what they come to: what the user may do."""

    login: str
    id: str
    keys: Keyring = field(default_factory=Keyring)
    disabled: bool = False
    authorized: bool = True
    actions: list[str] | None = None  #: endpoint names in lower case, as policies have them: `CAN getaccount`; None: all

    def may(self, endpoint: str) -> bool:
        return self.authorized and (self.actions is None or endpoint.lower() in self.actions)

    def to_row(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("login", "id", "disabled", "authorized", "actions")}
        return plain | {"keys": self.keys.to_rows()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        return cls(**{**row, "keys": Keyring.from_rows(row["keys"])})


@dataclass(eq=False)
class Account:
    login: str
    id: str
    keys: Keyring = field(default_factory=Keyring)
    users: list[User] = field(default_factory=list)
    profile: dict[str, Any] = field(default_factory=dict)
    disabled: bool = False
    approved: bool = True  #: approved_for_provisioning
    cns: bool = False
    updated: str = "2012-12-31T23:00:00.000Z"
    live: dict[str, Machine] = field(default_factory=dict)  #: by id; everything that isn't failed or deleted
    gone: dict[str, Machine] = field(default_factory=dict)  #: by id, the latest last
    live_ids: list[str] = field(default_factory=list)  #: sorted, so that a list need not sort them
    ids_by_name: dict[str, str] = field(default_factory=dict)  #: of live machines: names are unique among them
    machines_on: Counter[str] = field(default_factory=Counter)  #: number of live machines by server

    def find_user(self, login_or_uuid: str) -> User | None:
        return next((user for user in self.users if login_or_uuid in (user.login, user.id)), None)

    def machine(self, machine_id: str) -> Machine | None:
        return self.live.get(machine_id) or self.gone.get(machine_id)

    def machines(self, with_gone: bool) -> Iterator[Machine]:
        """By id descending, as CloudAPI lists them."""
        if not with_gone:
            return map(self.live.__getitem__, reversed(self.live_ids))
        return iter(sorted([*self.live.values(), *self.gone.values()], key=attrgetter("id"), reverse=True))

    def add(self, machine: Machine) -> None:
        self.live[machine.id] = machine
        bisect.insort(self.live_ids, machine.id)
        self.ids_by_name[machine.name] = machine.id
        self.machines_on[machine.compute_node] += 1

    def bury(self, machine: Machine) -> None:
        """CloudAPI: a failed or deleted machine frees its name and its place in the quota."""
        if self.live.pop(machine.id, None):
            del self.live_ids[bisect.bisect_left(self.live_ids, machine.id)]
            self.ids_by_name.pop(machine.name, None)
            self.machines_on[machine.compute_node] -= 1
        self.gone[machine.id] = machine
        while len(self.gone) > HISTORY_KEPT:
            del self.gone[next(iter(self.gone))]

    def rename(self, machine: Machine, name: str) -> None:
        self.ids_by_name.pop(machine.name, None)
        machine.name = name
        self.ids_by_name[name] = machine.id

    def to_row(self) -> dict[str, Any]:
        """Everything but the machines, for `from_row`."""
        plain = {name: getattr(self, name) for name in ("login", "id", "profile", "disabled", "approved", "cns", "updated")}
        return plain | {"keys": self.keys.to_rows(), "users": [user.to_row() for user in self.users]}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        return cls(**{**row, "keys": Keyring.from_rows(row["keys"]), "users": [User.from_row(user) for user in row["users"]]})

    def to_json(self) -> dict[str, Any]:
        row = {"id": self.id, "login": self.login, "email": f"{self.login}@example.com"}
        return row | self.profile | {"triton_cns_enabled": self.cns, "created": "2012-12-31T23:00:00.000Z", "updated": self.updated}
