"""What the processes of a stack hold of the machine's memory over time: a leak shows within an hour, and not in a test."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from dev.processes import Child

#: Seconds that a process must have been looked at before anything is said of it: caches and pools fill at first.
GROWN_UP = 300.0

_LOOK_EVERY = 10.0


class Memory:
    """The resident memory of each process since it was first seen."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: dict[tuple[str, int], list[tuple[float, float]]] = {}
        self._looked = -_LOOK_EVERY

    def look(self, processes: Iterable[tuple[str, Child]]) -> None:
        """Note what each holds now; nothing where the system does not tell, nor within ten seconds of the last look."""
        now = self._now()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        for name, child in processes:
            if held := _resident(child.pid):
                self._seen.setdefault((name, child.pid), []).append((now, held))

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
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)
