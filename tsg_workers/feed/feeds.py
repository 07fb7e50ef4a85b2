"""All accounts of one `tsg-feed`: which they are, what is written down of them, and whom their messages wake.

Two tasks talk to the database, in threads: one looks every few seconds which accounts are ours and which messages are missing; the other
writes what has changed. What can't be written waits: messages may be lost, and groups are checked all the same.
"""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import sqlalchemy.exc
from sqlalchemy import Connection

from shared import log, metrics
from shared.clients.changefeed import Changefeed
from shared.clients.keys import Sealer
from shared.clients.signature import Signer
from shared.management.access import signer_for
from shared.state import accounts, feed_messages, feeds, work
from shared.state.feed_messages import Event, FeedMessage
from shared.state.feeds import Feed, FeedState
from shared.state.work import FEED, Claim
from shared.store.db import Database, is_unavailable
from tsg_workers.feed.gate import Gate
from tsg_workers.feed.pending import PendingMessages
from tsg_workers.feed.seats import accounts_of
from tsg_workers.feed.times import USUAL, Times
from tsg_workers.feed.watch import Common, NoAccount, Watch

_log = log.get(__name__)

T = TypeVar("T")

#: Seconds for which events are looked at once their messages must have come: several rounds.
LOOKED_AT_FOR = 15.0
#: Seconds for which messages are gathered, and until a write that failed is tried again.
GATHER, RETRY = 0.02, 1.0
#: Messages of one statement.
BATCH = 500


class Found(NamedTuple):
    """What a look at the database gave."""

    ours: set[str]
    #: All that have groups, watched by any process.
    living: set[str]
    events: Sequence[Event]
    #: What the rows say, by account: who noted it, and the state.
    noted: Mapping[str, tuple[str, str]]


class Feeds:
    """Runs until cancelled. For one event loop."""

    def __init__(
        self, database: Database, feed: Changefeed, sealer: Sealer, wake: Callable[[str], None], *, owner: str, times: Times = USUAL
    ) -> None:
        """`wake` has a worker come for an account; it returns at once. `owner`: this process, as its seat names it."""
        self.id = str(uuid.uuid4())
        self.watches: dict[str, Watch] = {}
        self._db = database
        self._sealer = sealer
        self._wake = wake
        self._owner = owner
        self._times = times
        self._seat: Claim | None = None
        self._gate = Gate()
        self._pending = PendingMessages()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._notes: dict[str, Feed] = {}
        self._gone: set[str] = set()
        self._written = asyncio.Event()
        self._common = Common(feed, self._gate, self._pending, self._sign, self._changed, times)
        self._counted: Counter[str] = Counter()

    async def run(self) -> None:
        """Watch all accounts that are ours."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_all())
            try:
                while True:
                    await self._round(group)
                    await asyncio.sleep(self._times.round)
            finally:
                await asyncio.to_thread(self._leave)

    # Whose the accounts are

    async def _round(self, group: asyncio.TaskGroup) -> None:
        try:
            found = await asyncio.to_thread(self._look)
        except sqlalchemy.exc.SQLAlchemyError as error:
            if not is_unavailable(error):
                raise
            _log.warning("database_unavailable", error=str(error).strip())
            return
        if found is not None:
            self._share(found, group)
        self._count()

    def _look(self) -> Found | None:
        """In a thread. None when nothing is to change now: others may be about to take their seats again."""
        with self._db.read() as connection:
            is_steady = self._hold_seat(connection)
            if not is_steady:
                return None
            watchers, living = feeds.list_watchers(connection), set(feeds.list_accounts(connection))
            noted = feeds.list_noted(connection)
            events = feed_messages.list_events(connection, after=self._times.found_within, until=self._times.sent_within + LOOKED_AT_FOR)
        return Found(accounts_of(self.id, watchers, living), living, events, noted)

    def _hold_seat(self, connection: Connection) -> bool:
        """False when the seat had ended, though this process had one: so had the others', after an outage of the database."""
        if self._seat is not None and work.renew(connection, self._seat, seconds=self._times.seat):
            return True
        is_first = self._seat is None
        if is_first:
            feeds.delete_old_seats(connection)
        self._seat = work.claim(connection, FEED, self.id, owner=self._owner, seconds=self._times.seat)
        return is_first

    def _leave(self) -> None:
        """Others may have the accounts at once."""
        if self._seat is not None:
            try:
                with self._db.read() as connection:
                    work.delete_work(connection, self._seat)
            except sqlalchemy.exc.SQLAlchemyError as error:
                _log.warning("seat_not_left", error=str(error).strip(), meaning="it ends by itself")

    def _share(self, found: Found, group: asyncio.TaskGroup) -> None:
        for account_id in self.watches.keys() - found.ours:
            self._tasks.pop(account_id).cancel()
            del self.watches[account_id]
            self._pending.forget(account_id)
            self._notes.pop(account_id, None)
            if account_id not in found.living:
                self._gone.add(account_id)
                self._written.set()
        for account_id in found.ours - self.watches.keys():
            self.watches[account_id] = Watch(account_id, self._common)
            self._tasks[account_id] = group.create_task(self._watch(self.watches[account_id]))
        # One that had the account before may have written last, or the scheduler, while the database did not hear from here.
        for account_id, watch in self.watches.items():
            if found.noted.get(account_id) != (self.id, watch.state):
                self._changed(watch)
        self._gate.allow_for(len(self.watches))
        self._judge(found.events)

    async def _watch(self, watch: Watch) -> None:
        """A fault of this service with one account costs the others nothing."""
        while True:
            try:
                await watch.run()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is logged
                _log.error("feed_failed", account_id=watch.account_id, exc_info=error)
                await asyncio.sleep(self._times.round)

    def _judge(self, events: Sequence[Event]) -> None:
        """Where one connection misses a message, others may too: all depend on one process of CloudAPI."""
        by_account: dict[str, list[Event]] = {}
        for event in events:
            by_account.setdefault(event.account_id, []).append(event)
        ours = [(self.watches[account_id], theirs) for account_id, theirs in by_account.items() if account_id in self.watches]
        judged = [watch.judge(theirs) for watch, theirs in ours]
        if any(judged):
            for watch in self.watches.values():
                watch.mistrust()

    def _sign(self, account_id: str) -> tuple[str, Signer]:
        """In a thread."""
        with self._db.read() as connection:
            account = accounts.get(connection, account_id)
        if account is None:
            raise NoAccount("The account is disabled.")
        return account.in_triton, signer_for(self._db, self._sealer, account)

    def _count(self) -> None:
        counted = Counter(str(watch.state) for watch in self.watches.values())
        metrics.replace(metrics.feeds, {**dict.fromkeys(map(str, FeedState), 0), **counted})
        if counted != self._counted:
            _log.info("feeds", **counted)
            self._counted = counted

    # What is written down

    def _changed(self, watch: Watch | None) -> None:
        if watch is not None:
            self._notes[watch.account_id] = watch.noted
        self._written.set()

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._written.wait()
            self._written.clear()
            await asyncio.sleep(GATHER)
            whole, messages = self._pending.take(loop.time())
            notes, self._notes = self._notes, {}
            gone, self._gone = self._gone, set()
            try:
                await asyncio.to_thread(self._write, list(notes.values()), gone, whole, messages)
            except Exception as error:  # noqa: BLE001 - what cannot be written of one account costs the others nothing
                if is_unavailable(error):
                    _log.warning("database_unavailable", error=str(error).strip())
                    self._notes, self._gone = {**notes, **self._notes}, self._gone | gone
                else:  # a fault of this service: the next round notes again what is not noted
                    _log.error("feed_not_written", exc_info=error)
                # Whatever they were about, they are forgotten: all groups of these accounts are due instead.
                for account_id in {*whole, *(one.account_id for one in messages)} & self.watches.keys():
                    self._pending.add_account(account_id)
                await asyncio.sleep(RETRY)
                self._written.set()
            if (at := self._pending.next_at()) is not None:
                loop.call_at(at, self._written.set)

    def _write(self, notes: Sequence[Feed], gone: set[str], whole: set[str], messages: Sequence[FeedMessage]) -> None:
        """In a thread."""
        began = time.monotonic()
        due: set[str] = set()
        for some in _batches(notes):
            self._db.transact(lambda connection, some=some: feeds.mark_feeds(connection, self.id, some), alone=True)  # type: ignore[misc]
        if gone:
            self._db.transact(lambda connection: feeds.delete_feeds(connection, self.id, gone), alone=True)
        if whole:
            due |= self._db.transact(lambda connection: feed_messages.mark_accounts_due(connection, whole), alone=True)
        for batch in _batches(messages):
            due |= self._db.transact(lambda connection, batch=batch: feed_messages.mark_groups_due(connection, batch), alone=True)  # type: ignore[misc]
        for account_id in due:
            self._wake(account_id)
        metrics.feed_wake_ups.inc(len(due))
        if due:
            _log.debug("groups_made_due", accounts=len(due), ms=round((time.monotonic() - began) * 1000))


def _batches(items: Sequence[T]) -> list[Sequence[T]]:
    return [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
