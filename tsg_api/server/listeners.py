"""The sockets that tsg-api listens on."""

import errno
import os
import socket

#: Connections that may wait to be accepted.
BACKLOG = 1024


def listen(host: str, port: int, *, reuse_port: bool = False) -> list[socket.socket]:
    """Sockets that listen on all addresses that `host` stands for (`::`: IPv4 too), on one free port when it is 0. Raises OSError.

    `reuse_port`: other processes that ask for it may listen there too (SO_REUSEPORT), and the system deals connections out among them.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    for family, *_, address in dict.fromkeys(found):
        chosen = listeners[0].getsockname()[1] if listeners else port
        at, takes_ipv4_too = (address[0], chosen, *address[2:]), address[0] == "::"
        try:
            made = socket.create_server(at, family=family, backlog=BACKLOG, reuse_port=reuse_port, dualstack_ipv6=takes_ipv4_too)
            listeners.append(made)
        except OSError as error:
            # socket.create_server adds the address to the text.
            error.strerror = os.strerror(error.errno or 0)
            # A name may stand for an address of a protocol that this machine does not speak.
            if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT} or (len(found) == 1 and not listeners):
                raise
    if not listeners:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return listeners
