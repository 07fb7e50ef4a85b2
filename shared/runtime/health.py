"""Is what this process needs there? Asked by load balancers and orchestrators: so it is cheap, quick, and tells no detail to strangers.

ready         everything is there
degraded      something is away without which most requests are answered all the same
unavailable   something is away that every request needs
draining      the process is about to stop
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, wait
from typing import NamedTuple

from shared import log

_log = log.get(__name__)

READY, DEGRADED, UNAVAILABLE, DRAINING = "ready", "degraded", "unavailable", "draining"
OK, OUTDATED, NO_ANSWER, UNTRUSTED = "ok", "outdated", "no answer", "certificate not trusted"
#: A database that is a standby, or was demoted; one that cannot hold Unicode; a Redis that is full, a replica, or lacks replicas.
READ_ONLY, NOT_UTF8, REFUSES = "read-only", "not UTF-8", "refuses wake-ups"

#: Seconds for which an answer holds: however often one asks, nobody is asked more than once in them.
FRESH = 1.0
#: Seconds that anybody who is asked has to answer.
PATIENCE = 2.0

DATABASE, MIGRATIONS, QUEUE, NOMAD = "database", "migrations", "queue", "nomad"
#: The second one is where callers are authenticated, if that is another.
CLOUDAPI, CLOUDAPI_AUTH = "cloudapi", "cloudapi_auth"
CHANGEFEED = "changefeed"

#: Asks one other service; its state in a word or two. Whatever it raises means `UNAVAILABLE`.
Check = Callable[[], str]


class Report(NamedTuple):
    """The state of a process, and of all that it needs."""

    status: str
    checks: Mapping[str, str]

    @property
    def is_ready(self) -> bool:
        """Should requests be sent here?"""
        return self.status in {READY, DEGRADED}


class Health:
    """Asks all checks at once, at most once a second, and keeps nobody waiting for long. Thread-safe."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        needed: Iterable[str],
        patience: float = PATIENCE,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probes = [_Probe(name, check) for name, check in checks.items()]
        self._needed = frozenset(needed)
        self._patience = patience
        self._now = now
        self._asking = threading.Lock()
        self._last: tuple[float, dict[str, str]] | None = None
        self._draining = threading.Event()

    def drain(self) -> None:
        """From now on nothing new should come here."""
        self._draining.set()

    def report(self) -> Report:
        """The state of a second ago at most; an older one while another caller is finding out about the newest."""
        checks = self._checks()
        away = {name for name, state in checks.items() if state != OK}
        status = UNAVAILABLE if away & self._needed else DEGRADED if away else READY
        return Report(DRAINING if self._draining.is_set() else status, checks)

    def _checks(self) -> dict[str, str]:
        last = self._last
        if last and self._now() - last[0] < FRESH:
            return last[1]
        if not self._asking.acquire(blocking=last is None):
            return last[1] if last else {}
        try:
            if self._last is None or self._last is last:
                checks = self._ask()
                _tell(last[1] if last else {}, checks)
                self._last = (self._now(), checks)
            return self._last[1]
        finally:
            self._asking.release()

    def _ask(self) -> dict[str, str]:
        asked = {probe.name: probe.ask() for probe in self._probes}
        wait(asked.values(), timeout=self._patience)
        return {name: answer.result() if answer.done() else NO_ANSWER for name, answer in asked.items()}


class _Probe:
    """One check, in a thread of its own: one that hangs is left to itself, and not asked again before it has come back."""

    def __init__(self, name: str, check: Check) -> None:
        self.name = name
        self._check = check
        self._answer: Future[str] | None = None

    def ask(self) -> Future[str]:
        if self._answer is None or self._answer.done():
            self._answer = Future()
            threading.Thread(target=self._run, args=(self._answer,), name=f"health-{self.name}", daemon=True).start()
        return self._answer

    def _run(self, answer: Future[str]) -> None:
        try:
            answer.set_result(self._check())
        except Exception as error:  # noqa: BLE001 - whatever it is, it is in the log, and the check has failed
            _log.debug("health_check_failed", check=self.name, error=str(error).strip())
            answer.set_result(UNAVAILABLE)


def _tell(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    for name, state in now.items():
        if before.get(name, OK) != state:
            (_log.info if state == OK else _log.warning)("health_changed", check=name, state=state, was=before.get(name))
