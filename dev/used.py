"""What processes have used of the machine, as Linux counts it."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def cpu_of(pids: Iterable[int]) -> float:
    """Seconds that these processes have used, and those of their children that have ended."""
    return sum(sum(map(int, _fields(pid)[11:15])) for pid in pids) / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    """The processes that this one has started and that run; none of a process that has ended."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, listed.read_text().split())
    return found


def resident_mb(pid: int) -> float:
    """Memory that the process has now."""
    return _memory(pid, "VmRSS")


def peak_mb(pid: int) -> float:
    """The most memory that the process ever had."""
    return _memory(pid, "VmHWM")


def _memory(pid: int, name: str) -> float:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


def _fields(pid: int) -> list[str]:
    """Of /proc/PID/stat, those behind the name; none of a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
