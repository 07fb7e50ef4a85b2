"""CNS: the names of DNS under which an account's machines are found (triton-cns: lib/flag-filter.js, lib/vm-to-zones.js)."""

from collections import defaultdict
from collections.abc import Mapping

from dev.sim.cloudapi.accounts import Account
from dev.sim.cloudapi.machine import Machine


def records(account: Account, datacenter: str) -> Mapping[str, list[str]]:
    """The addresses of each name, of services and of machines.

    CNS: a machine whose metadata `triton.cns.status` is anything but `up` keeps its own name and leaves those of its services.
    """
    names: dict[str, list[str]] = defaultdict(list)
    if not (account.cns and account.approved):
        return names
    for machine in account.live.values():
        if machine.tags.get("triton.cns.disable", False) is not False:
            continue
        addresses = [nic.ip for nic in machine.nics]
        names[instance_name(account, machine, datacenter)] += addresses
        for service in _services(machine):
            names[f"{service}.svc.{_zone(account, datacenter)}"] += addresses
    return names


def instance_name(account: Account, machine: Machine, datacenter: str) -> str:
    return f"{machine.id}.inst.{_zone(account, datacenter)}"


def _zone(account: Account, datacenter: str) -> str:
    return f"{account.id}.{datacenter}.cns.example.com"


def _services(machine: Machine) -> list[str]:
    """Those that it serves now: `web` of the tag `web:80:priority=1, db`."""
    if machine.state != "running" or machine.metadata.get("triton.cns.status", "up") != "up":
        return []
    tag = machine.tags.get("triton.cns.services", "")
    return [service.split(":")[0].strip() for service in tag.split(",")] if isinstance(tag, str) and tag else []
