"""The stack under test, its accounts, and what everybody writes down."""

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import requests

from dev.client import send
from dev.soaking.oracle import Account
from dev.soaking.outside import Outside
from dev.stack import Stack

#: What must be in no log: parts of templates that are nobody's business.
USERDATA, METADATA = "userdata-that-nobody-may-read", "metadata-that-nobody-may-read"
#: Lines of what happened last, for the report of a failure.
LAST = 60


def moment(text: str) -> float:
    """Seconds since the epoch of a moment as the API tells it."""
    return datetime.fromisoformat(text).timestamp()


@dataclass
class Findings:
    """What happened: counted, and the last of it in words."""

    requests: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    last: deque[str] = field(default_factory=lambda: deque(maxlen=LAST))
    violations: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def say(self, text: str) -> None:
        with self._lock:
            self.last.append(f"{time.strftime('%H:%M:%S')} {text}")

    def violated(self, text: str) -> None:
        """Something is not as was promised."""
        self.say(f"VIOLATION: {text}")
        with self._lock:
            self.violations.append(text)

    def answered(self, what: str, status: object) -> None:
        with self._lock:
            self.requests[what.partition(" ")[0]] += 1
            self.answers[str(status)] += 1


class World:
    """A stack, accounts with their models, and the moments at which something was broken."""

    def __init__(self, stack: Stack, outside: Outside, accounts: list[str], findings: Findings) -> None:
        self.stack = stack
        self.outside = outside
        self.findings = findings
        self.accounts = {name: Account(name) for name in accounts}
        for name in accounts:
            stack.add_account(name)
        #: When CloudAPI or the database is away or has just been: a 503 is the truth then.
        self._away: list[tuple[float, float]] = []
        self._began: dict[str, float] = {}
        self.last_disturbed = time.time()

    def goes_away(self, what: str) -> None:
        self._began[what] = time.time()

    def is_back(self, what: str) -> None:
        began = self._began.pop(what, None)
        if began is not None:
            self._away.append((began, time.time()))
        self.disturbed()

    def disturbed(self) -> None:
        self.last_disturbed = time.time()

    def was_away(self, since: float) -> bool:
        """Was something away between then and now, or a little before?"""
        return bool(self._began) or any(until + 3.0 > since for _, until in self._away)

    def machines(self, *, live: bool) -> list[dict[str, Any]]:
        """Every machine with its life, from the cloud itself."""
        return self.stack.cloud("GET", f"/machines?live={'true' if live else 'false'}")

    def nomad(self, method: str, path: str, body: object = None) -> requests.Response:
        return send(method, f"{self.stack.nomad_url}{path}", json=body, timeout=30)
