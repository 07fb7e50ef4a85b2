"""Health: what is asked, how often, and what becomes of an answer that does not come."""

import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from structlog.testing import capture_logs

from dev.processes import wait_for
from shared.runtime import monitor
from shared.runtime.health import DEGRADED, DRAINING, FRESH, NO_ANSWER, OK, READY, UNAVAILABLE, Check, Health, Report


class Asked:
    """A check that counts, answers what it is told to, and hangs while `held`."""

    def __init__(self, answer: str | Exception = OK) -> None:
        self.answer = answer
        self.times = 0
        self.let_go = threading.Event()
        self.let_go.set()

    def __call__(self) -> str:
        self.times += 1
        self.let_go.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def hanging() -> Iterator[Asked]:
    check = Asked()
    check.let_go.clear()
    yield check
    check.let_go.set()


def reported(needed: str = "database", **checks: Check) -> Report:
    return Health(checks, needed={needed}, patience=0.05).report()


def test_all_is_well() -> None:
    assert reported(database=Asked(), queue=Asked()) == Report(READY, {"database": OK, "queue": OK})


@pytest.mark.parametrize("answer", [UNAVAILABLE, "outdated", ConnectionError("redis://:hunter2@redis")])
def test_what_is_needed_makes_it_unavailable_and_the_rest_only_degraded(answer: str | Exception) -> None:
    state = answer if isinstance(answer, str) else UNAVAILABLE
    without_database = reported(database=Asked(answer), queue=Asked())
    assert without_database == Report(UNAVAILABLE, {"database": state, "queue": OK})
    assert not without_database.is_ready
    without_queue = reported(database=Asked(), queue=Asked(answer))
    assert without_queue == Report(DEGRADED, {"database": OK, "queue": state})
    assert without_queue.is_ready


def test_one_that_hangs_is_told_so_and_keeps_nobody_waiting(hanging: Asked) -> None:
    assert reported(database=Asked(), queue=hanging) == Report(DEGRADED, {"database": OK, "queue": NO_ANSWER})


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_holds_for_a_second_however_often_one_asks() -> None:
    check, time = Asked(), Time()
    health = Health({"database": check}, needed=(), now=time)
    for _ in range(100):
        health.report()
    assert check.times == 1
    check.answer = UNAVAILABLE
    assert health.report().status == READY
    time.now += FRESH
    assert health.report().status == DEGRADED
    assert check.times == 2


def test_one_that_hangs_is_not_asked_again_before_it_has_come_back(hanging: Asked) -> None:
    time = Time()
    health = Health({"queue": hanging}, needed=(), patience=0.05, now=time)
    for _ in range(3):
        assert health.report().checks == {"queue": NO_ANSWER}
        time.now += FRESH
    assert hanging.times == 1
    hanging.let_go.set()
    health.report()
    time.now += FRESH
    assert health.report().checks == {"queue": OK}


def test_while_one_caller_finds_out_the_others_have_the_answer_of_before(hanging: Asked) -> None:
    time = Time()
    health = Health({"queue": hanging}, needed=(), patience=30, now=time)
    hanging.let_go.set()
    health.report()
    hanging.let_go.clear()
    hanging.answer = UNAVAILABLE
    time.now += FRESH
    with ThreadPoolExecutor(1) as pool:
        finding_out = pool.submit(health.report)
        assert wait_for(lambda: hanging.times == 2, seconds=10)
        assert health.report().status == READY
        hanging.let_go.set()
        assert finding_out.result().status == DEGRADED


def test_who_hangs_up_before_the_answer_leaves_nothing_in_the_log(hanging: Asked) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    with capture_logs() as logs, monitor.serving(listener, Health({"queue": hanging}, needed=(), patience=30)):
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"GET /readyz HTTP/1.1\r\n\r\n")
            assert wait_for(lambda: hanging.times == 1, seconds=10)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed at once, and what comes is refused
        hanging.let_go.set()
        assert wait_for(lambda: not any("process_request" in thread.name for thread in threading.enumerate()), seconds=10)
    assert [line["event"] for line in logs if "health" not in line["event"]] == []


def test_a_process_that_goes_is_not_ready_whatever_is_there() -> None:
    health = Health({"database": Asked()}, needed={"database"})
    health.drain()
    assert health.report() == Report(DRAINING, {"database": OK})
    assert not health.report().is_ready
