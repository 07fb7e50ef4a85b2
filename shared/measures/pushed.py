"""Measures that the group's owner pushes."""

import redis

from shared.clients.pushed import Pushed
from shared.measures.source import Asked, Source, combined
from shared.policies.seen import Measure, Missing, Value

#: Seconds after which a value is stale, where the metric does not say.
MAX_AGE = 300


class PushedSource(Source):
    """What Redis keeps. A value of the group as a whole counts before those of members; of members, those that are available."""

    def __init__(self, pushed: Pushed) -> None:
        self._pushed = pushed

    def read(self, asked: Asked, /) -> Measure:
        metric = asked.metric
        max_age = metric.max_age_seconds or MAX_AGE
        try:
            samples = self._pushed.get(asked.group.id, metric.name or "", max_age=max_age)
        except (redis.RedisError, ValueError) as error:
            return Missing(f"Redis cannot be read ({type(error).__name__})")
        of_group = [sample.value for sample in samples if not sample.member]
        if of_group:
            return Value(of_group[0])
        values = [sample.value for sample in samples if sample.member in asked.members]
        if not samples:
            return Missing(f"nothing was pushed as {metric.name} within {max_age} s")
        return combined(values, len(asked.members), is_total=asked.is_total)
