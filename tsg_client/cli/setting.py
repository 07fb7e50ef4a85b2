"""`--set FIELD=VALUE`, for the fields that have no option of their own."""

import json
from collections.abc import Iterable
from typing import Any

import click

set_option = click.option("--set", "more", multiple=True, metavar="FIELD=VALUE", help="Any other field; the value is JSON, or a string.")


def assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Of `FIELD=VALUE`: the value is JSON, or a string."""
    return dict(_assignment(text) for text in texts)


def _assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set {text}: write FIELD=VALUE", click.get_current_context())
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
