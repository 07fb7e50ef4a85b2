"""`tsg profile`: those of `triton`, and where the service of each is."""

from operator import itemgetter
from typing import Any

import click

from tsg_client.cli.output import Table, json_option, list_options, show_object
from tsg_client.cli.session import Session
from tsg_client.cli.verbs import Verbs
from tsg_client.profiles import Profile

Row = dict[str, Any]

PROFILES = Table[Row](
    {name: itemgetter(name) for name in ("name", "curr", "account", "user", "url", "tsg_url", "insecure", "keyId")},
    default=("name", "curr", "account", "tsg_url"),
    long=("name", "curr", "account", "user", "url", "tsg_url", "insecure", "keyId"),
    sort=("name",),
)


@click.group(cls=Verbs)
def profile() -> None:
    """Profiles: an account, its key, and the service. They are those of `triton`; `env` is made of the environment."""


@profile.command("ls")
@list_options(PROFILES)
@click.pass_obj
def ls(session: Session, options: Any) -> None:
    """List the profiles; * marks the current one."""
    profiles = session.profiles
    PROFILES.shown(options)
    current = profiles.current()
    PROFILES.show([_row(profiles.get(name), is_current=name == current) for name in profiles.names()], options)


@profile.command("get")
@click.argument("name", required=False)
@json_option
@click.pass_obj
def get(session: Session, name: str | None, is_json: bool) -> None:
    """Show a profile, or the current one as the options before the command change it."""
    found = session.profiles.get(name) if name else session.profile
    row = _row(found, is_current=found.name == session.profiles.current())
    show_object({key: value for key, value in row.items() if value not in (None, "", False)}, is_json=is_json)


@profile.command("create")
@click.argument("name")
@click.option("--account", required=True, metavar="LOGIN", help="The account.")
@click.option("--key-id", required=True, metavar="FP", help="The fingerprint of its key: ssh-keygen -l -E md5 -f FILE.")
@click.option("--url", required=True, metavar="URL", help="CloudAPI.")
@click.option("--tsg-url", required=True, metavar="URL", help="The service.")
@click.option("--insecure", is_flag=True, help="Trust any certificate.")
@click.pass_obj
def create(session: Session, name: str, account: str, key_id: str, url: str, tsg_url: str, insecure: bool) -> None:
    """Make a profile, which `triton` can use too."""
    session.profiles.create(Profile(name, account=account, key_id=key_id, url=url, tsg_url=tsg_url, insecure=insecure))
    click.echo(f'Created profile "{name}"; tsg profile set {name} makes it the current one')


@profile.command("set")
@click.argument("name")
@click.pass_obj
def set_(session: Session, name: str) -> None:
    """Make a profile the current one, of `triton` too."""
    session.profiles.set_current(name)
    click.echo(f'Set "{name}" as current profile')


@profile.command("set-url")
@click.argument("name")
@click.argument("url")
@click.pass_obj
def set_url(session: Session, name: str, url: str) -> None:
    """Write down where the service of a profile is. It is kept beside the profiles of `triton`, which knows no such field."""
    session.profiles.get(name)
    session.profiles.set_url(name, url)
    click.echo(f'The service of "{name}" is {url}')


def _row(found: Profile, *, is_current: bool) -> Row:
    return {
        "name": found.name,
        "curr": "*" if is_current else "",
        "account": found.account,
        "user": found.user,
        "url": found.url,
        "tsg_url": found.tsg_url,
        "insecure": found.insecure,
        "keyId": found.key_id,
    }
