"""`tsg api`."""

import json
from pathlib import Path

import click

from tsg_client.cli.output import to_json
from tsg_client.cli.session import Session
from tsg_client.cli.verbs import Verb


@click.command(cls=Verb)
@click.argument("path")
@click.option("-X", "--method", default=None, metavar="METHOD", help="GET; with -d: PUT.")
@click.option("-d", "--data", metavar="JSON", help="The body; @FILE for a file's.")
@click.option("-i", "--include", is_flag=True, help="Print status and headers on stderr.")
@click.pass_obj
def api(session: Session, path: str, method: str | None, data: str | None, include: bool) -> None:
    """Send a request to PATH, such as /v1/tsg/groups?limit=1, and print the answer."""
    try:
        text = Path(data[1:]).read_text() if data and data.startswith("@") else data
        body = None if text is None else json.loads(text)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"-d needs JSON, or @ and the name of a file that has it: {error}", click.get_current_context()) from None
    answer = session.client.ask(method or ("PUT" if data else "GET"), path, body)
    if include:
        click.echo(f"{answer.status_code} {answer.reason}", err=True)
        for name, value in answer.headers.items():
            click.echo(f"{name}: {value}", err=True)
    if "json" in answer.headers.get("Content-Type", ""):
        click.echo(to_json(answer.json(), indent=4))
    elif answer.text:
        click.echo(answer.text)
