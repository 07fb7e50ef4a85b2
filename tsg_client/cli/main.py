"""`tsg`: nouns and verbs. A noun's module is imported when the noun is typed."""

import os
import sys
from importlib import import_module
from typing import NamedTuple, NoReturn

import click

from tsg_client.cli import errors
from tsg_client.cli.verbs import Verbs


class Noun(NamedTuple):
    """A noun of the command line: `place` is its module and what is in it."""

    place: str
    summary: str


NOUNS = {
    "group": Noun("group:group", "Groups: make, scale, look, wait, delete"),
    "member": Noun("member:member", "Members of a group: protect, remove, adopt, detach"),
    "template": Noun("template:template", "Templates: what instances are made from"),
    "rollout": Noun("rollout:rollout", "Rollouts: bring a template to the instances that run, or go back"),
    "policy": Noun("policy:policy", "Policies of a group: schedules, targets, steps, webhooks"),
    "notify": Noun("notify:notify", "Notifications: send activities to a URL"),
    "apply": Noun("apply:apply", "Make groups and templates as a file declares them"),
    "export": Noun("apply:export_", "Print groups and templates as such a file"),
    "top": Noun("watch:top", "Watch all groups"),
    "watch": Noun("watch:watch", "Watch a group: members, activities"),
    "profile": Noun("profile:profile", "Who sends requests, and where to"),
    "env": Noun("env:env", "Print a profile as shell variables, for Terraform and others"),
    "console": Noun("console:console", "Show all of it in a browser"),
    "doctor": Noun("doctor:doctor", "See what is in the way of requests, and how to mend it"),
    "completion": Noun("completion:completion", "Print what makes a shell complete commands and names"),
    "api": Noun("api:api", "Send any request, signed"),
}
ALIASES = {"grp": "group", "tpl": "template"}
#: `tsg groups` is `tsg group ls`.
PLURALS = {
    "groups": "group",
    "members": "member",
    "templates": "template",
    "profiles": "profile",
    "policies": "policy",
    "rollouts": "rollout",
}

HELP = """Triton Service Groups: groups of instances that keep their size.

Who you are is the profile of `triton` (tsg profile ls), or the variables TRITON_* and SDC_*. `tsg doctor` says what is missing.
Groups and templates go by name, id, or the first 8 characters of the id."""

#: By this variable a shell asks for what a line could go on with.
COMPLETE = "_TSG_COMPLETE"

EXITS = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 no such object."


class Nouns(Verbs):
    """The commands of `tsg`."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        noun = NOUNS.get(ALIASES.get(name, PLURALS.get(name, name)))
        if noun is None:
            return None
        module, _, attribute = noun.place.partition(":")
        found: click.Command = getattr(import_module(f"tsg_client.cli.{module}"), attribute)
        if name in PLURALS and isinstance(found, click.Group):
            return found.get_command(ctx, "ls")
        return found

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, noun.summary) for name, noun in NOUNS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        self.commands = dict.fromkeys([*NOUNS, *ALIASES, *PLURALS], click.Command(""))  # for "did you mean"
        return super().resolve_command(ctx, args)


@click.command(cls=Nouns, help=HELP, epilog=EXITS, no_args_is_help=True)
@click.option("-p", "--profile", metavar="NAME", help="The profile (TRITON_PROFILE).")
@click.option("-a", "--account", metavar="LOGIN", help="The account, instead of the profile's.")
@click.option("-u", "--user", metavar="LOGIN", help="A sub-user of the account.")
@click.option("-r", "--role", metavar="ROLE,...", help="Roles for CloudAPI (TRITON_ROLE).")
@click.option("-k", "--keyId", "key_id", metavar="FP", help="The fingerprint of the key.")
@click.option("-U", "--url", metavar="URL", help="CloudAPI's URL.")
@click.option("--tsg-url", metavar="URL", help="The service's URL (TRITON_TSG_URL).")
@click.option("-i", "--insecure", is_flag=True, default=None, help="Trust any certificate.")
@click.option("-v", "--verbose", is_flag=True, help="Show requests, and traces of errors.")
@click.version_option(package_name="triton-service-groups", message="tsg %(version)s")
@click.pass_context
def root(ctx: click.Context, /, profile: str | None, role: str | None, verbose: bool, **options: object) -> None:
    from tsg_client.cli.session import Session  # noqa: PLC0415 - the client library, of which `tsg --help` needs nothing

    ctx.obj = Session(profile, role=role or os.environ.get("TRITON_ROLE"), verbose=verbose, options=options)


def main(arguments: list[str] | None = None) -> NoReturn:
    """The program."""
    if asked := os.environ.get(COMPLETE):
        from click.shell_completion import shell_complete  # noqa: PLC0415 - for a shell that completes a line

        sys.exit(shell_complete(root, {}, "tsg", COMPLETE, asked))
    sys.exit(errors.run(root, arguments))
