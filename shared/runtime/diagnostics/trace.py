"""What each thread did when, as `go tool trace` draws it: an execution trace of threads in the place of goroutines.

The format is that of Go 1.11 to 1.21, which every later `go tool trace` reads too. A thread has a processor of its own in it, runs for
as long as the kernel counted, and is where it was seen when it was looked at. What it waits for is on the arrow of its last stop.
"""

from collections.abc import Iterator

from shared.runtime.diagnostics.stacks import Frame, Stack
from shared.runtime.diagnostics.wire import varint

_HEADER = b"go 1.11 trace\0\0\0"
#: Kinds of events.
_BATCH, _FREQUENCY, _STACK, _MAXPROCS, _PROC_START, _CREATE, _BLOCK, _WAITING, _STRING, _START, _UNBLOCK = (
    *(1, 2, 3, 4, 5, 13, 20, 31, 37),
    *(38, 39),
)
#: An event says how many arguments follow its time, up to two; from three on, how many bytes.
_INLINE = 2
#: The processor of what is nobody's.
_NOBODY = -1
#: Calls of a stack: a reader takes no more than 2048 bytes.
DEPTH = 100


class Trace:
    """Events of threads, each in the order of its own time. Nanoseconds from the beginning of the trace."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {}
        self._frames: dict[Frame, int] = {}
        self._stacks: dict[Stack, int] = {}
        self._numbers: dict[int, int] = {}
        self._batches: dict[int, _Batch] = {}

    def ran(self, thread: int, name: str, begun: int, ended: int, stack: Stack) -> None:
        """A thread used the processor from and to, and was at `stack` then; `begun == ended`: it waits there."""
        if thread not in self._numbers:
            number = self._numbers[thread] = len(self._numbers) + 1
            batch = self._batches[thread] = _Batch(number, begun)
            batch.add(_PROC_START, begun, thread)
            if number == 1:
                batch.add(_MAXPROCS, begun, 1, 0)
            batch.add(_CREATE, begun, number, self._stack(_root(name)), 0)
            batch.add(_WAITING, begun, number)
        number, batch = self._numbers[thread], self._batches[thread]
        batch.add(_UNBLOCK, begun, number, 0)
        batch.add(_START, begun, number)
        batch.add(_BLOCK, ended, self._stack(stack[:DEPTH] + _root(name)))

    def encode(self) -> bytes:
        common = _Batch(_NOBODY, 0)
        common.plain(_FREQUENCY, 1_000_000_000)
        stacks = [(number, list(self._described(stack))) for stack, number in self._stacks.items()]
        for text, number in self._strings.items():
            encoded = text.encode()
            common.body += bytes([_STRING]) + varint(number) + varint(len(encoded)) + encoded
        for number, described in stacks:
            common.plain(_STACK, number, len(described) // 4, *described)
        return _HEADER + b"".join(bytes(batch.body) for batch in (*self._batches.values(), common))

    def _stack(self, stack: Stack) -> int:
        return self._stacks.setdefault(stack, len(self._stacks) + 1)

    def _described(self, stack: Stack) -> Iterator[int]:
        """Address (any number of its own), function, file and line of each call."""
        for frame in stack:
            yield self._frames.setdefault(frame, len(self._frames) + 1)
            yield self._string(frame.function)
            yield self._string(frame.file or "-")
            yield frame.line

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings) + 1)


def _root(name: str) -> Stack:
    """Where a thread begins: readers group by it."""
    return (Frame(name, "", 0, 0),)


class _Batch:
    """The events of one processor, each with the time since the last one."""

    def __init__(self, processor: int, begun: int) -> None:
        self.body = bytearray([_BATCH | 1 << 6]) + varint(processor) + varint(begun)
        self._last = begun

    def add(self, kind: int, at: int, *arguments: int) -> None:
        at = max(at, self._last)
        self.plain(kind, at - self._last, *arguments)
        self._last = at

    def plain(self, kind: int, first: int, *arguments: int) -> None:
        count = min(len(arguments), _INLINE + 1)
        values = b"".join(map(varint, (first, *arguments)))
        self.body += bytes([kind | count << 6]) + (values if count <= _INLINE else varint(len(values)) + values)
