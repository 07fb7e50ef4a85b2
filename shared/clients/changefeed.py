"""CloudAPI's changefeed: a WebSocket for an account, which tells that something about a machine has changed.

It tells about two seconds late, perhaps twice, perhaps in another order, and perhaps never; it acknowledges nothing, and repeats nothing of
what happened before. So a message says which machine to look at, and nothing else of it is used.

FeedError          there is no connection, or it has ended. Later
  NotOffered       CloudAPI is too old to have one (404, 405). Tomorrow
  NotLetThrough    something in between lets no WebSocket through. Tomorrow
  NotAllowed       the signature is not accepted, or the account may not (401, 403)
  TooMany          throttled (429)
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from shared.clients import https
from shared.clients.access import PUBLIC, Trust
from shared.clients.signature import Signer
from shared.rules import is_storable, is_uuid, storable
from shared.spec.machines import TAG_GROUP, TAG_NAME

#: Properties of machines that checks look at, by VMAPI's names.
SUBSCRIPTION = json.dumps({"resource": "vm", "subResources": ["state", "destroyed", "server_uuid", "tags", "nics"]})
#: Seconds between pings, and until their answer. CloudAPI's proxy ends what is silent for 55 s (sdc-cloudapi: etc/haproxy.cfg.in).
PING_SECONDS = 20.0
#: Seconds for the whole upgrade.
OPEN_SECONDS = 15.0
#: Bytes of the largest message: a machine with its metadata.
MAX_MESSAGE_BYTES = 4 << 20


class FeedError(Exception):
    """There is no connection, or it has ended."""


class NotOffered(FeedError):
    """CloudAPI is too old."""


class NotLetThrough(FeedError):
    """Something in between lets no WebSocket through."""


class NotAllowed(FeedError):
    """The signature is not accepted, or the account may not."""


class TooMany(FeedError):
    """Throttled."""


_BY_STATUS: Mapping[int, type[FeedError]] = {401: NotAllowed, 403: NotAllowed, 404: NotOffered, 405: NotOffered, 429: TooMany}
#: CloudAPI's words for a request whose headers did not all come to it (sdc-cloudapi: lib/changefeed.js).
_STRIPPED = b"must upgrade"


class Message(NamedTuple):
    """A machine has changed."""

    machine_id: str
    #: Of the machine's tags, where they are what this service makes them.
    group_id: str | None
    group_name: str | None
    #: Seconds since VMAPI took the change up, by this machine's clock. None where the message does not say.
    age: float | None


class _Connect(connect):
    """A signature holds for one address: redirects are errors, as any other answer."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class Changefeed:
    """The changefeeds of one CloudAPI, for one event loop."""

    def __init__(self, url: str, trust: Trust = PUBLIC) -> None:
        self._url = url.rstrip("/").replace("http", "ws", 1)
        self._proxy = https.proxy_for(url)
        self._tls = https.tls_context(trust) if self._url.startswith("wss:") else None

    @asynccontextmanager
    async def open(self, account: str, signer: Signer) -> AsyncIterator[AsyncIterator[Message]]:
        """The messages about an account's machines from now on. `FeedError`, also from the messages when the connection ends."""
        path = f"/{quote(account, safe='')}/changefeed"
        try:
            connection = await _Connect(
                self._url + path,
                additional_headers=signer.headers("GET", path, datetime.now(UTC)),
                user_agent_header="tsg",
                compression=None,
                proxy=self._proxy,
                ssl=self._tls,
                open_timeout=OPEN_SECONDS,
                ping_interval=PING_SECONDS,
                ping_timeout=PING_SECONDS,
                close_timeout=2,
                max_size=MAX_MESSAGE_BYTES,
            ).connect()
            await connection.send(SUBSCRIPTION)
        except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed, ssl.SSLError) as error:
            raise _explained(error) from error
        try:
            yield _messages(connection)
        finally:
            # Without a CLOSE here: CloudAPI never forgets a connection that ends by one (sdc-cloudapi: lib/changefeed.js). One of its
            # own is answered by the library.
            connection.transport.close()
            await asyncio.sleep(0)


async def _messages(connection: ClientConnection) -> AsyncIterator[Message]:
    while True:
        try:
            text = await connection.recv()
        except ConnectionClosed as error:
            raise _explained(error) from error
        message = read_message(text)
        if message is not None:
            yield message


def read_message(text: str | bytes) -> Message | None:
    """None for what is no message about a machine. What else it holds is not looked at."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    machine_id = told.get("changedResourceId") if isinstance(told, dict) else None
    if not isinstance(machine_id, str) or not is_uuid(machine_id):
        return None
    shown = told.get("resourceObject")
    tags = shown.get("tags") if isinstance(shown, dict) else None
    found = tags if isinstance(tags, dict) else {}
    group_id, name = found.get(TAG_GROUP), found.get(TAG_NAME)
    return Message(
        machine_id.lower(),
        group_id.lower() if isinstance(group_id, str) and is_uuid(group_id) else None,
        name if isinstance(name, str) and is_storable(name) else None,
        _age(told.get("published")),
    )


def _age(published: Any) -> float | None:
    try:
        return time.time() - float(published) / 1000
    except (TypeError, ValueError, OverflowError):
        return None


def _explained(error: Exception) -> FeedError:
    if isinstance(error, InvalidStatus):
        status, body = error.response.status_code, bytes(error.response.body or b"")
        if _STRIPPED in body.lower():
            return NotLetThrough("Something between this service and CloudAPI takes the Upgrade header away.")
        return _BY_STATUS.get(status, FeedError)(f"CloudAPI answered {status}{_words(body)}.")
    if isinstance(error, ConnectionClosed):
        return FeedError("CloudAPI has closed the connection." if error.rcvd else "The connection to CloudAPI broke.")
    if why := https.distrust(error):
        return FeedError(f"CloudAPI's certificate is not trusted ({why}): see TSG_TRITON_CACERT.")
    return FeedError(f"CloudAPI can't be reached: {type(error).__name__}{f': {error}' if str(error) else ''}.")


def _words(body: bytes) -> str:
    """CloudAPI's code and message."""
    try:
        told = json.loads(body)
        return storable(f" ({told['code']}: {told['message']})")
    except (ValueError, TypeError, LookupError):
        return ""
