"""The bell: a Dramatiq message that says "look at this account".

It carries nothing that is not in the database, and may be lost or ring twice: `tsg-clock` rings again for whatever is due. So nobody
waits for it: a thread of its own delivers it.
"""

import queue
import threading
import time
from collections.abc import Sequence

import redis
from dramatiq import Message, Middleware
from dramatiq.broker import Broker
from dramatiq.brokers.redis import RedisBroker
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared import log

_log = log.get(__name__)

QUEUE = "converge"
ACTOR = "converge"

#: Milliseconds after which an unheard bell means nothing any more: the clock has rung again by then.
MAX_AGE_MS = 60_000
#: Bells waiting to be delivered; more are dropped, and the clock rings for them.
WAITING = 10_000
#: Seconds of silence after Redis could not be reached.
PAUSE = 1.0


def make_broker(url: str, middleware: Sequence[Middleware] = ()) -> RedisBroker:
    """A broker on Redis that fails at once rather than trying again by itself."""
    client = redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=5, retry=Retry(NoBackoff(), 0))
    return RedisBroker(client=client, middleware=list(middleware))  # type: ignore[no-untyped-call]


def send(broker: Broker, account_id: str) -> None:
    """Ring for an account. Raises what the Redis client raises."""
    broker.enqueue(Message(queue_name=QUEUE, actor_name=ACTOR, args=(account_id,), kwargs={}, options={}))


class Bell:
    """Rings without keeping anybody waiting. A Redis that is away costs a line in the log, never a request."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        broker.declare_queue(QUEUE)
        self._waiting: queue.Queue[str | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._deliver, name="bell", daemon=True)
        self._thread.start()

    def ring(self, account_id: str) -> None:
        """Have a worker look at the account soon."""
        try:
            self._waiting.put_nowait(account_id)
        except queue.Full:
            _log.warning("bell_dropped", account_id=account_id)

    def close(self) -> None:
        """Deliver what is waiting, for a second at most."""
        try:
            self._waiting.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(timeout=1)

    def _deliver(self) -> None:
        while (account_id := self._waiting.get()) is not None:
            try:
                send(self._broker, account_id)
            except redis.RedisError as error:
                _log.warning("bell_not_heard", account_id=account_id, error=str(error))
                time.sleep(PAUSE)
