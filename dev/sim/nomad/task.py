"""One task of an allocation: its process, started again as its restart policy says, and the events that tell of it.

A process leads a group of its own. It does not outlive us: on Linux the kernel ends it when we are killed. Real Nomad would leave
it running and find it again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dev.sim.nomad.errors import error_list
from dev.sim.nomad.shape import SECOND
from dev.sim.nomad.template import TemplateError, fill_config
from dev.sim.nomad.validate import duration

#: Becomes the task's program, after it has asked the kernel for a SIGTERM at our death, and has made an interrupt count: what was
#: started in the background of a shell ignores it. Not a preexec_fn, which may deadlock in a process with threads.
_LEASH = """
import ctypes, os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM))
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the simulator that started this task is gone")
os.execv(sys.argv[2], sys.argv[3:])
"""

#: The kernel's signal comes when the thread that started a process ends, so one lasting thread starts them all.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="nomad-spawner")

_NO_DETAILS = {
    **dict.fromkeys(["DownloadError", "DriverError", "DriverMessage", "FailedSibling", "GenericSource", "KillError", "KillReason"], ""),
    **dict.fromkeys(["Message", "RestartReason", "SetupError", "TaskSignal", "TaskSignalReason", "ValidationError", "VaultError"], ""),
    **dict.fromkeys(["DiskLimit", "ExitCode", "KillTimeout", "Signal", "StartDelay"], 0),
    "FailsTask": False,
}


class StartError(Exception):
    """The program could not be started; the message is Nomad's."""


@dataclass
class Workplace:
    """Where a task runs and what it finds there."""

    directory: Path
    logs: Path
    env: Mapping[str, str]
    names: Mapping[str, str]  #: what `${...}` may name in its Config


@dataclass
class Task:
    spec: dict[str, Any]
    place: Workplace
    now: Callable[[], float]
    changed: Callable[[], None]  #: called after every event, from any thread
    state: str = "pending"
    failed: bool = False
    restarts: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    restarted_at: float | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _gone: threading.Event = field(default_factory=threading.Event, repr=False)
    _stopping: threading.Event = field(default_factory=threading.Event, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def run(self) -> None:
        """Until the task is dead."""
        self._tell("Received", "Task received by client")
        self._tell("Task Setup", "Building Task Directory", Message="Building Task Directory")
        while not self._stopping.is_set():
            try:
                command = self._read_command()
                process = self._start(command)
            except TemplateError as error:
                message = error_list(["failed to parse config: ", str(error)])
                self._tell("Failed Validation", message, ValidationError=message)
                return self._give_up("Policy allows no restarts" if not self._policy["Attempts"] else "Error was unrecoverable")
            except StartError as error:
                self._tell("Driver Failure", str(error), DriverError=str(error))
                if not self._restarts_after_failure():
                    return None
                continue
            if process is None:
                break
            status = self._wait(process)
            if self._stopping.is_set():
                break
            if status == 0:
                return self._die()
            if not self._restarts_after_failure():
                return None
        self._tell("Killed", "Task successfully killed")
        return self._die()

    def stop(self) -> None:
        """SIGINT, and SIGKILL for the whole group when that was not enough for its KillTimeout. Returns at once."""
        with self._lock:
            if self._stopping.is_set() or self.state == "dead":
                return
            self._stopping.set()
            process = self._process
        timeout = self.spec["KillTimeout"]
        if process is not None:
            self._tell("Killing", f"Sent interrupt. Waiting {duration(timeout)} before force killing", KillTimeout=timeout)
            threading.Thread(target=self._end, args=(process, timeout / SECOND), name="nomad-kill", daemon=True).start()

    def kill(self) -> None:
        """At once."""
        with self._lock:
            self._stopping.set()
            if self._process is not None:
                _kill_group(self._process)

    def to_json(self) -> dict[str, Any]:
        return {
            "State": self.state,
            "Failed": self.failed,
            "Restarts": self.restarts,
            "LastRestart": moment(self.restarted_at),
            "StartedAt": moment(self.started_at),
            "FinishedAt": moment(self.finished_at),
            "Events": self.events[-10:],  # Nomad keeps ten
            "TaskHandle": None,
        }

    # The process

    @property
    def _policy(self) -> dict[str, Any]:
        policy: dict[str, Any] = self.spec["RestartPolicy"]
        return policy

    def _read_command(self) -> list[str]:
        """Raises TemplateError, and StartError when there is no such program."""
        config = {name: fill_config(value, self.place.names) for name, value in (self.spec["Config"] or {}).items()}
        command = config.get("command")
        if not isinstance(command, str) or not command:
            raise TemplateError('Missing required argument: The argument "command" is required, but no definition was found.')
        program = self._find(command)
        if program is None:
            raise StartError(
                f'failed to launch command with executor: rpc error: code = Unknown desc = binary "{command}" could not be found'
            )
        return [program, command, *(_as_text(arg) for arg in config.get("args") or [])]

    def _find(self, command: str) -> str | None:
        if "/" in command:
            path = self.place.directory / command
            return str(path) if os.access(path, os.X_OK) and path.is_file() else None
        return shutil.which(command, path=self.place.env.get("PATH"))

    def _start(self, command: list[str]) -> subprocess.Popen[bytes] | None:
        """None when the task was stopped before that."""
        with self._lock:
            if self._stopping.is_set():
                return None
            self._gone.clear()
            self._process = _spawner.submit(self._spawn, command).result()
        self.state, self.started_at = "running", self.now()
        self._tell("Started", "Task started by client")
        return self._process

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        name = self.spec["Name"]
        with (self.place.logs / f"{name}.stdout.0").open("ab") as out, (self.place.logs / f"{name}.stderr.0").open("ab") as err:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(self.place.env),
                cwd=self.place.directory,
                start_new_session=True,
            )

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        if hasattr(os, "waitid"):  # leaves it unreaped, so that its number is still its group's
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        else:
            process.wait()
        with self._lock:
            _kill_group(process)  # Nomad: what a task started ends with it
            process.wait()
            self._process = None
        self._gone.set()
        number = -process.returncode if process.returncode < 0 else 0
        code = 128 + number if number else process.returncode
        details = {"exit_code": str(code), "signal": str(number), "oom_killed": "false"}
        message = f"Exit Code: {code}" + (f", Signal: {number}" if number else "")
        self._tell("Terminated", message, details=details, ExitCode=code, Signal=number)
        return code

    def _end(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        with self._lock, suppress(ProcessLookupError):
            if self._process is process:
                os.kill(process.pid, signal.SIGINT)
        if not self._gone.wait(seconds):
            self.kill()

    # What comes after it

    def _restarts_after_failure(self) -> bool:
        policy = self._policy
        if self.restarts >= policy["Attempts"]:
            self._give_up(
                f'Exceeded allowed attempts {policy["Attempts"]} in interval {duration(policy["Interval"])} and mode is "fail"'
                if policy["Attempts"]
                else "Policy allows no restarts"
            )
            return False
        delay = policy["Delay"]
        self.restarts += 1
        self.state, self.restarted_at = "pending", self.now()
        self._tell("Restarting", f"Task restarting in {duration(delay)}", RestartReason="Restart within policy", StartDelay=delay)
        self._stopping.wait(delay / SECOND)
        return True

    def _give_up(self, reason: str) -> None:
        self.failed = True
        self._die()
        self._tell("Not Restarting", reason, RestartReason=reason, FailsTask=True)

    def _die(self) -> None:
        self.state, self.finished_at = "dead", self.now()

    def _tell(self, kind: str, message: str, details: dict[str, str] | None = None, **fields: Any) -> None:
        self.events.append(
            _NO_DETAILS
            | {"Type": kind, "Time": int(self.now() * SECOND), "DisplayMessage": message, "Details": details or _details(fields)}
            | fields
        )
        self.changed()


def _details(fields: Mapping[str, Any]) -> dict[str, str]:
    """Nomad says everything twice; durations to kill are written out, delays are nanoseconds."""
    names = {"KillTimeout": "kill_timeout", "StartDelay": "start_delay", "FailsTask": "fails_task"}
    details = {}
    for name, value in fields.items():
        key = names.get(name) or "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
        details[key] = duration(value) if name == "KillTimeout" else _as_text(value)
    return details


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
