"""What a machine's agent says, as triton-cmon-agent words it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from dev.sim.cloudapi.machine import Machine

#: The cap of a machine: per cent of one CPU.
CAP = 100.0
MEBI = 1 << 20


@dataclass
class Load:
    """What machines have to do. `cpu` gives per cent of a machine's cap; counters go on from there by the time that goes by."""

    cpu: Callable[[Machine], float] = lambda _machine: 10.0
    memory: float = 50.0  #: per cent
    net_out: float = 1000.0  #: bytes a second
    net_in: float = 500.0
    connections: float = 10.0
    is_capped: bool = True  #: the package has a CPU cap
    _counted: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    def text(self, machine: Machine, now: float) -> str:
        """The metrics page of a machine."""
        cpu = self.cpu(machine)
        used = self._grown(machine, "cpu", cpu / 100 * 1e9 * max(1, machine.package.vcpus), now)
        limit = machine.package.memory * MEBI
        lines = [
            *_metric("cpu_user_usage", "counter", used * 0.75),
            *_metric("cpu_sys_usage", "counter", used * 0.25),
            *_metric("load_average", "gauge", cpu / 100),
            *_metric("mem_agg_usage", "gauge", limit * self.memory / 100),
            *_metric("mem_limit", "gauge", limit),
            *_metric("tcp_current_established_connections_total", "gauge", self.connections),
            *_metric("time_of_day", "counter", now * 1000),
        ]
        if self.is_capped:
            lines += [*_metric("cpucap_cur_usage_percentage", "gauge", CAP * cpu / 100), *_metric("cpucap_limit_percentage", "gauge", CAP)]
        for name, rate in (("net_agg_bytes_out", self.net_out), ("net_agg_bytes_in", self.net_in)):
            total = self._grown(machine, name, rate, now)
            lines += [f"# HELP {name} {name}", f"# TYPE {name} counter"]
            lines += [f'{name}{{interface="vnic{number}",nic_tag="external"}} {total / 2!r}' for number in (0, 1)]
        return "\n".join(lines) + "\n"

    def _grown(self, machine: Machine, name: str, rate: float, now: float) -> float:
        total, since = self._counted.get((machine.id, name), (1000.0, now))
        total += rate * max(0.0, now - since)
        self._counted[machine.id, name] = (total, now)
        return total


def _metric(name: str, kind: str, value: float) -> list[str]:
    return [f"# HELP {name} {name}", f"# TYPE {name} {kind}", f"{name} {value!r}"]
