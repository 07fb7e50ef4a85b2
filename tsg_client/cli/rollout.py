"""`tsg rollout`."""

from collections.abc import Callable
from typing import Any

import click

from tsg_client.cli import plans
from tsg_client.cli.asking import confirm, force_option
from tsg_client.cli.completing import groups, templates
from tsg_client.cli.group import find as find_group
from tsg_client.cli.output import Table, json_option, list_options, show_done, show_object
from tsg_client.cli.progress import TIMEOUT, rollout_line, wait_options, wait_rollout
from tsg_client.cli.session import Session
from tsg_client.cli.setting import assignments, set_option
from tsg_client.cli.template import find as find_template
from tsg_client.cli.verbs import Verbs
from tsg_client.client import Client
from tsg_client.errors import NotFound
from tsg_client.models import Group, Json, Rollout
from tsg_client.names import pick, short

ROLLOUTS = Table[Rollout](
    {
        "shortid": lambda row: short(row.id),
        "id": lambda row: row.id,
        "state": lambda row: row.state,
        "percent": lambda row: row.percent_complete,
        "step": lambda row: row.step,
        "new": lambda row: row.counts.new_available,
        "outdated": lambda row: row.counts.outdated,
        "failed": lambda row: row.counts.failed,
        "template_id": lambda row: row.template_id,
        "previous_template_id": lambda row: row.previous_template_id,
        "created": lambda row: row.created_at,
        "ended": lambda row: row.ended_at,
        "age": lambda row: row.created_at,
        "message": lambda row: row.message,
    },
    default=("shortid", "state", "percent", "new", "outdated", "failed", "age", "message"),
    long=("id", "state", "percent", "step", "template_id", "previous_template_id", "created", "ended", "message"),
)

_GROUP = click.argument("name", metavar="GROUP", shell_complete=groups)
_ROLLOUT = click.argument("called", metavar="[ROLLOUT]", required=False)


@click.group(cls=Verbs)
def rollout() -> None:
    """Rollouts: a template reaches the instances that run. Without ROLLOUT the newest one is meant."""


@rollout.command("ls")
@_GROUP
@list_options(ROLLOUTS)
@click.pass_obj
def ls(session: Session, name: str, options: Any) -> None:
    """List the rollouts of a group, the newest first."""
    ROLLOUTS.shown(options)
    ROLLOUTS.show(session.client.list_rollouts(find_group(session.client, name).id), options)


@rollout.command("get")
@_GROUP
@_ROLLOUT
@json_option
@click.pass_obj
def get(session: Session, name: str, called: str | None, is_json: bool) -> None:
    """Show a rollout."""
    show_object(_find(session.client, name, called), is_json=is_json)


@rollout.command("start")
@_GROUP
@click.option("-t", "--template", shell_complete=templates, help="What instances are made from; without it the group's own: a reload.")
@click.option("--max-surge", metavar="N|N%", help="Instances beside the capacity.")
@click.option("--max-unavailable", metavar="N|N%", help="Available instances that may be missing.")
@click.option("--step", "steps", multiple=True, metavar="PERCENT[:SECONDS|:pause]", help="A share, then a pause; the last is 100.")
@click.option("--bake", "bake_seconds", type=click.IntRange(0), metavar="SECONDS", help="Watched after the last step.")
@click.option("--max-failures", type=click.IntRange(1), help="Failures at which --on-failure comes.")
@click.option("--on-failure", type=click.Choice(["pause", "stop", "rollback"]), help="What happens then.")
@click.option("--protected", type=click.Choice(["wait", "skip", "replace"]), help="What happens to protected members.")
@set_option
@click.option("--dry-run", is_flag=True, help="Say what it would do, and begin nothing.")
@wait_options
@json_option
@click.pass_obj
def start(session: Session, /, name: str, dry_run: bool, wait: bool, timeout: float, is_json: bool, **given: Any) -> None:
    """Begin a rollout."""
    group = find_group(session.client, name)
    if dry_run:
        planned = session.client.plan_rollout(group.id, _fields(session.client, given))
        plans.show(planned, is_json=is_json)
        return
    made = session.client.start_rollout(group.id, _fields(session.client, given), if_match=group.etag)
    show_done(f"Started rollout {made.id} of {group.group_name}", made, is_json=is_json)
    if wait:
        wait_rollout(session, made, timeout=timeout)


@rollout.command("watch")
@_GROUP
@_ROLLOUT
@click.option("--wait-timeout", "timeout", type=float, default=TIMEOUT, show_default=True, metavar="SECONDS", help="At most.")
@click.pass_obj
def watch(session: Session, name: str, called: str | None, timeout: float) -> None:
    """Wait until a rollout ends, or needs somebody. Fails unless it is successful."""
    wait_rollout(session, _find(session.client, name, called), timeout=timeout)


def _asking(verb: str, done: str, ask: Callable[[Client, Rollout], Rollout], words: str, *, asks: str | None = None) -> None:
    """A command that asks something of a rollout. `asks` is what a person is asked first."""

    @rollout.command(verb, help=words)
    @_GROUP
    @_ROLLOUT
    @force_option
    @wait_options
    @click.pass_obj
    def command(session: Session, name: str, called: str | None, force: bool, wait: bool, timeout: float) -> None:
        found = _find(session.client, name, called)
        if asks and not confirm(f"{asks} ({rollout_line(found)})?", force=force):
            return
        asked = ask(session.client, found)
        click.echo(f"{done} rollout {asked.id}: {rollout_line(asked)}")
        if wait:
            wait_rollout(session, asked, timeout=timeout)


_asking("pause", "Paused", lambda client, one: client.pause_rollout(one.group_id, one.id), "Stop a rollout for now.")
_asking("resume", "Resumed", lambda client, one: client.resume_rollout(one.group_id, one.id), "Let a rollout go on.")
_asking(
    *("cancel", "Cancelled", lambda client, one: client.cancel_rollout(one.group_id, one.id)),
    "End a rollout, and leave the members as they are. Asks first.",
    asks="Cancel the rollout",
)
_asking(
    *("rollback", "Rolling back", lambda client, one: client.roll_back(one.group_id, one.id)),
    "Go back to the template before, of a successful rollout too. Asks first.",
    asks="Go back to the template before",
)


def _fields(client: Client, given: dict[str, Any]) -> Json:
    found = {
        "template_id": find_template(client, given["template"]).id if given["template"] else None,
        "max_surge": _amount(given["max_surge"]),
        "max_unavailable": _amount(given["max_unavailable"]),
        "steps": [_step(one) for one in given["steps"]] or None,
        **{name: given[name] for name in ("bake_seconds", "max_failures", "on_failure", "protected")},
    }
    return {name: value for name, value in found.items() if value is not None} | assignments(given["more"])


def _amount(text: str | None) -> int | str | None:
    return int(text) if text and text.isdigit() else text


def _step(text: str) -> Json:
    share, _, pause = text.partition(":")
    if not share.rstrip("%").isdigit() or not (pause in {"", "pause"} or pause.isdigit()):
        raise click.UsageError(f"--step {text}: write PERCENT, PERCENT:SECONDS or PERCENT:pause", click.get_current_context())
    step: Json = {"percent": int(share.rstrip("%"))}
    return step | ({"pause": True} if pause == "pause" else {"pause_seconds": int(pause)} if pause else {})


def _find(client: Client, name: str, called: str | None) -> Rollout:
    """The rollout that is meant: the newest without a name."""
    group: Group = find_group(client, name)
    found = client.list_rollouts(group.id)
    if called is not None:
        return pick("rollout", called, found, name=lambda one: one.id)
    newest = next(found, None)
    if newest is None:
        raise NotFound(f"the group {group.group_name} has had no rollout")
    return newest
