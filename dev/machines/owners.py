"""Accounts that change the size of their group all the time, by the edge, and note how long each change took."""

import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import requests

from dev.machines.cluster import Cluster

#: Sizes that a group has in turn.
SIZES = (2, 3, 1)
#: Seconds between looks at whether a change is done, and before a request that was refused is sent again.
LOOK, PAUSE = 0.2, 0.1


@dataclass
class Change:
    """One change of a size: moments of `time.monotonic`."""

    sent: float
    accepted: float = 0.0
    done: float = 0.0


@dataclass
class Owner:
    """An account with one group. Each request is repeated with its key until it is answered, as a client should."""

    cluster: Cluster
    account: str
    template: str
    stop: threading.Event
    changes: list[Change] = field(default_factory=list)
    #: Answers that asked for a repetition, by status; "no answer" where there was no answer.
    refused: Counter[str] = field(default_factory=Counter)
    #: What no client should see.
    wrong: list[str] = field(default_factory=list)
    group: str = ""
    size: int = 0
    #: Machines that all changes together needed.
    needed: int = 0

    def __post_init__(self) -> None:
        self._tsg = self.cluster.client(self.account)

    def run(self) -> None:
        self.group = self._send("POST", "/groups", self._body(0)).json()["id"]
        for number in range(1_000_000):
            if self.stop.is_set():
                return
            self._change(SIZES[number % len(SIZES)])

    def is_done_since(self, moment: float) -> float | None:
        """When the first change that was sent after `moment` was done; None if it is not."""
        return next((change.done for change in list(self.changes) if change.sent >= moment and change.done), None)

    def _change(self, size: int) -> None:
        change = Change(time.monotonic())
        self.changes.append(change)
        self._send("PUT", f"/groups/{self.group}", self._body(size))
        change.accepted = time.monotonic()
        self.needed += max(0, size - self.size)
        self.size = size
        while not self._is_settled():
            time.sleep(LOOK)
        change.done = time.monotonic()

    def _is_settled(self) -> bool:
        status = self._send("GET", f"/groups/{self.group}/status").json()
        return bool(status["settled"]) and (status["desired"], status["running"]) == (self.size, self.size)

    def _body(self, size: int) -> dict[str, Any]:
        return {"group_name": "g", "template_id": self.template, "capacity": size}

    def _send(self, method: str, path: str, body: object = None) -> requests.Response:
        key = {} if method == "GET" else {"Idempotency-Key": str(uuid.uuid4())}
        while True:
            try:
                answer = self._tsg(method, path, body, headers=key)
            except requests.RequestException:
                self.refused["no answer"] += 1
            else:
                if answer.status_code < 400:
                    return answer
                self.refused[str(answer.status_code)] += 1
                if answer.status_code not in {429, 503}:
                    self.wrong.append(f"{self.account}: {method} {path} was answered {answer.status_code} {answer.text[:300]}")
            time.sleep(PAUSE)
