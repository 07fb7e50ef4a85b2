"""Messages that wait until their groups are made due: at once after a quiet time, then once a second for each account. Pure."""

import math
from collections import defaultdict

from shared.state.feed_messages import FeedMessage

#: Seconds between two times at which an account's groups are made due: few after a quiet time, since what comes next may be the end of
#: what is waited for, then twice as many each time, up to `APART`.
SOONEST, APART = 0.25, 1.0
#: Seconds without a message that are a quiet time.
QUIET = 2.0


class PendingMessages:
    """Messages that wait to be handed on. Times are the event loop's."""

    def __init__(self) -> None:
        self._whole: set[str] = set()
        #: By account, by machine.
        self._messages: dict[str, dict[str, FeedMessage]] = defaultdict(dict)
        self._made_due_at: dict[str, float] = {}
        self._pauses: dict[str, float] = {}

    def add(self, message: FeedMessage) -> None:
        """The group of this machine."""
        self._messages[message.account_id][message.machine_id] = message

    def add_account(self, account_id: str) -> None:
        """All groups of the account."""
        self._whole.add(account_id)

    def forget(self, account_id: str) -> None:
        """The account is another's now."""
        self._whole.discard(account_id)
        self._messages.pop(account_id, None)
        self._made_due_at.pop(account_id, None)
        self._pauses.pop(account_id, None)

    def take(self, now: float) -> tuple[set[str], list[FeedMessage]]:
        """Accounts whose groups are all to be made due now, and the messages of the others whose turn it is."""
        whole, self._whole = self._whole, set()
        ready = [account_id for account_id in self._messages if now >= self._turn_of(account_id)]
        messages = [one for account_id in ready for one in self._messages.pop(account_id).values() if account_id not in whole]
        for account_id in {*whole, *ready}:
            is_quiet = now - self._made_due_at.get(account_id, -math.inf) > QUIET
            self._pauses[account_id] = SOONEST if is_quiet else min(APART, 2 * self._pauses[account_id])
            self._made_due_at[account_id] = now
        return whole, messages

    def next_at(self) -> float | None:
        """When the next turn is, of what was left; None when nothing was."""
        return min(map(self._turn_of, self._messages), default=None)

    def _turn_of(self, account_id: str) -> float:
        return self._made_due_at.get(account_id, -math.inf) + self._pauses.get(account_id, 0.0)
