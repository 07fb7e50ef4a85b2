"""How many machines that ran may be under replacement at the same time: one budget for everything that replaces machines. Pure."""

from dataclasses import dataclass

from shared.plan.view import View


@dataclass
class Disruption:
    """The budget of one group in one pass."""

    #: Machines whose replacement does not run yet, or has yet to pass its health check.
    under_way: int
    most: int

    def take(self, count: int) -> int:
        """Take up to `count` machines' worth; how many were left to take."""
        taken = max(0, min(count, self.most - self.under_way))
        self.under_way += taken
        return taken


def disruption_of(view: View) -> Disruption:
    """What is left of the group's budget: its row has the replacements of the last look, and those that do well by now are over.

    A replacement that has yet to pass its health check is under way until its grace ends: where the check itself is wrong, all members are
    unhealthy at once, and the replacements soon after them.
    """
    group, census = view.group, view.census
    proven = census.running - sum(view.proves_itself_until(sight) is not None for sight in census.counted)
    under_way = min(group.replacing, max(0, group.desired - proven - len(census.unhealthy)))
    return Disruption(under_way, most=max(1, group.desired * view.limits.replace_percent // 100))
