"""What the processes of a stack use of the machine over time: a leak shows within an hour, and not in a test."""

import time
from collections import Counter
from collections.abc import Callable, Iterable

from dev.used import children_of, cpu_of, resident_mb

#: Seconds that a process must have been looked at before anything is said of it: caches and pools fill at first.
GROWN_UP = 300.0

_LOOK_EVERY = 10.0


class Memory:
    """The resident memory of each process since it was first seen."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: dict[tuple[str, int], list[tuple[float, float]]] = {}
        self._looked = -_LOOK_EVERY

    def look(self, processes: Iterable[tuple[str, int]]) -> None:
        """Note what each holds now, by name and pid; nothing where the system does not tell, nor within ten seconds of the last look."""
        now = self._now()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        for name, pid in processes:
            if held := _resident(pid):
                self._seen.setdefault((name, pid), []).append((now, held))

    def report(self) -> dict[str, str]:
        """Of each process that lived long, by its name: MiB at a tenth, a half and the end of the minutes that it was seen."""
        found: dict[str, tuple[float, str]] = {}
        for (name, _pid), looks in self._seen.items():
            lived = looks[-1][0] - looks[0][0]
            if lived >= max(GROWN_UP, found.get(name, (0.0, ""))[0]):
                parts = (looks[int((len(looks) - 1) * share)][1] for share in (0.1, 0.5, 1.0))
                found[name] = (lived, f"{' -> '.join(f'{part:.1f}' for part in parts)} MiB in {lived / 60:.0f} min")
        return {name: figures for name, (_lived, figures) in sorted(found.items())}


def _resident(pid: int) -> float:
    """MiB; 0 where the process is gone."""
    try:
        return resident_mb(pid)
    except (OSError, ValueError):
        return 0.0


class Cpu:
    """The time of the processor that each program has used, with all that it started, since it was first looked at."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, int], float] = {}
        self._last: dict[tuple[str, int], float] = {}
        self._began = time.monotonic()
        self._seconds = 0.0

    def look(self, processes: Iterable[tuple[str, int]]) -> None:
        """Note what each has used by now, by its name and pid."""
        self._seconds = time.monotonic() - self._began
        for program in processes:
            if used := _used(program[1]):
                self._first.setdefault(program, used)
                self._last[program] = used

    def report(self) -> dict[str, int]:
        """Per cent of a core, by name, over the lives of all of that name."""
        found: Counter[str] = Counter()
        for (name, pid), used in self._last.items():
            found[name] += round((used - self._first[name, pid]) / max(self._seconds, 1.0) * 100)
        return dict(found)


def _used(pid: int) -> float:
    """Seconds of a process, and of its children; 0 where it is gone."""
    return cpu_of([pid]) + sum(map(_used, children_of(pid)))
