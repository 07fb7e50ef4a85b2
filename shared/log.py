"""Logs: constant event names with fields, columns on a terminal and JSON lines elsewhere."""

import json
import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

import structlog

LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL"}

#: Fields whose value never reaches a log, whoever passes it.
SECRET_FIELDS = frozenset({"authorization", "signature", "token", "key", "material", "userdata", "password", "secret"})


def configure(level: str, log_format: str, *, stream: TextIO | None = None) -> None:
    """Set up logging for the whole process.

    `log_format` is `json`, `human` or `auto`: human on a terminal, else JSON (the 2018 service's `log-format`; its `zerolog` is JSON).
    """
    out = stream or sys.stderr
    number = logging.getLevelName(LEVELS.get(level, level))
    human = log_format == "human" or (log_format == "auto" and out.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        _redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=out.isatty()) if human else structlog.processors.JSONRenderer(_to_json)
    )
    structlog.configure(
        processors=[*shared, structlog.processors.StackInfoRenderer(), structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=_lines_to(out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
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


class _Lines:
    """Writes each line by one call of the system, which needs no lock: threads that wait for one another cost more than the line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def msg(self, line: str) -> None:
        data = f"{line}\n".encode(errors="backslashreplace")
        while data:
            data = data[os.write(self._descriptor, data) :]

    debug = info = warning = error = critical = fatal = exception = log = msg


def _lines_to(out: TextIO) -> Callable[..., Any]:
    try:
        lines = _Lines(out.fileno())
    except (OSError, ValueError, AttributeError):  # it is kept in memory
        return structlog.WriteLoggerFactory(out)
    return lambda *_names: lines


#: `json.dumps` makes one each time.
_ENCODER = json.JSONEncoder(default=str)


def _to_json(event: object, **_options: object) -> str:
    return _ENCODER.encode(event)


def get(name: str) -> Any:
    """A logger whose events carry the name of their module."""
    return structlog.get_logger(module=name)


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in SECRET_FIELDS & event.keys():
        event[name] = "(not shown)"
    return event
