"""`tsg env`."""

import shlex

import click

from tsg_client.cli.session import Session
from tsg_client.cli.verbs import Verb
from tsg_client.profiles import ENV, usable


@click.command(cls=Verb)
@click.argument("name", metavar="[PROFILE]", required=False)
@click.option("-u", "--unset", is_flag=True, help="Print what unsets them.")
@click.pass_obj
def env(session: Session, name: str | None, unset: bool) -> None:
    """Print a profile as variables that tsg, triton, Terraform and the SDKs read: eval "$(tsg env NAME)"."""
    found = session.profiles.get(name) if name else session.profile
    values = {
        "TRITON_PROFILE": found.name if found.name != ENV else ENV,
        "TRITON_URL": found.url,
        "TRITON_TSG_URL": found.tsg_url,
        "TRITON_ACCOUNT": found.account,
        "TRITON_USER": found.user,
        "TRITON_KEY_ID": found.key_id,
        "TRITON_TLS_INSECURE": "true" if found.insecure else None,
        "TRITON_SKIP_TLS_VERIFY": "true" if found.insecure else None,
    }
    if not unset:
        usable(found)
    for variable, value in values.items():
        click.echo(f"unset {variable}" if unset or not value else f"export {variable}={shlex.quote(value)}")
