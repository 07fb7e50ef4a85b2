"""What probes in a row say of an instance's health. Pure."""

from dataclasses import dataclass

from shared.spec.group_settings import HealthCheck
from shared.state.probes import HEALTHY, UNHEALTHY


@dataclass
class Tally:
    """The health of one instance, as far as its probes know it."""

    check: HealthCheck
    #: HEALTHY, UNHEALTHY, or None while nothing is known.
    health: str | None = None
    #: Why it is not healthy.
    error: str | None = None
    #: A probe has succeeded since the instance runs: its grace is over.
    has_answered: bool = False
    successes: int = 0
    failures: int = 0

    def count(self, error: str | None, *, in_grace: bool) -> bool:
        """Count a probe: it succeeded, or failed with `error`. True when that is news."""
        return self._succeeded() if error is None else self._failed(error, in_grace=in_grace)

    def _succeeded(self) -> bool:
        self.has_answered = True
        self.failures, self.successes = 0, self.successes + 1
        if self.health == HEALTHY or self.successes < self.check.healthy_after:
            return False
        self.health, self.error = HEALTHY, None
        return True

    def _failed(self, error: str, *, in_grace: bool) -> bool:
        self.successes = 0
        if in_grace and not self.has_answered:
            # Once is enough: what it waits for is seen then, and a boot costs the database one write.
            is_news = self.health is None and self.error is None
            self.error = error if is_news else self.error
            return is_news
        self.failures += 1
        if self.health == UNHEALTHY or self.failures < self.check.unhealthy_after:
            return False
        self.health, self.error = UNHEALTHY, error
        return True
