"""The bells: Dramatiq messages that say "look at this account", or "look after this group's Nomad job".

They carry nothing that is not in the database, and may be lost or ring twice: `tsg-clock` rings again for whatever is due. So nobody
waits for them: a thread of its own delivers them.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import redis
from dramatiq import Message, Middleware
from dramatiq.broker import Broker, Consumer
from dramatiq.brokers.redis import RedisBroker
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared import log, metrics

_log = log.get(__name__)

#: The actors, each with a queue of its own name.
CONVERGE = "converge"  # account_id
SUBMIT_JOB = "submit_job"  # group_id
REMOVE_JOB = "remove_job"  # group_id

#: Milliseconds after which an unheard bell means nothing any more: the clock has rung again by then. The sender's clock and the worker's
#: may differ, so it is more than the 300 s by which a clock may be wrong before CloudAPI refuses what it signs.
MAX_AGE_MS = 600_000
#: Bells waiting to be delivered; more are dropped, and the clock rings for them.
WAITING = 10_000
#: Seconds of silence after Redis could not be reached.
PAUSE = 1.0
#: Seconds between deliveries: what is rung in them goes out together.
GAP = 0.01
#: Seconds that a worker listens to an empty queue before it shows Redis that it lives, and looks whether it is to stop.
LISTEN = 0.5
#: Milliseconds between looks of a worker that has taken as much as it may.
BUSY_MS = 20
#: Of a million looks into a queue, those that also bring back what a dead worker had taken: about one a minute of an idle worker.
MAINTENANCE = 10_000


class ListeningBroker(RedisBroker):
    """A broker whose workers hear a bell when it rings: Dramatiq's asks an empty queue again and again.

    Needs the command BLMOVE: Redis 6.2, or any Valkey.
    """

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = BUSY_MS) -> Consumer:
        return super().consume(queue_name, prefetch, min(timeout, BUSY_MS))

    def do_fetch(self, queue_name: str, count: int) -> list[bytes]:
        """Up to so many messages of a queue, once it has one; none after `LISTEN` seconds."""
        queue = f"{self.namespace}:{queue_name}"
        fetch: Callable[[str, int], list[bytes]] = self._dispatch("fetch")  # type: ignore[no-untyped-call]
        with _dropping_replicas(self):
            # Waits until there is a first message, and puts it back where it was.
            self.client.blmove(queue, queue, LISTEN, "LEFT", "LEFT")  # type: ignore[arg-type]  # Redis takes parts of a second
            return fetch(queue_name, count)


def make_broker(url: str, middleware: Sequence[Middleware] = (), *, patience: float = 5.0) -> RedisBroker:
    """A broker on Redis that fails at once rather than trying again by itself, and after `patience` seconds without an answer."""
    client = redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=patience, retry=Retry(NoBackoff(), 0))
    return ListeningBroker(client=client, middleware=list(middleware), maintenance_chance=MAINTENANCE)  # type: ignore[no-untyped-call]


def send(broker: Broker, actor: str, subject: str) -> None:
    """Ring an actor for an account or a group. Raises what the Redis client raises."""
    try:
        with _dropping_replicas(broker):
            broker.declare_queue(actor)
            broker.enqueue(Message(queue_name=actor, actor_name=actor, args=(subject,), kwargs={}, options={}))
    except redis.RedisError:
        metrics.bells.labels(actor, "failed").inc()
        raise
    metrics.bells.labels(actor, "sent").inc()


def try_out(broker: RedisBroker) -> None:
    """Do to Redis what a wake-up does, to a key that nobody reads: run a script that adds to a list. Raises what the Redis client raises.

    A Redis that is full, a replica, or short of replicas answers a PING all the same.
    """
    with _dropping_replicas(broker):
        broker.client.eval(_TRY_OUT, 1, f"{broker.namespace}:tried_out")


_TRY_OUT = "redis.call('rpush', KEYS[1], '1') redis.call('del', KEYS[1])"


@contextmanager
def _dropping_replicas(broker: Broker) -> Iterator[None]:
    """Use no connection again that leads to a Redis which has become a replica: the address may be another one's by now."""
    try:
        yield
    except redis.ReadOnlyError:
        if isinstance(broker, RedisBroker):
            broker.client.connection_pool.disconnect(inuse_connections=False)
        raise


def waiting(broker: RedisBroker, actor: str) -> int:
    """Bells for an actor that no worker has taken. Raises what the Redis client raises."""
    return int(broker.client.llen(f"{broker.namespace}:{actor}"))


class Bell:
    """Rings without keeping anybody waiting. A Redis that is away costs a line in the log, never a request.

    A bell says no more than "look", so bells for one subject that come together are one: in a burst, one in `GAP`.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        #: In the order in which they were rung.
        self._waiting: dict[tuple[str, str], None] = {}
        self._rung = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._deliver, name="bell", daemon=True)
        self._thread.start()

    def ring(self, actor: str, subject: str) -> None:
        """Have a worker look at an account, or at a group's job, soon."""
        with self._rung:
            has_room = len(self._waiting) < WAITING
            if has_room:
                self._waiting[actor, subject] = None
                self._rung.notify()
        if not has_room:
            metrics.bells.labels(actor, "dropped").inc()
            _log.warning("bell_dropped", actor=actor, subject=subject)

    def close(self) -> None:
        """Deliver what is waiting, for a second at most; nothing of it when Redis is away."""
        self._closing.set()
        with self._rung:
            self._rung.notify()
        self._thread.join(timeout=1)

    def _deliver(self) -> None:
        while bells := self._next():
            for actor, subject in bells:
                try:
                    send(self._broker, actor, subject)
                except redis.RedisError as error:
                    _log.warning("bell_not_heard", actor=actor, subject=subject, error=str(error))
                    if self._closing.wait(PAUSE):
                        return
            self._closing.wait(GAP)

    def _next(self) -> list[tuple[str, str]]:
        """What was rung meanwhile, or is next; nothing once all is delivered and no more comes."""
        with self._rung:
            while not self._waiting and not self._closing.is_set():
                self._rung.wait()
            bells = list(self._waiting)
            self._waiting.clear()
            return bells
