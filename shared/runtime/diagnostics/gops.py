"""The agent that github.com/google/gops talks to: one byte says what is asked, the answer ends with the connection.

What is about Go alone is answered with what Python has in its place, or refused in words.
"""

import gc
import importlib.metadata
import os
import platform
import socketserver
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared import log
from shared.runtime.diagnostics import heap, sampler, stacks

_log = log.get(__name__)

#: Seconds for a client to say what it wants.
TIMEOUT = 10
#: Seconds of a CPU profile: the client says so to its user.
PROFILE_SECONDS = 30

_started = time.monotonic()


def handler(program: str) -> type[socketserver.BaseRequestHandler]:
    """What answers the questions to one process, called `program` in its profiles."""
    answers: dict[int, tuple[str, Callable[[], bytes]]] = {
        0x1: ("stack", lambda: stacks.one_by_one(stacks.threads()).encode()),
        0x2: ("gc", _collect),
        0x3: ("memstats", lambda: _lines(_memory())),
        0x4: ("version", f"{_version()}\n".encode),
        0x5: ("pprof-heap", lambda: heap.now(program).encode()),
        0x6: ("pprof-cpu", lambda: sampler.sample(PROFILE_SECONDS).profile(program).encode()),
        0x7: ("stats", lambda: _lines(_stats(program))),
        # Wanted by `gops pprof-*`, which hands it to `go tool pprof` beside the profile.
        0x9: ("binary", lambda: Path(sys.executable).read_bytes()),
        0x10: ("setgc", _no_percentage),
    }

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(TIMEOUT)
            question = self.request.recv(1)
            if not question:
                return
            name, answer = answers.get(question[0], ("unknown", bytes))
            try:
                self.request.sendall(answer())
            except sampler.Busy:
                name += " (refused: a profile is being taken already)"
            _log.info("gops_asked", question=name, client=self.client_address[0])

    return Handler


def announce(port: int) -> Callable[[], None]:
    """Write the file that `gops stack PID` finds the port in; what removes it again. Where no file can be written, an address has to do."""
    file = _directory() / str(os.getpid())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(port))
    except OSError as error:
        _log.debug("gops_not_announced", file=str(file), error=error.strerror)
    return lambda: file.unlink(missing_ok=True)


def _directory() -> Path:
    """Where the client looks: $GOPS_CONFIG_DIR, else `gops` in the user's directory for configuration."""
    if named := os.environ.get("GOPS_CONFIG_DIR"):
        return Path(named)
    home = Path(os.environ.get("HOME", "/nonexistent"))
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "gops"
    return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "gops"


def _collect() -> bytes:
    gc.collect()
    return b"ok"


def _version() -> str:
    ours = importlib.metadata.version("triton-service-groups")
    return f"{platform.python_implementation()} {platform.python_version()}, triton-service-groups {ours}"


def _stats(program: str) -> dict[str, Any]:
    status = _status()
    return {
        "program": f"{program} (process {os.getpid()})",
        "up": f"{time.monotonic() - _started:.0f} s",
        "threads": threading.active_count(),
        "OS threads": status.get("Threads", "unknown"),
        "num CPU": os.cpu_count(),
    }


def _memory() -> dict[str, Any]:
    """Python keeps other books than Go: what has the same meaning has the same name."""
    status = _status()
    collections = gc.get_stats()
    traced, traced_peak = tracemalloc.get_traced_memory()
    figures = {
        "resident": _kilobytes(status.get("VmRSS")),
        "resident-peak": _kilobytes(status.get("VmHWM")),
        "sys": _kilobytes(status.get("VmSize")),
        "heap-objects": sys.getallocatedblocks(),
        "gc-objects": len(gc.get_objects()),
        "gc-thresholds": ", ".join(map(str, gc.get_threshold())),
        "gc-counts": ", ".join(map(str, gc.get_count())),
        "num-gc": sum(generation["collections"] for generation in collections),
        "gc-collected": sum(generation["collected"] for generation in collections),
        "gc-uncollectable": sum(generation["uncollectable"] for generation in collections),
        "enable-gc": str(gc.isenabled()).lower(),
    }
    if tracemalloc.is_tracing():
        figures |= {"traced": _bytes(traced), "traced-peak": _bytes(traced_peak)}
    return figures


def _no_percentage() -> bytes:
    return b"Python's garbage collector has no percentage. Nothing was changed.\n"


def _lines(figures: dict[str, Any]) -> bytes:
    return "".join(f"{name}: {value}\n" for name, value in figures.items()).encode()


def _status() -> dict[str, str]:
    """What Linux says of this process; nothing elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _kilobytes(value: str | None) -> str:
    return _bytes(int(value.split()[0]) * 1024) if value else "unknown"


def _bytes(number: int) -> str:
    """As the agent in Go has them: 1.50MB (1572864 bytes)."""
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if number >= size:
            return f"{number / size:.2f}{unit} ({number} bytes)"
    return f"{number} bytes"
