"""`tsg console`: the service in a browser, its requests signed with the user's key. Ends with Ctrl-C."""

import signal
import threading
import webbrowser

import click

from tsg_client.cli.session import Session
from tsg_client.cli.verbs import Verb
from tsg_client.console.proxy import Upstream
from tsg_client.console.serve import HOST, serving
from tsg_client.errors import Misconfigured
from tsg_client.profiles import usable
from tsg_client.signer import ByDate


@click.command(cls=Verb)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, metavar="PORT", help="A port of this machine; without it, a free one.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@click.pass_obj
def console(session: Session, port: int, no_browser: bool) -> None:
    """Show the service in a browser. A proxy on this machine signs the requests of its pages: the key never reaches the browser."""
    profile = usable(session.profile)
    # Over the date alone: the service can show such a signature to CloudAPI, for sub-users too.
    upstream = Upstream((profile.tsg_url or "").rstrip("/"), profile.account or "", ByDate(session.signer), verify=not profile.insecure)
    ended = threading.Event()
    # Also where a script starts it with `&`, which has SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: ended.set())
    try:
        with serving(upstream, port=port) as address:
            click.echo(f"The console of {upstream.account} is at {address}")
            click.echo("Anybody on this machine who has this address acts with your key. Ctrl-C ends it.", err=True)
            if not no_browser:
                webbrowser.open(address)
            ended.wait()
    except OSError as error:
        raise Misconfigured(f"cannot listen on {HOST}:{port}: {error.strerror}") from None
