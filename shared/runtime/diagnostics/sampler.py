"""Where the time of all threads goes: their stacks, looked at a hundred times a second from a thread of its own.

What a thread waits for is seen in its wall time. Its processor time is the kernel's own count for that thread, put down to where it was
when looked at; so the sums are exact, and only their division among places is sampled. Python lets another thread look only between
bytecodes: a long call into C is seen at its end, with all its time.
"""

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from shared.runtime.diagnostics.profile import Profile
from shared.runtime.diagnostics.stacks import Namer, RawStack, Stack

#: Seconds between looks.
PERIOD = 0.01

_busy = threading.Lock()


class Busy(Exception):
    """Another profile is being taken: two at once would show each other."""


@dataclass
class Spent:
    """What was seen of one thread at one place. Nanoseconds."""

    looks: int = 0
    cpu: int = 0
    wall: int = 0


@dataclass
class Samples:
    """By thread name and stack."""

    seconds: float = 0.0
    spent: dict[tuple[str, Stack], Spent] = field(default_factory=dict)

    def profile(self, program: str) -> Profile:
        kinds = [("samples", "count"), ("wall", "nanoseconds"), ("cpu", "nanoseconds")]
        default = "cpu" if any(spent.cpu for spent in self.spent.values()) else "wall"
        made = Profile(
            kinds, default, program, duration_ns=int(self.seconds * 1e9), period_kind=("wall", "nanoseconds"), period=int(PERIOD * 1e9)
        )
        for (thread, stack), spent in self.spent.items():
            made.add(stack, (spent.looks, spent.wall, spent.cpu), thread=thread)
        return made


class Look(NamedTuple):
    """One thread as it was at one moment, with its time since the last one. Nanoseconds; `at` is from the first."""

    thread: threading.Thread
    stack: RawStack
    at: int
    wall: int
    cpu: int


def sample(seconds: float) -> Samples:
    """Look at all threads but this one for so long, and add up where their time went. Raises `Busy`."""
    namer = Namer()
    spent: dict[tuple[str, RawStack], Spent] = defaultdict(Spent)
    samples = Samples()
    for look in _looks(seconds, namer):
        here = spent[look.thread.name, look.stack]
        here.looks += 1
        here.wall += look.wall
        here.cpu += look.cpu
        samples.seconds = look.at / 1e9
    for (name, raw), found in spent.items():
        samples.spent[name, namer.named(raw)] = found
    return samples


def _looks(seconds: float, namer: Namer) -> Iterator[Look]:
    if not _busy.acquire(blocking=False):
        raise Busy
    try:
        begun = looked = time.monotonic_ns()
        # The processor time that threads had before does not count; a thread that comes later has none.
        used = {thread.native_id: _cpu(thread.native_id) for thread in threading.enumerate()}
        pause = threading.Event()
        while looked - begun < seconds * 1e9:
            pause.wait(PERIOD)
            now = time.monotonic_ns()
            known = {thread.ident: thread for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way
                thread = known.get(ident)
                if thread is None or ident == threading.get_ident():
                    continue
                cpu = _cpu(thread.native_id)
                yield Look(thread, namer.walk(frame), now - begun, now - looked, max(cpu - used.get(thread.native_id, 0), 0))
                used[thread.native_id] = cpu
            looked = now
    finally:
        _busy.release()


def _cpu(native_id: int | None) -> int:
    """A thread's processor time in nanoseconds; 0 where there is none to be had, and for a thread that is gone.

    Linux has a clock for each thread, whose number is made of the thread's (`CPUCLOCK_PERTHREAD | CPUCLOCK_SCHED`). Unlike
    `time.pthread_getcpuclockid` it may be asked about a thread that has ended.
    """
    if native_id is None or sys.platform != "linux":
        return 0
    try:
        return time.clock_gettime_ns(~native_id << 3 | 6)
    except OSError:
        return 0
