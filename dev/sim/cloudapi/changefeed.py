"""The changefeed: each change of an account's machines, sent to its WebSockets about two seconds later, perhaps twice, perhaps never.

What is here of CloudAPI's code and of its faults: the client subscribes by a message that is never acknowledged; whatever is wrong with it
is ignored; nothing is repeated of what happened while nobody was connected.
"""

import asyncio
import json
import random
import socket
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from websockets.frames import Opcode
from websockets.protocol import SEND_EOF, Protocol, Side, State
from websockets.utils import accept_key

from dev.sim.cloudapi.machine import Change
from dev.sim.common.wanted import is_uuid

if TYPE_CHECKING:
    from dev.sim.cloudapi.cloud import Cloud

#: What may be subscribed to. Messages name further properties.
SUB_RESOURCES = frozenset(["alias", "customer_metadata", "destroyed", "nics", "owner_uuid", "server_uuid", "state", "tags"])
#: Bytes of a subscription.
MOST_BYTES = 4 << 20
#: Seconds between two looks at the queue when the knob says none.
SHORTEST_POLL = 0.01


class Subscription:
    """What a client asked for, or nothing."""

    def __init__(self, text: str | bytes) -> None:
        """`ValueError` for what CloudAPI ignores."""
        asked = json.loads(text)
        if not isinstance(asked, dict) or asked.get("resource") != "vm":
            raise ValueError("no resource vm")
        wanted, machines = asked.get("subResources"), asked.get("vms")
        if not isinstance(wanted, list) or not SUB_RESOURCES.issuperset(map(str, wanted)):
            raise ValueError("unknown subResources")
        if machines is not None and not (isinstance(machines, list) and all(is_uuid(str(one).lower()) for one in machines)):
            raise ValueError("vms are no UUIDs")
        self._wanted = frozenset(wanted)
        self._machines = None if machines is None else frozenset(machines)

    def wants(self, change: Change) -> bool:
        return not self._wanted.isdisjoint(change.keys) and (self._machines is None or change.machine_id in self._machines)


class Changefeed:
    """The publisher and its connections, in a thread that begins with the first one. Thread-safe."""

    def __init__(self, cloud: "Cloud") -> None:
        self._cloud = cloud
        self._knobs = cloud.knobs
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lost_until = 0.0
        #: Of the loop's thread alone.
        self.links: set[_Link] = set()
        self.opened = 0
        self.sent = 0

    def adopt(self, connection: socket.socket, account_id: str, key: str) -> None:
        """Answer the upgrade on a connection, and tell it of the account's machines from then on. `key` is the client's."""
        self._cloud.is_watched = True
        loop = self._running()

        async def welcome() -> None:
            await loop.connect_accepted_socket(lambda: _Link(self, account_id, accept_key(key)), connection)

        asyncio.run_coroutine_threadsafe(welcome(), loop)

    def shown(self) -> dict[str, Any]:
        """For `/--sim/changefeed`."""
        accounts: dict[str, int] = {}
        for link in tuple(self.links):
            accounts[link.account_id] = accounts.get(link.account_id, 0) + 1
        return {"connections": len(self.links), "opened": self.opened, "sent": self.sent, "accounts": accounts}

    def restart(self, seconds: float) -> None:
        """As when VMAPI is restarted: CLOSE to every client, and what happens within `seconds` is lost."""
        self._lost_until = time.monotonic() + seconds
        self._everywhere(_Link.say_goodbye)

    def cut(self) -> None:
        """As when CloudAPI is killed: the connections end without a CLOSE."""
        self._everywhere(_Link.abort)

    def close(self) -> None:
        with self._lock:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    # The publisher

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._run, args=(self._loop,), name="changefeed", daemon=True)
                self._thread.start()
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        publishing = loop.create_task(self._publish())
        loop.run_forever()
        publishing.cancel()
        for link in tuple(self.links):
            link.abort()
        loop.run_until_complete(asyncio.gather(publishing, return_exceptions=True))

    def _everywhere(self, do: Any) -> None:
        def each() -> None:
            for link in tuple(self.links):
                do(link)

        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(each)

    async def _publish(self) -> None:
        """VMAPI: items are taken up every two seconds, in no order, and are over then, whether anybody listens or not."""
        while True:
            await asyncio.sleep(max(SHORTEST_POLL, self._knobs.feed_poll_seconds))
            now = time.monotonic()
            for link in tuple(self.links):
                if self._knobs.feed_idle_seconds and now - link.heard_at > self._knobs.feed_idle_seconds:
                    link.end()  # HAProxy's doing
            changes = self._spoilt(self._cloud.take_changes())
            if changes and now >= self._lost_until and not self._knobs.feed_mute:
                asyncio.get_running_loop().call_later(self._knobs.feed_late_seconds, self._tell, changes)

    def _spoilt(self, changes: Sequence[Change]) -> list[Change]:
        knobs, cloud = self._knobs, self._cloud
        kept = [change for change in changes if not cloud.use_up("feed_lose_next") and not cloud.chance(knobs.feed_lose_share)]
        if knobs.feed_lose_same_moment:
            kept = list({(change.machine_id, change.moment): change for change in reversed(kept)}.values())[::-1]
        if knobs.feed_double:
            kept = [change for change in kept for _ in range(2)]
        if knobs.feed_shuffle:
            random.shuffle(kept)
        return kept

    def _tell(self, changes: Sequence[Change]) -> None:
        for number, change in enumerate(changes):
            text = ""
            for link in tuple(self.links):
                if link.account_id == change.owner and link.subscription is not None and link.subscription.wants(change):
                    text = text or json.dumps(self._message(change, number))
                    link.say(text)
                    self.sent += 1

    def _message(self, change: Change, number: int) -> dict[str, Any]:
        shown, state = change.shown, change.state
        if self._knobs.feed_lie:  # about all but the machine's id
            shown, state = shown | {"state": "running", "tags": {}, "metadata": {}}, "running"
        return {
            "changeKind": {"resource": "vm", "subResources": list(change.keys)},
            "changedResourceId": change.machine_id,
            "published": str(int(time.time() * 1000) + number),
            "resourceObject": shown | {"package": ""},
            "resourceState": state,
        }


class _Link(asyncio.Protocol):
    """One WebSocket."""

    def __init__(self, feed: Changefeed, account_id: str, accept: str) -> None:
        self.account_id = account_id
        self.subscription: Subscription | None = None
        self.heard_at = time.monotonic()
        self._feed = feed
        self._accept = accept
        self._frames = Protocol(Side.SERVER, state=State.OPEN, max_size=MOST_BYTES)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        head = ["HTTP/1.1 101 The Watershed Moment", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {self._accept}"]
        transport.write("\r\n".join([*head, "", ""]).encode())
        self._feed.links.add(self)
        self._feed.opened += 1

    def connection_lost(self, _error: Exception | None) -> None:
        self._feed.links.discard(self)

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        self._frames.receive_data(data)
        if self._frames.parser_exc is not None:  # unmasked, say
            self.abort()
            return
        for frame in self._frames.events_received():
            if not frame.fin:
                self.say_goodbye()
            elif frame.opcode == Opcode.TEXT:
                self._subscribe(frame.data)
        self._send()

    def _subscribe(self, text: bytes) -> None:
        try:
            self.subscription = Subscription(text)
        except (ValueError, RecursionError):
            return  # only CloudAPI's log has it

    def say(self, text: str) -> None:
        if self._frames.state is State.OPEN:
            self._frames.send_text(text.encode())
            self._send()

    def say_goodbye(self) -> None:
        if self._frames.state is State.OPEN:
            self._frames.send_close(1000)
            self._send()

    def end(self) -> None:
        """A TCP end without a CLOSE."""
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _send(self) -> None:
        for piece in self._frames.data_to_send():
            if piece == SEND_EOF:
                self._transport.close()
            else:
                self._transport.write(piece)
