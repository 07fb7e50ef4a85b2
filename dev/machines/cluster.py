"""What runs on the machines, started in order. A program that is killed stays away until it is started again here."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import psycopg2
import requests

from dev.client import Tsg, send
from dev.deploy.prepare import prepare
from dev.machines.hosts import Host
from dev.processes import TOP, Child, ChildError, wait_for
from dev.services import Address, Postgres, Sentinel, Valkey, execute
from dev.services.sentinel import NAME
from dev.stack import ACCOUNT, DATABASE, Place, Stack

DATABASES = ("db-1", "db-2", "db-3")
REDISES = ("redis-1", "redis-2")
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
#: The programs of the service, each on a machine of its own.
PROGRAMS = {
    **{f"api-{number}": ("tsg-api", "--bind=0.0.0.0", "--port=3000", "--log-format=json") for number in (1, 2)},
    **{f"worker-{number}": ("tsg-worker",) for number in (1, 2, 3)},
    **{f"clock-{number}": ("tsg-clock",) for number in (1, 2)},
    **{f"feed-{number}": ("tsg-feed",) for number in (1, 2)},
}
NAMES = ("edge", "cloudapi", *DATABASES, *REDISES, *SENTINELS, *PROGRAMS)

#: A commit is answered when one standby has it, whichever: one that dies stops nothing, and a primary that dies takes nothing with it.
SYNCHRONOUS = "ANY 1 (*)"
REDIS_PORT, SENTINEL_PORT = 6379, 26379
#: Seconds for everything to be whole again after something was started.
WHOLE_SECONDS = 120


class Cluster(Stack):
    """The stack, spread over machines: behind the edge, on the PostgreSQL that takes writes, on the Valkey that Sentinel names."""

    def __init__(self, directory: Path, hosts: Mapping[str, Host], settings: Mapping[str, str]) -> None:
        super().__init__(directory, provision_seconds=1.0, settings=settings)
        self.hosts = hosts
        self.databases = {
            name: Postgres(directory / name, listen=address, network=network) for name, (address, network) in self._places(DATABASES)
        }
        self.postgres = self.databases[DATABASES[0]]
        first = Address(hosts[REDISES[0]].address, REDIS_PORT)
        self.redises = {
            name: Valkey(
                directory / name, address=Address(address, REDIS_PORT), primary=None if name == REDISES[0] else first, network=network
            )
            for name, (address, network) in self._places(REDISES)
        }
        self.sentinels = {
            name: Sentinel(directory / name, Address(address, SENTINEL_PORT), primary=first, quorum=2, network=network)
            for name, (address, network) in self._places(SENTINELS)
        }
        self.ca_file = directory / "volumes" / "certificate" / "ca.pem"

    def _places(self, names: tuple[str, ...]) -> list[tuple[str, Place]]:
        return [(name, self.hosts[name].place) for name in names]

    def place(self, name: str) -> Place:
        return self.hosts[name].place

    @property
    def environment(self) -> dict[str, str]:
        databases = ",".join(f"{self.hosts[name].address}:5432" for name in DATABASES)
        sentinels = ",".join(f"{self.hosts[name].address}:{SENTINEL_PORT}" for name in SENTINELS)
        return {
            **super().environment,
            "TSG_DATABASE_URL": f"postgresql://postgres@{databases}/{DATABASE}",
            "TSG_REDIS_URL": f"sentinel://{sentinels}/{NAME}",
            "TSG_HTTP_TRUSTED_PROXY": "*",
        }

    def start(self) -> "Cluster":
        self._make_account()
        self.postgres.start()
        for name in DATABASES[1:]:
            self.add_standby(name)
        self.postgres.synchronous = SYNCHRONOUS
        self.postgres.restart()
        for server in (*self.redises.values(), *self.sentinels.values()):
            server.start()
        self.cloud_url = self._start_cloud()
        self._make_database()
        for name in PROGRAMS:
            self.start_program(name)
        self.start_edge()
        self.wait_until_whole()
        return self

    def stop(self) -> None:
        for name in reversed(list(self.processes)):
            self.processes.pop(name).stop()
        for server in (*self.sentinels.values(), *self.redises.values(), *self.databases.values()):
            server.stop()

    def client(self, account: str = ACCOUNT) -> Tsg:
        return Tsg(self.url, account, self.key_file, self.key_id, verify=self.ca_file)

    def start_program(self, name: str) -> Child:
        return self.start_process(name, *PROGRAMS[name])

    def add_standby(self, name: str) -> None:
        """Have a PostgreSQL that does not run copy the primary, and follow whichever is the primary from then on."""
        self.databases[name].synchronous = SYNCHRONOUS
        self.databases[name].become_standby([self.hosts[other].address for other in DATABASES if other != name])
        self.databases[name].start()

    def start_edge(self) -> None:
        """nginx with the configuration of the containers, but for the way in which it finds the APIs."""
        volumes = self.directory / "volumes"
        volumes.mkdir(exist_ok=True)
        prepare(volumes, {"TSG_EDGE_NAMES": self.hosts["edge"].address})
        apis = "".join(f" server {self.hosts[name].address}:3000;" for name in PROGRAMS if name.startswith("api"))
        text = (TOP / "dev" / "deploy" / "edge" / "nginx.conf").read_text()
        for old, new in (
            ("set $api http://tsg-api:3000;", "set $api http://tsg-api;"),
            ("resolver 127.0.0.11 valid=2s ipv6=off;", f"upstream tsg-api {{{apis} }}"),
            ("/tmp/", f"{self.directory}/edge/"),
            ("/etc/edge/tls/edge.pem", str(volumes / "edge" / "edge.pem")),
        ):
            assert old in text
            text = text.replace(old, new)
        file = self.directory / "edge" / "nginx.conf"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise ChildError("there is no nginx: apt-get install nginx-light")
        command = [program, "-c", file]
        self.processes["edge"] = Child(command, log=self.directory / "log" / "edge.log", network=self.place("edge").network)
        self.url = f"https://{self.hosts['edge'].address}:8443"

    def wait_until_whole(self) -> None:
        """Until each process runs, both standbys follow, the replica follows, and the edge says that the service is ready."""
        if not wait_for(lambda: not self.missing(), seconds=WHOLE_SECONDS, longest_pause=0.5):
            raise ChildError(f"not whole after {WHOLE_SECONDS} s: {self.missing()}")

    def missing(self) -> list[str]:
        away = [name for name, child in self.processes.items() if child.status is not None]
        servers = {**self.databases, **self.redises, **self.sentinels}
        away += [name for name, server in servers.items() if not server.running]
        return away or [*self._databases_that_lag(), *self._redises_that_lag(), *self._unready()]

    def _databases_that_lag(self) -> list[str]:
        try:
            [(count,)] = self.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'")
        except psycopg2.Error as error:
            return [str(error)]
        return [] if count == len(DATABASES) - 1 else [f"{count} standbys follow"]

    def _redises_that_lag(self) -> list[str]:
        following = [server.replication() for server in self.redises.values()]
        return [] if sorted(following) == ["master", "slave up"] else [f"the Valkeys are {following}"]

    def _unready(self) -> list[str]:
        try:
            answer = send("GET", f"{self.url}/readyz", verify=str(self.ca_file), timeout=10)
        except requests.RequestException as error:
            return [str(error)]
        return [] if answer.json().get("status") == "ready" else [answer.text]

    def primary_database(self) -> str:
        """The name of the one that takes writes."""
        return next(name for name, server in self.databases.items() if server.running and not server.is_standby())

    def primary_redis(self) -> str:
        return next(name for name, server in self.redises.items() if server.running and server.replication() == "master")

    def promote(self) -> str:
        """Make the standby that has most the primary; its name."""
        standbys = {name: server.received() for name, server in self.databases.items() if server.running and server.is_standby()}
        newest = max(standbys, key=lambda name: standbys[name])
        self.databases[newest].promote()
        return newest

    def sql(self, statement: str, *parameters: object) -> list[tuple[object, ...]]:
        """By the URL that the programs have."""
        url = f"{self.environment['TSG_DATABASE_URL']}?target_session_attrs=read-write&connect_timeout=2"
        return execute(url, statement, *parameters)
