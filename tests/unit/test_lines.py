"""Lines that nobody waits for: what can't be written is counted, and costs neither time nor an error."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dev.processes import wait_for
from shared import lines
from shared.lines import LAST_SECONDS, MOST, Lines, printable, say

#: Seconds that so many lines may take whoever logs them: far less than anything that is waited for.
AT_ONCE = 5.0


class Pipe:
    """A pipe whose writing end is logged to."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def fill(self) -> int:
        """Leave no room in it; how many bytes that took."""
        os.set_blocking(self.writer, False)
        filled = 0
        with suppress(BlockingIOError):
            while True:
                filled += os.write(self.writer, b"x" * 4096)
        os.set_blocking(self.writer, True)
        return filled

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            found += os.read(self.reader, size - len(found))
        return found

    def close_reader(self) -> None:
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close_reader()
    os.close(made.writer)


@pytest.fixture
def lost() -> Iterator[list[int]]:
    """What is told to those who count."""
    told: list[int] = []
    lines.count_lost(told.append)
    yield told
    lines._counters.remove(told.append)


def nobody(_lost: int) -> None: ...


def test_lines_are_written_in_order(pipe: Pipe) -> None:
    written = Lines(pipe.writer, nobody)
    for number in range(1000):
        written.write(f"{number:05}")
    assert pipe.read(6000) == b"".join(b"%05d\n" % number for number in range(1000))
    assert written.flush(LAST_SECONDS)


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_that_reads_no_more_keeps_nobody_waiting_and_finds_whole_lines_later(pipe: Pipe, lost: list[int], blocking: bool) -> None:
    recovered: list[int] = []
    filled = pipe.fill()
    os.set_blocking(pipe.writer, blocking)
    written = Lines(pipe.writer, recovered.append)
    line = "x" * 99
    began = time.monotonic()
    count = MOST // 100 * 3
    for _ in range(count):
        written.write(line)
    assert time.monotonic() - began < AT_ONCE
    assert not written.flush(0.1)
    assert count / 4 < sum(lost) < count
    pipe.read(filled)
    found = pipe.read(100 * (count - sum(lost)))
    assert set(found.splitlines()) == {line.encode()}
    written.write("it goes on")
    assert pipe.read(11) == b"it goes on\n"
    assert wait_for(lambda: sum(recovered) == sum(lost), seconds=10), "whoever reads is told how many are missing"


def test_lines_to_a_dead_reader_a_full_disk_and_nowhere_are_counted(pipe: Pipe, lost: list[int]) -> None:
    pipe.close_reader()
    full = os.open("/dev/full", os.O_WRONLY)
    for descriptor in (pipe.writer, full, -1):
        lost.clear()
        written = Lines(descriptor, nobody)
        for _ in range(100):
            written.write("lost")
        assert written.flush(10)
        assert sum(lost) == 100
    os.close(full)


def run(script: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    begun = "import os, resource, sys\nfrom shared import lines, log\nlog.configure('INFO', 'json')\nlogger = log.get('x')\n"
    return subprocess.run([sys.executable, "-c", begun + script], timeout=60, check=False, **more)  # type: ignore[call-overload,no-any-return]


# Python's own traceback would go to the descriptor too, in the middle of a line perhaps: our programs log it instead.
@pytest.mark.parametrize("end", ["sys.exit(3)", "lines.flush(); os._exit(3)", "sys.excepthook = lambda *error: None; 1 / 0"])
def test_the_last_lines_of_a_process_are_written(end: str) -> None:
    done = run(f"for number in range(1000): logger.info('event', number=number)\n{end}", stderr=subprocess.PIPE)
    assert done.returncode in {1, 3}
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith(b"{")]
    assert [event["number"] for event in events] == list(range(1000))


def test_a_process_that_cannot_write_its_last_lines_ends_all_the_same(pipe: Pipe) -> None:
    pipe.fill()
    began = time.monotonic()
    assert run("logger.info('event')\nsys.exit(3)", stderr=pipe.writer).returncode == 3
    assert time.monotonic() - began < 30


def test_a_disk_that_was_full_has_whole_lines_again(tmp_path: Path) -> None:
    """A file's limit stands for the disk's."""
    script = (
        "import signal\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))\n"
        "for number in range(100): logger.info('event', number=number)\n"
        "lines.flush()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)\n"
        "for number in range(100, 110): logger.info('event', number=number)\n"
    )
    with (tmp_path / "log").open("wb") as out:
        assert run(script, stderr=out).returncode == 0
    whole, torn = [], []
    for line in (tmp_path / "log").read_bytes().splitlines():
        try:
            whole.append(json.loads(line))
        except ValueError:
            torn.append(line)
    assert len(torn) <= 1
    assert [event["number"] for event in whole if event.get("number", 0) >= 100] == list(range(100, 110))
    (told,) = [event for event in whole if event["event"] == "log_lines_lost"]
    assert told["lines"] == 100 - len([event for event in whole if event.get("number", 100) < 100])


def test_a_forked_child_writes_its_own_lines_and_not_its_parents() -> None:
    # Python 3.12 warns of a fork beside threads.
    script = "import warnings\nwarnings.simplefilter('ignore')\n"
    script += "logger.info('before')\nchild = os.fork()\nlogger.info('after', child=not child)\nif child: os.waitpid(child, 0)\n"
    done = run(script, stderr=subprocess.PIPE)
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert sorted((event["event"], event.get("child")) for event in events if event["event"] == "before") == [("before", None)]
    assert sorted(event["child"] for event in events if event["event"] == "after") == [False, True]


def test_without_standard_error_nothing_is_written_anywhere(tmp_path: Path) -> None:
    script = "log = os.open(sys.argv[0], os.O_RDWR) if False else None\nlogger.info('event')\nlines.say('last words')\nsys.exit(3)"
    close: Callable[[], None] = lambda: os.close(2)  # noqa: E731
    done = run(script, stdout=subprocess.PIPE, preexec_fn=close)
    assert (done.returncode, done.stdout) == (3, b"")


def test_what_a_terminal_would_obey_is_shown_as_an_escape() -> None:
    assert printable("Größe 大 \N{GRINNING FACE} ~!") == "Größe 大 \N{GRINNING FACE} ~!"
    assert printable("\x1b]0;x\x07\x9b2J\x7f\r\n\t\u202e\udc9b") == r"\x1b]0;x\x07\x9b2J\x7f\r\n\t\u202e\udc9b"
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_last_words_are_for_the_eye(capsys: pytest.CaptureFixture[str]) -> None:
    say("first\nsecond \x1b[2J")
    assert capsys.readouterr().err == "first\nsecond \\x1b[2J\n"
