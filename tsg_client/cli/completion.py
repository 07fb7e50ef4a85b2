"""`tsg completion`."""

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from tsg_client.cli.verbs import Verb

_HOW = {
    "bash": 'in ~/.bashrc: eval "$(tsg completion bash)"',
    "zsh": 'in ~/.zshrc, after compinit: eval "$(tsg completion zsh)"',
    "fish": "once: tsg completion fish >~/.config/fish/completions/tsg.fish",
}


@click.command(cls=Verb)
@click.argument("shell", type=click.Choice(list(_HOW)), required=False)
@click.pass_context
def completion(ctx: click.Context, shell: str | None) -> None:
    """Print what makes a shell (bash, zsh, fish; without SHELL the one of $SHELL) complete commands, and names of groups and templates."""
    name = shell or Path(os.environ.get("SHELL", "")).name
    kind = get_completion_class(name) if name in _HOW else None
    if kind is None:
        raise click.UsageError(f"which shell? One of {', '.join(_HOW)}", ctx)
    click.echo(kind(ctx.find_root().command, {}, "tsg", "_TSG_COMPLETE").source())
    click.echo(f"# {_HOW[name]}")
