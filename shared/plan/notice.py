"""What keeps a group as it is by its owner's own wish: in words, and until when. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from shared.plan.steps import Hold, Limit, Step
from shared.plan.view import View

#: Protected instances that a notice names.
NAMED = 10


def notice_of(view: View, steps: Sequence[Step]) -> str | None:
    """Which instances are protected where that holds something back, and what is suspended; None where nothing is held back."""
    limits = _limits(steps)
    return " ".join([*_suspended(view, limits), *_protected(view, limits)]) or None


def until(view: View, steps: Sequence[Step]) -> Iterator[datetime | None]:
    """When that ends by itself."""
    limits = _limits(steps)
    if Limit.SUSPENDED in limits:
        yield view.settings.suspended_until
    if Limit.PROTECTED in limits:
        yield from (sight.instance.protected_until for sight in view.census.known if sight.instance.is_protected)


def _limits(steps: Sequence[Step]) -> set[Limit]:
    return {step.limit for step in steps if isinstance(step, Hold)}


def _suspended(view: View, limits: set[Limit]) -> Iterator[str]:
    if Limit.SUSPENDED in limits:
        settings = view.settings
        end = f" until {settings.suspended_until.isoformat(timespec='seconds')}" if settings.suspended_until else ""
        why = f": {settings.suspend_reason}" if settings.suspend_reason else ""
        yield f"Suspended{end} ({', '.join(settings.suspended)}){why}."


def _protected(view: View, limits: set[Limit]) -> Iterator[str]:
    if Limit.PROTECTED in limits:
        ids = [str(sight.instance.machine_id) for sight in view.census.known if sight.instance.is_protected]
        more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
        yield f"Protected: {', '.join(ids[:NAMED])}{more}."
