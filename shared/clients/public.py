"""Which addresses are public: what a stranger names is connected to only there."""

from ipaddress import IPv4Address, IPv6Address, ip_network

_NAT64 = ip_network("64:ff9b::/96")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Can it be nobody's own network, loopback, link or group of hosts? IPv4 in IPv6 counts as itself."""
    embedded = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    teredo = getattr(address, "teredo", None)
    if embedded is not None or teredo is not None:
        return is_public(embedded) if embedded is not None else False
    if address.version == 6 and address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    is_site = isinstance(address, IPv6Address) and address.is_site_local
    return address.is_global and not (address.is_multicast or address.is_reserved or is_site)
