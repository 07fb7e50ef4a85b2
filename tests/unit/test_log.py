"""Logs: what a line holds, and what it never holds."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from shared import log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Logging is set up for the whole process; what other tests have bound to it is not ours."""
    structlog.contextvars.clear_contextvars()
    root = logging.getLogger()
    names = ("waitress.queue", "dramatiq", "alembic")
    before = (root.handlers[:], root.level, {name: logging.getLogger(name).level for name in names}, structlog.get_config())
    yield
    root.handlers[:], root.level = before[0], before[1]
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)
    structlog.configure(**before[3])


def logged(level: str = "DEBUG", log_format: str = "json", stream: io.StringIO | None = None) -> tuple[Any, io.StringIO]:
    out = stream or io.StringIO()
    log.configure(level, log_format, stream=out)
    return log.get("tests"), out


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_with_its_fields() -> None:
    logger, out = logged()
    logger.info("instance_launched", machine_id="m1", attempt=2, about={"a": [1]}, odd=ValueError("why"))
    (line,) = lines(out)
    assert line.pop("time").endswith("Z")
    expected = {"event": "instance_launched", "level": "info", "module": "tests", "machine_id": "m1", "attempt": 2, "about": {"a": [1]}}
    assert line == expected | {"odd": "why"}


def test_a_line_break_in_a_value_does_not_make_a_second_line() -> None:
    logger, out = logged()
    logger.info("event", text='first\nsecond {"event": "forged"}')
    assert [line["event"] for line in lines(out)] == ["event"]


OBEYED = "\x1b]0;owned\x07\x1b[2J \x9b31m \x7f \u202e \r\n2026 [info] forged"


class Odd:
    """A value whose own words are as bad."""

    def __repr__(self) -> str:
        return OBEYED


@pytest.mark.parametrize(
    "value", [OBEYED, [OBEYED], {OBEYED: OBEYED}, Odd(), ValueError(OBEYED), OBEYED.encode()], ids=lambda value: type(value).__name__
)
def test_no_value_of_an_event_moves_a_terminal_or_makes_a_second_line(value: object) -> None:
    for log_format in ("human", "json"):
        logger, out = logged(log_format=log_format)
        logger.info(OBEYED, **{"path": value, OBEYED: 1})
        with bound_contextvars(account=value):
            logging.getLogger(OBEYED).warning("%s", value)
        assert len(out.getvalue().splitlines()) == 2, "one each, by all that Unicode takes for a line break"
        assert out.getvalue().replace("\n", "").isprintable()


def test_an_exception_keeps_its_lines_and_nothing_else_of_that_kind() -> None:
    logger, out = logged(log_format="human")
    try:
        raise ValueError(OBEYED)
    except ValueError:
        logger.exception("event")
    assert len(out.getvalue().splitlines()) > 3
    assert out.getvalue().replace("\n", "").isprintable()


class Refusing:
    def __repr__(self) -> str:
        raise RuntimeError("it will not be shown")


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_an_event_that_cannot_be_shown_is_a_line_and_no_error(log_format: str) -> None:
    logger, out = logged(log_format=log_format)
    logger.info("event", value=Refusing())
    logging.getLogger("library").warning("%d", "no number")
    assert [line["event"] for line in lines(out)] == ["event", "%d"]


def test_what_is_bound_to_the_context_is_in_every_event() -> None:
    logger, out = logged()
    with bound_contextvars(request_id="r1"):
        logger.info("first")
        logging.getLogger("elsewhere").warning("second")
    logger.info("third")
    assert [line.get("request_id") for line in lines(out)] == ["r1", "r1", None]


@pytest.mark.parametrize("field", sorted(log.SECRET_FIELDS))
@pytest.mark.parametrize("log_format", ["json", "human"])
def test_a_secret_field_is_not_shown(field: str, log_format: str) -> None:
    logger, out = logged(log_format=log_format)
    logger.warning("event", **{field: "hunter2"}, other="shown")
    with bound_contextvars(**{field: "hunter2"}):
        logger.warning("event")
    assert "hunter2" not in out.getvalue()
    assert "(not shown)" in out.getvalue()
    assert "shown" in out.getvalue()


def test_what_caller_and_key_are_called_is_secret() -> None:
    assert {"authorization", "signature", "token", "key", "material", "userdata", "password"} <= log.SECRET_FIELDS


def test_an_exception_is_in_the_line_of_its_event() -> None:
    logger, out = logged()
    try:
        raise LookupError("the cause")
    except LookupError:
        logger.exception("event")
    (line,) = lines(out)
    assert "LookupError: the cause" in line["exception"]


def test_events_of_libraries_look_like_our_own() -> None:
    _, out = logged()
    logging.getLogger("some.library").warning("it is %s", "late")
    (line,) = lines(out)
    assert (line["event"], line["level"], line["logger"]) == ("it is late", "warning", "some.library")
    assert line["time"].endswith("Z")


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("DEBUG", ["debug", "info", "warning", "error"]),
        ("INFO", ["info", "warning", "error"]),
        ("WARN", ["warning", "error"]),
        ("WARNING", ["warning", "error"]),
        ("ERROR", ["error"]),
        ("FATAL", []),
        ("CRITICAL", []),
    ],
)
def test_a_level_hides_what_is_below_it(level: str, shown: list[str]) -> None:
    logger, out = logged(level)
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)("event")
    assert [line["level"] for line in lines(out)] == shown


def test_debug_is_for_our_own_events_only() -> None:
    _, out = logged("DEBUG")
    logging.getLogger("urllib3").debug("Starting new HTTP connection")
    logging.getLogger("dramatiq").info("Worker process is ready for action.")
    logging.getLogger("alembic").info("Running upgrade")
    assert not out.getvalue()


def test_a_terminal_gets_columns_and_everything_else_json() -> None:
    logger, out = logged(log_format="auto", stream=Terminal())
    logger.info("instance_launched", machine_id="m1")
    assert "\x1b[" in out.getvalue()
    with pytest.raises(ValueError):
        json.loads(out.getvalue())
    logger, out = logged(log_format="auto")
    logger.info("instance_launched", machine_id="m1")
    assert lines(out)[0]["machine_id"] == "m1"


def test_people_may_have_columns_in_a_file_and_machines_json_on_a_terminal() -> None:
    logger, out = logged(log_format="human")
    logger.info("instance_launched", machine_id="m1")
    assert "instance_launched" in out.getvalue()
    assert "machine_id=m1" in out.getvalue()
    for log_format in ("json", "zerolog"):
        logger, out = logged(log_format=log_format, stream=Terminal())
        logger.info("instance_launched")
        assert lines(out)[0]["event"] == "instance_launched"
