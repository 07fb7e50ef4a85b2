"""What a bench found: figures, each beside the limit that was measured in the same run."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple


class Figure(NamedTuple):
    """One figure. `limit` is the best there can be, in the same unit; `more` are further columns."""

    what: str
    value: float
    unit: str
    limit: float | None = None
    more: Mapping[str, float] = MappingProxyType({})

    @property
    def ratio(self) -> float | None:
        return self.value / self.limit if self.limit else None

    def __str__(self) -> str:
        return f"{self.what}: {_number(self.value)} {self.unit}" + ("" if self.ratio is None else f", ratio {self.ratio:.2f}")

    def to_json(self) -> dict[str, Any]:
        columns = {"what": self.what, "value": self.value, "unit": self.unit, "limit": self.limit, "ratio": self.ratio, **self.more}
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in columns.items()}


def table(figures: Sequence[Figure]) -> str:
    """The figures in columns."""
    names = list(dict.fromkeys(name for figure in figures for name in figure.more))
    rows = [["", "figure", "", "limit", "ratio", *names]]
    rows += [
        [
            figure.what,
            _number(figure.value),
            figure.unit,
            _number(figure.limit),
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            *(_number(figure.more.get(name)) for name in names),
        ]
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(map(_cell, range(len(row)), row, widths)).rstrip() for row in rows)


def _cell(column: int, text: str, width: int) -> str:
    return text.ljust(width) if column in {0, 2} else text.rjust(width)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
