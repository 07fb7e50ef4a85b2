"""The whole service on one machine: PostgreSQL, Valkey, the simulator of CloudAPI, the API, workers and the clock. Real processes.

    with Stack(directory) as stack:
        stack.url, stack.account, stack.key_file

Used by `dev/run` and by the end-to-end tests.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import requests

from dev import leftovers
from dev.client import PROGRAMS, Account, Tsg, make_key, send, shell, write_private
from dev.processes import Child, ChildError, free_port
from dev.services import Postgres, Valkey, copy_of, execute
from shared.clients import keys

DATACENTER = "us-east-1"
ACCOUNT = "demo"
#: The account's UUID in the simulated Triton.
TRITON_UUID = "d82a1f04-b9f6-4075-998f-af20e3d49de6"
DATABASE = "tsg"
#: Where an API listens, as its log says in JSON.
LISTENS = r'"url": "(http://[^"]+)"'

#: How the seed's readers enable an account.
WHITELIST = "INSERT INTO tsg_accounts (account_name, triton_uuid, created_at, updated_at) VALUES (%s, %s, NOW(), NOW())"


class Place(NamedTuple):
    """A machine: its address, and its network where that is not ours."""

    address: str
    network: Path | None = None


class Stack:
    """Everything that `TSG_*` names, started in order and stopped in the other one.

    `copy_of` is the data directory of a stopped PostgreSQL with our tables: to begin with a copy of it saves initdb and the migrations.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        api: int = 1,
        workers: int = 2,
        feeds: int = 0,
        provision_seconds: float = 5.0,
        durable: bool = True,
        scaler: str = "worker",
        real_nomad: bool = True,
        cmon: bool = False,
        settings: Mapping[str, str] | None = None,
        copy_of: Path | None = None,
    ) -> None:
        self.directory = directory
        self.key_file = directory / "id_rsa"
        self.account = ACCOUNT
        self.postgres = Postgres(directory / "postgres", durable=durable)
        self.valkey = Valkey(directory / "valkey")
        self._port = port
        self._api = api
        self._workers = workers
        self._feeds = feeds
        self._provision_seconds = provision_seconds
        self._scaler = scaler
        self._real_nomad = real_nomad
        self._copy_of = copy_of
        self._cmon = directory / "cmon" if cmon else None
        self._settings = dict(settings or {})
        self.datacenter = self._settings.get("TSG_TRITON_DC", DATACENTER)
        self.processes: dict[str, Child] = {}
        self.url = ""
        self.cloud_url = ""
        self.nomad_url = ""
        #: The path of the real Nomad that runs; None where the simulator does.
        self.nomad_program: str | None = None
        #: Where the service's programs are installed: another directory has those of another release.
        self.programs = PROGRAMS

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> Self:
        """Start what isn't running, in order, each when what it needs is ready."""
        self._make_account()
        if self._copy_of and not self.postgres.data_dir.exists():
            copy_of(self._copy_of, self.postgres.data_dir)
        self.postgres.start()
        self.valkey.start()
        self.cloud_url = self._start_cloud()
        if self._scaler == "nomad":
            self._join_nomad()
        self._make_database()
        self.start_api()
        for number in range(1, self._workers + 1):
            self.start_process(f"worker-{number}", "tsg-worker")
        self.start_process("clock", "tsg-clock")
        for number in range(1, self._feeds + 1):
            self.start_process(f"feed-{number}", "tsg-feed")
        return self

    def _make_account(self) -> None:
        self.key_id = make_key(self.key_file, self.account)
        (self.directory / "log").mkdir(exist_ok=True)

    def stop(self) -> None:
        """Stop everything that was started, and nothing else."""
        for name in reversed(list(self.processes)):
            self.processes.pop(name).stop()
        self._leave_nomad()
        _unmount(self._agent_file.parent)
        self.valkey.stop()
        self.postgres.stop()

    @property
    def environment(self) -> dict[str, str]:
        """The settings of the service's processes."""
        return {
            "TSG_DATABASE_URL": self.postgres.url(DATABASE),
            "TSG_REDIS_URL": self.valkey.url,
            "TSG_TRITON_DC": self.datacenter,
            "TSG_TRITON_URL": self.cloud_url,
            "TSG_SECRET_KEYS": self._secret_key(),
            # Short, so that one can watch a lost machine being replaced.
            "TSG_HEALTH_CHECK_INTERVAL": "10",
            # A server on this machine may play an instance.
            "TSG_PROBE_NETWORKS": "127.0.0.0/8",
            **(self._nomad_settings() if self._scaler == "nomad" else {}),
            **({"TSG_TRITON_CACERT": str(self._cmon / "cmon-ca.pem")} if self._cmon else {}),
            **self._settings,
        }

    def _join_nomad(self) -> None:
        """Use the Nomad that was given, or start one."""
        self.nomad_url = self._settings.get("NOMAD_ADDR", "")
        if not self.nomad_url:
            self._nomad_ports = self._ports_of_nomad()
            self.nomad_url = f"http://127.0.0.1:{self._nomad_ports['http']}"
            self.start_nomad()
            return
        # A node that was not started here has none of our settings: it finds the settings in a file.
        tables = "".join(
            f"{name[4:].lower().replace('_', '-')} = {json.dumps(value)}\n" for name, value in self._node_environment().items()
        )
        write_private(self.directory / "settings.toml", tables)
        self._settings["TSG_NOMAD_CONFIG"] = str(self.directory / "settings.toml")

        # Those of a stack that was killed, and could not remove them itself.
        leftovers.remove_jobs(self.nomad_url, lambda job_id, config: TRITON_UUID in job_id and not config.exists())

    def _leave_nomad(self) -> None:
        """Leave no job behind in a Nomad that was given: the workers that would have removed it are gone."""
        config = self._settings.pop("TSG_NOMAD_CONFIG", None)
        if config is not None:
            with suppress(requests.RequestException):
                leftovers.remove_jobs(self.nomad_url, lambda _job_id, its: its == Path(config))

    @property
    def _agent_file(self) -> Path:
        return self.directory / "nomad" / "agent.json"

    def _ports_of_nomad(self) -> dict[str, int]:
        """Those of the last time: an agent that is started again waits for ever for the leader that it was at another port."""
        if self._agent_file.exists():
            ports: dict[str, int] = json.loads(self._agent_file.read_text())["ports"]
            return ports
        return {name: free_port() for name in ("http", "rpc", "serf")}

    def _nomad_settings(self) -> dict[str, str]:
        return {
            "TSG_SCALER": "nomad",
            "NOMAD_ADDR": self.nomad_url,
            "TSG_NOMAD_DRIVER": "raw_exec",
            "TSG_NOMAD_COMMAND": str(PROGRAMS / "tsg-scale"),
        }

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the service's programs to its end."""
        command = [self.programs / program, *arguments]
        return subprocess.run(command, env={**_environ(), **self.environment}, capture_output=True, text=True, check=False)

    def start_process(self, name: str, program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Child:
        """Start one of the service's programs; its log is `log/<name>.log`. `environment` goes on top of the settings."""
        command = [self.programs / program, *arguments]
        together = {**_environ(), **self.environment, **(environment or {})}
        if program == "tsg-clock":
            del together["TSG_SECRET_KEYS"]
        log = self.directory / "log" / f"{name}.log"
        self.processes[name] = Child(command, log=log, env=together, network=self.place(name).network)
        return self.processes[name]

    def place(self, _name: str) -> Place:
        """Where a process of this name runs."""
        return Place("127.0.0.1")

    def start_api(self, environment: Mapping[str, str] | None = None) -> None:
        """Start those processes of the API that do not run, all on one port, and wait until they listen."""
        for name in ("api", *(f"api-{number}" for number in range(2, self._api + 1))):
            if name in self.processes and self.processes[name].status is None:
                continue
            shared = ["--reuse-port"] if self._api > 1 else []
            child = self.start_process(name, "tsg-api", f"--port={self._port}", *shared, "--log-format=json", environment=environment)
            self.url = child.wait_for_line(LISTENS)
            self._port = int(self.url.rsplit(":", 1)[1])

    def client(self, account: str = ACCOUNT) -> Tsg:
        """A client of one of its accounts."""
        return Tsg(self.url, account, self.key_file, self.key_id)

    def add_account(self, name: str) -> str:
        """Another account, with the same key, in the simulated Triton and enabled for the service; its UUID there."""
        public = self.key_file.with_suffix(".pub").read_text().strip()
        made = self.cloud("POST", "/accounts", {"login": name, "keys": [public]})
        self.sql(WHITELIST, name, made["uuid"])
        return made["uuid"]

    def start_nomad(self) -> None:
        """Start a Nomad, the real one where there is a program of that name, else the simulator; wait until it has a leader."""
        self.nomad_program = program = shutil.which("nomad") if self._real_nomad else None
        directory = self.directory / "nomad"
        directory.mkdir(exist_ok=True)
        if program:
            self._agent_file.write_text(json.dumps(self._nomad_configuration(directory)))
            command: list[str | Path] = [program, "agent", f"-config={self._agent_file}"]
        else:
            node = directory / "node.env"
            write_private(node, "".join(f"{name}={value}\n" for name, value in self._node_environment().items()))
            options = ["--port", str(self._nomad_ports["http"]), "--datacenter", self.datacenter, "--role", "automater", "--node-env", node]
            command = [sys.executable, "-m", "dev.sim.nomad", *options, "--state", directory / "state.json"]
        child = Child(
            command,
            log=self.directory / "log" / "nomad.log",
            env={**_environ(), **self._node_environment()},
        )
        self.processes["nomad"] = child
        child.wait_until(lambda: _has_leader(self.nomad_url))

    def _node_environment(self) -> dict[str, str]:
        """What a node of Nomad tells the jobs that run on it: everything but Nomad's own address."""
        return {name: value for name, value in self.environment.items() if name.startswith("TSG_")}

    def _nomad_configuration(self, directory: Path) -> dict[str, Any]:
        """A server and a client in one, on loopback."""
        return {
            "datacenter": self.datacenter,
            "data_dir": str(directory / "data"),
            "bind_addr": "127.0.0.1",
            # Nomad thinks it unsafe to be found on loopback; here it is the point.
            "advertise": dict.fromkeys(("http", "rpc", "serf"), "127.0.0.1"),
            "ports": self._nomad_ports,
            "server": {"enabled": True, "bootstrap_expect": 1},
            "client": {"enabled": True, "meta": {"role": "automater"}},
            "plugin": [{"raw_exec": [{"config": [{"enabled": True}]}]}],
            "disable_update_check": True,
        }

    def restart_the_dead(self) -> list[str]:
        """Start again whatever ended by itself; what was done, in words."""
        notes = []
        for server in (self.postgres, self.valkey):
            if not server.running:
                server.start()
                notes.append(f"{server.name} had ended, started again")
        for name, child in list(self.processes.items()):
            status = child.status
            if status is None:
                continue
            if name == "cloudapi":
                raise ChildError(f"the CloudAPI simulator ended with status {status}; its machines are lost. See {child.log}")
            notes.append(f"{name} ended with status {status}, started again")
            self.start_again(name)
        return notes

    def start_again(self, name: str) -> None:
        """Start a process that has ended, as it was started at first."""
        kind = name.partition("-")[0]
        if kind == "api":
            self.start_api()
        elif kind == "nomad":
            self.start_nomad()
        else:
            self.start_process(name, f"tsg-{kind}")

    def cloud(self, method: str, path: str, body: object = None) -> Any:
        """Ask the simulator for what no user of CloudAPI could: `/--sim/...`."""
        response = send(method, f"{self.cloud_url}/--sim{path}", json=body, timeout=30)
        response.raise_for_status()
        return response.json() if response.content else None

    def knobs(self, **knobs: Any) -> None:
        """Turn the simulator's knobs."""
        self.cloud("PATCH", "/knobs", knobs)

    def machines_of(self, group: str) -> list[dict[str, Any]]:
        """The machines of a group that are there, in the cloud itself."""
        return [machine for machine in self.cloud("GET", "/machines?live=true") if machine["tags"].get("tsg.group") == group]

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """One statement on the service's database, committed; its rows, if it has any."""
        return execute(self.postgres.url(DATABASE), statement, *parameters)

    def shell(self) -> str:
        """How a POSIX shell speaks to this stack."""
        return shell(self.url, Account(self.account, self.key_id, self.key_file), cloudapi=self.cloud_url)

    def exports(self) -> str:
        """The settings and the programs' directory as shell commands. They hold secrets."""
        settings = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.environment.items())
        return f"{settings}PATH=$PATH:{shlex.quote(str(PROGRAMS))}\n"

    def _start_cloud(self) -> str:
        place = self.place("cloudapi")
        child = Child(
            [
                sys.executable,
                *("-m", "dev.sim.cloudapi", "--bind", place.address, "--port", "0", "--datacenter", self.datacenter),
                *("--provision-seconds", str(self._provision_seconds)),
                *("--account", f"{ACCOUNT}:{TRITON_UUID}:{self.key_file}.pub"),
                *(("--cmon", self._cmon) if self._cmon else ()),
            ],
            log=self.directory / "log" / "cloudapi.log",
            network=place.network,
        )
        self.processes["cloudapi"] = child
        return child.wait_for_line(r"listening on (http://\S+)")

    def _secret_key(self) -> str:
        file = self.directory / "secret_key"
        if not file.exists():
            write_private(file, keys.make_secret_key())
        return file.read_text()

    def _make_database(self) -> None:
        if not self._copy_of:
            self.postgres.create_database(DATABASE)
            done = self.run("tsg-admin", "db", "upgrade")
            if done.returncode:
                raise ChildError(f"tsg-admin db upgrade failed with status {done.returncode}:\n{done.stderr}")
        if not self.sql("SELECT 1 FROM tsg_accounts WHERE triton_uuid = %s", TRITON_UUID):
            self.sql(WHITELIST, ACCOUNT, TRITON_UUID)


def _environ() -> dict[str, str]:
    """The environment without settings: what a shell has exported for another stack is not for this one."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TSG_")}


def _unmount(directory: Path) -> None:
    """Take down what a real agent has mounted below the directory and left so: the secrets of each run, where root started it."""
    mounts = Path("/proc/mounts")
    for line in mounts.read_text().splitlines() if mounts.exists() else ():
        target = line.split()[1]
        if Path(target).is_relative_to(directory):
            subprocess.run(["umount", target], check=False)


def _has_leader(nomad_url: str) -> bool:
    try:
        return send("GET", f"{nomad_url}/v1/status/leader", timeout=5).status_code == 200
    except requests.RequestException:
        return False
