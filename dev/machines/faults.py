"""What is killed, and who steps in. Each fault returns how it is mended, once the service works again without what was killed."""

import random
import time
from collections.abc import Callable

from dev.machines.cluster import PROGRAMS, SENTINELS, Cluster

Mend = Callable[[], object]

#: Seconds after which somebody notices that the primary database is away, and promotes a standby: an operator's tool, such as Patroni.
NOTICED = 3.0


def nothing(_cluster: Cluster) -> Mend:
    return lambda: None


def _program(kind: str) -> Callable[[Cluster], Mend]:
    def kill(cluster: Cluster) -> Mend:
        name = random.choice([name for name in PROGRAMS if name.startswith(kind)])
        cluster.processes[name].kill()
        return lambda: cluster.start_program(name)

    return kill


def worker_unplugged(cluster: Cluster) -> Mend:
    host = cluster.hosts[random.choice([name for name in PROGRAMS if name.startswith("worker")])]
    host.unplug()
    return host.plug


def edge_killed(cluster: Cluster) -> Mend:
    """There is one: it is started again at once."""
    cluster.processes["edge"].kill()
    cluster.start_edge()
    return lambda: None


def primary_killed(cluster: Cluster) -> Mend:
    name = cluster.primary_database()
    cluster.databases[name].kill()
    _fail_over(cluster)
    return lambda: cluster.add_standby(name)


def primary_unplugged(cluster: Cluster) -> Mend:
    """It runs on, and believes that it is the primary; no commit of it is answered, since no standby has it."""
    name = cluster.primary_database()
    cluster.hosts[name].unplug()
    _fail_over(cluster)

    def mend() -> None:
        cluster.databases[name].stop("immediate")
        cluster.hosts[name].plug()
        cluster.add_standby(name)

    return mend


def _fail_over(cluster: Cluster) -> None:
    time.sleep(NOTICED)
    cluster.promote()


def standby_killed(cluster: Cluster) -> Mend:
    primary = cluster.primary_database()
    standby = random.choice([server for name, server in cluster.databases.items() if name != primary])
    standby.kill()
    return standby.start


def redis_killed(cluster: Cluster) -> Mend:
    primary = cluster.redises[cluster.primary_redis()]
    primary.kill()
    return primary.start


def redis_unplugged(cluster: Cluster) -> Mend:
    host = cluster.hosts[cluster.primary_redis()]
    host.unplug()
    return host.plug


def replica_killed(cluster: Cluster) -> Mend:
    primary = cluster.primary_redis()
    (replica,) = [server for name, server in cluster.redises.items() if name != primary]
    replica.kill()
    return replica.start


def sentinel_killed(cluster: Cluster) -> Mend:
    sentinel = cluster.sentinels[random.choice(SENTINELS)]
    sentinel.kill()
    return sentinel.start


FAULTS: dict[str, Callable[[Cluster], Mend]] = {
    "nothing": nothing,
    "a `tsg-api`": _program("api"),
    "a `tsg-worker`": _program("worker"),
    "a `tsg-worker`, its machine unplugged": worker_unplugged,
    "a `tsg-clock`": _program("clock"),
    "a `tsg-feed`": _program("feed"),
    "the edge, started again at once": edge_killed,
    f"the primary PostgreSQL, a standby promoted after {NOTICED:.0f} s": primary_killed,
    "the same, its machine unplugged": primary_unplugged,
    "a standby": standby_killed,
    "the primary Redis": redis_killed,
    "the same, its machine unplugged ": redis_unplugged,
    "its replica": replica_killed,
    "a Sentinel": sentinel_killed,
}
