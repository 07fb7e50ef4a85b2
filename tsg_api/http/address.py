"""Whose address a request comes from: one spelling for each address, and the block of addresses that a limit counts as one caller."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import falcon

#: Longer text is no address: `[`, 39 characters of IPv6, a zone id of 15, `]:` and a port are 62.
LONGEST = 64
#: Bits of an IPv6 address that name a network. A caller with one address of it has all of them (RFC 6177).
NETWORK_BITS = 64
#: IPv4 as a translator writes it: the last 32 bits are the caller's address (RFC 6052).
TRANSLATED = IPv6Network("64:ff9b::/96")

_BRACKETED = re.compile(r"\[([^\]]+)\](?::[0-9]+)?\Z")
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]+\Z")


def canonical(text: str) -> str | None:
    """The address as RFC 5952 writes it, without quotes, brackets, port and zone id; IPv4 in IPv6 as IPv4. None when it is none."""
    return _canonical(text) if len(text) <= LONGEST else None


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str | None:
    bare = text.strip().strip('"')
    if with_more := _BRACKETED.match(bare) or _WITH_PORT.match(bare):
        bare = with_more[1]
    try:
        found = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    return str(_ipv4_in(found) or found)


def _ipv4_in(found: IPv4Address | IPv6Address) -> IPv4Address | None:
    if isinstance(found, IPv4Address):
        return found
    return IPv4Address(int(found) & 0xFFFFFFFF) if found in TRANSLATED else found.ipv4_mapped


def block(address: str) -> str:
    """What a limit counts as one caller: an IPv4 address, or the /64 of an IPv6 address. Any other text is one of its own."""
    found = canonical(address) or address
    try:
        return str(IPv6Network((found, NETWORK_BITS), strict=False))
    except ValueError:
        return found


class CallerAddress:
    """Middleware, the first: `req.remote_addr` is the caller's address in its one spelling.

    Behind `trusted_proxy` (an address, or `*` for any) it is the last address of X-Forwarded-For, the one that the proxy itself wrote.
    A header that anybody else sends, or that ends in no address, says nothing.
    """

    def __init__(self, trusted_proxy: str = "") -> None:
        self._trusted = trusted_proxy if trusted_proxy == "*" else canonical(trusted_proxy)

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        peer = canonical(req.remote_addr)
        caller = peer
        if self._trusted is not None and self._trusted in {"*", peer}:
            caller = canonical((req.get_header("X-Forwarded-For") or "").rpartition(",")[2]) or peer
        if caller is not None:  # a Unix socket's peer has no address
            req.env["REMOTE_ADDR"] = caller
