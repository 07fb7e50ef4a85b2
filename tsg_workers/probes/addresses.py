"""Which addresses may be probed. Pure.

CloudAPI says what an instance's addresses are, but not where a packet to them goes: on a network of its own (a fabric) an account chooses
addresses that mean other machines to this process, the operator's among them. So only public addresses are probed, and those of the
networks that the operator names (`TSG_PROBE_NETWORKS`).
"""

import json
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from shared.clients.public import is_public

Network = IPv4Network | IPv6Network


def address_of(primary_ip: str | None, addresses: str | None, network: str | None) -> str | None:
    """An instance's address on a network, or its primary one without; None when it has none. `addresses` is the JSON of its row."""
    if network is None:
        return primary_ip or None
    found = json.loads(addresses) if addresses else {}
    return found.get(network) or None


@lru_cache(maxsize=1 << 16)
def refusal(address: str, allowed: tuple[Network, ...]) -> str | None:
    """Why the address is not probed; None when it is. No name is an address: DNS is never asked."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return f"{address[:64]!r} is not an IP address"
    plain: IPv4Address | IPv6Address = getattr(parsed, "ipv4_mapped", None) or parsed
    if any(plain in network for network in allowed if network.version == plain.version):
        return None
    if is_public(parsed):
        return None
    return f"{address} is not public, and in no network of TSG_PROBE_NETWORKS: it is not probed"
