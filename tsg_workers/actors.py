"""What a bell sets off."""

from collections.abc import Callable

import dramatiq
import redis
from dramatiq.broker import Broker
from dramatiq.middleware import AgeLimit, ShutdownNotifications, TimeLimit

from shared import log
from shared.queue import ACTOR, MAX_AGE_MS, QUEUE, make_broker, send

_log = log.get(__name__)

#: Milliseconds. Several times what one call of `converge` takes, with every request in it timing out.
TIME_LIMIT_MS = 300_000


def connect(redis_url: str) -> Broker:
    """The broker of a worker. No message is retried: the clock rings for whatever is still to be done."""
    return make_broker(redis_url, [AgeLimit(max_age=MAX_AGE_MS), TimeLimit(time_limit=TIME_LIMIT_MS), ShutdownNotifications()])


def declare(broker: Broker, work: Callable[[str], bool]) -> dramatiq.Actor[[str], None]:
    """Have `work(account_id)` done for each bell; where it leaves something due, ring again."""

    def converge(account_id: str) -> None:
        if work(account_id):
            try:
                send(broker, account_id)
            except redis.RedisError as error:
                _log.warning("bell_not_heard", account_id=account_id, error=str(error))

    return dramatiq.Actor(converge, broker=broker, actor_name=ACTOR, queue_name=QUEUE, priority=0, options={})
