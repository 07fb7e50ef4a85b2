"""`tsg doctor`: what a request needs, one line each, and what to do about what is missing."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import click
import requests

from tsg_client import errors
from tsg_client.cli.session import Session
from tsg_client.cli.verbs import Verb
from tsg_client.profiles import usable
from tsg_client.sessions import open_session

#: Seconds that a clock may be off: more, and signatures are refused (MAX_SKEW of the service); half of it, and it is time to mend it.
REFUSED, SUSPICIOUS = 300, 150
#: Seconds for an answer.
PATIENCE = 10.0


class Finding(NamedTuple):
    """How something is. `remedy` is what to do about it, where it is not well."""

    what: str
    is_well: bool
    detail: str
    remedy: str = ""


class _Stop(Exception):
    """What follows can't be looked at."""


@click.command(cls=Verb)
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """See what is in the way of requests: profile, key, clock, service, account, CloudAPI. Fails when something is."""
    is_well = True
    for finding in _findings(ctx.obj):
        is_well = is_well and finding.is_well
        mark = click.style("ok  ", fg="green") if finding.is_well else click.style("FAIL", fg="red")
        click.echo(f"{mark}  {finding.what:<9} {finding.detail}")
        if finding.remedy:
            click.echo(f"      {'':<9} -> {finding.remedy}")
    if not is_well:
        ctx.exit(1)


def _findings(session: Session) -> Iterator[Finding]:
    looks: tuple[Callable[[Session], Iterator[Finding]], ...] = (_profile, _key, _service, _account, _cloud)
    for look in looks:
        try:
            yield from look(session)
        except _Stop:
            return


def _profile(session: Session) -> Iterator[Finding]:
    try:
        found = usable(session.profile)
    except errors.Misconfigured as error:
        remedy = "tsg profile create -h; tsg profile ls lists those that are there"
        yield Finding("profile", is_well=False, detail=str(error), remedy=remedy)
        raise _Stop from error
    yield Finding("profile", is_well=True, detail=f"{found.name}: account {found.account}, service {found.tsg_url}")


def _key(session: Session) -> Iterator[Finding]:
    try:
        found = session.key
    except errors.NoKey as error:
        yield Finding("key", is_well=False, detail=str(error), remedy="ssh-add the key, or set TRITON_KEY_MATERIAL to its file")
        raise _Stop from error
    yield Finding("key", is_well=True, detail=f"{found.key.fingerprint} ({found.key.algorithm}), from {found.place}")


def _service(session: Session) -> Iterator[Finding]:
    url = session.client.url
    try:
        with open_session() as opened:
            answer = opened.get(f"{url}/readyz", timeout=PATIENCE, verify=False if session.profile.insecure else None)
    except requests.exceptions.SSLError:
        yield Finding("service", is_well=False, detail=f"the certificate of {url} is not trusted", remedy="REQUESTS_CA_BUNDLE=FILE, or -i")
        raise _Stop from None
    except requests.RequestException:
        yield Finding("service", is_well=False, detail=f"{url} can't be reached", remedy="see the URL: tsg profile get; and the network")
        raise _Stop from None
    yield from _clock(answer)
    if answer.status_code == 200:
        yield Finding("service", is_well=True, detail=f"{url} is ready")
    else:
        yield Finding("service", is_well=False, detail=f"{url} answers {answer.status_code} to /readyz", remedy="tell its operator")


def _clock(answer: requests.Response) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(answer.headers.get("Date", ""))
    except ValueError:
        return
    off = (datetime.now(UTC) - theirs).total_seconds()
    way = "ahead of" if off > 0 else "behind"
    remedy = "set this machine's clock: signatures hold for 5 minutes" if abs(off) > SUSPICIOUS else ""
    detail = f"{abs(off):.0f} s {way} the service's" if abs(off) >= 2 else "as the service's"
    yield Finding("clock", is_well=abs(off) < REFUSED, detail=detail, remedy=remedy)


def _account(session: Session) -> Iterator[Finding]:
    account = session.profile.account
    try:
        count = sum(1 for _ in session.client.list_groups())
    except errors.Unauthenticated as error:
        remedy = f"see that Triton has the key: triton key ls; triton key add FILE. The profile has {session.profile.key_id}"
        yield Finding("account", is_well=False, detail=str(error), remedy=remedy)
    except errors.Forbidden as error:
        yield Finding("account", is_well=False, detail=str(error), remedy="ask the service's operator to enable the account")
    except errors.TsgError as error:
        yield Finding("account", is_well=False, detail=str(error), remedy="try again later, or tell the operator")
    else:
        yield Finding("account", is_well=True, detail=f"{account} is let in, and has {count} groups")


def _cloud(session: Session) -> Iterator[Finding]:
    if not session.profile.url:
        yield Finding("CloudAPI", is_well=True, detail="not in the profile: images and networks go by their ids alone")
        return
    try:
        found = session.cloud.account()
    except errors.Unauthenticated:
        yield Finding("CloudAPI", is_well=False, detail=f"{session.cloud.url} does not know the key", remedy="triton key add FILE")
    except errors.TsgError as error:
        yield Finding("CloudAPI", is_well=False, detail=str(error), remedy="see the URL of the profile: tsg profile get")
    else:
        yield Finding("CloudAPI", is_well=True, detail=f"{session.cloud.url} knows the key of {found.get('login')}")
