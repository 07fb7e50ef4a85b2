"""The commands in dev/: what they say of themselves, which settings they heed, and how they stop."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dev import main, tour
from shared.runtime import settings

TOP = Path(__file__).parents[2]


@pytest.mark.parametrize("command", sorted(file.name for file in (TOP / "dev").iterdir() if file.is_file() and not file.suffix))
def test_a_command_begins_with_a_line_that_says_what_it_is_for(command: str) -> None:
    first, second, *_ = (TOP / "dev" / command).read_text().splitlines()
    assert first == "#!/bin/sh"
    assert re.fullmatch(r"# [A-Z].+\.", second.partition(" `dev/")[0])


def test_dev_test_says_how_it_is_used() -> None:
    done = subprocess.run(["dev/test", "--help"], cwd=TOP, capture_output=True, text=True, check=True)
    assert "--nomad ADDR" in done.stdout
    assert "TSG_TEST_PROCESSES" in done.stdout
    assert len(done.stdout.splitlines()) < 20


def test_settings_of_the_environment_hold_for_dev_run(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"TSG_DEV_MODE": "1", "TSG_HTTP_PORT": "4000", "TSG_URL": "http://127.0.0.1:1", "TSG_LOG_LEVEL": "debug", "PATH": "/bin"}
    assert main._settings(environ) == {"TSG_DEV_MODE": "1", "TSG_HTTP_PORT": "4000", "TSG_LOG_LEVEL": "debug"}
    assert capsys.readouterr().out == ""


def test_dev_run_names_what_it_ignores_and_hands_none_of_it_on(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"TSG_DATABASE_URL": "x", "NOMAD_ADDR": "x", "TSG_LOG_LEVEL": "ERROR", "TSG_HTTP_PROT": "x", "TSG_SCALER": "nomad"}
    assert main._settings(environ) == {"TSG_SCALER": "nomad"}
    assert environ == {"TSG_SCALER": "nomad"}
    assert capsys.readouterr().out.splitlines() == [
        "ignored, since dev/run has its own: NOMAD_ADDR, TSG_DATABASE_URL, TSG_LOG_LEVEL",
        "ignored, since there is no such setting: TSG_HTTP_PROT",
    ]


def test_what_dev_run_makes_itself_are_settings() -> None:
    assert set(settings.variables()) >= main.ITS_OWN


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_program_in_the_background_of_a_script_stops_on_signals(signum: signal.Signals) -> None:
    """A shell without job control starts `program &` with SIGINT ignored."""
    code = "import dev.processes, time; dev.processes.stop_on_signals(); print('ready', flush=True); time.sleep(60)"
    command = ["sh", "-c", 'trap "" INT; exec "$0" -c "$1"', sys.executable, code]
    with subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout
        assert child.stderr
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signum)
        assert "KeyboardInterrupt" in child.stderr.read()


def test_nohup_keeps_a_program_running_when_its_terminal_goes() -> None:
    code = "import dev.processes, os, signal; dev.processes.stop_on_signals(); os.kill(os.getpid(), signal.SIGHUP); print('alive')"
    done = subprocess.run(
        ["sh", "-c", 'trap "" HUP; exec "$0" -c "$1"', sys.executable, code], cwd=TOP, capture_output=True, text=True, check=True
    )
    assert done.stdout == "alive\n"


@pytest.mark.parametrize(
    ("dotenv", "environ", "addresses"),
    [
        (None, {}, ("https://localhost:8443", "http://127.0.0.1:8081")),
        ("#TSG_EDGE_PORT=1\n", {}, ("https://localhost:8443", "http://127.0.0.1:8081")),
        ("TSG_EDGE_PORT=9443\nexport CLOUDAPI_PORT='9081' # taken\n", {}, ("https://localhost:9443", "http://127.0.0.1:9081")),
        ("CLOUDAPI_PORT=9081\nTSG_EDGE_PORT=\n", {"CLOUDAPI_PORT": "7081"}, ("https://localhost:8443", "http://127.0.0.1:7081")),
        ("TSG_EDGE_ADDRESS=0.0.0.0\n", {}, ("https://localhost:8443", "http://127.0.0.1:8081")),
        ("TSG_EDGE_ADDRESS=10.1.2.3\n", {}, ("https://10.1.2.3:8443", "http://127.0.0.1:8081")),
    ],
)
def test_the_tour_finds_the_stack_where_its_env_file_puts_it(
    tmp_path: Path, dotenv: str | None, environ: dict[str, str], addresses: tuple[str, str]
) -> None:
    if dotenv is not None:
        (tmp_path / ".env").write_text(dotenv)
    assert tour._addresses(tmp_path / ".env", environ) == addresses
