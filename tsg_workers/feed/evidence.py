"""What one connection has told, against what it should have told: its trust is earned. Pure.

CloudAPI may accept a connection and a subscription and never tell anything (sdc-cloudapi: lib/changefeed.js), and nothing but its silence
after something happened shows it.
"""

import math

from shared.state.activities import LAUNCH, TERMINATE
from shared.state.told import OWN, Deed
from tsg_workers.feed.times import Times

#: Seconds from the upgrade on in which the subscription may not hold yet.
SUBSCRIBED_WITHIN = 3.0
#: Seconds for which messages are remembered.
REMEMBERED = 300.0
#: Seconds by which a message may come before the deed was noted: a launched machine is new, an answer to a deletion may take this long, and
#: a check may come this long after the message that asked for it.
BEFOREHAND = {LAUNCH: REMEMBERED, TERMINATE: 15.0}
BEFORE_A_CHECK = 60.0


class Evidence:
    """What a connection has told since it was opened. Times are the event loop's."""

    def __init__(self, now: float, times: Times) -> None:
        self._since = now
        self._times = times
        self._told_at = -math.inf
        self._by_machine: dict[str, float] = {}

    def hear(self, machine_id: str, now: float) -> None:
        self._told_at = self._by_machine[machine_id] = now

    def lacks(self, deed: Deed, now: float) -> bool:
        """Should the deed have been told by now, and was not?"""
        done_at = now - deed.age
        within = self._times.told_within if deed.kind in OWN else self._times.found_within
        if deed.age < within or done_at < self._since + SUBSCRIBED_WITHIN:
            return False
        return self._by_machine.get(deed.machine_id, -math.inf) < done_at - BEFOREHAND.get(deed.kind, BEFORE_A_CHECK)

    def is_silent_since(self, deed: Deed, now: float) -> bool:
        """Was nothing at all told since then?"""
        return self._told_at < now - deed.age

    def forget(self, now: float) -> None:
        """What is too old to count."""
        self._by_machine = {machine_id: at for machine_id, at in self._by_machine.items() if at > now - REMEMBERED}
