"""`tsg policy`."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

import click

from tsg_client.cli.asking import confirm, force_option
from tsg_client.cli.completing import groups
from tsg_client.cli.errors import printable
from tsg_client.cli.group import find as find_group
from tsg_client.cli.output import Table, json_option, list_options, show_object, word
from tsg_client.cli.session import Session
from tsg_client.cli.setting import assignments, set_option
from tsg_client.cli.verbs import Verbs
from tsg_client.declared import ADDED
from tsg_client.models import Decision, Group, Json, Policy, Preview
from tsg_client.names import pick, short

F = TypeVar("F", bound=Callable[..., Any])

POLICIES = Table[Policy](
    {
        "shortid": lambda row: short(row.id),
        "id": lambda row: row.id,
        "name": lambda row: row.policy_name,
        "kind": lambda row: row.kind,
        "mode": lambda row: row.mode,
        "does": lambda row: _does(row.as_json()),
        "failures": lambda row: row.failures,
        "created": lambda row: row.created_at,
        "updated": lambda row: row.updated_at,
        "age": lambda row: row.created_at,
    },
    default=("shortid", "name", "kind", "mode", "age", "does"),
    long=("id", "name", "kind", "mode", "failures", "created", "updated", "does"),
    sort=("created",),
)

DECISIONS = Table[Decision](
    {
        "time": lambda row: row.last_at,
        "age": lambda row: row.last_at,
        "policy": lambda row: row.policy_name,
        "result": lambda row: row.result,
        "times": lambda row: row.times,
        "value": lambda row: row.observed.get("value"),
        "recommended": lambda row: row.recommended,
        "capacity": lambda row: f"{row.capacity_before} -> {row.capacity_after}",
        "next": lambda row: row.next_at,
        "message": lambda row: row.message,
        "id": lambda row: row.id,
    },
    default=("age", "policy", "result", "times", "value", "capacity", "message"),
    long=("time", "policy", "result", "times", "value", "recommended", "capacity", "next", "id", "message"),
)

_GROUP = click.argument("name", metavar="GROUP", shell_complete=groups)
_POLICY = click.argument("called", metavar="POLICY")


def _fields(function: F) -> F:
    """Options for the fields of a policy."""
    options = (
        click.option("--mode", type=click.Choice(["active", "out_only", "shadow", "off"]), help="shadow decides, and changes nothing."),
        click.option("--cooldown", metavar="OUT,IN", help="Seconds after a change without growth, and without shrinkage."),
        click.option("--cron", metavar="CRON", help="schedule: when, such as '0 8 * * mon-fri'."),
        click.option("--at", metavar="TIME", help="schedule: once, such as 2026-12-24T18:00:00Z."),
        click.option("--time-zone", metavar="ZONE", help="schedule: of the cron expression, such as Europe/Vienna."),
        click.option("--capacity", type=click.IntRange(0), help="schedule: what it sets."),
        click.option("--min", "min_capacity", type=click.IntRange(0), help="schedule: a floor that it sets."),
        click.option("--max", "max_capacity", type=click.IntRange(0), help="schedule: a ceiling that it sets."),
        click.option("--duration", type=int, metavar="SECONDS", help="schedule: a window: the floor or ceiling holds for so long."),
        click.option("--metric", metavar="SOURCE:WHAT", help="target, step: cmon:cpu, prometheus:QUERY or pushed:NAME."),
        click.option("--target", type=float, help="target: what the metric is kept at."),
        click.option("--step", "steps", multiple=True, metavar="FROM..TO:CHANGE", help="step: such as 70..85:+2, 85..:+20% and ..20:-1."),
        click.option("--for", "for_seconds", type=int, metavar="SECONDS", help="step: for so long the metric was there."),
        click.option("--change", metavar="CHANGE", help="webhook: +1, -1, +10% or =5."),
        set_option,
        click.option("--body", type=click.File(), metavar="FILE", help="Fields as a JSON object; options go before them."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.group(cls=Verbs)
def policy() -> None:
    """Policies: a group changes its own capacity, within its bounds."""


@policy.command("ls")
@_GROUP
@list_options(POLICIES)
@click.pass_obj
def ls(session: Session, name: str, options: Any) -> None:
    """List the policies of a group."""
    POLICIES.shown(options)
    POLICIES.show(session.client.list_policies(find_group(session.client, name).id), options)


@policy.command("get")
@_GROUP
@_POLICY
@json_option
@click.pass_obj
def get(session: Session, name: str, called: str, is_json: bool) -> None:
    """Show a policy."""
    _group, found = _find(session, name, called)
    show_object(found, is_json=is_json)


@policy.command("create")
@_GROUP
@click.argument("called", metavar="NAME")
@click.argument("kind", type=click.Choice(["schedule", "target", "step", "webhook"]))
@_fields
@click.option("--dry-run", is_flag=True, help="Say what it would decide now, and make nothing.")
@json_option
@click.pass_obj
def create(session: Session, /, name: str, called: str, kind: str, dry_run: bool, is_json: bool, **given: Any) -> None:
    """Make a policy NAME of a kind."""
    group = find_group(session.client, name)
    body = {"policy_name": called, "kind": kind, **_given(given)}
    if dry_run:
        _show_preview(session.client.preview_policy(group.id, body), is_json=is_json)
        return
    _made("Created", session.client.create_policy(group.id, body), is_json=is_json)


@policy.command("update")
@_GROUP
@_POLICY
@_fields
@json_option
@click.pass_obj
def update(session: Session, /, name: str, called: str, is_json: bool, **given: Any) -> None:
    """Change a policy. What is not given stays as it is."""
    group, found = _find(session, name, called)
    current = session.client.get_policy(group.id, found.id)
    made = session.client.update_policy(group.id, found.id, asked(current.as_json()) | _given(given), if_match=current.etag)
    _made("Updated", made, is_json=is_json)


@policy.command("rm")
@_GROUP
@_POLICY
@force_option
@click.pass_obj
def rm(session: Session, name: str, called: str, force: bool) -> None:
    """Delete a policy. Asks first."""
    group, found = _find(session, name, called)
    if confirm(f"Delete policy {found.policy_name} of {group.group_name}?", force=force):
        session.client.delete_policy(group.id, found.id)
        click.echo(f"Deleted policy {found.policy_name} ({found.id})")


@policy.command("rotate")
@_GROUP
@_POLICY
@force_option
@json_option
@click.pass_obj
def rotate(session: Session, name: str, called: str, force: bool, is_json: bool) -> None:
    """Give a webhook another URL. The one that others call now ends. Asks first."""
    group, found = _find(session, name, called)
    if confirm(f"End the URL of {found.policy_name}, and make another?", force=force):
        _made("Rotated", session.client.rotate_webhook(group.id, found.id), is_json=is_json)


@policy.command("decisions")
@_GROUP
@click.argument("called", metavar="[POLICY]", required=False)
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="How many.")
@list_options(DECISIONS)
@click.pass_obj
def decisions(session: Session, name: str, called: str | None, limit: int, options: Any) -> None:
    """List what was decided about a group's policies, or one of them, and why; the newest first."""
    DECISIONS.shown(options)
    page = min(limit, 1000)
    if called is None:
        found = session.client.list_decisions(find_group(session.client, name).id, limit=page)
    else:
        group, meant = _find(session, name, called)
        found = session.client.list_decisions_of_policy(group.id, meant.id, limit=page)
    DECISIONS.show(islice(found, limit), options)


@policy.command("preview")
@_GROUP
@_POLICY
@json_option
@click.pass_obj
def preview(session: Session, name: str, called: str, is_json: bool) -> None:
    """Say what a policy would decide now by itself; and of a schedule, when it comes next."""
    group, found = _find(session, name, called)
    _show_preview(session.client.preview_policy(group.id, asked(found.as_json())), is_json=is_json)


@policy.command("push")
@_GROUP
@click.argument("metric")
@click.argument("value", type=float)
@click.option("--unit", help="Of the value.")
@click.option("--member", metavar="ID", help="The value is this member's.")
@click.pass_obj
def push(session: Session, name: str, metric: str, value: float, unit: str | None, member: str | None) -> None:
    """Tell the value of a metric, for policies whose metric is pushed:METRIC."""
    session.client.push_metric(find_group(session.client, name).id, metric, value, unit=unit, member=member)


@policy.command("call")
@click.argument("url", metavar="URL|TOKEN")
@click.pass_obj
def call(session: Session, url: str) -> None:
    """Call a webhook, to try it."""
    click.echo(f"Decision {session.client.call_webhook(url.rstrip('/').rpartition('/')[2])}")


def asked(shown: Json) -> Json:
    """The fields of a policy as it was asked for."""
    return {name: value for name, value in shown.items() if name not in ADDED}


def _find(session: Session, name: str, called: str) -> tuple[Group, Policy]:
    """The group and its policy that are meant."""
    group = find_group(session.client, name)
    return group, pick("policy", called, session.client.list_policies(group.id), name=lambda one: one.policy_name)


def _given(given: Mapping[str, Any]) -> Json:
    """The fields of a policy from the options: those that were given."""
    body = json.load(given["body"]) if given["body"] else {}
    when = {"cron": given["cron"], "at": given["at"], "time_zone": given["time_zone"]}
    to = {name: given[name] for name in ("capacity", "min_capacity", "max_capacity")}
    found = {
        "mode": given["mode"],
        "cooldown": _cooldown(given["cooldown"]) if given["cooldown"] else None,
        "schedule": _without_none(when),
        "set": _without_none(to),
        "duration_seconds": given["duration"],
        "metric": _metric(given["metric"]) if given["metric"] else None,
        "target": given["target"],
        "steps": [_step(one) for one in given["steps"]],
        "for_seconds": given["for_seconds"],
        "change": given["change"],
    }
    return body | {name: value for name, value in found.items() if value not in (None, [], {})} | assignments(given["more"])


def _without_none(fields: Mapping[str, Any]) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _cooldown(text: str) -> Json:
    out, comma, back = text.partition(",")
    if not (comma and out.isdigit() and back.isdigit()):
        raise _wrong(f"--cooldown {text}: write OUT,IN, such as 60,300")
    return {"out_seconds": int(out), "in_seconds": int(back)}


def _metric(text: str) -> Json:
    source, _, what = text.partition(":")
    field = {"cmon": "measure", "prometheus": "query", "pushed": "name"}.get(source)
    if field is None or not what:
        raise _wrong(f"--metric {text}: write cmon:cpu, prometheus:QUERY or pushed:NAME")
    return {"source": source, field: what}


def _step(text: str) -> Json:
    """`FROM..TO:CHANGE`; without FROM or TO there is no end on that side."""
    within, colon, change = text.rpartition(":")
    low, dots, high = within.partition("..")
    try:
        bounds = {name: float(bound) for name, bound in (("from", low), ("to", high)) if bound}
    except ValueError:
        bounds = {}
    if not (colon and dots and bounds):
        raise _wrong(f"--step {text}: write FROM..TO:CHANGE, such as 70..85:+2 or ..20:-1")
    return {**bounds, "change": change}


def _does(shown: Json) -> str:
    """A policy in a few words."""
    metric = shown.get("metric") or {}
    measured = f"{metric.get('source')}:{metric.get('measure') or metric.get('query') or metric.get('name')}"
    if shown["kind"] == "schedule":
        sets = ", ".join(f"{name} {value}" for name, value in _without_none(shown.get("set") or {}).items())
        seconds = shown.get("duration_seconds") or 0
        return f"{_when(shown.get('schedule') or {}, seconds)}: {sets}" + (f" for {seconds} s" if seconds else "")
    if shown["kind"] == "target":
        return f"{measured} at {shown.get('target')}"
    if shown["kind"] == "step":
        return f"{measured}: {len(shown.get('steps') or [])} steps"
    return f"{shown.get('change')} when it is called"


def _when(schedule: Json, seconds: int) -> str:
    """The times of a schedule whose window is open for these seconds; a moment may be over."""
    if (at := schedule.get("at")) is None:
        return f"{schedule.get('cron')} {schedule.get('time_zone')}"
    is_over = datetime.fromisoformat(at) + timedelta(seconds=seconds) < datetime.now(UTC)
    return f"{at}, which is over" if is_over else str(at)


def _show_preview(found: Preview, *, is_json: bool) -> None:
    if is_json:
        show_object(found, is_json=True)
        return
    for one in found.outcomes:
        click.echo(f"{word(one.result)}: capacity {one.capacity_before} -> {one.capacity_after}. {printable(one.message)}")
    for when in found.next:
        click.echo(f"next: {when:%Y-%m-%d %H:%M:%S} UTC")


def _made(verb: str, made: Policy, *, is_json: bool) -> None:
    if is_json:
        show_object(made, is_json=True)
        return
    click.echo(f"{verb} policy {made.policy_name} ({made.id})")
    if made.webhook_url:
        click.echo(f"Its URL, which is not shown again: {made.webhook_url}")
    elif made.kind == "webhook" and verb != "Updated":
        click.echo("The answer with its URL was lost: tsg policy rotate makes another", err=True)


def _wrong(text: str) -> click.UsageError:
    return click.UsageError(text, click.get_current_context())
