"""A plan, as a person reads it."""

from collections.abc import Iterator

import click

from tsg_client.cli.errors import printable
from tsg_client.cli.output import show_object
from tsg_client.models import Plan, PlannedChange
from tsg_client.names import short

_COLORS = {"launch": "green", "terminate": "red", "drain": "red", "replace": "yellow", "update": "yellow", "take_back": "green"}


def show(plan: Plan, *, is_json: bool = False) -> None:
    """Print what would be done."""
    if is_json:
        show_object(plan, is_json=True)
    else:
        click.echo("\n".join(_lines(plan)))


def _lines(plan: Plan) -> Iterator[str]:
    if plan.capacity.before != plan.capacity.after:
        yield f"capacity {plan.capacity.before} -> {plan.capacity.after}"
    for one in plan.changes:
        yield f"  {click.style(one.action, fg=_COLORS.get(one.action))} {_what(one)}"
    if len(plan.waves) > 1:
        yield f"in {len(plan.waves)} waves"
    if not plan.changes and plan.capacity.before == plan.capacity.after:
        yield "nothing would be done"
    for warning in plan.warnings:
        yield click.style(f"warning: {printable(warning)}", fg="yellow")


def _what(one: PlannedChange) -> str:
    of = f" of template {short(one.template_id)}" if one.template_id else ""
    what = short(one.machine_id) if one.machine_id else f"{one.count}"
    return f"{what}{of}{f': {printable(one.why)}' if one.why else ''}"
