"""Step policies: the capacity changes by the step in whose range the measure is, once it has been there for so long. Pure."""

from datetime import datetime, timedelta

from shared.policies.seen import Members, Value
from shared.policies.target import Proposal
from shared.policies.verdict import Result
from shared.spec.policy import Progress
from shared.spec.policy_settings import StepSettings


def propose(settings: StepSettings, value: Value, members: Members, capacity: int, then: tuple[Progress, datetime]) -> Proposal:
    """What the steps ask for at a capacity. `then` is what the policy has behind it, and the time."""
    progress, now = then
    found = next((place for place, step in enumerate(settings.steps) if step.low <= value.value < step.high), None)
    since = progress.step_since if found == progress.step and progress.step_since is not None else now
    progress = progress._replace(failures=0, step=found, step_since=since if found is not None else None)
    said = f"the measure is {value.value:g}"
    if found is None:
        return Proposal(None, None, Result.HELD, f"{said}: no step is for it", progress)
    change = settings.steps[found].then
    # Growth is of those that carry the load: what is coming is capacity already.
    wanted = change.of(min(members.available, capacity)) if change.of(capacity) > capacity else change.of(capacity)
    said = f"{said}: its step is {settings.steps[found].change}"
    if change.of(capacity) > capacity and wanted <= capacity:
        return Proposal(capacity, wanted, Result.CONVERGING, f"{said}, and {capacity - members.available} are not available yet", progress)
    ready = since + timedelta(seconds=settings.for_seconds)
    if now < ready:
        return Proposal(capacity, wanted, Result.HELD, f"{said}, once it was there for {settings.for_seconds} s", progress, ready)
    return Proposal(max(0, wanted), max(0, wanted), Result.HELD, said, progress)


def begun_anew(progress: Progress, now: datetime) -> Progress:
    """After a change: the measure must be in the range for as long once more."""
    return progress._replace(step_since=now) if progress.step is not None else progress
