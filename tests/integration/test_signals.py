"""What programs do on SIGHUP, and what they leave behind when they are killed: each as a process of its own."""

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.processes import Child, wait_for
from shared.clients import keys

BIN = Path(sys.executable).parent
#: The programs that go on running, and what each says when it does its work.
DAEMONS = {"tsg-api": "listening", "tsg-worker": "working", "tsg-clock": "ticking"}


@pytest.fixture(autouse=True)
def hang_up() -> Iterator[None]:
    """Programs are started as from a shell: under `nohup` they would inherit that SIGHUP is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def environment() -> dict[str, str]:
    """Settings with which a program starts, and reaches nothing."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TSG_", "NOMAD_"))}
    away = {"TSG_DATABASE_URL": "postgresql://tsg@/tsg?host=/nonexistent", "TSG_REDIS_URL": "redis://127.0.0.1:1/0"}
    return clean | away | {"TSG_SECRET_KEYS": keys.make_secret_key(), "TSG_HTTP_PORT": "0", "TSG_LOG_FORMAT": "json"}


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    started: list[Child] = []

    def run(program: str) -> Child:
        child = Child([BIN / program], log=tmp_path / f"{program}.log", env=environment)
        started.append(child)
        child.wait_until(lambda: f'"{DAEMONS[program]}"' in child.tail(1000))
        return child

    yield run
    for child in started:
        child.stop()


@pytest.mark.parametrize("program", DAEMONS)
def test_a_daemon_outlives_a_hang_up_and_says_what_to_do(start: Callable[[str], Child], program: str) -> None:
    child = start(program)

    def events() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in child.tail(1000).splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == "hangup_ignored"]

    for count in (1, 2):
        child.send(signal.SIGHUP)
        assert wait_for(lambda count=count: len(events()) == count, seconds=10)
    assert "restart" in events()[0]["meaning"]
    assert child.status is None
    child.send(signal.SIGTERM)
    assert wait_for(lambda: child.status == 0, seconds=30), "and it stops as before"


@pytest.mark.parametrize("program", DAEMONS)
def test_a_program_whose_terminal_goes_away_stops_in_order(environment: dict[str, str], tmp_path: Path, program: str) -> None:
    log = tmp_path / "log"
    terminal, end = pty.openpty()
    with log.open("wb") as out:
        process = subprocess.Popen([BIN / program], stdin=end, stdout=out, stderr=out, env=environment)
    try:
        assert wait_for(lambda: f'"{DAEMONS[program]}"' in log.read_text(), seconds=30)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(end)
    assert '"stopped"' in log.read_text()


@pytest.mark.parametrize("program", [*DAEMONS, "tsg-scale", "tsg-admin"])
def test_no_program_leaves_a_core_dump(environment: dict[str, str], program: str) -> None:
    """Each is asked in the process that it runs in, at its first line of work."""
    module = {
        "tsg-api": "tsg_api.main",
        "tsg-worker": "tsg_workers.main",
        "tsg-clock": "tsg_workers.scheduler",
        "tsg-scale": "tsg_workers.scale",
        "tsg-admin": "shared.cli.admin",
    }[program]
    arguments = {"tsg-scale": ["00000000-0000-4000-8000-000000000000"], "tsg-admin": ["keys", "generate"]}.get(program, [])
    ask = (
        "import ctypes, resource, sys\n"
        "from shared.runtime import settings\n"
        "def asked(*_more, **_others):\n"
        "    dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) if sys.platform == 'linux' else 0\n"
        "    print(resource.getrlimit(resource.RLIMIT_CORE), dumpable)\n"
        "    sys.exit(0)\n"
        "settings.load_arguments = asked\n"
        f"from {module} import main\n"
        f"main({arguments!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[0] == "(0, 0) 0"


def test_a_daemon_that_crashes_leaves_no_core_dump(start: Callable[[str], Child]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        child = start("tsg-clock")
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    (limits,) = [line for line in Path(f"/proc/{child.pid}/limits").read_text().splitlines() if line.startswith("Max core file size")]
    assert limits.split()[4:6] == ["0", "0"]
