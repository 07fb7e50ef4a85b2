"""What machines said of themselves last, kept in Redis for all workers: a rate needs two looks, and CMON is not asked too often."""

import json
from collections.abc import Mapping
from typing import NamedTuple

from shared.clients import redis_client

#: Seconds for which a sample is kept.
KEPT = 900


class Sample(NamedTuple):
    """The metrics of one machine, and those of the look before."""

    #: By Redis' clock.
    at: float
    values: Mapping[str, float]
    before: Mapping[str, float]


class Samples:
    """The samples in one Redis. Raises the errors of its client. Thread-safe."""

    def __init__(self, url: str, *, patience: float = 2.0) -> None:
        self._client = redis_client.connect(url, patience=patience, decode_responses=True)

    def get(self, group_id: str) -> tuple[float, dict[str, Sample]]:
        """Redis' time, and the samples of a group by machine."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.time()
        pipeline.hgetall(_key(group_id))
        (seconds, micros), rows = pipeline.execute()
        return seconds + micros / 1e6, {one: Sample(*json.loads(text)) for one, text in rows.items()}

    def put(self, group_id: str, samples: Mapping[str, Sample], gone: list[str]) -> None:
        """Keep these, and forget those of machines that are gone."""
        pipeline = self._client.pipeline(transaction=False)
        if samples:
            pipeline.hset(_key(group_id), mapping={one: json.dumps(sample) for one, sample in samples.items()})
        if gone:
            pipeline.hdel(_key(group_id), *gone)
        pipeline.expire(_key(group_id), KEPT)
        pipeline.execute()


def _key(group_id: str) -> str:
    return f"tsg:samples:{{{group_id}}}"
