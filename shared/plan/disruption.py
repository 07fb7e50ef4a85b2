"""How many machines that ran may be under replacement at the same time: one budget for everything that replaces machines. Pure."""

from dataclasses import dataclass

from shared.plan.census import Census
from shared.plan.limits import Limits
from shared.state.group_state import DueGroup


@dataclass
class Disruption:
    """The budget of one group in one pass."""

    #: Machines whose replacement does not run yet.
    under_way: int
    most: int

    def take(self, count: int) -> int:
        """Take up to `count` machines' worth; how many were left to take."""
        taken = max(0, min(count, self.most - self.under_way))
        self.under_way += taken
        return taken


def disruption_of(group: DueGroup, census: Census, limits: Limits) -> Disruption:
    """What is left of the group's budget: its row has the replacements of the last look, and those that run by now are over."""
    under_way = min(group.replacing, max(0, group.desired - census.running - len(census.unhealthy)))
    return Disruption(under_way, most=max(1, group.desired * limits.replace_percent // 100))
