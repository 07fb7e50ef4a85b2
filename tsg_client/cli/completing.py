"""Names of groups and templates for a shell's completion. Whatever fails, there are none."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import click
from click.shell_completion import CompletionItem

from tsg_client.client import Client

#: Seconds: a person waits with the cursor.
PATIENCE = 2.0


def _completer(read: Callable[[Client], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with suppress(Exception):
            return [CompletionItem(name) for name in read(_client(ctx)) if name.startswith(incomplete)]
        return []

    return complete


def _client(ctx: click.Context) -> Client:
    from tsg_client.cli.session import Session  # noqa: PLC0415 - the context has none while a line is completed

    given: dict[str, Any] = dict(ctx.find_root().params)
    for name in ("verbose", "role"):
        given.pop(name, None)
    session = Session(given.pop("profile", None), role=None, verbose=False, options=given)
    return session.client


groups = _completer(lambda client: (one.group_name for one in client.list_groups()))
templates = _completer(lambda client: (one.template_name for one in client.list_templates()))
