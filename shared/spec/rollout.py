"""A rollout: one template in the place of another, member by member. Pure."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from shared.spec import rollout_settings
from shared.spec.rollout_settings import RolloutSettings


class State(StrEnum):
    """How far a rollout is."""

    PENDING = "Pending"
    IN_PROGRESS = "InProgress"
    #: A pause was asked for, and members that were launched are not up yet.
    PAUSING = "Pausing"
    PAUSED = "Paused"
    BAKING = "Baking"
    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    ROLLING_BACK = "RollingBack"
    ROLLED_BACK = "RolledBack"
    ROLLBACK_FAILED = "RollbackFailed"


class Ask(StrEnum):
    """What may be asked of a rollout."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    ROLLBACK = "rollback"


#: All of them. A row may have another word, of another release.
STATES = frozenset(State)
#: It is over.
ENDED = frozenset({State.SUCCESSFUL, State.FAILED, State.CANCELLED, State.ROLLED_BACK, State.ROLLBACK_FAILED})
_MOVING = frozenset({State.PENDING, State.IN_PROGRESS, State.BAKING})
_PAUSED = frozenset({State.PAUSING, State.PAUSED})

#: In which states what may be asked, and the state that comes of it at once.
ASKS: dict[Ask, tuple[frozenset[State], State]] = {
    Ask.PAUSE: (_MOVING, State.PAUSING),
    Ask.RESUME: (_PAUSED, State.IN_PROGRESS),
    Ask.CANCEL: (_MOVING | _PAUSED | {State.ROLLING_BACK}, State.CANCELLED),
    # One that has ended, as long as it is the newest.
    Ask.ROLLBACK: (_MOVING | _PAUSED | ENDED - {State.ROLLED_BACK}, State.ROLLING_BACK),
}


class Counts(NamedTuple):
    """The group's members at the last look, as the rollout sees them."""

    wanted: int = 0
    #: Made from the template, or equal to it; and those of them that are available.
    new: int = 0
    new_available: int = 0
    outdated: int = 0
    draining: int = 0
    #: Launches and new members that failed.
    failed: int = 0


class Rollout(NamedTuple):
    """One rollout."""

    id: str
    account_id: str
    group_id: str
    #: While it rolls back its members become those of `previous_template_id` again. The two are one in a reload.
    template_id: str
    previous_template_id: str
    #: The document of its settings.
    document: str
    #: A word of `State`, or of another release.
    state: str
    #: What a request asked for that no worker has taken into account yet; `state` says it already.
    asked: str | None
    reason: str | None
    message: str | None
    #: The index of the step that it is at.
    step: int
    failures: int
    counts: Counts
    #: When it last got on, and when it goes on by itself.
    progress_at: datetime | None
    next_at: datetime | None
    request_id: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def settings(self) -> RolloutSettings:
        """How it goes about it. `OtherRelease` where another one wrote it."""
        return rollout_settings.from_document(self.document)

    @property
    def is_reload(self) -> bool:
        """Do its members stay with their template, and are made anew?"""
        return self.template_id == self.previous_template_id

    @property
    def target_id(self) -> str:
        """The template that its members should be made from now."""
        return self.previous_template_id if self.state == State.ROLLING_BACK else self.template_id

    @property
    def percent_complete(self) -> int:
        """New available members, of those that are wanted."""
        return min(100, 100 * self.counts.new_available // self.counts.wanted) if self.counts.wanted else 100 * (self.state in ENDED)


class Rolled(NamedTuple):
    """What a worker did about a rollout in one pass."""

    before: Rollout
    now: Rollout
    #: What was done to members, in words; None: nothing.
    wave: str | None = None
