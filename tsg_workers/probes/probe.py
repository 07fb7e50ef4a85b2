"""One probe of one instance: a TCP connection, or an HTTP request of which the first line of the answer counts.

Nothing of an answer is followed or kept: the connection is cut once its status is known, so a redirect, a huge body, or one that never
ends costs no more than any other. The address is an IP address, for which no DNS is asked.
"""

import asyncio
import os

from shared.clients.status_line import status_of
from shared.spec.group_settings import HealthCheck, Probe


async def probe(address: str, check: HealthCheck) -> str | None:
    """Probe it once. None when it succeeded, else why not."""
    try:
        async with asyncio.timeout(check.timeout_seconds):
            return await _probe(address, check)
    except TimeoutError:
        return f"no answer within {check.timeout_seconds} s"
    except OSError as error:
        return _why(error)
    except ValueError as error:
        return str(error)


async def _probe(address: str, check: HealthCheck) -> str | None:
    loop = asyncio.get_running_loop()
    request = _request(address, check) if check.type == Probe.HTTP else None
    answer: asyncio.Future[int] = loop.create_future()
    transport, _ = await loop.create_connection(lambda: _Asking(request, answer), address, check.port)
    try:
        if request is None:
            return None
        status = await answer
    finally:
        transport.abort()
    low, high = check.expect
    return None if low <= status <= high else f"HTTP {status}"


def _request(address: str, check: HealthCheck) -> bytes:
    host = f"[{address}]" if ":" in address else address
    head = f"GET {check.path} HTTP/1.1\r\nHost: {host}:{check.port}\r\n"
    return f"{head}User-Agent: tsg-health-check\r\nAccept: */*\r\nConnection: close\r\n\r\n".encode("ascii")


def _why(error: OSError) -> str:
    """In the system's words, without the address."""
    return os.strerror(error.errno).lower() if error.errno else str(error) or type(error).__name__


class _Asking(asyncio.Protocol):
    """Sends the request, and waits for the status. `answer` gets it, or an error."""

    def __init__(self, request: bytes | None, answer: asyncio.Future[int]) -> None:
        self._request = request
        self._answer = answer
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._request is not None and isinstance(transport, asyncio.WriteTransport):
            transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._answer.done():
            return
        self._got += data
        try:
            status = status_of(self._got)
        except ValueError as error:
            self._answer.set_exception(error)
        else:
            if status is not None:
                self._answer.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the connection was closed without an answer"))
            self._answer.exception()  # the waiter may be gone
