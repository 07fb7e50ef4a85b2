"""The actors: each wake-up runs a reconciler. No message is retried: the scheduler sends another while work is left."""

from collections.abc import Sequence
from typing import Any

import dramatiq
import redis
import sqlalchemy.exc
from dramatiq.broker import Broker
from dramatiq.middleware import AgeLimit, ShutdownNotifications, TimeLimit

from shared import log
from shared.clients.queue import MAX_AGE_MS, make_broker, send
from shared.store.db import is_unavailable
from tsg_workers.runner import Runner

_log = log.get(__name__)

#: Milliseconds. Several times what one call of `reconcile` takes, with every request in it timing out.
TIME_LIMIT_MS = 300_000


def connect(redis_url: str) -> Broker:
    """The broker of a worker."""
    return make_broker(redis_url, [AgeLimit(max_age=MAX_AGE_MS), TimeLimit(time_limit=TIME_LIMIT_MS), ShutdownNotifications()])


def declare(broker: Broker, runners: Sequence[Runner[Any]]) -> None:
    """Have wake-ups answered: each queue has its own actor, so that a slow Nomad keeps no cloud waiting.

    Nobody listens for a kind without a runner: each queue costs a thread and a connection to Redis.
    """

    def declare_one(name: str, runner: Runner[Any]) -> None:
        def answer(subject: str) -> None:
            try:
                if runner.run(subject):
                    send(broker, name, subject)
            except redis.RedisError as error:
                _log.warning("wake_up_not_sent", actor=name, subject=subject, error=str(error))
            except (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError) as error:
                if not is_unavailable(error):
                    raise
                _log.warning("database_unavailable", actor=name, subject=subject, error=str(error).strip())

        dramatiq.Actor(answer, broker=broker, actor_name=name, queue_name=name, priority=0, options={})

    for runner in runners:
        for queue in runner.reconciler.queues:
            declare_one(queue, runner)
