"""A policy of a group: what its owner asks for, and what it has behind it. Pure."""

import json
from datetime import datetime
from typing import NamedTuple

from shared.spec.policy_settings import Settings


class Progress(NamedTuple):
    """What a policy has behind it: times, so that it outlives a restart."""

    #: No further growth, and no further shrinkage, before then.
    out_until: datetime | None = None
    in_until: datetime | None = None
    #: A schedule: up to when its times were seen to.
    ran_until: datetime | None = None
    #: Evaluations in a row without a measure.
    failures: int = 0
    #: A target: recommendations, each of which held until the next one; the oldest first.
    history: tuple[tuple[datetime, int], ...] = ()
    #: A step policy: the step in whose range the measure is, and since when.
    step: int | None = None
    step_since: datetime | None = None


class Policy(NamedTuple):
    """One policy of a group."""

    id: str
    settings: Settings
    progress: Progress = Progress()

    @property
    def name(self) -> str:
        return self.settings.policy_name

    @property
    def mode(self) -> str:
        return self.settings.mode


def to_memory(progress: Progress) -> str | None:
    """What has no column of its own, as a JSON document; None when there is nothing."""
    if not progress.history and progress.step is None:
        return None
    since = progress.step_since.isoformat() if progress.step_since else None
    return json.dumps(
        {"history": [[at.isoformat(), number] for at, number in progress.history], "step": progress.step, "step_since": since}
    )


def from_memory(text: str | None) -> Progress:
    """The rest is default."""
    told = json.loads(text) if text else {}
    history = tuple((datetime.fromisoformat(at), int(number)) for at, number in told.get("history", ()))
    since = told.get("step_since")
    return Progress(history=history, step=told.get("step"), step_since=datetime.fromisoformat(since) if since else None)
