"""Wake-ups: Dramatiq messages that name an account to reconcile, or a group whose Nomad job is to be reconciled.

They contain nothing that is not in the database, and may be lost or sent twice: `tsg-clock` sends another one for what is due. So no
caller waits for Redis: a background thread sends them.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from dramatiq import Message, Middleware
from dramatiq.broker import Broker, Consumer
from dramatiq.brokers.redis import RedisBroker

from shared import log, metrics
from shared.clients import redis_client

_log = log.get(__name__)

#: The actors, each with a queue of its own name.
CONVERGE = "converge"  # account_id
SUBMIT_JOB = "submit_job"  # group_id
REMOVE_JOB = "remove_job"  # group_id
DECIDE = "decide"  # group_id
DELIVER = "deliver"  # notification_id

#: Milliseconds after which a wake-up is dropped: the scheduler has sent another one by then. The clocks of sender and worker may differ, so
#: this is more than the 300 s by which a clock may be wrong before CloudAPI refuses its signatures.
MAX_AGE_MS = 600_000
#: Wake-ups that wait to be sent; further ones are dropped, and the scheduler sends them later.
WAITING = 10_000
#: Seconds between attempts while Redis cannot be reached.
PAUSE = 1.0
#: Seconds between batches: wake-ups of one batch are sent together.
GAP = 0.01
#: Seconds that a worker blocks on an empty queue, before it sends its heartbeat to Redis and checks whether to stop.
LISTEN = 0.5
#: Milliseconds between checks of a worker that has prefetched as many messages as it may.
BUSY_MS = 20
#: Of a million fetches, those that also re-enqueue the messages of dead workers: about one a minute for an idle worker.
MAINTENANCE = 10_000


class ListeningBroker(RedisBroker):
    """A broker whose workers block on an empty queue: Dramatiq's polls it.

    Needs the command BLMOVE: Redis 6.2, or any Valkey.
    """

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = BUSY_MS) -> Consumer:
        return super().consume(queue_name, prefetch, min(timeout, BUSY_MS))

    def do_fetch(self, queue_name: str, count: int) -> list[bytes]:
        """Up to `count` messages of a queue, once it has one; none after `LISTEN` seconds."""
        queue = f"{self.namespace}:{queue_name}"
        fetch: Callable[[str, int], list[bytes]] = self._dispatch("fetch")
        with _as_away(self):
            # Waits until there is a first message, and puts it back where it was.
            self.client.blmove(queue, queue, LISTEN, "LEFT", "LEFT")  # type: ignore[arg-type]  # Redis takes parts of a second
        return fetch(queue_name, count)

    def _dispatch(self, command: str) -> Callable[..., Any]:
        dispatch: Callable[..., Any] = super()._dispatch(command)  # type: ignore[no-untyped-call]
        if command == "enqueue":
            return dispatch

        def do(*arguments: object) -> Any:
            with _as_away(self):
                return dispatch(*arguments)

        return do


def make_broker(url: str, middleware: Sequence[Middleware] = (), *, patience: float = 5.0) -> RedisBroker:
    """A broker on Redis without retries of its own. It waits `patience` seconds for an answer."""
    return ListeningBroker(client=redis_client.connect(url, patience=patience), middleware=list(middleware), maintenance_chance=MAINTENANCE)  # type: ignore[no-untyped-call]


def send(broker: Broker, actor: str, subject: str) -> None:
    """Send a wake-up to an actor, for an account or a group. Raises the errors of the Redis client."""
    try:
        with _dropping_replicas(broker):
            broker.declare_queue(actor)
            broker.enqueue(Message(queue_name=actor, actor_name=actor, args=(subject,), kwargs={}, options={}))
    except redis.RedisError:
        metrics.wake_ups.labels(actor, "failed").inc()
        raise
    metrics.wake_ups.labels(actor, "sent").inc()


def try_out(broker: RedisBroker) -> None:
    """Run a script that adds to a list nobody reads, as sending a wake-up does. Raises the errors of the Redis client.

    A Redis that is full, a replica, or short of replicas answers a PING all the same.
    """
    with _dropping_replicas(broker):
        broker.client.eval(_TRY_OUT, 1, f"{broker.namespace}:tried_out")


_TRY_OUT = "redis.call('rpush', KEYS[1], '1') redis.call('del', KEYS[1])"


@contextmanager
def _as_away(broker: Broker) -> Iterator[None]:
    """Dramatiq's workers take only a `ConnectionError` for a Redis that is away. One that hangs would count as a fault of Dramatiq."""
    try:
        with _dropping_replicas(broker):
            yield
    except redis.ConnectionError:
        raise
    except redis.RedisError as error:
        raise redis.ConnectionError(f"{type(error).__name__}: {error}") from None


@contextmanager
def _dropping_replicas(broker: Broker) -> Iterator[None]:
    """Use no connection again that leads to a Redis which has become a replica: the address may be another one's by now."""
    try:
        yield
    except redis.ReadOnlyError:
        if isinstance(broker, RedisBroker):
            broker.client.connection_pool.disconnect(inuse_connections=False)
        raise


def count_waiting(broker: RedisBroker, actor: str) -> int:
    """The number of wake-ups for an actor that no worker has taken. Raises the errors of the Redis client."""
    return int(broker.client.llen(f"{broker.namespace}:{actor}"))


class WakeUps:
    """Sends wake-ups on a background thread. A Redis that cannot be reached costs a line in the log, never a request.

    Several wake-ups of one actor for one subject within `GAP` seconds are sent as one.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        #: Actor and subject, in the order of `enqueue`.
        self._waiting: dict[tuple[str, str], None] = {}
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._deliver, name="wake-ups", daemon=True)
        self._thread.start()

    def enqueue(self, actor: str, subject: str) -> None:
        """Have a worker reconcile an account, or a group's job, soon. Returns at once."""
        with self._changed:
            has_room = len(self._waiting) < WAITING
            if has_room:
                self._waiting[actor, subject] = None
                self._changed.notify()
        if not has_room:
            metrics.wake_ups.labels(actor, "dropped").inc()
            _log.warning("wakeup_dropped", actor=actor, subject=subject)

    def close(self) -> None:
        """Send the wake-ups that wait, for a second at most; none when Redis cannot be reached."""
        self._closing.set()
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout=1)

    def _deliver(self) -> None:
        while batch := self._next():
            for actor, subject in batch:
                try:
                    send(self._broker, actor, subject)
                except redis.RedisError as error:
                    _log.warning("wakeup_send_failed", actor=actor, subject=subject, error=str(error))
                    if self._closing.wait(PAUSE):
                        return
            self._closing.wait(GAP)

    def _next(self) -> list[tuple[str, str]]:
        """The next batch, once there is one; an empty one after `close`, when all are sent."""
        with self._changed:
            while not self._waiting and not self._closing.is_set():
                self._changed.wait()
            batch = list(self._waiting)
            self._waiting.clear()
            return batch


def waker(wake_ups: WakeUps, scaler: str) -> Callable[[str, str], None]:
    """Sends the wake-up after a change of an account's group: for the group's Nomad job, or for the account."""
    if scaler == "nomad":
        return lambda _account_id, group_id: wake_ups.enqueue(SUBMIT_JOB, group_id)
    return lambda account_id, _group_id: wake_ups.enqueue(CONVERGE, account_id)
