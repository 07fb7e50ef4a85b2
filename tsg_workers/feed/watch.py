"""One account's WebSocket: opened, listened to, and opened again after a pause that fits what went wrong."""

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy.exc

from shared import log, metrics
from shared.backoff import backoff
from shared.clients import changefeed
from shared.clients.changefeed import Changefeed, FeedError, Message
from shared.clients.signature import Signer
from shared.management.access import NoManagementKey
from shared.state.feed_messages import OWN, Event, FeedMessage
from shared.state.feeds import Feed, FeedState
from tsg_workers.feed.evidence import Evidence
from tsg_workers.feed.gate import Gate
from tsg_workers.feed.pending import PendingMessages
from tsg_workers.feed.times import Times

_log = log.get(__name__)

#: Seconds until the next attempt: where CloudAPI has no changefeed, where it keeps us out, and where it throttles us. A tenth more or less.
TOMORROW, LATER, THROTTLED = 86_400.0, 600.0, 80.0
#: Seconds, at most, after any other failure.
AGAIN = 60.0
#: Seconds for which a connection must have lasted, so that what went wrong before it no longer counts.
STEADY = 60.0

#: What an error means, and how long to wait then. The first that fits.
_MEANING: Sequence[tuple[type[Exception], FeedState, float | None]] = (
    (changefeed.NotOffered, FeedState.TOO_OLD, TOMORROW),
    (changefeed.NotLetThrough, FeedState.STRIPPED, TOMORROW),
    (changefeed.NotAllowed, FeedState.FORBIDDEN, LATER),
    (NoManagementKey, FeedState.FORBIDDEN, LATER),
    (changefeed.TooMany, FeedState.THROTTLED, THROTTLED),
    (FeedError, FeedState.UNREACHABLE, None),
    (sqlalchemy.exc.SQLAlchemyError, FeedState.UNREACHABLE, None),
)
MUTE = "The changefeed sent no message about {machine}, which this service itself has just changed."


class NoAccount(FeedError):
    """The account is disabled, or gone."""


@dataclass(frozen=True)
class Common:
    """What the accounts of one process share."""

    feed: Changefeed
    gate: Gate
    pending: PendingMessages
    #: By the account's id, its name in CloudAPI and its signer. Blocks: it asks the database.
    sign: Callable[[str], tuple[str, Signer]]
    #: Called when there is something to write: another state of this account, or a message.
    changed: Callable[["Watch | None"], None]
    times: Times


class Watch:
    """The watch over one account. For one event loop."""

    def __init__(self, account_id: str, common: Common) -> None:
        self.account_id = account_id
        self.state = FeedState.CONNECTING
        self._problem: str | None = None
        self._common = common
        self._evidence: Evidence | None = None
        self._doubted_until = -math.inf
        self._limit = asyncio.timeout(None)

    @property
    def noted(self) -> Feed:
        """What is to be written down of it."""
        return Feed(self.account_id, self.state, self._problem)

    async def run(self) -> None:
        """Watch until cancelled."""
        failures = 0
        while True:
            await self._common.gate.turn()
            opened_at = math.inf
            try:
                name, signer = await asyncio.to_thread(self._common.sign, self.account_id)
                async with asyncio.timeout(None) as self._limit, self._common.feed.open(name, signer) as messages:
                    opened_at = _now()
                    self._open()
                    async for message in messages:
                        self._hear(message)
            except TimeoutError:
                continue  # it was mute, and is replaced
            except (FeedError, NoManagementKey, sqlalchemy.exc.SQLAlchemyError) as error:
                failures = 1 if _now() - opened_at > STEADY else failures + 1
                pause = self._fail(error, failures)
            finally:
                self._evidence = None
            await asyncio.sleep(pause)

    def _open(self) -> None:
        self._evidence = Evidence(_now(), self._common.times)
        # Nobody knows what happened before.
        self._common.pending.add_account(self.account_id)
        if self.state != FeedState.MUTE:
            self._become(FeedState.WATCHED)
        else:
            self._limit.reschedule(_now() + self._common.times.mute)
        self._common.changed(None)

    def _hear(self, message: Message) -> None:
        now = _now()
        metrics.feed_messages.inc()
        metrics.feed_heard_at.set_to_current_time()
        if message.age is not None:
            metrics.feed_lag.observe(max(0.0, message.age))
        if self._evidence is not None:
            self._evidence.hear(message.machine_id, now)
        if self.state == FeedState.MUTE:
            self._limit.reschedule(None)
            self._common.pending.add_account(self.account_id)
            self._become(FeedState.WATCHED)
        if now > self._doubted_until:
            self._become(FeedState.TRUSTED)
        self._common.pending.add(FeedMessage(self.account_id, message.machine_id, message.group_id, message.group_name))
        self._common.changed(None)

    def _fail(self, error: Exception, failures: int) -> float:
        """Seconds until the next attempt."""
        state, usual = next((state, pause) for kind, state, pause in _MEANING if isinstance(error, kind))
        pause = backoff(failures, AGAIN) if usual is None else usual * random.uniform(0.9, 1.1)
        _log.debug("feed_ended", account_id=self.account_id, state=state, error=str(error), again_in=round(pause, 1))
        metrics.feed_failures.labels(state).inc()
        self._become(state, str(error))
        return pause

    def judge(self, events: Sequence[Event]) -> bool:
        """Compare the messages with what happened; True when one is missing."""
        evidence, now = self._evidence, _now()
        if evidence is None:
            return False
        evidence.forget(now)
        missed = [event for event in events if evidence.lacks(event, now)]
        if not missed or self.state == FeedState.MUTE or now < self._doubted_until:
            return False
        metrics.feed_missed.inc()
        silent = [event for event in missed if event.kind in OWN and evidence.is_silent_since(event, now)]
        if silent:
            _log.warning(
                "feed_is_mute", account_id=self.account_id, machine_id=silent[0].machine_id, meaning="groups are checked as without it"
            )
            self._become(FeedState.MUTE, MUTE.format(machine=silent[0].machine_id))
            self._limit.reschedule(now + self._common.times.mute)
        else:
            _log.warning("feed_lacks_a_message", account_id=self.account_id, machine_id=missed[0].machine_id, what=missed[0].kind)
            self._doubted_until = now + self._common.times.doubt
            self.mistrust()
        return True

    def mistrust(self) -> None:
        """Until it sends a message again."""
        if self.state == FeedState.TRUSTED:
            self._become(FeedState.WATCHED)

    def _become(self, state: FeedState, problem: str | None = None) -> None:
        if (state, problem) != (self.state, self._problem):
            self.state, self._problem = state, problem
            self._common.changed(self)


def _now() -> float:
    return asyncio.get_running_loop().time()
