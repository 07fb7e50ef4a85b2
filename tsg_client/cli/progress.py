"""Waiting for a group, with its progress on stderr: one line that changes on a terminal, else a line for each change."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from tsg_client.cli.session import Session
from tsg_client.errors import NotSettled
from tsg_client.models import Rollout, Status

#: Seconds that a command waits, where none are given.
TIMEOUT = 600.0

F = TypeVar("F", bound=Callable[..., Any])


def wait_options(function: F) -> F:
    """The options -w and --wait-timeout, as `wait` and `timeout`."""
    timeout = click.option("--wait-timeout", "timeout", type=float, default=TIMEOUT, show_default=True, metavar="SECONDS", help="With -w.")
    return click.option("-w", "--wait", is_flag=True, help="Wait until the group is settled.")(timeout(function))


def wait_settled(session: Session, group_id: str, *, timeout: float) -> None:
    """Wait for a group to settle, and say how far it is. `NotSettled` ends with what to do."""
    line = _Line()
    try:
        status = session.client.wait_settled(group_id, timeout=timeout, on_progress=lambda status: line.show(_progress(status)))
    except NotSettled as error:
        raise NotSettled(f"{error}\n    tsg group explain {group_id} shows what was tried", code=error.code) from None
    finally:
        line.end()
    end = "is gone" if status.reason == "Deleted" else f"is settled, {counts(status)},"
    click.echo(f"{status.group_name} {end} after {line.seconds:.0f} s", err=True)


def _progress(status: Status) -> str:
    reason = "" if status.reason in {"Settled", "Provisioning", "Deleting", "Deleted"} else f" ({status.reason})"
    return f"{status.group_name}: {counts(status)}{reason}"


def wait_rollout(session: Session, found: Rollout, *, timeout: float) -> Rollout:
    """Wait for a rollout to end or to need somebody, and say how far it is. `NotSettled` for any end but a good one."""
    line = _Line()
    last = found
    try:
        for last in session.client.watch_rollout(found.group_id, found.id, timeout=timeout):
            line.show(rollout_line(last))
    finally:
        line.end()
    if last.state in {"Successful", "RolledBack"}:
        click.echo(f"{rollout_line(last)}, after {line.seconds:.0f} s", err=True)
        return last
    hint = f"\n    tsg rollout resume, cancel or rollback goes on; tsg group explain {found.group_id} shows what was done"
    if last.is_over:
        raise NotSettled(f"{last.message or rollout_line(last)}{hint}", code=last.state)
    raise NotSettled(f"not over after {timeout:.0f} s: {rollout_line(last)}{hint}")


def rollout_line(found: Rollout) -> str:
    """How far a rollout is."""
    numbers = found.counts
    others = {"outdated": numbers.outdated, "draining": numbers.draining, "failed": numbers.failed}
    more = "".join(f", {count} {what}" for what, count in others.items() if count)
    return f"{found.state}: {found.percent_complete} %, {numbers.new_available} of {numbers.wanted} new and available{more}"


def why(status: Status) -> str:
    """Its message without the counts."""
    return status.message.partition("instances run. ")[2] or status.message


def counts(status: Status) -> str:
    """How many instances are in which state."""
    others = {"booting": status.provisioning, "failed": status.failed, "being deleted": status.deleting}
    return f"{status.running} of {status.desired} running" + "".join(f", {count} {what}" for what, count in others.items() if count)


class _Line:
    """A line of progress."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._last = ""

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def show(self, text: str) -> None:
        if self._is_terminal:
            line = f"{self.seconds:5.0f} s  {text}"[: shutil.get_terminal_size().columns - 1]
            click.echo(f"\r\x1b[K{line}", err=True, nl=False)
        elif text != self._last:
            click.echo(f"{self.seconds:5.0f} s  {text}", err=True)
        self._last = text

    def end(self) -> None:
        if self._is_terminal:
            click.echo("\r\x1b[K", err=True, nl=False)
