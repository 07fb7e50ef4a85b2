"""Measures that a group's owner pushes: kept in Redis for an hour, and lost with it."""

import json
from typing import NamedTuple

from shared.clients import redis_client

#: Seconds for which a measure is kept.
KEPT = 3600
#: Names of one group, and members that push under one name.
MOST_NAMES, MOST_MEMBERS = 50, 10_000

#: Names are a sorted set by their time; a name is a hash by member. Redis' clock is the one clock of all that push and read.
_PUT = """
local now = tonumber(redis.call('time')[1])
redis.call('zremrangebyscore', KEYS[1], '-inf', now - ARGV[4])
if not redis.call('zscore', KEYS[1], ARGV[1]) and redis.call('zcard', KEYS[1]) >= tonumber(ARGV[5]) then return 0 end
if redis.call('hexists', KEYS[2], ARGV[2]) == 0 and redis.call('hlen', KEYS[2]) >= tonumber(ARGV[6]) then return -1 end
redis.call('zadd', KEYS[1], now, ARGV[1])
redis.call('expire', KEYS[1], ARGV[4])
redis.call('hset', KEYS[2], ARGV[2], cjson.encode({value = ARGV[3], at = now}))
redis.call('expire', KEYS[2], ARGV[4])
return 1
"""


class Sample(NamedTuple):
    """What one member says, or the group as a whole (no member), and seconds since then."""

    member: str
    value: float
    age: float


class TooManyNames(Exception):
    """The group has as many names, or the name as many members, as it can have."""


class Pushed:
    """The measures in one Redis. Raises the errors of its client. Thread-safe."""

    def __init__(self, url: str, *, patience: float = 2.0) -> None:
        self._client = redis_client.connect(url, patience=patience, decode_responses=True)

    def close(self) -> None:
        self._client.close()

    def put(self, group_id: str, name: str, value: float, *, member: str = "") -> None:
        """Keep a value. `TooManyNames`."""
        keys = (_names(group_id), _values(group_id, name))
        done = self._client.eval(_PUT, 2, *keys, name, member, repr(value), str(KEPT), str(MOST_NAMES), str(MOST_MEMBERS))
        if done == 0:
            raise TooManyNames(f"the group has {MOST_NAMES} metrics within the last hour, and can have no more")
        if done == -1:
            raise TooManyNames(f"the metric {name} has {MOST_MEMBERS} members, and can have no more")

    def get(self, group_id: str, name: str, *, max_age: float) -> list[Sample]:
        """What was pushed under a name within these seconds."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.time()
        pipeline.hgetall(_values(group_id, name))
        (seconds, _), values = pipeline.execute()
        found = []
        for member, text in values.items():
            told = json.loads(text)
            age = max(0.0, float(seconds) - float(told["at"]))
            if age <= max_age:
                found.append(Sample(member, float(told["value"]), age))
        return found


def _names(group_id: str) -> str:
    return f"tsg:pushed:{{{group_id}}}"


def _values(group_id: str, name: str) -> str:
    return f"tsg:pushed:{{{group_id}}}:{name}"
