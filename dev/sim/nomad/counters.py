"""What the simulator saw, for tests to ask about: calls by endpoint and status, and what happened to each job."""

import threading
from collections import defaultdict
from typing import Any

#: What is counted of a job. A launch is the schedule's, a force somebody's; a skip is a launch that would have overlapped.
DEEDS = ("registers", "changes", "forces", "launches", "skips", "deregisters")


class Counters:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self._answers: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
            self._jobs: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(DEEDS, 0))
            self._errors_injected = 0

    def answered(self, endpoint: str, status: str) -> None:
        """`status` is the HTTP status sent, or `cut` for a connection closed without an answer."""
        with self._lock:
            self._answers[endpoint][status] += 1

    def count(self, job_id: str, deed: str) -> None:
        with self._lock:
            self._jobs[job_id][deed] += 1

    def inject(self) -> None:
        with self._lock:
            self._errors_injected += 1

    def to_json(self) -> dict[str, Any]:
        with self._lock:
            return {
                "requests": sum(sum(statuses.values()) for statuses in self._answers.values()),
                "errors_injected": self._errors_injected,
                "by_endpoint": {endpoint: dict(statuses) for endpoint, statuses in self._answers.items()},
                "by_job": {job_id: dict(deeds) for job_id, deeds in self._jobs.items()},
            }
