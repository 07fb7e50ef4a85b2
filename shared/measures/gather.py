"""Ask the sources for all measures of a group, without letting one that is slow hold up anything else.

Each source has threads of its own. A caller waits for a moment alone; what is not there by then is asked for again in a second, and
the answer is kept for that. A request that is under way for longer than the limit is a missing measure.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from shared import log, metrics
from shared.measures.source import Asked, Source
from shared.policies.seen import Measure, Missing
from shared.spec.policy import Policy
from shared.spec.policy_settings import StepSettings, TargetSettings
from shared.state.policies import Scaled

_log = log.get(__name__)

#: Seconds for which a caller waits, and after which a measure is missing.
PATIENCE, LIMIT = 0.25, 5.0
#: Threads of one source, and requests of it that take longer than `PATIENCE` before nobody waits for it any more.
THREADS, SLOW = 32, 4
#: Seconds for which an answer is kept for its caller.
KEPT = 15.0

_Key = tuple[str, str, bool]


class _Request:
    """One question that is under way, or was answered a moment ago."""

    def __init__(self, future: "Future[Measure]") -> None:
        self.future = future
        self.asked_at = time.monotonic()

    @property
    def age(self) -> float:
        return time.monotonic() - self.asked_at


class _Bulkhead:
    """One source behind threads of its own."""

    def __init__(self, name: str, source: Source) -> None:
        self.name = name
        self.source = source
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix=f"measure-{name}")
        self._requests: dict[_Key, _Request] = {}
        self._lock = threading.Lock()

    def ask(self, asked: Asked) -> tuple[_Request, bool]:
        """The question, asked now unless it is under way; and whether it is new."""
        with self._lock:
            self._requests = {key: one for key, one in self._requests.items() if one.age < KEPT + LIMIT or not one.future.done()}
            found = self._requests.get(asked.key)
            if found is not None and (not found.future.done() or found.age < KEPT):
                return found, False
            fresh = self._requests[asked.key] = _Request(self._pool.submit(self._read, asked))
            return fresh, True

    def forget(self, asked: Asked) -> None:
        """The answer was used."""
        with self._lock:
            found = self._requests.get(asked.key)
            if found is not None and found.future.done():
                del self._requests[asked.key]

    @property
    def slow(self) -> int:
        """Questions that are under way for longer than anybody waits."""
        with self._lock:
            return sum(not one.future.done() and one.age > PATIENCE for one in self._requests.values())

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, asked: Asked) -> Measure:
        began, result = time.monotonic(), "failed"
        try:
            found = self.source.read(asked)
            result = "missing" if isinstance(found, Missing) else "read"
            return found
        except Exception as error:  # noqa: BLE001 - a fault of this service costs this policy its measure, and nothing else
            _log.error("measure_failed", source=self.name, group_id=asked.group.id, exc_info=error)
            return Missing("the service failed to measure it; its log says how")
        finally:
            metrics.measures.labels(self.name, result).inc()
            metrics.measure_seconds.labels(self.name).observe(time.monotonic() - began)


class Gatherer:
    """Asks for all measures of a group at once. Thread-safe; one for a process."""

    def __init__(self, sources: Mapping[str, Source], members: Callable[[Scaled], Sequence[str]]) -> None:
        """`sources` by their name in a metric. `members` lists a group's available machines."""
        self._bulkheads = {name: _Bulkhead(name, source) for name, source in sources.items()}
        self._members = members

    def refusal(self, source: str, login: str, triton_uuid: str | None) -> str | None:
        """Why an account cannot have measures of a source; None where it can."""
        bulkhead = self._bulkheads.get(source)
        return "is not offered by this service" if bulkhead is None else bulkhead.source.refusal(login, triton_uuid)

    def close(self) -> None:
        for one in self._bulkheads.values():
            one.close()

    def measure(self, group: Scaled, policies: Sequence[Policy], *, patience: float = PATIENCE) -> Mapping[str, Measure] | None:
        """A measure for each policy that has a metric; None when some answers are not there yet: ask again in a second."""
        wanted = {policy.id: policy.settings for policy in policies if isinstance(policy.settings, TargetSettings | StepSettings)}
        if not wanted:
            return {}
        members = tuple(self._members(group))
        asked = {
            one: Asked(group, members, settings.metric, is_total=isinstance(settings, TargetSettings) and settings.per == "group")
            for one, settings in wanted.items()
        }
        requests = {question.key: self._ask(question) for question in asked.values()}
        self._wait([one for one in requests.values() if one is not None], patience)
        measures = {one: self._answer(question, requests[question.key]) for one, question in asked.items()}
        if any(one is None for one in measures.values()):
            return None
        for question in asked.values():
            if requests[question.key] is not None:
                self._bulkheads[question.metric.source].forget(question)
        return {one: found for one, found in measures.items() if found is not None}

    def _ask(self, question: Asked) -> tuple[_Request, float] | None:
        """The request, and how long to wait for it; None for a source that is not there."""
        bulkhead = self._bulkheads.get(question.metric.source)
        if bulkhead is None:
            return None
        request, is_new = bulkhead.ask(question)
        return request, 1.0 if is_new and bulkhead.slow < SLOW else 0.0

    def _wait(self, requests: Sequence[tuple[_Request, float]], patience: float) -> None:
        waited_for = [request.future for request, share in requests if share or patience > PATIENCE]
        wait(waited_for, timeout=patience)

    def _answer(self, question: Asked, request: tuple[_Request, float] | None) -> Measure | None:
        if request is None:
            return Missing(f"this service has no {question.metric.source}")
        found = request[0]
        if found.future.done():
            return found.future.result()
        return Missing(f"{question.metric.source} has not answered for {found.age:.0f} s") if found.age > LIMIT else None
