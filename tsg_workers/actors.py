"""What a bell sets off. No message is retried: the clock rings for whatever is still to be done."""

from collections.abc import Callable

import dramatiq
import redis
import sqlalchemy.exc
from dramatiq.broker import Broker
from dramatiq.middleware import AgeLimit, ShutdownNotifications, TimeLimit

from shared import log
from shared.clients.queue import CONVERGE, MAX_AGE_MS, REMOVE_JOB, SUBMIT_JOB, make_broker, send
from shared.store.db import is_unavailable
from tsg_workers.reconcilers.groups import GroupReconciler
from tsg_workers.reconcilers.nomad_jobs import Submitter

_log = log.get(__name__)

#: Milliseconds. Several times what one call of `reconcile` takes, with every request in it timing out.
TIME_LIMIT_MS = 300_000


def connect(redis_url: str) -> Broker:
    """The broker of a worker."""
    return make_broker(redis_url, [AgeLimit(max_age=MAX_AGE_MS), TimeLimit(time_limit=TIME_LIMIT_MS), ShutdownNotifications()])


def declare(broker: Broker, groups: GroupReconciler, submitter: Submitter | None = None) -> None:
    """Have bells answered: each actor has a queue of its own, so that a slow Nomad keeps no cloud waiting.

    Without a submitter nobody listens for jobs: each queue is a thread and a connection to Redis.
    """

    def converge(account_id: str) -> None:
        if groups.reconcile(account_id):
            try:
                send(broker, CONVERGE, account_id)
            except redis.RedisError as error:
                _log.warning("bell_not_heard", actor=CONVERGE, subject=account_id, error=str(error))

    def actor(name: str, work: Callable[[str], None]) -> None:
        def answer(subject: str) -> None:
            try:
                work(subject)
            except (sqlalchemy.exc.DBAPIError, sqlalchemy.exc.TimeoutError) as error:
                if not is_unavailable(error):
                    raise
                _log.warning("database_unavailable", actor=name, subject=subject, error=str(error).strip())

        dramatiq.Actor(answer, broker=broker, actor_name=name, queue_name=name, priority=0, options={})

    actor(CONVERGE, converge)
    if submitter is not None:
        actor(SUBMIT_JOB, submitter.submit)
        actor(REMOVE_JOB, submitter.remove)
