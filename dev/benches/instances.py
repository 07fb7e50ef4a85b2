"""Servers that play instances for `dev/bench probes`, in a process of their own: one on each address, all on one port.

    python -m dev.benches.instances ADDRESSES

Prints the addresses and the port as JSON, and serves until it is ended. The path /hang is never answered.
"""

import asyncio
import json
import sys

#: Loopback addresses, of which a test uses others.
ADDRESSES = "127.20.0.{}"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"


class Instance(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not data.startswith(b"GET /hang ") and isinstance(self._transport, asyncio.WriteTransport):
            self._transport.write(ANSWER)
            self._transport.close()


async def _serve(count: int) -> None:
    loop = asyncio.get_running_loop()
    addresses = [ADDRESSES.format(number + 1) for number in range(count)]
    first = await loop.create_server(Instance, addresses[0], 0, backlog=1000)
    port = first.sockets[0].getsockname()[1]
    for address in addresses[1:]:
        await loop.create_server(Instance, address, port, backlog=1000)
    print(json.dumps({"addresses": addresses, "port": port}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
