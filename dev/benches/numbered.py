"""A large cloud by numbers: which account has which groups, which group which machines, and their ids, which both sides compute. Pure."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

#: Of all groups, those of the one large account: a hundredth.
LARGE = 100


class Size(NamedTuple):
    """Accounts, groups of all of them together, and machines of each group."""

    accounts: int
    groups: int
    instances: int = 10

    @property
    def machines(self) -> int:
        return self.groups * self.instances

    @property
    def large(self) -> int:
        """Groups of account 0. The other accounts share the rest evenly."""
        return self.groups // LARGE

    def groups_of(self, account: int) -> Sequence[int]:
        """The numbers of an account's groups."""
        return range(self.large) if account == 0 else range(self.large + account - 1, self.groups, self.accounts - 1)

    def account_of_group(self, number: str) -> str:
        """The number of a group's account, as SQL."""
        return f"CASE WHEN {number} < {self.large} THEN 0 ELSE 1 + ({number} - {self.large}) % {self.accounts - 1} END"

    def __str__(self) -> str:
        return f"{self.accounts:,} accounts, {self.groups:,} groups, {self.machines:,} machines"


def uuid_of(kind: str, number: int) -> str:
    """The id of the account, group or machine of this number: as good as random, as ids are that the database makes."""
    text = hashlib.md5(f"{kind}-{number}".encode(), usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def sql_id(kind: str, number: str) -> str:
    """`uuid_of` as SQL; `number` is an expression."""
    return f"md5('{kind}-' || ({number}))::uuid"


def address_of(number: int) -> str:
    """The address of the machine of this number."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def sql_address(number: str) -> str:
    """`address_of` as SQL."""
    return f"concat_ws('.', '10', {number} >> 16 & 255, {number} >> 8 & 255, {number} & 255)"
