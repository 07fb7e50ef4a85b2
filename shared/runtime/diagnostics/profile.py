"""The profile format that `go tool pprof` and its relatives read: a gzipped protobuf message of samples, each with its stack.

The format is https://github.com/google/pprof/blob/main/proto/profile.proto; the numbers below are its field numbers. Eight messages with
integers and strings in them need no protobuf library: what the wire format asks for is `_varint` and `_field`.
"""

import gzip
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from shared.runtime.diagnostics.stacks import Frame, Stack

#: A kind of value and its unit, such as ("cpu", "nanoseconds").
Kind = tuple[str, str]


@dataclass
class Profile:
    """Samples under their kinds of values; `encode` makes the file. `period` is what lies between two samples, in `period_kind`."""

    kinds: Sequence[Kind]
    #: Shown unless the reader asks for another.
    default: str
    program: str
    duration_ns: int = 0
    period_kind: Kind | None = None
    period: int = 0
    comments: list[str] = field(default_factory=list)
    samples: list[tuple[Stack, Sequence[int], dict[str, str]]] = field(default_factory=list)

    def add(self, stack: Stack, values: Sequence[int], **labels: str) -> None:
        self.samples.append((stack, values, labels))

    def encode(self) -> bytes:
        writer = _Writer()
        body = b"".join(
            [
                *(_field(1, writer.kind(kind)) for kind in self.kinds),
                *(_field(2, writer.sample(*sample)) for sample in self.samples),
                # One mapping that claims to hold all names: without it a reader looks for them in a binary.
                _field(3, _field(1, 1) + _field(5, writer.string(self.program)) + b"".join(_field(flag, 1) for flag in (7, 8, 9))),
                *(_field(4, message) for message in writer.locations),
                *(_field(5, message) for message in writer.functions),
                _field(9, time.time_ns()),
                _field(10, self.duration_ns),
                _field(11, writer.kind(self.period_kind)) if self.period_kind else b"",
                _field(12, self.period),
                *(_field(13, writer.string(comment)) for comment in self.comments),
                _field(14, writer.string(self.default)),
                # Last, when all strings are known.
                *(_field(6, text.encode()) for text in writer.strings),
            ]
        )
        return gzip.compress(body, compresslevel=6)


class _Writer:
    """The tables that samples point into: each string, function and location is written once. Numbers of the last two begin at 1."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {"": 0}
        self.strings: list[str] = [""]
        self.functions: list[bytes] = []
        self.locations: list[bytes] = []

    def string(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.strings)
            self.strings.append(text)
        return self._numbers[text]

    def kind(self, kind: Kind) -> bytes:
        return _field(1, self.string(kind[0])) + _field(2, self.string(kind[1]))

    def sample(self, stack: Stack, values: Sequence[int], labels: dict[str, str]) -> bytes:
        encoded = (_field(1, self.string(key)) + _field(2, self.string(value)) for key, value in labels.items())
        return (
            _field(1, _packed(self._location(frame) for frame in stack))
            + _field(2, _packed(values))
            + b"".join(_field(3, label) for label in encoded)
        )

    def _location(self, frame: Frame) -> int:
        if frame not in self._numbers:
            number = self._numbers[frame] = len(self.locations) + 1
            line = _field(1, self._function(frame)) + _field(2, frame.line)
            self.locations.append(_field(1, number) + _field(2, 1) + _field(4, line))
        return self._numbers[frame]

    def _function(self, frame: Frame) -> int:
        key = (frame.function, frame.file, frame.start)
        if key not in self._numbers:
            number = self._numbers[key] = len(self.functions) + 1
            name = self.string(frame.function)
            self.functions.append(
                _field(1, number) + _field(2, name) + _field(3, name) + _field(4, self.string(frame.file)) + _field(5, frame.start)
            )
        return self._numbers[key]


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _packed(values: Iterable[int]) -> bytes:
    return b"".join(map(_varint, values))


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number is its two's complement of 64 bits."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
