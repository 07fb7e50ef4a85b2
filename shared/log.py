"""Logs: constant event names with fields, columns on a terminal and JSON lines elsewhere."""

import logging
import sys
from collections.abc import MutableMapping
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
        structlog.dev.ConsoleRenderer(colors=out.isatty()) if human else structlog.processors.JSONRenderer(default=str)
    )
    structlog.configure(
        processors=[*shared, structlog.processors.StackInfoRenderer(), structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
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


def get(name: str) -> Any:
    """A logger whose events carry the name of their module."""
    return structlog.get_logger(module=name)


def _redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in SECRET_FIELDS & event.keys():
        event[name] = "(not shown)"
    return event
