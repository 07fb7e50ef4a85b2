"""The one loop for all kinds of work: claim a subject, keep the claim while the reconciler works, and give it back with the result.

A claim ends by itself, and the scheduler sends a wake-up for its subject then: a worker that is killed anywhere loses nothing. Only this
module knows how claims are made and kept; a reconciler knows one kind of work.
"""

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import TracebackType
from typing import Any, ClassVar, Generic, NamedTuple, Self, TypeVar, cast

import sqlalchemy.exc
from sqlalchemy import Connection
from structlog.contextvars import bound_contextvars

from shared import log
from shared.backoff import backoff
from shared.state import work
from shared.state.work import ClaimLost
from shared.store.db import Database, is_unavailable

_log = log.get(__name__)

C = TypeVar("C")


class After(NamedTuple):
    """It went well: the subject is due again after these seconds; None: when it is made due."""

    seconds: float | None


class Failed(NamedTuple):
    """It failed, which is counted: the subject is due again after these seconds; None: after a pause that grows with the failures."""

    seconds: float | None
    error: str


class NotYet(NamedTuple):
    """It was too early: the subject is due again after these seconds, and earlier failures still count."""

    seconds: float


class Gone(NamedTuple):
    """There is nothing left to look after."""


Result = After | Failed | NotYet | Gone


class Keeper:
    """A context in which a claim is renewed, three times in its term. Once `stop` is set, nothing more is begun under the claim."""

    def __init__(
        self,
        database: Database,
        renew: Callable[[Connection], bool],
        *,
        seconds: float,
        claimed_at: float,
        stop: threading.Event | None = None,
    ) -> None:
        """`renew` returns whether the claim is still held. `claimed_at`: by the monotonic clock, before it was claimed."""
        self._database = database
        self._renew_row = renew
        self._seconds = seconds
        self._until = claimed_at + seconds
        self._stop = stop or threading.Event()
        self._done = threading.Event()
        self._thread = threading.Thread(target=copy_context().run, args=(self._keep,), name="keeper", daemon=True)

    @property
    def holds(self) -> bool:
        """Is the claim certainly held, and may work go on? By this machine's monotonic clock, counted from before the last renewal."""
        return time.monotonic() < self._until and not self._stop.is_set()

    def lost(self) -> None:
        """The database says that the claim has ended: do not wait for the next renewal to find out."""
        if self.holds:
            _log.warning("claim_lost")
        self._until = 0.0
        self._done.set()

    def renew(self) -> None:
        """Renew the claim now. `ClaimLost` when it has ended."""
        asked_at = time.monotonic()
        with self._database.read() as connection:
            renewed = self._renew_row(connection)
        if not renewed:
            raise ClaimLost
        self._until = asked_at + self._seconds

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._done.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._done.wait(self._seconds / 3):
            try:
                self.renew()
            except ClaimLost:
                self.lost()
                return
            except sqlalchemy.exc.SQLAlchemyError as error:
                _log.warning("claim_not_renewed", error=str(error))


class Reconciler(Generic[C]):
    """One kind of work. `C` is what the reconciler gets with a claim: the claim itself, unless a kind knows more of it."""

    #: The kind's name in `tsg_work`.
    kind: ClassVar[str]
    #: The queues on which its wake-ups come.
    queues: ClassVar[tuple[str, ...]]
    #: Seconds until a claim ends unless it is renewed: for so long a killed worker delays its subjects.
    claim_seconds: float = 30
    #: Threads of a worker that answer its wake-ups alone, where others must not wait for it; 0: those of all kinds.
    threads: ClassVar[int] = 0

    @classmethod
    def claim_due(cls, connection: Connection, *, limit: int, late: float = 0) -> list[tuple[str, str]]:
        """Wake-ups to send now, as queue and subject. `late`: only what has been due for these seconds, where Nomad's runs come first."""
        del late
        return [(cls.queues[0], subject) for subject in work.claim_wake_ups(connection, cls.kind, limit=limit)]

    def reconcile(self, claimed: C, keeper: Keeper) -> Result:
        """Compare the desired and the actual state of the subject, and close the difference."""
        raise NotImplementedError

    # How the subject is claimed: as a row of `tsg_work`, unless a kind says otherwise.

    def claim(self, connection: Connection, subject: str, owner: str) -> C | None:
        return cast("C | None", work.claim(connection, self.kind, subject, owner=owner, seconds=self.claim_seconds))

    def renew(self, connection: Connection, claimed: Any) -> bool:
        return work.renew(connection, claimed, seconds=self.claim_seconds)

    def give_back(self, connection: Connection, claimed: Any, result: Result) -> bool:
        """Give the claim back; is the subject due again at once?"""
        match result:
            case After(seconds):
                work.mark_done(connection, claimed, after=seconds)
            case Failed(seconds, error):
                after = backoff(claimed.failures + 1) if seconds is None else seconds
                work.mark_failed(connection, claimed, after=after, error=error)
            case NotYet(seconds):
                work.mark_postponed(connection, claimed, after=seconds)
            case Gone():
                work.delete_work(connection, claimed)
        return isinstance(result, After) and result.seconds == 0


class Runner(Generic[C]):
    """Runs a reconciler. One for a kind and process; thread-safe. Once `stop` is set, it claims nothing more."""

    def __init__(self, database: Database, reconciler: Reconciler[C], *, owner: str, stop: threading.Event | None = None) -> None:
        """`owner`: this process, as claims name it."""
        self.reconciler = reconciler
        self._db = database
        self._owner = owner
        self._stop = stop or threading.Event()
        #: By thread.
        self._held: dict[int, C] = {}

    def run(self, subject: str) -> bool:
        """Reconcile a subject. True when it is due again at once. Does nothing when another worker has claimed it."""
        if self._stop.is_set():
            return False
        claimed_at = time.monotonic()
        reconciler = self.reconciler
        with self._db.read() as connection:
            claimed = reconciler.claim(connection, subject, self._owner)
        if claimed is None:
            _log.debug("already_claimed", kind=reconciler.kind, subject=subject)
            return False
        # Until the reconciler has said more: due at once.
        result: Result = NotYet(0)
        self._held[threading.get_ident()] = claimed

        def renew(connection: Connection) -> bool:
            return reconciler.renew(connection, claimed)

        try:
            with (
                bound_contextvars(kind=reconciler.kind, subject=subject),
                Keeper(self._db, renew, seconds=reconciler.claim_seconds, claimed_at=claimed_at, stop=self._stop) as keeper,
            ):
                result = reconciler.reconcile(claimed, keeper)
        except ClaimLost:
            _log.warning("claim_lost", kind=reconciler.kind, subject=subject)
        except Exception as error:
            if not is_unavailable(error):
                result = Failed(None, f"{type(error).__name__}: {error}")
            raise
        finally:
            del self._held[threading.get_ident()]
            with self._db.read() as connection:
                is_due = reconciler.give_back(connection, claimed, result)
        return is_due

    def hand_back(self) -> int:
        """Give back the claims of work that has not ended in time; how many. What it was doing is in the rows."""
        held = list(self._held.values())
        with self._db.read() as connection:
            for claimed in held:
                self.reconciler.give_back(connection, claimed, NotYet(0))
        return len(held)
