"""Where every thread is: functions, files and lines. Never a local variable or an argument, which may be a key."""

import sys
import threading
from collections import defaultdict
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import NamedTuple


class Frame(NamedTuple):
    """One call. `start` is the line that its function begins at."""

    function: str
    file: str
    line: int
    start: int


#: The innermost call first, as pprof has it.
Stack = tuple[Frame, ...]

#: As a sampler gathers them: cheap to make and to compare.
RawStack = tuple[tuple[CodeType, int], ...]


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread of this process, by the name it has in Python and the number it has in the kernel."""

    name: str
    native_id: int | None
    daemon: bool
    stack: Stack


class Namer:
    """Raw stacks to stacks. Remembers the module of each code object, which the code itself does not know."""

    def __init__(self) -> None:
        self._modules: dict[CodeType, str] = {}

    def walk(self, frame: FrameType | None) -> RawStack:
        raw = []
        while frame is not None:
            code = frame.f_code
            raw.append((code, frame.f_lineno or code.co_firstlineno))
            if code not in self._modules:
                self._modules[code] = str(frame.f_globals.get("__name__", "?"))
            frame = frame.f_back
        return tuple(raw)

    def named(self, raw: RawStack) -> Stack:
        return tuple(Frame(f"{self._modules[code]}.{code.co_qualname}", code.co_filename, line, code.co_firstlineno) for code, line in raw)


def threads() -> list[Thread]:
    """All threads as they are now, the main one first, without the one that asks."""
    namer = Namer()
    known = {thread.ident: thread for thread in threading.enumerate()}
    found = []
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - the documented way
        if ident == threading.get_ident():
            continue
        thread = known.get(ident)
        stack = namer.named(namer.walk(frame))
        found.append(Thread(thread.name, thread.native_id, thread.daemon, stack) if thread else Thread(f"?{ident}", None, True, stack))
    return sorted(found, key=lambda thread: (thread.name != "MainThread", thread.native_id or 0))


def one_by_one(found: list[Thread]) -> str:
    """Each thread with its stack: what Go prints of its goroutines with `debug=2`."""
    lines = []
    for thread in found:
        lines.append(f"thread {thread.native_id or 0} [{thread.name}{', daemon' if thread.daemon else ''}]:")
        lines += [f"{frame.function}(...)\n\t{frame.file}:{frame.line}" for frame in thread.stack]
        lines.append("")
    return "\n".join(lines)


def together(found: list[Thread]) -> str:
    """All threads, those at the same place together: `debug=1`."""
    by_stack: dict[Stack, list[str]] = defaultdict(list)
    for thread in found:
        by_stack[thread.stack].append(thread.name)
    lines = [f"threads: total {len(found)}"]
    for stack, names in sorted(by_stack.items(), key=lambda item: -len(item[1])):
        lines.append(f"{len(names)} @ {', '.join(sorted(names))}")
        lines += [f"#\t{frame.function}\t{frame.file}:{frame.line}" for frame in stack]
        lines.append("")
    return "\n".join(lines)
