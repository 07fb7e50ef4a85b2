"""Nomad's errors: a status and a plain text, never JSON."""

from collections.abc import Sequence


class Refusal(Exception):
    """An answer other than the wanted one."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Cut(Exception):
    """The connection is closed without an answer."""


def bad_request(message: str) -> Refusal:
    return Refusal(400, message)


def not_found(message: str) -> Refusal:
    return Refusal(404, message)


def failed(message: str) -> Refusal:
    """Nomad: 500 for nearly everything that the asker did wrong."""
    return Refusal(500, message)


def no_leader() -> Refusal:
    return failed("No cluster leader")


def error_list(errors: Sequence[str]) -> str:
    """Several errors as Nomad writes them; one may itself be such a list."""
    head = "1 error occurred:" if len(errors) == 1 else f"{len(errors)} errors occurred:"
    return head + "".join(f"\n\t* {error}" for error in errors) + "\n\n"
