"""What every resource needs: the database, wake-ups, CloudAPI, and reading ids and bodies of requests."""

import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import falcon

from shared.clients.cloudapi import Client
from shared.clients.keys import Sealer
from shared.clients.pushed import Pushed
from shared.clients.webhooks import Rules
from shared.errors import NotFound
from shared.measures.gather import Gatherer
from shared.plan.limits import Limits
from shared.rules import is_uuid
from shared.state.accounts import Account
from shared.store.db import Database
from tsg_api.http.body import read_raw
from tsg_api.http.errors import UnsupportedEncoding
from tsg_api.http.slots import AllSlots
from tsg_api.schema import parse


class Service(NamedTuple):
    """What the resources of one app share."""

    db: Database
    #: Wake a worker for this account and group, after a change. Returns at once; a background thread sends the wake-up.
    wake: Callable[[str, str], None]
    #: Have a worker decide by the policies of this group, likewise.
    wake_policies: Callable[[str], None]
    #: CloudAPI by the management key of an account.
    cloud: Callable[[Account], Client]
    max_capacity: int
    max_body: int
    #: Seconds between checks of a new group that does not say.
    interval: int
    #: Nomad runs the scaling: a new group has a job.
    has_jobs: bool
    #: Set when the process is to stop: requests that wait are answered then.
    stopping: threading.Event
    #: How many requests may wait for what at once.
    slots: AllSlots
    #: Whether the server can park a request (`tsg_api.http.waiting`).
    parks: bool
    #: What groups' owners push, and all that policies measure.
    pushed: Pushed
    gatherer: Gatherer
    #: Seals the secrets of notifications, and what their URLs may lead to.
    sealer: Sealer
    notify_rules: Rules = Rules()
    #: Where callers reach the API; empty: where the request did.
    public_url: str = ""
    #: What workers go by when they plan.
    limits: Limits = Limits(provision_timeout=300, launch_grace=60)
    #: Requests a second that one account, and one address, may send; 0 for as many as they like.
    rate_per_account: float = 0.0
    rate_per_address: float = 0.0
    #: Whose X-Forwarded-For is believed: an address, `*` for everybody's, or nobody's.
    trusted_proxy: str = ""


B = TypeVar("B", bound=parse.Body)


def read_body(req: falcon.Request, model: type[B], service: Service) -> B:
    """The request's body as `model`: `TooLarge`, `UnsupportedEncoding`, or `Invalid` with all that is wrong."""
    return parse.body(model, read_text(req, service), max_capacity=service.max_capacity)


def read_text(req: falcon.Request, service: Service) -> bytes:
    """The bytes of the request's body: `TooLarge` or `UnsupportedEncoding`."""
    encoding = req.get_header("Content-Encoding") or "identity"
    if encoding.lower() != "identity":
        raise UnsupportedEncoding(f"The body has the Content-Encoding {encoding[:64]}; send it as it is, without one.")
    return read_raw(req, service.max_body)


def found_id(kind: str, text: str) -> str:
    """An id from the path, in lower case. What is no UUID is no object either: `NotFound`."""
    if not is_uuid(text):
        raise NotFound(f"There is no {kind} {text[:64]}.")
    return text.lower()
