"""Questions before something is deleted."""

import sys

import click

force_option = click.option("-f", "--force", is_flag=True, help="Do not ask.")


def confirm(question: str, *, force: bool) -> bool:
    """Whether a person agrees, or was not to be asked. A no is said on stderr. Without a terminal it is a usage error."""
    if force:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("this asks first, and there is no terminal: use --force", click.get_current_context())
    if click.confirm(question, err=True):
        return True
    click.echo("Aborting", err=True)
    return False
