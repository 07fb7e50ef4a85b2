"""Wake-ups: received when Redis is there, missed by no subject when it is not."""

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dramatiq
import pytest
import redis
from dramatiq import Message, Worker
from dramatiq.brokers.redis import RedisBroker

from dev.processes import free_port, wait_for
from dev.services import Address, Sentinel, Valkey, scratch
from shared.clients.pushed import Pushed
from shared.clients.queue import CONVERGE, MAX_AGE_MS, PAUSE, REMOVE_JOB, SUBMIT_JOB, WAITING, WakeUps, make_broker, send
from shared.runtime import health, settings
from shared.runtime.checks import health_of
from tsg_workers import actors

#: What was heard: the actor and its subject.
Heard = queue.Queue[tuple[str, str]]
#: Seconds that ringing may take, however often: nothing in it waits for anything.
AT_ONCE = 2.0


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """A database of Redis that nobody else uses, empty."""
    url = valkey.url.replace("db=0", "db=7")
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@contextmanager
def listening(redis_url: str) -> Iterator[Heard]:
    """A worker with the three actors, each of which only tells that it was rung."""
    heard: Heard = queue.Queue()
    broker = actors.connect(redis_url)

    def teller(name: str) -> Callable[[str], None]:
        return lambda subject: heard.put((name, subject))

    for name in (CONVERGE, SUBMIT_JOB, REMOVE_JOB):
        dramatiq.Actor(teller(name), broker=broker, actor_name=name, queue_name=name, priority=0, options={})
    broker.emit_after("process_boot")
    worker = Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    try:
        yield heard
    finally:
        worker.stop(timeout=5000)
        close(broker)


@contextmanager
def wake_ups_of(broker: RedisBroker) -> Iterator[WakeUps]:
    wake_ups = WakeUps(broker)
    try:
        yield wake_ups
    finally:
        wake_ups.close()
        close(broker)


def close(broker: RedisBroker) -> None:
    """The broker leaves the connections of its client open."""
    broker.close()
    broker.client.close()


def waiting(redis_url: str, name: str = CONVERGE) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return int(client.llen(f"dramatiq:{name}"))


@pytest.mark.parametrize("name", [CONVERGE, SUBMIT_JOB, REMOVE_JOB])
def test_a_wake_up_is_heard_by_its_actor(redis_url: str, name: str) -> None:
    with listening(redis_url) as heard, wake_ups_of(make_broker(redis_url)) as wake_ups:
        wake_ups.enqueue(name, "some-id")
        assert heard.get(timeout=20) == (name, "some-id")


def test_an_idle_worker_waits_in_redis_rather_than_asking_it(redis_url: str) -> None:
    with listening(redis_url) as heard, wake_ups_of(make_broker(redis_url)) as wake_ups, redis.Redis.from_url(redis_url) as client:
        assert wait_for(lambda: client.info("clients")["blocked_clients"] >= 3, seconds=20), "one for each queue"
        wake_ups.enqueue(CONVERGE, "some-id")
        assert heard.get(timeout=20) == (CONVERGE, "some-id")
        assert wait_for(lambda: waiting(redis_url) == 0, seconds=20)


def test_of_several_workers_that_listen_one_hears_a_wake_up(redis_url: str) -> None:
    with listening(redis_url) as one, listening(redis_url) as other, wake_ups_of(make_broker(redis_url)) as wake_ups:
        for number in range(100):
            wake_ups.enqueue(CONVERGE, f"account-{number}")
        assert wait_for(lambda: one.qsize() + other.qsize() >= 100, seconds=20)
        wake_ups.enqueue(CONVERGE, "last")
        assert wait_for(lambda: one.qsize() + other.qsize() > 100, seconds=20)
        heard = [one.get()[1] for _ in range(one.qsize())] + [other.get()[1] for _ in range(other.qsize())]
    assert sorted(heard) == sorted([*(f"account-{number}" for number in range(100)), "last"])


def test_wake_ups_are_heard_in_the_order_in_which_they_were_rung(redis_url: str) -> None:
    with wake_ups_of(make_broker(redis_url)) as wake_ups:
        for number in range(50):
            wake_ups.enqueue(CONVERGE, f"account-{number}")
        assert wait_for(lambda: waiting(redis_url) == 50, seconds=20)
    with listening(redis_url) as heard:
        assert [heard.get(timeout=20)[1] for _ in range(50)] == [f"account-{number}" for number in range(50)]


def test_a_wake_up_that_nobody_has_heard_for_ten_minutes_is_not_heard_any_more(redis_url: str) -> None:
    broker = make_broker(redis_url)
    broker.declare_queue(CONVERGE)
    long_ago = int(time.time() * 1000) - MAX_AGE_MS - 1
    broker.enqueue(
        Message(queue_name=CONVERGE, actor_name=CONVERGE, args=("old",), kwargs={}, options={}, message_timestamp=long_ago),
    )
    send(broker, CONVERGE, "new")
    with listening(redis_url) as heard:
        assert heard.get(timeout=20) == (CONVERGE, "new")
        assert heard.empty()
    close(broker)


def test_closing_delivers_what_is_waiting(redis_url: str) -> None:
    with wake_ups_of(make_broker(redis_url)) as wake_ups:
        for number in range(20):
            wake_ups.enqueue(CONVERGE, f"account-{number}")
    assert waiting(redis_url) == 20


# Without Redis


def test_without_redis_sending_fails_at_once_and_ringing_does_not_fail() -> None:
    broker = make_broker(f"redis://127.0.0.1:{free_port()}/0")
    began = time.monotonic()
    with pytest.raises(redis.ConnectionError):
        send(broker, CONVERGE, "some-id")
    with wake_ups_of(broker) as wake_ups:
        for number in range(1000):
            wake_ups.enqueue(CONVERGE, f"account-{number}")
        assert time.monotonic() - began < AT_ONCE


def test_a_redis_that_does_not_answer_keeps_nobody_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        broker = make_broker(f"redis://127.0.0.1:{mute.getsockname()[1]}/0")
        wake_ups = WakeUps(broker)
        began = time.monotonic()
        for number in range(WAITING + 100):
            wake_ups.enqueue(CONVERGE, f"account-{number}")
        assert time.monotonic() - began < AT_ONCE, "more wake-ups than may wait are dropped, and not waited for"
        wake_ups.close()
        assert time.monotonic() - began < AT_ONCE + 2, "closing waits for a second at most"
    wake_ups._thread.join(timeout=20)
    close(broker)


def test_a_worker_says_without_a_traceback_that_redis_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    """As when a cable is pulled: Dramatiq takes nothing but a refused or broken connection for a Redis that is away."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        broker = make_broker(f"redis://127.0.0.1:{hanging.getsockname()[1]}", patience=0.2)
        dramatiq.Actor(lambda _subject: None, broker=broker, actor_name=CONVERGE, queue_name=CONVERGE, priority=0, options={})
        worker = Worker(broker, worker_threads=1, worker_timeout=100)
        worker.start()
        assert wait_for(lambda: any("Timeout" in record.getMessage() for record in caplog.records), seconds=10)
        worker.stop(timeout=5000)
        close(broker)
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_wake_ups_are_heard_again_when_redis_is_back() -> None:
    with (
        scratch() as directory,
        Valkey(directory / "valkey") as server,
        listening(server.url) as heard,
        wake_ups_of(make_broker(server.url)) as wake_ups,
    ):
        wake_ups.enqueue(CONVERGE, "before")
        assert heard.get(timeout=20) == (CONVERGE, "before")
        server.kill()
        wake_ups.enqueue(CONVERGE, "while it was away")
        server.start()
        wake_ups.enqueue(CONVERGE, "after")
        last = ""
        while last != "after":
            _, last = heard.get(timeout=30)


def test_closing_does_not_wait_for_a_redis_that_is_away() -> None:
    before = set(threading.enumerate())
    with wake_ups_of(make_broker(f"redis://127.0.0.1:{free_port()}/0")) as wake_ups:
        for number in range(100):
            wake_ups.enqueue(CONVERGE, f"account-{number}")
        began = time.monotonic()
    assert time.monotonic() - began < 20 * PAUSE, "a hundred tries would take longer"
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert left <= {"lines"}, "nobody is left who would go on trying"


def test_redis_is_left_in_peace_for_a_while_after_it_could_not_be_reached() -> None:
    """One try for each pause, and not one for each wake-up."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(20)
        with wake_ups_of(make_broker(f"redis://127.0.0.1:{door.getsockname()[1]}/0")) as wake_ups:
            for number in range(100):
                wake_ups.enqueue(CONVERGE, f"account-{number}")
            tries = []
            for _ in range(2):
                connection, _address = door.accept()
                tries.append(time.monotonic())
                connection.close()
            assert tries[1] - tries[0] >= PAUSE * 0.9


# A Redis that answers, and takes no messages


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    with scratch() as directory, Valkey(directory / "valkey") as server:
        yield server


@pytest.mark.parametrize("setting", [("maxmemory", "1"), ("min-replicas-to-write", "1"), ("replicaof", "")])
def test_readiness_asks_whether_a_wake_up_may_be_sent(own_valkey: Valkey, setting: tuple[str, str]) -> None:
    chosen = settings.load({"TSG_REDIS_URL": own_valkey.url, "TSG_DATABASE_URL": "postgresql:///nowhere"}, needs_keys=False)
    healthy = health_of(chosen, chosen.database_url, needed={health.QUEUE})
    assert healthy.report().checks[health.QUEUE] == health.OK
    broker = make_broker(own_valkey.url)
    with redis.Redis.from_url(own_valkey.url) as client:
        assert client.keys() == [], "asking leaves nothing behind"
        if setting[0] == "replicaof":
            client.replicaof("127.0.0.1", str(free_port()))
        else:
            client.config_set(*setting)
        assert client.ping()
        with pytest.raises(redis.ResponseError):
            send(broker, CONVERGE, "account")
        assert wait_for(lambda: healthy.report().checks[health.QUEUE] == health.REFUSES, seconds=10)
        assert not healthy.report().is_ready
        if setting[0] == "replicaof":
            client.replicaof("NO", "ONE")
        else:
            client.config_set(setting[0], "0")
    send(broker, CONVERGE, "account")
    assert wait_for(lambda: healthy.report().is_ready, seconds=10)
    close(broker)


def test_an_address_that_moves_to_another_redis_is_followed(own_valkey: Valkey, redis_url: str, tmp_path: Path) -> None:
    """The old one is a replica now, and keeps the connections that it has."""
    address = tmp_path / "redis.sock"
    address.symlink_to(socket_of(own_valkey.url))
    url = f"unix://{address}?db=7"
    with listening(url) as heard, redis.Redis.from_url(own_valkey.url) as old:
        broker = make_broker(url)
        send(broker, CONVERGE, "first")
        assert heard.get(timeout=10) == (CONVERGE, "first")
        old.replicaof("127.0.0.1", str(free_port()))
        address.unlink()
        address.symlink_to(socket_of(redis_url))
        with pytest.raises(redis.ReadOnlyError):
            send(broker, CONVERGE, "second")
        send(broker, CONVERGE, "third")
        assert heard.get(timeout=10) == (CONVERGE, "third")
        close(broker)


def socket_of(url: str) -> str:
    return url.removeprefix("unix://").partition("?")[0]


# Sentinel


def test_the_primary_that_sentinel_names_is_followed() -> None:
    """By the clients that were connected to the one that was killed. One of the Sentinels is away."""
    first, second, third = (Address("127.0.0.1", free_port()) for _ in range(3))
    url = f"sentinel://127.0.0.1:{free_port()},{third}/main?db=7"
    with (
        scratch() as directory,
        Valkey(directory / "first", address=first) as primary,
        Valkey(directory / "second", address=second, primary=first) as replica,
        redis.Redis.from_url(replica.url) as of_replica,
    ):
        assert wait_for(lambda: of_replica.info("replication")["master_link_status"] == "up", seconds=20)
        with Sentinel(directory / "sentinel", third, primary=first, patience_ms=1000) as sentinel, redis.Redis(*third) as of_sentinel:
            assert wait_for(lambda: of_sentinel.sentinel_master("main")["num-slaves"] == 1, seconds=20), sentinel.log.read_text()
            broker, pushed = make_broker(url), Pushed(url)
            send(broker, CONVERGE, "before")
            pushed.put("group", "load", 1.5)
            primary.kill()
            with suppress(redis.ConnectionError):
                send(broker, CONVERGE, "lost")
            assert wait_for(lambda: of_sentinel.sentinel_master("main")["port"] == second.port, seconds=30), sentinel.log.read_text()
            send(broker, CONVERGE, "after")
            pushed.put("group", "load", 2.5)
            assert [sample.value for sample in pushed.get("group", "load", max_age=60)] == [2.5]
            with listening(url) as heard:
                last = ""
                while last != "after":
                    _, last = heard.get(timeout=20)
            pushed.close()
            close(broker)
