"""Machines as network namespaces: each has an address on one bridge, and nothing else of the network.

Needs root on Linux. All of it is in a network and a mount namespace of this program, and gone with it.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dev.stack import Place

#: The first three parts of all addresses; the bridge, and so this program, is number 1.
NETWORK = "10.77.0"
OURS = f"{NETWORK}.1"
_BRIDGE = "lan"
_NAMESPACES = Path("/run/netns")
_ISOLATED = "TSG_MANY_ISOLATED"


class Host(NamedTuple):
    """A machine."""

    name: str
    address: str

    @property
    def place(self) -> Place:
        return Place(self.address, _NAMESPACES / self.name)

    def unplug(self) -> None:
        """Nothing reaches it any more, and nobody is told."""
        _ip("link", "set", self.name, "down")

    def plug(self) -> None:
        _ip("link", "set", self.name, "up")


def isolate() -> None:
    """Run this program again from the start, in a network of its own."""
    if os.environ.get(_ISOLATED):
        return
    if os.geteuid() != 0:
        raise SystemExit("network namespaces are root's: run this as root, on Linux")
    command = ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, *sys.orig_argv[1:]]
    os.execvpe(command[0], command, {**os.environ, _ISOLATED: "1"})


def make_hosts(names: Sequence[str]) -> dict[str, Host]:
    """The machines by name, all on the bridge."""
    _NAMESPACES.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(_NAMESPACES)], check=True)
    _ip("link", "set", "lo", "up")
    _ip("link", "add", _BRIDGE, "type", "bridge")
    _ip("addr", "add", f"{OURS}/24", "dev", _BRIDGE)
    _ip("link", "set", _BRIDGE, "up")
    hosts = {name: Host(name, f"{NETWORK}.{number}") for number, name in enumerate(names, start=11)}
    for host in hosts.values():
        _ip("netns", "add", host.name)
        _ip("link", "add", host.name, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        _ip("link", "set", host.name, "master", _BRIDGE, "up")
        _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", host.name, "link", "set", device, "up")
    return hosts


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
