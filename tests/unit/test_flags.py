"""Programs and those who read what they print: help does not wait for what it does not need, and a reader may go."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
ADMIN, TSG = BIN / "tsg-admin", BIN / "tsg"


def test_the_help_of_tsg_scale_needs_no_library() -> None:
    program = (
        "import sys\nfrom tsg_workers import scale\n"
        "try:\n    scale.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'sqlalchemy', 'requests', 'redis', 'structlog', 'environs'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "GROUP_ID" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run([ADMIN, "keys", "generate"], stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file on a full disk")
@pytest.mark.parametrize("arguments", [["--help"], ["profile", "ls"]])
def test_tsg_tells_what_cannot_be_written(tmp_path: Path, arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([TSG, *arguments], stdout=full, stderr=subprocess.PIPE, env={"HOME": str(tmp_path)}, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "tsg: error (Output): the output can't be written: No space left on device\n")


def test_tsg_needs_no_standard_output(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{shlex.quote(str(TSG))} profile ls >&-"], stderr=subprocess.PIPE, env={"HOME": str(tmp_path)}, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a file on a full disk")
def test_what_cannot_be_written_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([ADMIN, "keys", "generate"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "tsg-admin: it is done, but what came of it can't be written: No space left on device\n",
    )
