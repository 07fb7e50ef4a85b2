"""`tsg group`."""

import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, NamedTuple

import click

from tsg_client import errors
from tsg_client.cli import plans
from tsg_client.cli.asking import confirm, force_option
from tsg_client.cli.completing import groups, templates
from tsg_client.cli.errors import printable
from tsg_client.cli.output import Table, age, json_option, list_options, print_cells, show_done, show_object, word
from tsg_client.cli.progress import TIMEOUT, counts, wait_options, wait_settled, why
from tsg_client.cli.session import Session
from tsg_client.cli.setting import assignments, set_option
from tsg_client.cli.template import find as find_template
from tsg_client.cli.verbs import Verbs
from tsg_client.client import Client
from tsg_client.models import Activity, Group, Json, Status
from tsg_client.names import is_uuid, pick, short

#: Tries of a change that others contradict.
TRIES = 5
#: Activities that `explain` shows.
FEW = 5


class Row(NamedTuple):
    """A group with what `ls` shows of it besides: None where no column asks for it."""

    group: Group
    status: Status | None
    template: str | None

    def as_json(self) -> Json:
        return self.group.as_json()


def _of_status(name: str) -> Callable[[Row], object]:
    return lambda row: getattr(row.status, name) if row.status else None


def _of_group(name: str) -> Callable[[Row], object]:
    return lambda row: getattr(row.group, name, None)


GROUPS = Table[Row](
    {
        "shortid": lambda row: short(row.group.id),
        "id": _of_group("id"),
        "name": _of_group("group_name"),
        "capacity": _of_group("capacity"),
        "running": _of_status("running"),
        "state": _of_status("reason"),
        "template": lambda row: row.template,
        "template_id": _of_group("template_id"),
        "message": _of_status("message"),
        "since": _of_status("since"),
        "created": _of_group("created_at"),
        "updated": _of_group("updated_at"),
        "age": _of_group("created_at"),
    },
    default=("shortid", "name", "capacity", "running", "state", "template", "age"),
    long=("id", "name", "capacity", "running", "state", "template_id", "created", "updated", "message"),
    sort=("created",),
)
_FROM_STATUS = {"running", "state", "message", "since"}

ACTIVITIES = Table[Activity](
    {
        "time": lambda row: row.ended_at,
        "age": lambda row: row.ended_at,
        "kind": lambda row: row.kind.removeprefix("TSG_"),
        "status": lambda row: row.status,
        "description": lambda row: row.description,
        "cause": lambda row: row.cause,
        "actor": lambda row: row.actor,
        "request_id": lambda row: row.request_id,
        "id": lambda row: row.id,
    },
    default=("age", "kind", "status", "description"),
    long=("time", "kind", "status", "actor", "request_id", "description", "cause"),
)

INSTANCES = Table[Json](
    {
        "shortid": lambda row: short(row["id"]),
        "id": lambda row: row["id"],
        "name": lambda row: row.get("name"),
        "state": lambda row: row.get("state"),
        "image": lambda row: row.get("image"),
        "package": lambda row: row.get("package"),
        "primaryIp": lambda row: row.get("primaryIp"),
        "compute_node": lambda row: row.get("compute_node"),
        "created": lambda row: row.get("created"),
    },
    default=("shortid", "name", "state", "package", "primaryIp", "created"),
    long=("id", "name", "state", "image", "package", "primaryIp", "compute_node", "created"),
    sort=("created",),
)

_NAME = click.argument("name", metavar="GROUP", shell_complete=groups)


@click.group(cls=Verbs)
def group() -> None:
    """Groups: a number of instances of one template."""


@group.command("ls")
@list_options(GROUPS)
@click.pass_obj
def ls(session: Session, options: Any) -> None:
    """List the groups."""
    names = set(GROUPS.shown(options)) | {one.removeprefix("-") for one in options.sort or ()}
    found = list(session.client.list_groups())
    statuses = {one.group_id: one for one in session.client.list_statuses()} if names & _FROM_STATUS else {}
    named = {one.id: one.template_name for one in session.client.list_templates()} if "template" in names else {}
    GROUPS.show((Row(one, statuses.get(one.id), named.get(one.template_id)) for one in found), options)


@group.command("get")
@_NAME
@json_option
@click.pass_obj
def get(session: Session, name: str, is_json: bool) -> None:
    """Show a group."""
    show_object(find(session.client, name), is_json=is_json)


def _fields(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options for the fields of a group that are given by name."""
    options = (
        click.option("--health-check-interval", type=int, metavar="SECONDS", help="Between two checks while the group is settled."),
        set_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


@group.command("create")
@click.argument("name")
@click.argument("template", shell_complete=templates)
@click.option("-c", "--capacity", type=click.IntRange(0), default=0, show_default=True, help="How many instances.")
@_fields
@wait_options
@json_option
@click.pass_obj
def create(session: Session, /, name: str, template: str, wait: bool, timeout: float, is_json: bool, **fields: Any) -> None:
    """Make a group NAME of instances of TEMPLATE."""
    made = session.client.create_group({"group_name": name, **_given(session.client, template, fields)})
    show_done(f"Created group {made.group_name} ({made.id}, {template}, {made.capacity} instances)", made, is_json=is_json)
    if wait:
        wait_settled(session, made.id, timeout=timeout)


@group.command("update")
@_NAME
@click.option("-t", "--template", shell_complete=templates, help="What instances are made from, from now on.")
@click.option("-c", "--capacity", type=click.IntRange(0), help="How many instances.")
@_fields
@wait_options
@json_option
@click.pass_obj
def update(session: Session, /, name: str, template: str | None, wait: bool, timeout: float, is_json: bool, **fields: Any) -> None:
    """Change a group. What is not given stays as it is."""
    given = _given(session.client, template, fields)
    if not given:
        raise click.UsageError("nothing to change: give -t, -c or another option", click.get_current_context())
    made = change(session.client, name, lambda _group: given)
    show_done(f"Updated group {made.group_name} ({made.id})", made, is_json=is_json)
    if wait:
        wait_settled(session, made.id, timeout=timeout)


@group.command("plan")
@_NAME
@click.option("-t", "--template", shell_complete=templates, help="What instances would be made from.")
@click.option("-c", "--capacity", type=click.IntRange(0), help="How many instances there would be.")
@_fields
@json_option
@click.pass_obj
def plan(session: Session, /, name: str, template: str | None, is_json: bool, **fields: Any) -> None:
    """Say what `update` with these options would do, and change nothing."""
    given = _given(session.client, template, fields)
    found = find(session.client, name)
    planned = session.client.plan_update(found.id, _body(found, given))
    plans.show(planned, is_json=is_json)


@group.command("scale", context_settings={"ignore_unknown_options": True})
@_NAME
@click.argument("to", metavar="N|+N|-N")
@force_option
@wait_options
@click.pass_obj
def scale(session: Session, name: str, to: str, force: bool, wait: bool, timeout: float) -> None:
    """Set the capacity to N, or change it by +N or -N. 0 deletes all instances, and is asked first."""
    if not re.fullmatch(r"[+-]?\d+", to):
        raise click.UsageError(f"{to} is neither a number, nor +N, nor -N", click.get_current_context())
    before = find(session.client, name)
    if _scaled(before, to) == 0 and before.capacity and not force:
        plans.show(session.client.plan_update(before.id, _body(before, {"capacity": 0})))
        if not confirm(f"Delete all {before.capacity} instances of {name}?", force=force):
            return
    made = change(session.client, before.id, lambda found: {"capacity": _scaled(found, to)})
    click.echo(f"Scaled group {made.group_name} ({made.id}) to {made.capacity}")
    if wait:
        wait_settled(session, made.id, timeout=timeout)


def _scaled(found: Group, to: str) -> int:
    return max(0, found.capacity + int(to)) if to[0] in "+-" else int(to)


@group.command("inc")
@_NAME
@click.argument("count", type=click.IntRange(1), default=1)
@click.option("--max", "maximum", type=click.IntRange(0), help="The capacity at most; without it the group's max_capacity.")
@wait_options
@click.pass_obj
def inc(session: Session, name: str, count: int, maximum: int | None, wait: bool, timeout: float) -> None:
    """Raise the capacity by COUNT (1). Two at once both count."""
    found = find(session.client, name)
    most = found.max_capacity if maximum is None else maximum
    session.client.increment_group(found.id, count, found.capacity + count if most is None else most)
    _counted(session, found, wait=wait, timeout=timeout)


@group.command("dec")
@_NAME
@click.argument("count", type=click.IntRange(1), default=1)
@click.option("--min", "minimum", type=click.IntRange(0), help="The capacity at least; without it the group's min_capacity.")
@wait_options
@click.pass_obj
def dec(session: Session, name: str, count: int, minimum: int | None, wait: bool, timeout: float) -> None:
    """Lower the capacity by COUNT (1). Two at once both count."""
    found = find(session.client, name)
    session.client.decrement_group(found.id, count, found.min_capacity if minimum is None else minimum)
    _counted(session, found, wait=wait, timeout=timeout)


def _counted(session: Session, found: Group, *, wait: bool, timeout: float) -> None:
    click.echo(f"Scaled group {found.group_name} ({found.id}) to {session.client.get_group(found.id).capacity}")
    if wait:
        wait_settled(session, found.id, timeout=timeout)


@group.command("rm")
@click.argument("names", metavar="GROUP...", nargs=-1, required=True, shell_complete=groups)
@force_option
@wait_options
@click.pass_obj
def rm(session: Session, names: tuple[str, ...], force: bool, wait: bool, timeout: float) -> None:
    """Delete groups, and in the background their instances. Asks first."""
    found = [find(session.client, name) for name in names]
    planned = {} if force else {one.id: session.client.plan_delete(one.id) for one in found}
    for plan in planned.values():
        plans.show(plan)
    said = ", ".join(f"{one.group_name} and its {one.capacity} instances" for one in found)
    if not confirm(f"Delete {said}?", force=force):
        return
    for one in found:
        session.client.delete_group(one.id, if_match=planned[one.id].etag if planned else None)
        click.echo(f"Delete (async) group {one.group_name} ({one.id})" if not wait else f"Deleting group {one.group_name} ({one.id})")
    for one in found if wait else ():
        wait_settled(session, one.id, timeout=timeout)


@group.command("wait")
@_NAME
@click.option("--wait-timeout", "timeout", type=float, default=TIMEOUT, show_default=True, metavar="SECONDS", help="At most.")
@click.pass_obj
def wait_(session: Session, name: str, timeout: float) -> None:
    """Wait until a group is settled. Fails when it needs a change."""
    wait_settled(session, find_id(session.client, name), timeout=timeout)


@group.command("explain")
@_NAME
@json_option
@click.pass_obj
def explain(session: Session, name: str, is_json: bool) -> None:
    """Say how far a group is, what it waits for, and what was done last. Of deleted groups by their id."""
    group_id = find_id(session.client, name)
    status = session.client.get_status(group_id)
    if is_json:
        show_object(status, is_json=True)
        return
    click.echo(f"{status.group_name} ({status.group_id}): {word(status.reason)} for {age(status.since)}")
    click.echo(f"  instances     {counts(status)}")
    click.echo(f"  why           {why(status)}")
    if status.last_error:
        click.echo(f"  last error    {status.last_error} ({status.failures} failures in a row)")
    if status.next_attempt_at:
        click.echo(f"  next check    {status.next_attempt_at:%H:%M:%S} UTC")
    if status.generation > status.observed_generation:
        click.echo("  change        no worker has seen the newest one yet")
    for one in status.decisions:
        click.echo(f"  policy        {printable(one.message)} ({word(one.result)}, {age(one.last_at)} ago)")
    click.echo("  last activities, the newest first:")
    last = islice(session.client.list_activities(group_id, limit=FEW), FEW)
    print_cells([[f"    {age(one.ended_at)} ago", one.kind.removeprefix("TSG_"), one.status, printable(one.description)] for one in last])


@group.command("activities")
@_NAME
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@click.option("--kind", metavar="KIND", help="Those of a kind, such as TSG_INSTANCE_LAUNCH.")
@click.option("--status", type=click.Choice(["success", "failed"]), help="Those that ended so.")
@list_options(ACTIVITIES)
@click.pass_obj
def activities(session: Session, name: str, limit: int, kind: str | None, status: str | None, options: Any) -> None:
    """List what was done for a group, or refused, the newest first. Of deleted groups by their id."""
    ACTIVITIES.shown(options)
    kind = f"TSG_{kind.upper().removeprefix('TSG_')}" if kind else None
    found = session.client.list_activities(find_id(session.client, name), kind=kind, status=status, limit=min(limit, 1000))
    ACTIVITIES.show(islice(found, limit), options)


@group.command("instances")
@_NAME
@list_options(INSTANCES)
@click.pass_obj
def instances(session: Session, name: str, options: Any) -> None:
    """List a group's machines as CloudAPI shows them."""
    INSTANCES.shown(options)
    INSTANCES.show(session.client.list_instances(find(session.client, name).id), options)


def find(client: Client, text: str) -> Group:
    """The group that is meant: by id, name or short id."""
    if is_uuid(text):
        return client.get_group(text)
    return client.get_group(pick("group", text, client.list_groups(), name=lambda one: one.group_name).id)


def find_id(client: Client, text: str) -> str:
    """The id of a group, which may be a deleted one's."""
    return text if is_uuid(text) else pick("group", text, client.list_groups(), name=lambda one: one.group_name).id


def change(client: Client, text: str, fields: Callable[[Group], Mapping[str, Any]]) -> Group:
    """Change the fields of a group as it stands now: what others change meanwhile is read again, and lost to nobody."""
    for _ in range(TRIES):
        found = find(client, text)
        try:
            return client.update_group(found.id, _body(found, fields(found)), if_match=found.etag)
        except errors.Changed:
            continue
    raise errors.Conflict(f"others change the group {text} all the time: {TRIES} tries", code="Conflict")


def _body(found: Group, fields: Mapping[str, Any]) -> Json:
    """What a PUT needs besides the fields that change."""
    return {"group_name": found.group_name, "template_id": found.template_id, "capacity": found.capacity, **fields}


def _given(client: Client, template: str | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that the options name."""
    found = {"template_id": None if template is None else find_template(client, template).id, **fields}
    return {name: value for name, value in found.items() if name != "more" and value is not None} | assignments(fields["more"])
