"""The prober of a worker: probes the instances of groups with a health check, thousands from one thread, and writes down what changes.

It claims ranges of groups (`shared.state.probes`), as many as are its share of all. Each instance in them has a coroutine that probes it
at its interval. Rows are read every few seconds: an instance that is new, gone, or has another address or health check is seen
then. When the prober dies its claims end, and others take the ranges over; they go on from what is in the rows.
"""

import asyncio
import contextlib
import math
import random
import resource
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple, TypeVar

from shared import log, metrics
from shared.errors import OtherRelease
from shared.spec import group_settings
from shared.spec.group_settings import HealthCheck
from shared.state import probes, work
from shared.state.probes import HEALTHY, PROBER, PROBES, RANGES, Finding, Target
from shared.state.work import Claim, ClaimLost
from shared.store.db import Database, is_unavailable
from tsg_workers.probes.addresses import Network, address_of, refusal
from tsg_workers.probes.probe import probe
from tsg_workers.probes.tally import Tally

_log = log.get(__name__)

T = TypeVar("T")

#: Seconds for which a range is claimed, and between renewals: for so long the groups of a prober that died are not probed.
CLAIM_SECONDS = 15.0
RENEW_EVERY = 5.0
#: Seconds between two readings of the rows, and between two writings of findings. A reading that takes long comes less often: the thread
#: spends at most this share of its time on it.
READ_EVERY = 2.0
READ_SHARE = 0.05
WRITE_EVERY = 0.25
#: Seconds to wait for the thread to end.
STOP_SECONDS = 5.0
#: First probes a second: thousands of instances that are taken over at once are not probed at once.
FIRST_PROBES_A_SECOND = 500
#: Why an instance is not probed whose address is not known.
NO_ADDRESS = "CloudAPI has named no address for it on the network of the health check yet"
#: Files that the process keeps for anything but probes; probes under way at once, where the system allows as many files.
OTHER_FILES, MOST_AT_ONCE = 256, 8192


class Wanted(NamedTuple):
    """How an instance is to be probed. When it is another, what was counted says nothing any more."""

    check: HealthCheck
    #: None where nothing may be probed; `refused` says why.
    address: str | None
    refused: str | None
    running_since: datetime


@dataclass
class _Watch:
    """An instance under watch."""

    target: Target
    wanted: Wanted
    tally: Tally
    task: asyncio.Task[None] | None = None


class Prober:
    """One for a process. `start` begins a thread, `stop` ends it and gives the claims back."""

    def __init__(self, database: Database, allowed: Sequence[Network], *, owner: str) -> None:
        """`allowed`: networks whose addresses are probed, beside the public ones. `owner`: this process, as claims name it."""
        self._db = database
        self._allowed = tuple(allowed)
        self._owner = owner
        self._id = str(uuid.uuid4())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)
        #: The claim that says that this process probes, and those of its ranges, by the first id of each.
        self._presence: Claim | None = None
        self._claims: Mapping[str, Claim] = {}
        #: By the id of the instance.
        self._watches: dict[str, _Watch] = {}
        self._findings: dict[str, Finding] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End, within a moment; without a database that answers, after `STOP_SECONDS`: its claims end by themselves then."""
        self._stop.set()
        self._thread.join(timeout=STOP_SECONDS)

    def _run(self) -> None:
        try:
            asyncio.run(self._probe_until_stopped())
        finally:
            self._attempt(self._give_back)

    async def _probe_until_stopped(self) -> None:
        self._slots = asyncio.Semaphore(_most_at_once())
        duties = (_Duty(self._claim, RENEW_EVERY), _Duty(self._read, READ_EVERY), _Duty(self._write, WRITE_EVERY))
        while not self._stop.is_set():
            for duty in duties:
                try:
                    await duty.run_if_due()
                except Exception as error:  # noqa: BLE001 - a fault of this service in one duty must not end the probing
                    _log.error("probes_failed", exc_info=error)
            await asyncio.sleep(WRITE_EVERY)

    async def _in_thread(self, deed: Callable[[], T]) -> T | None:
        """What `deed` returns; None when the database is away, or when it failed. The probes go on meanwhile."""
        return await asyncio.to_thread(self._attempt, deed)

    def _attempt(self, deed: Callable[[], T]) -> T | None:
        try:
            return deed()
        except Exception as error:  # noqa: BLE001 - a fault of this service must not end the probing
            if is_unavailable(error):
                _log.warning("database_unavailable", duty="probes", error=str(error).strip())
            else:
                _log.error("probes_failed", exc_info=error)
        return None

    # Which ranges

    async def _claim(self) -> None:
        claims = await self._in_thread(self._claimed)
        if claims is None:
            return
        # Under another claim, what was counted says nothing any more: another process may have written meanwhile.
        others = {first for first in {*self._claims, *claims} if self._claims.get(first) != claims.get(first)}
        self._drop_ranges(others)
        self._claims = claims

    def _claimed(self) -> Mapping[str, Claim]:
        """The ranges that are this process's now: its share, of those that are free or were its own."""
        with self._db.read() as connection:
            if not probes.are_wanted(connection):
                self._give_back()
                return {}
            if self._presence is None or not work.renew(connection, self._presence, seconds=CLAIM_SECONDS):
                self._presence = work.claim(connection, PROBER, self._id, owner=self._owner, seconds=CLAIM_SECONDS)
            kept = {first: one for first, one in self._claims.items() if work.renew(connection, one, seconds=CLAIM_SECONDS)}
            share = math.ceil(len(RANGES) / max(probes.count_probers(connection), 1))
            for first in list(kept)[share:]:
                work.mark_done(connection, kept.pop(first), after=None)
            free = probes.list_free_ranges(connection)
            random.shuffle(free)
            for first in free[: share - len(kept)]:
                claimed = work.claim(connection, PROBES, first, owner=self._owner, seconds=CLAIM_SECONDS)
                if claimed is not None:
                    kept[first] = claimed
        return kept

    def _give_back(self) -> None:
        with self._db.read() as connection:
            for claimed in self._claims.values():
                work.mark_done(connection, claimed, after=None)
            if self._presence is not None:
                work.delete_work(connection, self._presence)
        self._presence = None

    # Which instances

    async def _read(self) -> float:
        """Read the rows; the seconds to wait before that is done again, at least."""
        began, ranges = time.monotonic(), list(self._claims)
        if (found := await self._in_thread(lambda: self._list_wanted(ranges))) is not None:
            self._take(*found)
        return (time.monotonic() - began) / READ_SHARE

    def _list_wanted(self, ranges: Sequence[str]) -> tuple[datetime, list[tuple[Target, Wanted]]]:
        """The database's time, and what is to be probed."""
        with self._db.read() as connection:
            now, targets = probes.list_targets(connection, ranges)
        return now, [(target, wanted) for target in targets if (wanted := self._wanted(target)) is not None]

    def _wanted(self, target: Target) -> Wanted | None:
        """None for an instance that is not to be probed."""
        try:
            check = group_settings.from_document(target.more).health_check
        except OtherRelease as error:
            _log.warning("group_settings_unreadable", group_id=target.group_id, error=str(error))
            return None
        if check is None:
            return None
        address = address_of(target.primary_ip, target.addresses, check.network)
        refused = refusal(address, self._allowed) if address else NO_ADDRESS
        return Wanted(check, None if refused else address, refused, target.running_since)

    def _take(self, now: datetime, wanted: Sequence[tuple[Target, Wanted]]) -> None:
        """Watch these, and no others."""
        for gone in self._watches.keys() - {target.id for target, _ in wanted}:
            self._drop(gone)
        new = []
        for target, how in wanted:
            watch = self._watches.get(target.id)
            if watch is None or watch.wanted != how:
                new.append((target, how))
            elif target.probe != watch.tally.health and target.id not in self._findings:
                # Somebody else wrote the row.
                self._find(watch)
        for target, how in new:
            self._begin(target, how, now, spread=min(len(new) / FIRST_PROBES_A_SECOND, how.check.interval_seconds))
        metrics.probe_targets.set(sum(watch.task is not None for watch in self._watches.values()))

    def _begin(self, target: Target, wanted: Wanted, now: datetime, *, spread: float) -> None:
        self._drop(target.id)
        watch = self._watches[target.id] = _Watch(target, wanted, _tally_of(target, wanted))
        if (watch.tally.health, watch.tally.error) != (target.probe, target.probe_error):
            self._find(watch)
        if wanted.address is not None:
            left = wanted.check.grace_seconds - (now - wanted.running_since).total_seconds()
            watch.task = asyncio.create_task(self._probe(watch, wanted.address, random.random() * spread, grace=left))
            watch.task.add_done_callback(lambda task: self._ended(target.id, task))

    def _ended(self, instance_id: str, task: asyncio.Task[None]) -> None:
        """A fault of this service with one instance costs the others nothing; it is watched again from the next reading on."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("probe_failed", instance_id=instance_id, exc_info=error)
            self._watches.pop(instance_id, None)

    def _drop(self, instance_id: str) -> None:
        self._findings.pop(instance_id, None)
        watch = self._watches.pop(instance_id, None)
        if watch is not None and watch.task is not None:
            watch.task.cancel()

    def _drop_ranges(self, ranges: Collection[str]) -> None:
        for instance_id, watch in list(self._watches.items()):
            if probes.range_of(watch.target.group_id) in ranges:
                self._drop(instance_id)

    # One instance

    async def _probe(self, watch: _Watch, address: str, first: float, *, grace: float) -> None:
        """Probe an instance until cancelled, after `first` seconds. `grace`: seconds that are left of it."""
        loop, check, tally = asyncio.get_running_loop(), watch.wanted.check, watch.tally
        due, grace_until = loop.time() + first, loop.time() + grace
        while True:
            await asyncio.sleep(due - loop.time())
            async with self._slots:
                metrics.probe_lag.observe(max(loop.time() - due, 0.0))
                error = await probe(address, check)
            metrics.probes.labels(check.type, "failed" if error else "succeeded").inc()
            was = tally.health
            if tally.count(error, in_grace=loop.time() < grace_until):
                if tally.health != was:
                    metrics.probe_changes.labels(tally.health).inc()
                self._find(watch)
            # What was missed is not made up for.
            due = max(due + check.interval_seconds, loop.time())

    def _find(self, watch: _Watch) -> None:
        self._findings[watch.target.id] = Finding(watch.target, watch.tally.health, watch.tally.error)

    # What was found

    async def _write(self) -> None:
        by_range: dict[str, list[Finding]] = {}
        for finding in self._findings.values():
            by_range.setdefault(probes.range_of(finding.target.group_id), []).append(finding)
        for first, findings in by_range.items():
            held = await self._in_thread(partial(self._mark_found, self._claims.get(first), findings))
            if held:
                written = {finding.target.id for finding in findings if self._findings.get(finding.target.id) is finding}
                self._findings = {one: finding for one, finding in self._findings.items() if one not in written}
            elif held is not None:
                _log.warning("claim_lost", kind=PROBES, subject=first)
                self._drop_ranges({first})
                self._claims = {one: claimed for one, claimed in self._claims.items() if one != first}

    def _mark_found(self, claimed: Claim | None, findings: Sequence[Finding]) -> bool:
        """False when the range is not held any more."""
        if claimed is None:
            return False
        try:
            self._db.transact(lambda connection: probes.mark_found(connection, claimed, findings, actor=self._owner))
        except ClaimLost:
            return False
        return True


def _tally_of(target: Target, wanted: Wanted) -> Tally:
    """What its row says of the instance; nothing where that is of before it was started, or it can't be probed any more."""
    if wanted.refused:
        return Tally(wanted.check, error=wanted.refused)
    if target.probe_since is not None and target.probe_since < wanted.running_since:
        return Tally(wanted.check)
    return Tally(wanted.check, target.probe, target.probe_error, has_answered=target.probe == HEALTHY)


class _Duty:
    """Something that is done again and again, at an interval, or after as many as it returns if those are more."""

    def __init__(self, run: Callable[[], Awaitable[float | None]], every: float) -> None:
        self._run = run
        self._every = every
        self._due_at = -math.inf

    async def run_if_due(self) -> None:
        if time.monotonic() >= self._due_at:
            pause = await self._run() or 0.0
            self._due_at = time.monotonic() + max(pause, self._every)


def _most_at_once() -> int:
    """Probes that may be under way: each has a file. The process takes as many files as the system lets it have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_AT_ONCE + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    return MOST_AT_ONCE if soft == resource.RLIM_INFINITY else max(min(soft, wanted) - OTHER_FILES, 64)
