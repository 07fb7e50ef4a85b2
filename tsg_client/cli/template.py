"""`tsg template`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from tsg_client import errors
from tsg_client.cli.asking import confirm, force_option
from tsg_client.cli.completing import templates
from tsg_client.cli.output import Table, json_option, list_options, show_done, show_object
from tsg_client.cli.session import Session
from tsg_client.cli.setting import assignments, set_option
from tsg_client.cli.verbs import Verbs
from tsg_client.client import Client
from tsg_client.models import Template
from tsg_client.names import is_uuid, pick, short


def _field(name: str) -> Callable[[Template], object]:
    return lambda row: getattr(row, name, None)


TEMPLATES = Table[Template](
    {
        "shortid": lambda row: short(row.id),
        "id": _field("id"),
        "name": _field("template_name"),
        "package": lambda row: short(row.package) if is_uuid(row.package) else row.package,
        "package_id": _field("package"),
        "image": lambda row: short(row.image_id),
        "image_id": _field("image_id"),
        "networks": _field("networks"),
        "firewall": _field("firewall_enabled"),
        "tags": _field("tags"),
        "metadata": _field("metadata"),
        "created": _field("created_at"),
        "age": _field("created_at"),
    },
    default=("shortid", "name", "package", "image", "age"),
    long=("id", "name", "package_id", "image_id", "firewall", "created", "networks", "tags"),
    sort=("created",),
)

_NAME = click.argument("name", metavar="TEMPLATE", shell_complete=templates)


@click.group(cls=Verbs)
def template() -> None:
    """Templates: what instances are made from. A template never changes: make another one, and give it to the group."""


@template.command("ls")
@list_options(TEMPLATES)
@click.pass_obj
def ls(session: Session, options: Any) -> None:
    """List the templates."""
    TEMPLATES.shown(options)
    TEMPLATES.show(session.client.list_templates(), options)


@template.command("get")
@_NAME
@json_option
@click.pass_obj
def get(session: Session, name: str, is_json: bool) -> None:
    """Show a template."""
    show_object(find(session.client, name), is_json=is_json)


@template.command("create")
@click.argument("name")
@click.argument("image", required=False)
@click.argument("package", required=False)
@click.option("-N", "--network", "networks", multiple=True, metavar="NETWORK,...", help="By id or name.")
@click.option("-t", "--tag", "tags", multiple=True, metavar="K=V", help="A tag; or a JSON object, or @FILE of either.")
@click.option("-m", "--metadata", multiple=True, metavar="K=V", help="Metadata; or a JSON object, or @FILE of either.")
@click.option("-M", "--metadata-file", "metadata_files", multiple=True, metavar="K=FILE", help="Metadata from a file.")
@click.option("--script", type=click.File(), metavar="FILE", help="What an instance runs at every boot (user_script).")
@click.option("--cloud-config", type=click.File(), metavar="FILE", help="What cloud-init does at the first boot.")
@click.option("--userdata", type=click.File(), metavar="FILE", help="Data that nothing executes.")
@click.option("--firewall/--no-firewall", default=None, help="Whether the account's firewall rules apply.")
@click.option("--affinity", multiple=True, metavar="RULE", help="Such as role!=~db.")
@click.option("--spread", type=click.Choice(["none", "prefer", "require"]), help="The group's instances on different servers.")
@click.option("-v", "--volume", "volumes", multiple=True, metavar="NAME[@MOUNTPOINT][:ro|rw]", help="A volume; mounted at /NAME without @.")
@click.option("-b", "--brand", type=click.Choice(["bhyve", "kvm"]), help="Of a virtual machine.")
@click.option("--cns", "cns_services", multiple=True, metavar="SERVICE,...", help="Names in DNS.")
@click.option("--instance-name", metavar="PATTERN", help="Such as {{group}}-{{shortId}}.")
@set_option
@click.option("--body", type=click.File(), metavar="FILE", help="Fields as a JSON object; options go before them.")
@click.option("--verify", is_flag=True, help="Ask CloudAPI first whether it can be launched.")
@click.option("--dry-run", is_flag=True, help="Show the fields, and make nothing.")
@json_option
@click.pass_obj
def create(session: Session, /, name: str, verify: bool, dry_run: bool, is_json: bool, **given: Any) -> None:
    """Make a template NAME of IMAGE and PACKAGE, each by id or name. IMAGE may be NAME@VERSION; else it is the newest."""
    fields = {"template_name": name, **_fields(session, given)}
    if dry_run:
        show_object(fields, is_json=is_json)
        return
    made = session.client.create_template(fields, verify=verify)
    show_done(f"Created template {made.template_name} ({made.id})", made, is_json=is_json)


@template.command("rm")
@click.argument("names", metavar="TEMPLATE...", nargs=-1, required=True, shell_complete=templates)
@force_option
@click.pass_obj
def rm(session: Session, names: tuple[str, ...], force: bool) -> None:
    """Delete templates that no group uses. Asks first."""
    found = [find(session.client, name) for name in names]
    if not confirm(f"Delete template {', '.join(one.template_name for one in found)}?", force=force):
        return
    for one in found:
        try:
            session.client.delete_template(one.id)
        except errors.Conflict as error:
            users = [group.group_name for group in session.client.list_groups() if group.template_id == one.id]
            raise errors.Conflict(f"{one.template_name} is used by {', '.join(users) or 'a group'}: {error}", code=error.code) from None
        click.echo(f"Deleted template {one.template_name} ({one.id})")


@template.command("verify")
@_NAME
@json_option
@click.pass_obj
def verify(session: Session, name: str, is_json: bool) -> None:
    """See whether CloudAPI could make an instance from a template now. Fails when it could not."""
    meant = find(session.client, name)
    found = session.client.verify_template(meant.id)
    if is_json:
        show_object(found, is_json=True)
    if not found.launchable:
        problems = [errors.FieldProblem(one.field, one.code, one.message) for one in found.errors]
        raise errors.Invalid("; ".join(one.message for one in problems), fields=problems, code="NotLaunchable")
    if not is_json:
        click.echo(f"{meant.template_name} can be launched")


def find(client: Client, text: str) -> Template:
    """The template that is meant: by id, name or short id."""
    if is_uuid(text):
        return client.get_template(text)
    return pick("template", text, client.list_templates(), name=lambda one: one.template_name)


def _fields(session: Session, given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a new template from the options: those that were given."""
    body = json.load(given["body"]) if given["body"] else {}
    if not isinstance(body, dict):
        raise _wrong("--body needs a JSON object")
    metadata = {**_pairs(given["metadata"]), **{key: _content(path) for key, path in map(_assigned, given["metadata_files"])}}
    found = {
        "image_id": session.cloud.image_id(given["image"]) if given["image"] else None,
        "package": given["package"],
        "networks": [session.cloud.network_id(one) for one in _split(given["networks"])],
        "tags": _pairs(given["tags"], typed=True),
        "metadata": metadata,
        "user_script": given["script"] and given["script"].read(),
        "cloud_config": given["cloud_config"] and given["cloud_config"].read(),
        "userdata": given["userdata"] and given["userdata"].read(),
        "firewall_enabled": given["firewall"],
        "affinity": list(given["affinity"]),
        "spread": given["spread"],
        "volumes": [_volume(one) for one in given["volumes"]],
        "brand": given["brand"],
        "cns_services": _split(given["cns_services"]),
        "instance_name": given["instance_name"],
    }
    return body | {name: value for name, value in found.items() if value not in (None, [], {})} | assignments(given["more"])


def _pairs(texts: tuple[str, ...], *, typed: bool = False) -> dict[str, Any]:
    """Of `K=V`, JSON objects and files of either. `typed`: true, false and numbers become what they say, as with `triton`."""
    found: dict[str, Any] = {}
    for text in texts:
        given = _content(text[1:]) if text.startswith("@") else text
        if given.lstrip().startswith("{"):
            found |= _object(given)
            continue
        for line in filter(None, map(str.strip, given.splitlines())):
            key, value = _assigned(line)
            found[key] = _typed(value) if typed else value
    return found


def _typed(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float) else text


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _wrong(f"this is no JSON object: {error}") from None
    if not isinstance(found, dict):
        raise _wrong("this is no JSON object")
    return found


def _assigned(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise _wrong(f"{text!r}: write NAME=VALUE")
    return key, value


def _content(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, ValueError) as error:
        raise _wrong(f"{path} can't be read: {error}") from None


def _split(texts: tuple[str, ...]) -> list[str]:
    return [part for text in texts for part in text.split(",") if part]


def _volume(text: str) -> Mapping[str, str]:
    """As `triton instance create -v` has it."""
    rest, colon, mode = text.rpartition(":")
    named = rest if colon and mode in {"ro", "rw"} else text
    name, at, mountpoint = named.partition("@")
    return {"name": name, "mountpoint": mountpoint if at else f"/{name}", **({"mode": mode} if named == rest else {})}


def _wrong(text: str) -> click.UsageError:
    return click.UsageError(text, click.get_current_context())
