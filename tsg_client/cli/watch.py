"""`tsg watch` and `tsg top`: groups in the terminal, drawn anew when something changes."""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice

import click

from tsg_client import errors
from tsg_client.cli.completing import groups
from tsg_client.cli.errors import printable
from tsg_client.cli.group import find
from tsg_client.cli.output import age, lines_of, word
from tsg_client.cli.progress import counts, why
from tsg_client.cli.session import Session
from tsg_client.cli.verbs import Verb
from tsg_client.client import Client
from tsg_client.models import Activity, Member
from tsg_client.names import short

#: Seconds between two looks.
LOOK = 2.0
#: Activities that are shown.
FEW = 10


@click.command(cls=Verb)
@click.option("-n", "--interval", type=click.FloatRange(0.5), default=LOOK, show_default=True, metavar="SECONDS", help="Between two looks.")
@click.option("--once", is_flag=True, help="Draw it once, and end.")
@click.pass_obj
def top(session: Session, interval: float, once: bool) -> None:
    """Show all groups, those that need something first. Ends with Ctrl-C."""
    _draw((_all(session.client) for _ in _looks(interval, once=once)), once=once)


@click.command(cls=Verb)
@click.argument("name", metavar="GROUP", shell_complete=groups)
@click.option("-n", "--interval", type=click.FloatRange(0.5), default=LOOK, show_default=True, metavar="SECONDS", help="Between two looks.")
@click.option("--once", is_flag=True, help="Draw it once, and end.")
@click.pass_obj
def watch(session: Session, name: str, interval: float, once: bool) -> None:
    """Show a group with its members and last activities. Ends with Ctrl-C."""
    group = find(session.client, name)
    _draw((_one(session.client, group.id) for _ in _looks(interval, once=once)), once=once)


def _looks(interval: float, *, once: bool) -> Iterator[None]:
    yield
    while not once:
        time.sleep(interval)
        yield


def _draw(views: Iterator[list[str]], *, once: bool) -> None:
    if once or not sys.stdout.isatty():
        click.echo("\n".join(next(views)))
        return
    from rich.console import Console  # noqa: PLC0415 - for a view that lives
    from rich.live import Live  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    with suppress(KeyboardInterrupt), Live(console=Console(), screen=True, auto_refresh=False) as live:
        for view in views:
            live.update(Text.from_ansi("\n".join(view)), refresh=True)


def _all(client: Client) -> list[str]:
    try:
        found = sorted(client.list_statuses(), key=lambda one: (one.settled, not one.stuck, one.group_name))
    except errors.TryLater as error:
        return [click.style(printable(str(error)), fg="red")]
    header = ["GROUP", "DESIRED", "RUNNING", "BOOTING", "FAILED", "STATE", "FOR", "WHY"]
    rows = [
        [
            *(one.group_name, str(one.desired), str(one.running), str(one.provisioning), str(one.failed)),
            *(one.reason, age(one.since), "" if one.settled else printable(one.last_error or why(one))),
        ]
        for one in found
    ]
    settled = sum(one.settled for one in found)
    return [_title(f"{settled} of {len(found)} groups settled", client), "", *_table(header, rows)]


def _one(client: Client, group_id: str) -> list[str]:
    try:
        status = client.get_status(group_id)
        members = list(client.list_members(group_id)) if status.reason not in {"Deleted", "Deleting"} else []
        activities = list(islice(client.list_activities(group_id, limit=FEW), FEW))
    except errors.TryLater as error:
        return [click.style(printable(str(error)), fg="red")]
    except errors.NotFound:
        return ["the group is deleted"]
    last = f" ({printable(status.last_error)})" if status.last_error else ""
    state = f"{word(status.reason)} for {age(status.since)}: {printable(why(status))}{last}"
    title = _title(f"{status.group_name}: {counts(status)}", client)
    return [title, state, "", *_members(members), "", *_last(activities)]


def _title(text: str, client: Client) -> str:
    return f"{click.style(text, bold=True)}   {datetime.now().astimezone():%H:%M:%S}  {client.url}"


def _members(found: list[Member]) -> Iterator[str]:
    rows = [
        [
            *(short(one.machine_id), printable(one.name or "-"), one.state, one.health.status),
            *(one.flags or "-", one.primary_ip or "-", age(one.launched_at)),
        ]
        for one in found
    ]
    return _table(["MEMBER", "NAME", "STATE", "HEALTH", "FLAGS", "IP", "AGE"], rows)


def _last(found: list[Activity]) -> Iterator[str]:
    rows = [[age(one.ended_at), one.kind.removeprefix("TSG_"), one.status, printable(one.description)] for one in found]
    return _table(["AGO", "ACTIVITY", "STATUS", "WHAT"], rows)


def _table(header: list[str], rows: list[list[str]]) -> Iterator[str]:
    return lines_of([header, *rows], has_header=True, width=shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
