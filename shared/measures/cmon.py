"""Measures that CMON has of a group's members: nothing to install, and no account sees another's."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait

import redis
from cachetools import LRUCache

from shared.clients.cmon import Cmon, NoMetrics
from shared.clients.samples import Sample, Samples
from shared.measures.source import Asked, Source, combined
from shared.policies.seen import Measure, Missing
from shared.state.policies import Scaled

#: Seconds for which a machine is not asked again: CMON's agents look at the kernel's statistics as often.
PACE = 10.0
#: Members of a group that are asked at once, and seconds until those that have not answered are left out.
AT_ONCE, SECONDS = 8, 4.0
#: Accounts whose connections are kept.
ACCOUNTS = 1000
#: Brands whose zone is the hypervisor's: its memory says nothing of the guest's.
HVM = frozenset({"bhyve", "kvm"})

#: What is kept of a machine's metrics.
_KEPT = (
    *("cpu_user_usage", "cpu_sys_usage", "cpucap_cur_usage_percentage", "cpucap_limit_percentage", "mem_agg_usage", "mem_limit"),
    *("net_agg_bytes_in", "net_agg_bytes_out", "tcp_current_established_connections_total", "time_of_day"),
)
_NET = {"net_out": "net_agg_bytes_out", "net_in": "net_agg_bytes_in"}


class CmonSource(Source):
    """`connect` makes the connections of an account, `vcpus` tells how many a group's package has."""

    def __init__(self, samples: Samples, connect: Callable[[Scaled], Cmon], vcpus: Callable[[Scaled], float]) -> None:
        self._samples = samples
        self._connect = connect
        self._vcpus = vcpus
        self._connected: LRUCache[str, Cmon] = LRUCache(ACCOUNTS)
        self._groups: LRUCache[str, threading.Lock] = LRUCache(10_000)
        self._lock = threading.Lock()

    def read(self, asked: Asked, /) -> Measure:
        if not asked.members:
            return Missing("no member is available")
        try:
            cmon = self._cmon(asked.group)
            if asked.metric.measure == "memory" and (hvm := self._hardware(cmon, asked)):
                return Missing(hvm)
            samples, problem = self._look(cmon, asked)
            values = [self._value(asked, samples[one]) for one in asked.members if one in samples]
        except NoMetrics as error:
            return Missing(str(error))
        except redis.RedisError as error:
            return Missing(f"Redis, which keeps CMON's samples, cannot be used ({type(error).__name__})")
        known = [value for value in values if value is not None]
        if not known:
            return Missing(problem or "CMON was asked for the first time: a rate needs two looks")
        return combined(known, len(asked.members), is_total=asked.is_total)

    def _cmon(self, group: Scaled) -> Cmon:
        with self._lock:
            found = self._connected.get(group.account_id)
        if found is None or found.is_stale:
            found = self._connect(group)
            with self._lock:
                self._connected[group.account_id] = found
        return found

    def _look(self, cmon: Cmon, asked: Asked) -> tuple[Mapping[str, Sample], str]:
        """The members' samples, none older than `PACE`; and why one is missing."""
        with self._lock:
            turn = self._groups.setdefault(asked.group.id, threading.Lock())
        with turn:  # two metrics of one group share a look
            now, kept = self._samples.get(asked.group.id)
            stale = [one for one in asked.members if one not in kept or now - kept[one].at > PACE]
            found, problem = _ask(cmon, stale)
            fresh = {one: Sample(now, values, kept[one].values if one in kept else {}) for one, values in found.items()}
            gone = [one for one in kept if one not in asked.members]
            if fresh or gone:
                self._samples.put(asked.group.id, fresh, gone)
        recent = {one: sample for one, sample in kept.items() if one not in stale}
        return {**recent, **fresh}, problem

    def _hardware(self, cmon: Cmon, asked: Asked) -> str | None:
        brands = cmon.brands()
        found = next((brands[one] for one in asked.members if brands.get(one) in HVM), None)
        return f"a member is a hardware VM ({found}), whose memory CMON cannot see" if found else None

    def _value(self, asked: Asked, sample: Sample) -> float | None:
        values, measure = sample.values, asked.metric.measure or ""
        if measure == "connections":
            return values.get("tcp_current_established_connections_total")
        if measure == "memory":
            limit = values.get("mem_limit", 0.0)
            return 100 * values["mem_agg_usage"] / limit if limit > 0 and "mem_agg_usage" in values else None
        if measure in _NET:
            return _rate(sample, _NET[measure])
        cap = values.get("cpucap_limit_percentage", 0.0)
        if cap > 0 and "cpucap_cur_usage_percentage" in values:
            return 100 * values["cpucap_cur_usage_percentage"] / cap
        used = [_rate(sample, name) for name in ("cpu_user_usage", "cpu_sys_usage")]
        if any(one is None for one in used):
            return None
        return 100 * sum(one for one in used if one is not None) / 1e9 / self._vcpus(asked.group)


def _ask(cmon: Cmon, machines: list[str]) -> tuple[dict[str, dict[str, float]], str]:
    """What these machines say, in parallel; those that do not answer in time are left out. And the last problem."""
    if not machines:
        return {}, ""
    pool = ThreadPoolExecutor(min(AT_ONCE, len(machines)), thread_name_prefix="cmon")
    futures = {pool.submit(cmon.metrics, one): one for one in machines}
    done, late = wait(futures, timeout=SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)
    found, problem = {}, f"CMON has not answered for {SECONDS:g} s" if late else ""
    for future in done:
        try:
            values = future.result()
            found[futures[future]] = {name: values[name] for name in _KEPT if name in values}
        except NoMetrics as error:
            problem = str(error)
    return found, problem


def _rate(sample: Sample, name: str) -> float | None:
    """A counter's growth a second, by the machine's own clock. One that fell was started anew."""
    seconds = (sample.values.get("time_of_day", 0.0) - sample.before.get("time_of_day", 0.0)) / 1000
    if name not in sample.values or name not in sample.before or seconds <= 0 or "time_of_day" not in sample.before:
        return None
    grown = sample.values[name] - sample.before[name]
    return grown / seconds if grown >= 0 else None
