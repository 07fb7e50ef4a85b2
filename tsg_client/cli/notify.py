"""`tsg notify`."""

from itertools import islice
from typing import Any

import click

from tsg_client.cli.asking import confirm, force_option
from tsg_client.cli.group import find_id
from tsg_client.cli.output import Table, json_option, list_options, show_object
from tsg_client.cli.session import Session
from tsg_client.cli.verbs import Verbs
from tsg_client.client import Client
from tsg_client.models import Delivery, Json, Notification
from tsg_client.names import pick, short

NOTIFICATIONS = Table[Notification](
    {
        "shortid": lambda row: short(row.id),
        "id": lambda row: row.id,
        "url": lambda row: row.url,
        "enabled": lambda row: row.enabled,
        "kinds": lambda row: ",".join(row.kinds),
        "groups": lambda row: ",".join(row.groups),
        "failures": lambda row: row.failures,
        "why": lambda row: row.disabled_why,
        "created": lambda row: row.created_at,
        "age": lambda row: row.created_at,
    },
    default=("shortid", "enabled", "failures", "kinds", "age", "url"),
    long=("id", "enabled", "failures", "why", "groups", "kinds", "created", "url"),
    sort=("created",),
)

DELIVERIES = Table[Delivery](
    {
        "shortid": lambda row: short(row.id),
        "id": lambda row: row.id,
        "age": lambda row: row.at,
        "time": lambda row: row.at,
        "kind": lambda row: row.kind.removeprefix("TSG_"),
        "state": lambda row: row.state,
        "attempts": lambda row: row.attempts,
        "status": lambda row: row.status,
        "due": lambda row: row.due_at,
        "activity_id": lambda row: row.activity_id,
        "error": lambda row: row.last_error,
    },
    default=("shortid", "age", "kind", "state", "attempts", "status", "error"),
    long=("id", "time", "kind", "state", "attempts", "status", "due", "activity_id", "error"),
)

_ID = click.argument("called", metavar="NOTIFICATION")
_GROUPS = click.option("-g", "--group", "groups", multiple=True, help="Of this group alone.")
_KINDS = click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Of this kind alone, such as rollout.* or TSG_INSTANCE_LOST.")


@click.group(cls=Verbs)
def notify() -> None:
    """Notifications: activities are sent to a URL, signed as Standard Webhooks. A notification goes by its URL or id."""


@notify.command("ls")
@list_options(NOTIFICATIONS)
@click.pass_obj
def ls(session: Session, options: Any) -> None:
    """List the notifications."""
    NOTIFICATIONS.shown(options)
    NOTIFICATIONS.show(session.client.list_notifications(), options)


@notify.command("get")
@_ID
@json_option
@click.pass_obj
def get(session: Session, called: str, is_json: bool) -> None:
    """Show a notification."""
    show_object(session.client.get_notification(_find(session.client, called).id), is_json=is_json)


@notify.command("create")
@click.argument("url")
@_GROUPS
@_KINDS
@json_option
@click.pass_obj
def create(session: Session, url: str, groups: tuple[str, ...], kinds: tuple[str, ...], is_json: bool) -> None:
    """Have activities sent to URL."""
    _made("Created", session.client.create_notification({"url": url, **_fields(session.client, groups, kinds)}), is_json=is_json)


@notify.command("update")
@_ID
@_GROUPS
@_KINDS
@click.option("--enable/--disable", "enabled", default=None, help="Whether anything is sent.")
@json_option
@click.pass_obj
def update(session: Session, called: str, groups: tuple[str, ...], kinds: tuple[str, ...], enabled: bool | None, is_json: bool) -> None:
    """Change a notification. What is not given stays as it is."""
    found = session.client.get_notification(_find(session.client, called).id)
    current: Json = {"url": found.url, "groups": list(found.groups), "kinds": list(found.kinds), "enabled": found.enabled}
    given = _fields(session.client, groups, kinds) | ({} if enabled is None else {"enabled": enabled})
    _made("Updated", session.client.update_notification(found.id, current | given, if_match=found.etag), is_json=is_json)


@notify.command("rm")
@_ID
@force_option
@click.pass_obj
def rm(session: Session, called: str, force: bool) -> None:
    """Send no more to a URL. Asks first."""
    found = _find(session.client, called)
    if confirm(f"Delete the notification of {found.url}?", force=force):
        session.client.delete_notification(found.id)
        click.echo(f"Deleted notification {found.id}")


@notify.command("rotate")
@_ID
@force_option
@json_option
@click.pass_obj
def rotate(session: Session, called: str, force: bool, is_json: bool) -> None:
    """Give a notification another secret. Asks first."""
    found = _find(session.client, called)
    if confirm(f"Make another secret for {found.url}?", force=force):
        _made("Rotated", session.client.rotate_secret(found.id), is_json=is_json)


@notify.command("deliveries")
@_ID
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option("--state", type=click.Choice(["waiting", "delivered", "dead"]), help="Those in this state.")
@list_options(DELIVERIES)
@click.pass_obj
def deliveries(session: Session, called: str, limit: int, state: str | None, options: Any) -> None:
    """List what was sent to a URL, or is to be, the newest first."""
    DELIVERIES.shown(options)
    found = session.client.list_deliveries(_find(session.client, called).id, state=state, limit=min(limit, 1000))
    DELIVERIES.show(islice(found, limit), options)


@notify.command("replay")
@_ID
@click.argument("delivery")
@click.pass_obj
def replay(session: Session, called: str, delivery: str) -> None:
    """Send a delivery once more."""
    meant = _find(session.client, called)
    found = pick("delivery", delivery, session.client.list_deliveries(meant.id, limit=1000), name=lambda one: one.id)
    session.client.replay_delivery(meant.id, found.id)
    click.echo(f"Replayed delivery {found.id}")


def _find(client: Client, called: str) -> Notification:
    return pick("notification", called, client.list_notifications(), name=lambda one: one.url)


def _fields(client: Client, groups: tuple[str, ...], kinds: tuple[str, ...]) -> Json:
    found = {"groups": [one if one == "*" else find_id(client, one) for one in groups], "kinds": list(kinds)}
    return {name: value for name, value in found.items() if value}


def _made(verb: str, made: Notification, *, is_json: bool) -> None:
    if is_json:
        show_object(made, is_json=True)
        return
    click.echo(f"{verb} notification {made.id} of {made.url}")
    if made.secret:
        click.echo(f"Its secret, which is not shown again: {made.secret}")
