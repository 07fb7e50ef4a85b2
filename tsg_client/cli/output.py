"""Tables and objects on the terminal, with the options that `triton` has for them."""

import json
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import click

from tsg_client.cli.errors import printable
from tsg_client.models import Model

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

#: Units of an age, in seconds, as in node-triton's longAgo.
_UNITS = (("y", 365 * 86400), ("w", 7 * 86400), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
#: Characters of the last column that are left when a terminal is narrow.
_LEAST = 12

#: By the word that is shown.
_COLORS = {
    **dict.fromkeys(("Settled", "running", "healthy", "success", "ok", "Successful", "RolledBack"), "green"),
    **dict.fromkeys(("failed", "unhealthy", "Failed", "RollbackFailed"), "red"),
    **dict.fromkeys(("QuotaExceeded", "TemplateRejected", "DeletionRejected", "AccountRejected", "CircuitOpen", "ServiceFailed"), "red"),
    **dict.fromkeys(("Provisioning", "Replacing", "Deleting", "provisioning", "stopping", "InProgress", "Pausing", "Paused"), "yellow"),
    **dict.fromkeys(
        (
            "Throttled",
            "RollingOut",
            "RolloutPaused",
            "Draining",
            "Protected",
            "Suspended",
            "Baking",
            "RollingBack",
            "NoCapacity",
            "CloudAPISlow",
            "CloudAPIUnavailable",
            "NomadUnavailable",
            "Backoff",
        ),
        "yellow",
    ),
}


@dataclass(frozen=True)
class Table(Generic[T]):
    """A list's columns by their names, and which are shown. `sort` has `-` before a column that descends."""

    columns: Mapping[str, Callable[[T], object]]
    default: Sequence[str]
    long: Sequence[str]
    sort: Sequence[str] = ()

    def shown(self, options: "Options") -> Sequence[str]:
        """The columns that the options ask for. A usage error names those that there are."""
        asked = options.columns or (self.long if options.is_long else self.default)
        for name in (*asked, *(one.removeprefix("-") for one in options.sort or ())):
            if name not in self.columns:
                raise click.UsageError(f"there is no column {name!r}; there are: {', '.join(self.columns)}", click.get_current_context())
        return asked

    def show(self, rows: Iterable[T], options: "Options") -> None:
        """Print the rows."""
        names = self.shown(options)
        rows = self._sorted(list(rows), options.sort or self.sort)
        if options.is_json:
            for row in rows:
                click.echo(to_json(_json(row) | {name: _made(name, self.columns[name](row)) for name in names}))
            return
        cells = [[_text(name, self.columns[name](row)) for name in names] for row in rows]
        if not options.no_header:
            cells.insert(0, [name.upper() for name in names])
        print_cells(cells, has_header=not options.no_header, is_cut=not options.is_long)

    def _sorted(self, rows: list[T], by: Sequence[str]) -> list[T]:
        for name in reversed(by):
            column = self.columns[name.removeprefix("-")]
            rows.sort(key=lambda row: _rank(column(row)), reverse=name.startswith("-"))
        return rows


@dataclass(frozen=True)
class Options:
    """How a list is shown."""

    no_header: bool = False
    columns: Sequence[str] | None = None
    is_long: bool = False
    sort: Sequence[str] | None = None
    is_json: bool = False


def list_options(table: Table[Any]) -> Callable[[F], F]:
    """The options -H -o -l -s -j, as one argument `options`."""

    def decorate(function: F) -> F:
        def read(ctx: click.Context, _param: click.Parameter, value: Any) -> Any:
            given = ctx.params
            ctx.params["options"] = Options(
                no_header=given.pop("no_header", False),
                columns=_names(given.pop("columns", None)),
                is_long=given.pop("is_long", False),
                sort=_names(given.pop("sort", None)),
                is_json=value,
            )

        known = ", ".join(table.columns)
        by = ",".join(table.sort) or "the service's order"
        options = (
            click.option("-H", "no_header", is_flag=True, is_eager=True, help="No header."),
            click.option("-o", "columns", metavar="COLUMN,...", is_eager=True, help=f"These columns, of: {known}."),
            click.option("-l", "--long", "is_long", is_flag=True, is_eager=True, help="More columns, nothing cut off."),
            click.option("-s", "sort", metavar="COLUMN,...", is_eager=True, help=f"Sort by these; -COLUMN descends. Without it: {by}."),
            click.option("-j", "--json", is_flag=True, callback=read, expose_value=False, help="A JSON object a line."),
        )
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


json_option = click.option("-j", "--json", "is_json", is_flag=True, help="JSON on one line.")


def show_object(found: Model | Mapping[str, Any], *, is_json: bool) -> None:
    """Print one object: indented, or on one line."""
    click.echo(to_json(_json(found), indent=None if is_json else 4))


def show_done(text: str, made: Model, *, is_json: bool) -> None:
    """Say what was done, or print the object that it was done to."""
    if is_json:
        show_object(made, is_json=True)
    else:
        click.echo(text)


def to_json(found: object, *, indent: int | None = None) -> str:
    """JSON's text, on one line or indented."""
    return json.dumps(found, indent=indent, ensure_ascii=False)


def age(when: datetime) -> str:
    """How long ago, in the largest whole unit."""
    seconds = max(0, int((datetime.now(UTC) - when).total_seconds()))
    return next((f"{seconds // size}{unit}" for unit, size in _UNITS if seconds >= size), "0s")


def color(text: str) -> str | None:
    """The colour of a word, where it has one."""
    return _COLORS.get(text)


def word(text: str) -> str:
    """The word in its colour, where there is one."""
    return click.style(text, fg=color(text)) if color(text) else text


def _names(text: str | None) -> list[str] | None:
    return [name.strip() for name in text.split(",") if name.strip()] if text else None


def _json(row: Any) -> dict[str, Any]:
    """What the service sent of a row."""
    return dict(row) if isinstance(row, Mapping) else row.as_json()


def _made(name: str, value: object) -> object:
    """A column of ours as JSON has it: times as the service writes them."""
    if isinstance(value, datetime):
        return age(value) if name == "age" else value.isoformat().replace("+00:00", "Z")
    return value


def _text(name: str, value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return age(value) if name == "age" else f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        return printable(json.dumps(value, ensure_ascii=False, default=str))
    return printable(str(value)).replace("\n", " ")


def _rank(value: object) -> tuple[bool, Any]:
    """What a cell is sorted by: those without a value last, numbers by their size."""
    return (value is None, 0 if value is None else value if isinstance(value, int | float | datetime) else str(value))


def print_cells(cells: list[list[str]], *, has_header: bool = False, is_cut: bool = True) -> None:
    """Print rows in columns. The last one is cut off where a terminal ends, if `is_cut`."""
    width = shutil.get_terminal_size().columns if is_cut and sys.stdout.isatty() else None
    for line in lines_of(cells, has_header=has_header, width=width):
        click.echo(line)


def lines_of(cells: list[list[str]], *, has_header: bool = False, width: int | None = None) -> Iterator[str]:
    """Rows in columns, with their colours; none longer than `width`."""
    if not cells:
        return
    widths = [max(_width(row[number]) for row in cells) for number in range(len(cells[0]))]
    if width is not None:
        widths[-1] = min(widths[-1], max(width - sum(widths[:-1]) - 2 * (len(widths) - 1), _LEAST))
    for number, row in enumerate(cells):
        *first, last = row
        parts = [word(cell) + " " * (room - _width(cell)) for cell, room in zip(first, widths, strict=False)]
        line = "  ".join([*parts, word(_cut(last, widths[-1]))]).rstrip()
        yield click.style(line, bold=True) if has_header and number == 0 else line


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while _width(text) > width - 1:
        text = text[:-1]
    return f"{text}…"
