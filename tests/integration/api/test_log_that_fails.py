"""Programs whose log can't be written: they answer, work and end as ever, and count what was lost."""

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import requests

from dev.processes import free_port, wait_for
from tests.integration.api.test_programs import BIN, environment, url

__all__ = ["environment", "url"]

REQUESTS = 300


@contextmanager
def full_disk() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@contextmanager
def stalled_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


@contextmanager
def running(program: str, log: int, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A program that logs there, once its monitor answers."""
    port = free_port()
    settings = {"TSG_METRICS_PORT": str(port), "TSG_LOG_LEVEL": "DEBUG", "TSG_LOG_FORMAT": "json"}
    process = subprocess.Popen([BIN / program], env=environment | settings, stderr=log, stdout=log, stdin=subprocess.DEVNULL)
    monitor = f"http://127.0.0.1:{port}"
    try:
        assert wait_for(lambda: is_ready(monitor), seconds=60), f"{program} is not ready"
        yield process, monitor
    finally:
        process.kill()
        process.wait()


def is_ready(monitor: str) -> bool:
    try:
        return requests.get(f"{monitor}/readyz", timeout=10).ok
    except requests.ConnectionError:
        return False


def lost(monitor: str) -> int:
    found = re.search(r"^tsg_log_lines_lost_total (\S+)$", requests.get(f"{monitor}/metrics", timeout=10).text, re.MULTILINE)
    assert found
    return int(float(found[1]))


@pytest.mark.parametrize("log", [full_disk, stalled_pipe])
def test_the_api_answers_every_request(log: Callable[[], AbstractContextManager[int]], environment: dict[str, str]) -> None:
    port = free_port()
    with log() as descriptor, running("tsg-api", descriptor, environment | {"TSG_HTTP_PORT": str(port)}) as (process, monitor):
        with requests.Session() as session:
            for _ in range(REQUESTS):
                assert session.get(f"http://127.0.0.1:{port}/v1/tsg/groups", timeout=10).status_code == 401
        if log is not stalled_pipe:  # which has room for all of them in our memory
            assert wait_for(lambda: lost(monitor) >= REQUESTS, seconds=10)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(("program", "log"), [("tsg-worker", stalled_pipe), ("tsg-clock", full_disk)])
def test_workers_and_clocks_work(program: str, log: Callable[[], AbstractContextManager[int]], environment: dict[str, str]) -> None:
    with log() as descriptor, running(program, descriptor, environment) as (process, monitor):
        assert (lost(monitor) > 0) == (log is full_disk)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
