"""The messages that a connection has sent, against those that it should have sent: its trust is earned. Pure.

CloudAPI may accept a connection and a subscription and never send a message (sdc-cloudapi: lib/changefeed.js), and nothing but its silence
after something happened shows it.
"""

import math

from shared.state.activities import LAUNCH, TERMINATE
from shared.state.feed_messages import OWN, Event
from tsg_workers.feed.times import Times

#: Seconds from the upgrade on in which the subscription may not hold yet.
SUBSCRIBED_WITHIN = 3.0
#: Seconds for which messages are remembered.
REMEMBERED = 300.0
#: Seconds by which a message may come before the event is noted: a launched machine is new, an answer to a deletion may take so long, and
#: a check may come this long after the message that asked for it.
BEFOREHAND = {LAUNCH: REMEMBERED, TERMINATE: 15.0}
BEFORE_A_CHECK = 60.0


class Evidence:
    """The messages that a connection has sent since it was opened. Times are the event loop's."""

    def __init__(self, now: float, times: Times) -> None:
        self._since = now
        self._times = times
        self._heard_at = -math.inf
        self._by_machine: dict[str, float] = {}

    def hear(self, machine_id: str, now: float) -> None:
        self._heard_at = self._by_machine[machine_id] = now

    def lacks(self, event: Event, now: float) -> bool:
        """Should a message about the event have come by now, and did not?"""
        done_at = now - event.age
        within = self._times.sent_within if event.kind in OWN else self._times.found_within
        if event.age < within or done_at < self._since + SUBSCRIBED_WITHIN:
            return False
        return self._by_machine.get(event.machine_id, -math.inf) < done_at - BEFOREHAND.get(event.kind, BEFORE_A_CHECK)

    def is_silent_since(self, event: Event, now: float) -> bool:
        """Has no message at all come since then?"""
        return self._heard_at < now - event.age

    def forget(self, now: float) -> None:
        """What is too old to count."""
        self._by_machine = {machine_id: at for machine_id, at in self._by_machine.items() if at > now - REMEMBERED}
