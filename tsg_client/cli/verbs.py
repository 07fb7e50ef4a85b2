"""Groups of commands that know other names of their verbs, and commands whose errors are one line."""

from typing import Any

import click

#: What others call a verb.
OTHER_NAMES = {"list": "ls", "delete": "rm", "remove": "rm", "new": "create", "show": "get"}
SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Verb(click.Command):
    """A command. Its errors are raised to `errors.run` with its name."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"context_settings": SETTINGS | options.get("context_settings", {})})

    def invoke(self, ctx: click.Context) -> Any:
        ctx.find_root().meta["tsg.command"] = ctx.command_path
        return super().invoke(ctx)


class Verbs(click.Group):
    """The verbs of a noun."""

    command_class = Verb

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"context_settings": SETTINGS | options.get("context_settings", {})})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        return super().get_command(ctx, name) or super().get_command(ctx, OTHER_NAMES.get(name, name))

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """In the order of the module, not of the alphabet."""
        return list(self.commands)
