"""One run of a job: an allocation with one task, its process, and its events.

A process leads a group of its own. It does not outlive us: on Linux the kernel ends it when we are killed. Real Nomad would leave
it running and find it again.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from dev.sim.nomad.job import task_of

SECOND = 1_000_000_000  #: Nomad's durations are nanoseconds
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
#: Under everything else that a task finds in its environment. Real Nomad hands on the whole environment of its agent.
_BASE_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
#: What the chroot of the driver `exec` has of the node.
_CHROOT = ("/bin/", "/lib/", "/sbin/", "/usr/")


class _Failure(Exception):
    """The task could not be started."""

    def __init__(self, event: str, message: str) -> None:
        super().__init__(message)
        self.event = event
        self.message = message


@dataclass
class Run:
    job_id: str  #: the child's: `JOB/periodic-SECOND`
    parent_id: str
    spec: dict[str, Any]
    index: int
    status: str = "pending"  #: the allocation's: pending, running, complete, failed or lost; `unplaced` when there is none
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    events: list[dict[str, str]] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _stopping: threading.Event = field(default_factory=threading.Event, repr=False)
    _gone: threading.Event = field(default_factory=threading.Event, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)

    @property
    def over(self) -> bool:
        return self.status in ("complete", "failed", "lost")

    def start(self, directory: Path, env: Mapping[str, str], failure: str | None, changed: Callable[[], None]) -> None:
        """Run the task in a thread. `failure` is what its driver fails with, whatever the task is; `changed` is called when it is over."""
        self._thread = threading.Thread(target=self._run, args=(directory, env, failure, changed), name="nomad-task", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """SIGINT, and SIGKILL for the whole group when that was not enough for its KillTimeout. Returns at once."""
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None and not self.over:
            threading.Thread(target=self._end, name="nomad-kill", daemon=True).start()

    def join(self, seconds: float) -> None:
        """Until the task has ended; it is ended after these seconds."""
        if self._thread is None:
            return
        self._thread.join(seconds)
        with self._lock:
            if self._process is not None:
                _kill_group(self._process)
        self._thread.join()

    def to_json(self) -> dict[str, Any]:
        state = {"pending": "pending", "running": "running"}.get(self.status, "dead")
        task = {"State": state, "Failed": self.status == "failed", "Events": self.events}
        return {
            "ID": self.id,
            "JobID": self.job_id,
            "ClientStatus": self.status,
            "CreateIndex": self.index,
            "TaskStates": {task_of(self.spec)["Name"]: task} if self.events else None,
        }

    def to_row(self) -> dict[str, Any]:
        """For the state file."""
        return {name: getattr(self, name) for name in ("job_id", "parent_id", "spec", "index", "status", "id", "events")}

    def _run(self, directory: Path, env: Mapping[str, str], failure: str | None, changed: Callable[[], None]) -> None:
        self._tell("Received", "Task received by client")
        try:
            if failure:
                raise _Failure("Driver Failure", failure)
            process = self._start(directory, env)
        except _Failure as error:
            self._tell(error.event, error.message)
            self._end_as("failed")
        else:
            code = self._wait(process) if process else 0
            self._tell("Terminated", f"Exit Code: {128 - code if code < 0 else code}")
            self._end_as("complete" if code == 0 or self._stopping.is_set() else "failed")
        changed()

    def _start(self, directory: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes] | None:
        """None when the run was stopped before that."""
        (directory / "local").mkdir(parents=True, exist_ok=True)
        task = task_of(self.spec)
        for artifact in task.get("Artifacts") or []:
            _download(artifact["GetterSource"], directory / "local")
        own = {
            "NOMAD_ALLOC_ID": self.id,
            "NOMAD_JOB_ID": self.job_id,
            "NOMAD_JOB_PARENT_ID": self.parent_id,
            "NOMAD_TASK_DIR": str(directory / "local"),
            "NOMAD_TASK_NAME": task["Name"],
            "HOME": str(directory),
        }
        environment = {**own, **_BASE_ENV, **env, **(task.get("Env") or {})}
        command = task["Config"]["command"]
        program = _find(command, directory, environment["PATH"], is_chroot=task["Driver"] == "exec")
        with self._lock:
            if self._stopping.is_set():
                return None
            arguments = [program, command, *map(str, task["Config"].get("args") or [])]
            self._process = _spawner.submit(_spawn, arguments, directory, environment).result()
            self.status = "running"
        self._tell("Started", "Task started by client")
        return self._process

    def _wait(self, process: subprocess.Popen[bytes]) -> int:
        """The exit code; what the task left running ends with it."""
        if hasattr(os, "waitid"):  # leaves it unreaped, so that its number is still its group's
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        else:
            process.wait()
        with self._lock:
            _kill_group(process)
            self._process = None
        self._gone.set()
        return process.wait()

    def _end(self) -> None:
        with self._lock, suppress(ProcessLookupError):
            if self._process is not None:
                os.kill(self._process.pid, signal.SIGINT)  # not `send_signal`, which may take the exit code away
        if not self._gone.wait((task_of(self.spec).get("KillTimeout") or 5 * SECOND) / SECOND):
            with self._lock:
                if self._process is not None:
                    _kill_group(self._process)

    def _end_as(self, status: str) -> None:
        if status == "failed":
            self._tell("Not Restarting", "Policy allows no restarts")
        self.status = status

    def _tell(self, kind: str, message: str) -> None:
        self.events.append({"Type": kind, "DisplayMessage": message})


def _find(command: str, directory: Path, path: str, *, is_chroot: bool) -> str:
    program = str(directory / command) if "/" in command else shutil.which(command, path=path)
    if program is None or not os.access(program, os.X_OK) or (is_chroot and not program.startswith(_CHROOT)):
        text = f'failed to launch command with executor: rpc error: code = Unknown desc = binary "{command}" could not be found'
        raise _Failure("Driver Failure", text)
    return program


def _download(source: str, directory: Path) -> None:
    try:
        answer = requests.get(source, timeout=10)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise _Failure("Failed Artifact Download", f'failed to download artifact "{source}": {error}') from error
    (directory / source.rpartition("/")[2]).write_bytes(answer.content)


def _spawn(arguments: list[str], directory: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with (directory / "stdout").open("ab") as out, (directory / "stderr").open("ab") as err:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *arguments],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
