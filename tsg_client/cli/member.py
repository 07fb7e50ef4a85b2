"""`tsg member`."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from tsg_client.cli import plans
from tsg_client.cli.asking import confirm, force_option
from tsg_client.cli.completing import groups
from tsg_client.cli.group import find as find_group
from tsg_client.cli.output import Table, json_option, list_options, show_object
from tsg_client.cli.progress import wait_options, wait_settled
from tsg_client.cli.session import Session
from tsg_client.cli.verbs import Verbs
from tsg_client.models import Group, Member
from tsg_client.names import pick, short


def _field(name: str) -> Callable[[Member], object]:
    return lambda row: getattr(row, name, None)


MEMBERS = Table[Member](
    {
        "shortid": lambda row: short(row.machine_id),
        "id": _field("machine_id"),
        "name": _field("name"),
        "state": _field("state"),
        "health": lambda row: row.health.status,
        "flags": _field("flags"),
        "available": _field("available"),
        "outdated": _field("outdated"),
        "protected": _field("protected"),
        "until": _field("protected_until"),
        "draining": _field("draining_since"),
        "template_id": _field("template_id"),
        "primaryIp": _field("primary_ip"),
        "compute_node": _field("compute_node"),
        "problem": lambda row: row.health.last_error,
        "launched": _field("launched_at"),
        "age": _field("launched_at"),
    },
    default=("shortid", "name", "state", "health", "flags", "primaryIp", "age"),
    long=("id", "name", "state", "health", "flags", "until", "draining", "template_id", "primaryIp", "launched"),
    sort=("launched",),
)

_GROUP = click.argument("name", metavar="GROUP", shell_complete=groups)
_MEMBER = click.argument("machine", metavar="MEMBER")
_NOTE = click.option("--note", metavar="TEXT", help="Why, for the activities.")
_DECREMENT = click.option("--decrement", is_flag=True, help="Lower the capacity, so that no other instance is launched.")


@click.group(cls=Verbs)
def member() -> None:
    """Members: the instances of a group, as the service knows them. A member goes by id, name or short id."""


@member.command("ls")
@_GROUP
@list_options(MEMBERS)
@click.pass_obj
def ls(session: Session, name: str, options: Any) -> None:
    """List the members of a group. Flags: D draining, N not available, O outdated, P protected."""
    MEMBERS.shown(options)
    MEMBERS.show(session.client.list_members(find_group(session.client, name).id), options)


@member.command("get")
@_GROUP
@_MEMBER
@json_option
@click.pass_obj
def get(session: Session, name: str, machine: str, is_json: bool) -> None:
    """Show a member."""
    _group, found = _find(session, name, machine)
    show_object(found, is_json=is_json)


@member.command("protect")
@_GROUP
@_MEMBER
@click.option("--for", "hours", type=click.FloatRange(0, min_open=True), metavar="HOURS", help="Only for so long.")
@_NOTE
@click.pass_obj
def protect(session: Session, name: str, machine: str, hours: float | None, note: str | None) -> None:
    """Have scale-in and rollouts leave a member alone."""
    group, found = _find(session, name, machine)
    until = datetime.now(UTC) + timedelta(hours=hours) if hours else None
    session.client.protect_member(group.id, found.machine_id, until=until, note=note)
    click.echo(f"Protected {_called(found)}{f' until {until:%Y-%m-%dT%H:%M:%SZ}' if until else ''}")


@member.command("unprotect")
@_GROUP
@_MEMBER
@_NOTE
@click.pass_obj
def unprotect(session: Session, name: str, machine: str, note: str | None) -> None:
    """Take a member's protection back."""
    group, found = _find(session, name, machine)
    session.client.protect_member(group.id, found.machine_id, protected=False, note=note)
    click.echo(f"Unprotected {_called(found)}")


@member.command("mark-unhealthy")
@_GROUP
@_MEMBER
@_NOTE
@click.pass_obj
def mark_unhealthy(session: Session, name: str, machine: str, note: str | None) -> None:
    """Have a member replaced, as if a probe had found it unhealthy."""
    _vote(session, name, machine, "unhealthy", note)


@member.command("mark-healthy")
@_GROUP
@_MEMBER
@_NOTE
@click.pass_obj
def mark_healthy(session: Session, name: str, machine: str, note: str | None) -> None:
    """Take such a mark back."""
    _vote(session, name, machine, "healthy", note)


def _vote(session: Session, name: str, machine: str, status: str, note: str | None) -> None:
    group, found = _find(session, name, machine)
    session.client.vote_on_member(group.id, found.machine_id, status, note=note)
    click.echo(f"Marked {_called(found)} as {status}")


@member.command("rm")
@_GROUP
@click.argument("machines", metavar="MEMBER...", nargs=-1, required=True)
@_DECREMENT
@force_option
@wait_options
@click.pass_obj
def rm(session: Session, name: str, machines: tuple[str, ...], decrement: bool, force: bool, wait: bool, timeout: float) -> None:
    """Delete members, and launch others in their place. With --decrement all of them or none."""
    group = find_group(session.client, name)
    members = list(session.client.list_members(group.id))
    found = [pick("member", machine, members, name=lambda one: one.name or "") for machine in machines]
    instead = f"and lower the capacity to {group.capacity - len(found)}" if decrement else "and launch others instead"
    for one in () if force else found:
        plans.show(session.client.plan_removal(group.id, one.machine_id, decrement=decrement))
    if not confirm(f"Delete {', '.join(map(_called, found))} {instead}?", force=force):
        return
    if decrement:
        session.client.decrement_by(group.id, [one.machine_id for one in found])
    for one in found:
        if not decrement:
            session.client.remove_member(group.id, one.machine_id)
        click.echo(f"Delete (async) {_called(one)}")
    if wait:
        wait_settled(session, group.id, timeout=timeout)


@member.command("adopt")
@_GROUP
@click.argument("machine", metavar="INSTANCE")
@click.pass_obj
def adopt(session: Session, name: str, machine: str) -> None:
    """Take a running instance of the account into a group. INSTANCE is an id, a name or a short id."""
    group = find_group(session.client, name)
    found = session.client.adopt_machine(group.id, session.cloud.machine_id(machine))
    click.echo(f"Adopted {_called(found)} into {group.group_name}")


@member.command("detach")
@_GROUP
@_MEMBER
@_DECREMENT
@force_option
@click.pass_obj
def detach(session: Session, name: str, machine: str, decrement: bool, force: bool) -> None:
    """Let a group forget a member. The instance stays, and nobody looks after it any more."""
    group, found = _find(session, name, machine)
    instead = "and lower the capacity by one" if decrement else "and launch another one instead"
    if not confirm(f"Detach {_called(found)} from {group.group_name} {instead}?", force=force):
        return
    session.client.detach_member(group.id, found.machine_id, decrement=decrement)
    click.echo(f"Detached {_called(found)} from {group.group_name}")


def _find(session: Session, name: str, machine: str) -> tuple[Group, Member]:
    """The group and its member that are meant."""
    group = find_group(session.client, name)
    return group, pick("member", machine, session.client.list_members(group.id), name=lambda one: one.name or "")


def _called(found: Member) -> str:
    return f"{found.name or 'member'} ({found.machine_id})"
