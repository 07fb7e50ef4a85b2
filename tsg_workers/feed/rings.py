"""What is to be made due, gathered: the groups of an account at most once a second, however many messages come. Pure."""

from collections import defaultdict

from shared.state.told import Told

#: Seconds between two times at which an account's groups are made due.
APART = 1.0


class Rings:
    """Messages that wait to be handed on. Times are the event loop's."""

    def __init__(self) -> None:
        self._whole: set[str] = set()
        #: By account, by machine.
        self._told: dict[str, dict[str, Told]] = defaultdict(dict)
        self._rang_at: dict[str, float] = {}

    def add(self, told: Told) -> None:
        """The group of this machine."""
        self._told[told.account_id][told.machine_id] = told

    def add_account(self, account_id: str) -> None:
        """All groups of the account."""
        self._whole.add(account_id)

    def forget(self, account_id: str) -> None:
        """The account is another's now."""
        self._whole.discard(account_id)
        self._told.pop(account_id, None)
        self._rang_at.pop(account_id, None)

    def take(self, now: float) -> tuple[set[str], list[Told]]:
        """Accounts whose groups are all to be made due now, and the messages of the others whose turn it is."""
        whole, self._whole = self._whole, set()
        ready = [account_id for account_id in self._told if now >= self._rang_at.get(account_id, 0.0) + APART]
        told = [one for account_id in ready for one in self._told.pop(account_id).values() if account_id not in whole]
        self._rang_at.update(dict.fromkeys((*whole, *ready), now))
        return whole, told

    def next_at(self) -> float | None:
        """When the next turn is, of what was left; None when nothing was."""
        return min((self._rang_at.get(account_id, 0.0) + APART for account_id in self._told), default=None)
