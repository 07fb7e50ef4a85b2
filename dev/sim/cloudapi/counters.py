"""What the simulator saw, for tests and benchmarks to ask about."""

import threading
from collections import defaultdict
from typing import Any


class Counters:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = 0
        self.reset()

    def reset(self) -> None:
        """Everything to zero, but for the requests being answered now."""
        with self._lock:
            self._answers: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
            self._events: dict[str, int] = defaultdict(int)
            self._in_flight_max = self._in_flight

    def began(self) -> None:
        with self._lock:
            self._in_flight += 1
            self._in_flight_max = max(self._in_flight_max, self._in_flight)

    def ended(self, endpoint: str, status: str) -> None:
        """`status` is the HTTP status sent, or `cut` for a connection closed without an answer."""
        with self._lock:
            self._in_flight -= 1
            self._answers[endpoint][status] += 1

    def count(self, event: str) -> None:
        with self._lock:
            self._events[event] += 1

    def asked(self, endpoint: str) -> int:
        with self._lock:
            return sum(self._answers[endpoint].values()) if endpoint in self._answers else 0

    def to_json(self) -> dict[str, Any]:
        with self._lock:
            answers = {endpoint: dict(statuses) for endpoint, statuses in self._answers.items()}
            return {
                "requests": sum(sum(statuses.values()) for statuses in answers.values()),
                "in_flight": self._in_flight,
                "in_flight_max": self._in_flight_max,
                "throttled": sum(statuses.get("429", 0) for statuses in answers.values()),
                "creates_accepted": self._events["creates_accepted"],
                "deletes_accepted": self._events["deletes_accepted"],
                "answers_lost": self._events["answers_lost"],
                "errors_injected": self._events["errors_injected"],
                "lists": sum(answers.get("ListMachines", {}).values()),
                "gets": sum(answers.get("GetMachine", {}).values()),
                "by_endpoint": answers,
            }
