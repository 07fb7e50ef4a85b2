"""What the memory is used for: by the place that asked for it, or by type.

Python remembers where memory was asked for only while `tracemalloc` runs, which makes a process slower, so it does not run all the
time. `between` runs it for some seconds and tells what was asked for in them and is still held: a leak shows. A process that is
started with PYTHONTRACEMALLOC=16 remembers from its beginning. Without either, objects are counted by their type.
"""

import gc
import sys
import threading
import tracemalloc
from collections import defaultdict
from contextlib import suppress

from shared.runtime.diagnostics.profile import Profile
from shared.runtime.diagnostics.stacks import Frame

#: Calls remembered of each allocation.
DEPTH = 24
#: Lines in a text.
LINES = 100

_busy = threading.Lock()

KINDS = [("inuse_objects", "count"), ("inuse_space", "bytes")]


class Busy(Exception):
    """Another look at the memory is under way."""


def now(program: str) -> Profile:
    """All that is held: by place where it is known, else by type."""
    return _by_place(program) if tracemalloc.is_tracing() else _by_type(program)


def between(program: str, seconds: float) -> Profile:
    """What is asked for within these seconds and still held at their end. Raises `Busy`.

    Where places are remembered anyway: all that is held then.
    """
    if not _busy.acquire(blocking=False):
        raise Busy
    try:
        ours = not tracemalloc.is_tracing()
        if ours:
            tracemalloc.start(DEPTH)
        try:
            threading.Event().wait(seconds)
            made = _by_place(program)
        finally:
            if ours:
                tracemalloc.stop()
        if ours:
            made.duration_ns = int(seconds * 1e9)
            made.comments.append(f"asked for in {seconds:g} seconds and still held")
        return made
    finally:
        _busy.release()


def text(profile: Profile) -> str:
    """The biggest first, one line each, with the place or the type."""
    counted: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for stack, values, _labels in profile.samples:
        leaf = stack[0]
        line = counted[f"{leaf.function}\t{leaf.file}:{leaf.line}" if leaf.file else leaf.function]
        line[0] += values[0]
        line[1] += values[1]
    objects, size = (sum(line[part] for line in counted.values()) for part in (0, 1))
    lines = [f"heap profile: {objects} objects, {size} bytes", *(f"# {comment}" for comment in profile.comments)]
    biggest = sorted(counted.items(), key=lambda item: -item[1][1])
    lines += [f"{count}: {held} @\t{where}" for where, (count, held) in biggest[:LINES]]
    if len(biggest) > LINES:
        lines.append(f"... and {len(biggest) - LINES} more")
    return "\n".join(lines) + "\n"


def _by_place(program: str) -> Profile:
    made = Profile(KINDS, "inuse_space", program, comments=["by the place that asked for the memory (tracemalloc)"])
    ours = (tracemalloc.Filter(False, tracemalloc.__file__), tracemalloc.Filter(False, __file__))
    for found in tracemalloc.take_snapshot().filter_traces(ours).statistics("traceback"):
        stack = tuple(Frame(_function(place), place.filename, place.lineno, 0) for place in reversed(found.traceback))
        made.add(stack, (found.count, found.size))
    return made


def _function(place: tracemalloc.Frame) -> str:
    """tracemalloc knows files and lines, no functions."""
    return f"{'/'.join(place.filename.rsplit('/', 2)[-2:])}:{place.lineno}"


def _by_type(program: str) -> Profile:
    """All objects that the garbage collector knows, and what they alone refer to (strings, numbers, bytes)."""
    comment = "by type; ask with ?seconds=N for the places that ask for memory, or start the process with PYTHONTRACEMALLOC=16"
    made = Profile(KINDS, "inuse_space", program, comments=[comment])
    held: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    seen: set[int] = set()

    def count(thing: object) -> None:
        kind = type(thing)
        with suppress(Exception):  # a type may lie about its size
            line = held[f"{kind.__module__}.{kind.__qualname__}"]
            line[1] += sys.getsizeof(thing)
            line[0] += 1

    for thing in gc.get_objects():
        count(thing)
        for inner in gc.get_referents(thing):
            if not gc.is_tracked(inner) and id(inner) not in seen:
                seen.add(id(inner))
                count(inner)
    for name, values in held.items():
        made.add((Frame(name, "", 0, 0),), values)
    return made
