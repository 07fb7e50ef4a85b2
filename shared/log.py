"""Logs: constant event names with fields, columns on a terminal and JSON lines elsewhere."""

import json
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from shared.lines import Write, printable, writer

LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL"}

#: Fields whose value never reaches a log.
SECRET_FIELDS = frozenset({"authorization", "signature", "token", "key", "material", "userdata", "password", "secret"})


def configure(level: str, log_format: str, *, stream: TextIO | None = None) -> None:
    """Set up logging for the whole process.

    `log_format` is `json`, `human` or `auto`: human on a terminal, else JSON (the 2018 service's `log-format`; its `zerolog` is JSON).
    """
    out = stream or sys.stderr  # None: it was closed before we began
    number = logging.getLevelName(LEVELS.get(level, level))
    on_terminal = out is not None and out.isatty()
    human = log_format == "human" or (log_format == "auto" and on_terminal)
    write = writer(out, lambda lost: get(__name__).warning("log_lines_lost", lines=lost))
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _redact,
    ]
    renderer = _surely(_for_people(structlog.dev.ConsoleRenderer(colors=on_terminal)) if human else _to_json)
    structlog.configure(
        processors=[*shared, structlog.processors.StackInfoRenderer(), structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_names: _Logger(write),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(write)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.INFO))
    # One line for each request that waits for a thread: millions of them under load.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    # Our own events say what Dramatiq and Alembic say at INFO.
    for name in ("dramatiq", "alembic"):
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


class _Logger:
    """What structlog gives its lines to."""

    def __init__(self, write: Write) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.fatal = self.exception = self.log = self.msg = write


class _Handler(logging.Handler):
    """The same for the standard library's."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write(self.format(record))
        except Exception:  # noqa: BLE001 - a message and arguments that do not fit must not stop the caller
            self._write(_to_json(None, "", {"event": str(record.msg), "level": "error", "logger": record.name}))


def _surely(render: structlog.typing.Processor) -> structlog.typing.Processor:
    """Whatever an event holds, it is a line in the end, and raises nothing."""

    def surely(logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        try:
            return render(logger, method, event)
        except Exception as error:  # noqa: BLE001 - a value of any type may refuse to be text
            return _to_json(logger, method, {"event": str(event.get("event")), "level": method, "not_shown": type(error).__name__})

    return surely


#: `json.dumps` makes one each time.
_ENCODER = json.JSONEncoder(default=str)


def _to_json(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    return _ENCODER.encode(event).replace("\x7f", "\\u007f")


#: Fields of several lines.
_SHEETS = frozenset({"exception", "stack"})


def _for_people(render: structlog.typing.Processor) -> structlog.typing.Processor:
    """No value moves the cursor, beeps, or makes a second line: what a terminal would obey is shown as an escape."""

    def shown(name: str, value: object) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        return printable(value if isinstance(value, str) else repr(value), keep="\n\t" if name in _SHEETS else "")

    def for_people(logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        return render(logger, method, {printable(name): shown(name, value) for name, value in event.items()})

    return for_people


def get(name: str) -> Any:
    """A logger whose events carry the name of their module."""
    return structlog.get_logger(module=name)


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in SECRET_FIELDS & event.keys():
        event[name] = "(not shown)"
    return event
