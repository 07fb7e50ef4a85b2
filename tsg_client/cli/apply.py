"""`tsg apply` and `tsg export`: groups and templates as a file declares them."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import click
import yaml

from tsg_client.cli.asking import confirm
from tsg_client.cli.completing import groups
from tsg_client.cli.group import change as change_group
from tsg_client.cli.group import find as find_group
from tsg_client.cli.progress import wait_options, wait_settled
from tsg_client.cli.session import Session
from tsg_client.cli.verbs import Verb
from tsg_client.client import Client
from tsg_client.declared import CREATE, DELETE, GROUP, POLICY, TEMPLATE, UPDATE, Actual, Change, differences, export, read
from tsg_client.errors import Misconfigured, TsgError

_MARKS = {CREATE: ("+", "green"), UPDATE: ("~", "yellow"), DELETE: ("-", "red")}


@click.command(cls=Verb)
@click.option("-f", "--file", "file", type=click.File(encoding="utf-8"), required=True, metavar="FILE", help="YAML; - is standard input.")
@click.option("--dry-run", is_flag=True, help="Show what differs, and change nothing.")
@click.option("--prune", is_flag=True, help="Delete the account's groups and templates that the file does not declare. Asks first.")
@click.option("--force", is_flag=True, help="Do not ask.")
@wait_options
@click.pass_obj
def apply(session: Session, file: Any, dry_run: bool, prune: bool, force: bool, wait: bool, timeout: float) -> None:
    """Make groups and templates as a file declares them. What differs is shown first; the same file again changes nothing."""
    client = session.client
    wanted = read(_parsed(file), partial(_image_id, session))
    steps = differences(wanted, _actual(client, wanted.policies), prune=prune)
    for step in steps:
        mark, color = _MARKS[step.verb]
        click.echo(click.style(f"{mark} {step.kind} {step.name}{': ' if step.shown else ''}{', '.join(step.shown)}", fg=color))
    if not steps:
        click.echo("Nothing to do")
    if dry_run or not steps:
        return
    deleted = [step.name for step in steps if step.verb == DELETE]
    if deleted and not confirm(f"Delete {', '.join(deleted)}?", force=force):
        return
    for number, step in enumerate(steps):
        try:
            _do(client, step)
        except TsgError:
            click.echo(f"{number} of {len(steps)} changes were made; mend the file, and apply it again", err=True)
            raise
    click.echo(f"{len(steps)} change{'s' if len(steps) > 1 else ''} made")
    for step in steps if wait else ():
        if step.kind == GROUP and step.verb != DELETE:
            wait_settled(session, find_group(client, step.name).id, timeout=timeout)


@click.command("export", cls=Verb)
@click.argument("names", metavar="[GROUP]...", nargs=-1, shell_complete=groups)
@click.pass_obj
def export_(session: Session, names: tuple[str, ...]) -> None:
    """Print groups (all of them without GROUP) and their templates as YAML that `tsg apply` takes."""
    actual = _actual(session.client, ())
    meant = [find_group(session.client, name).group_name for name in names] or list(actual.groups)
    actual = _with_policies(session.client, actual, meant)
    schema = session.client.get_description()["components"]["schemas"]["NewGroup"]
    document = export(actual, meant, most=schema["properties"]["capacity"].get("maximum"))
    click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120), nl=False)


def _image_id(session: Session, text: str) -> str:
    return session.cloud.image_id(text)


def _parsed(file: Any) -> object:
    try:
        return yaml.safe_load(file)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file.name} is no YAML: {str(error).replace(chr(10), ' ')}") from None


def _actual(client: Client, groups: Iterable[str]) -> Actual:
    """What is there, with the policies of these groups."""
    return _with_policies(client, Actual.of(client.list_templates(), client.list_groups()), groups)


def _with_policies(client: Client, actual: Actual, groups: Iterable[str]) -> Actual:
    there = [name for name in groups if name in actual.groups]
    return actual.with_policies({name: client.list_policies(actual.groups[name].id) for name in there})


def _do(client: Client, step: Change) -> None:
    {TEMPLATE: _do_template, GROUP: _do_group, POLICY: _do_policy}[step.kind](client, step)


def _do_template(client: Client, step: Change) -> None:
    if step.verb == CREATE:
        client.create_template(step.fields)
    else:
        client.delete_template(_template_id(client, step.name))


def _do_group(client: Client, step: Change) -> None:
    if step.verb == DELETE:
        client.delete_group(find_group(client, step.name).id)
        return
    fields = {key: value for key, value in step.fields.items() if key != "template"}
    fields["template_id"] = _template_id(client, step.fields["template"])
    if step.verb == CREATE:
        client.create_group(fields)
    else:
        change_group(client, step.name, lambda _group: fields)


def _do_policy(client: Client, step: Change) -> None:
    group_name, _, name = step.name.partition("/")
    group_id = find_group(client, group_name).id
    if step.verb == CREATE:
        made = client.create_policy(group_id, step.fields)
        if made.webhook_url:
            click.echo(f"The URL of {step.name}, which is not shown again: {made.webhook_url}")
        return
    policy_id = next(one.id for one in client.list_policies(group_id) if one.policy_name == name)
    if step.verb == UPDATE:
        client.update_policy(group_id, policy_id, step.fields)
    else:
        client.delete_policy(group_id, policy_id)


def _template_id(client: Client, name: str) -> str:
    return next(one.id for one in client.list_templates() if one.template_name == name)
