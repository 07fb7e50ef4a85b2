"""Numbers as protobuf and Go's traces have them."""


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; a negative number is its two's complement of 64 bits."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
