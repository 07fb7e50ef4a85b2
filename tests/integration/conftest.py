"""An account with its groups in a real database, and its machines in a simulated cloud whose time the test owns."""

import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from dev.database import managed_account
from dev.services import Postgres
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE
from dev.sim.cloudapi.machine import Machine
from dev.sim.cloudapi.simulator import Simulator
from shared.clients import keys
from shared.clients.access import Timeouts
from shared.clients.cloudapi import CloudAPI
from shared.clients.keys import KeyPair, Sealer
from shared.plan.limits import Limits
from shared.reasons import Reason
from shared.spec.group_settings import GroupSettings
from shared.spec.spec import Spec
from shared.state import activities, groups, instance_lists, instances, templates
from shared.state.accounts import Account
from shared.state.activities import Activity
from shared.state.groups import Group, Wish
from shared.state.instances import Instance
from shared.state.templates import Template
from shared.store.db import Database
from tests.conftest import FEW_BITS, new_database, new_pair, sql
from tests.tls import Tls
from tsg_workers.reconcilers.groups import GroupReconciler, Pace
from tsg_workers.runner import Runner

LIMITS = Limits(provision_timeout=300, launch_grace=60)
#: Seconds that the simulated machines take, on the test's own clock.
PROVISION_SECONDS, DELETE_SECONDS = 20.0, 10.0
#: Of the simulator, for requests that a test holds up and those that come meanwhile.
THREADS = 12

#: What time goes by in.
_MOMENTS = {
    "tsg_instances": "state_since launched_at ran_at running_since gone_at protected_until probe_since draining_since drained_at",
    "tsg_group_state": "check_at rest_at launch_at emptied_at",
    "tsg_rollouts": "created_at started_at progress_at next_at",
}

_numbers = itertools.count(1)


class World:
    """One account: its rows, its cloud, and workers that converge it when the test says so."""

    def __init__(self, database: Database, simulator: Simulator, pair: KeyPair) -> None:
        self.db = database
        self.sim = simulator
        self.sealer = Sealer([b"k" * 32])
        self.pair = pair
        self.login = f"account-{next(_numbers)}"
        self.triton = simulator.cloud.add_account(self.login, [f"{pair.public_line} tsg"], uuid=str(uuid.uuid4()))
        self.account: Account = database.transact(lambda made: managed_account(made, self.login, self.triton.id, pair, self.sealer))
        self._clouds: list[CloudAPI] = []
        self.worker = self.make_worker()

    def close(self) -> None:
        for clouds in self._clouds:
            clouds.close()

    def make_worker(
        self,
        owner: str = "worker-1",
        *,
        limits: Limits = LIMITS,
        timeouts: Timeouts | None = None,
        rate: float = 10_000,
        burst: int = 10_000,
        lease_seconds: int = 30,
        sealer: Sealer | None = None,
    ) -> Runner[Any]:
        clouds = CloudAPI(self.sim.url, timeouts or Timeouts(connect=5, read=30))
        self._clouds.append(clouds)
        pace = Pace(rate=rate, burst=burst, lease_seconds=lease_seconds, limits=limits)
        return Runner(self.db, GroupReconciler(self.db, clouds, sealer or self.sealer, pace, owner=owner), owner=owner)

    # What should be

    def make_template(self, **fields: Any) -> Template:
        name = fields.pop("name", f"template-{next(_numbers)}")
        spec = Spec(name, {"package": DEFAULT_PACKAGE, "image_id": DEFAULT_IMAGE, **fields})
        return self.db.transact(lambda connection: templates.create(connection, self.account.id, spec))

    def make_group(
        self,
        capacity: int,
        *,
        name: str | None = None,
        template: Template | None = None,
        interval: int = 300,
        by_name: bool = False,
        **settings: Any,
    ) -> Group:
        """`settings` as in JSON."""
        chosen = template or self.make_template()
        told = GroupSettings.model_validate_json(json.dumps(settings))

        def create(connection: Connection) -> Group:
            wish = Wish(name or f"group-{next(_numbers)}", chosen.id, capacity, settings=dict(told))
            return groups.insert_group(connection, self.account.id, wish, interval=interval, request_id=None)

        group = self.db.transact(create)
        if by_name:
            self.sql("UPDATE tsg_groups SET by_name = true WHERE id = :id", id=group.id)
        return group

    def resize(self, group: Group, capacity: int, *, template: Template | None = None) -> None:
        template_id = template.id if template else group.template_id
        self.db.transact(
            lambda connection: groups.update_group(
                connection, self.account.id, group.id, Wish(group.name, template_id, capacity), request_id=None
            )
        )

    def set_up(self, group: Group, **settings: Any) -> None:
        """Its owner asks for other settings."""
        told = GroupSettings.model_validate(settings)
        capacity = self.sql("SELECT capacity FROM tsg_groups WHERE id = :id", id=group.id)[0][0]
        wish = Wish(group.name, self.template_id(group), capacity, settings={name: getattr(told, name) for name in settings})
        self.db.transact(lambda connection: groups.update_group(connection, self.account.id, group.id, wish, request_id=None))

    def template_id(self, group: Group) -> str:
        return str(self.sql("SELECT template_id FROM tsg_groups WHERE id = :id", id=group.id)[0][0])

    def delete(self, group: Group) -> None:
        self.db.transact(lambda connection: groups.delete_group(connection, self.account.id, group.id, request_id=None))

    # Time and work

    def later(self, seconds: float) -> None:
        """So much time goes by, in the cloud and in the rows."""
        self.sim.cloud.advance(seconds)
        for table, columns in _MOMENTS.items():
            moved = ", ".join(f"{column} = {column} - interval '{seconds} seconds'" for column in columns.split())
            self.sql(f"UPDATE {table} SET {moved} WHERE account_id = :id", id=self.account.id)

    def converge(self, worker: Runner[Any] | None = None) -> bool:
        """One turn of a worker for whatever is not finished, whether its time has come or not."""
        self.sql("UPDATE tsg_group_state SET check_at = now() WHERE check_at IS NOT NULL AND account_id = :id", id=self.account.id)
        return (worker or self.worker).run(self.account.id)

    def settle(self, worker: Runner[Any] | None = None) -> None:
        """Turns and time enough for whatever was begun to come to its end: until two in a row find all as it should be, or five."""
        calm = 0
        for _ in range(4):
            self.converge(worker)
            calm = 0 if self._moves() else calm + 1
            if calm == 2:
                return
            self.later(PROVISION_SECONDS + 1)
        self.converge(worker)

    def live(self, done: Callable[[], bool], *, most: float, worker: Runner[Any] | None = None) -> float:
        """Reconcile whenever the service itself says that it is time, until `done`; how many seconds that took, in the world's own time.

        Passes take no time in it. Ends after `most` seconds, done or not.
        """
        elapsed = 0.0
        while not done() and elapsed < most:
            (worker or self.worker).run(self.account.id)
            next_look = "SELECT extract(epoch FROM min(check_at) - now())::float FROM tsg_group_state WHERE account_id = :id"
            pause = min(max(0.0, self.sql(next_look, id=self.account.id)[0][0] or 0.0) + 0.01, max(0.01, most - elapsed))
            self.later(pause)
            elapsed += pause
        return elapsed

    def _moves(self) -> bool:
        """Does the service know of anything that is not as it should be?"""
        (found,) = self.sql(
            "SELECT EXISTS (SELECT 1 FROM tsg_group_state WHERE account_id = :id AND check_at IS NOT NULL"
            " AND reason IS DISTINCT FROM :settled)"
            " OR EXISTS (SELECT 1 FROM tsg_instances WHERE account_id = :id AND state NOT IN (:running, :gone))",
            id=self.account.id,
            settled=str(Reason.SETTLED),
            running=instances.RUNNING,
            gone=instances.GONE,
        )
        return bool(found[0])

    # What is

    def machines(self, group: Group, *states: str) -> list[Machine]:
        """The group's machines in the cloud itself, whatever CloudAPI would say of them; the oldest first."""
        of_group = (
            machine
            for machine in self.sim.cloud.all_machines()
            if machine.tags.get("tsg.group", group.id if machine.tags.get("tsg.name") == group.name else None) == group.id
        )
        return [machine for machine in of_group if (machine.state in states if states else machine.state != "deleted")]

    def ids(self, group: Group, *states: str) -> list[str]:
        return [machine.id for machine in self.machines(group, *states)]

    def running(self, group: Group) -> int:
        return len(self.machines(group, "running"))

    def rows(self, group: Group) -> list[Instance]:
        """What the service knows of the group's instances that are not gone."""
        with self.db.read() as connection:
            return [row for row in instance_lists.list_of_groups(connection, [group.id])[1] if row.state != instances.GONE]

    def states(self, group: Group) -> list[str]:
        return sorted(row.state for row in self.rows(group))

    def kinds(self, group: Group) -> list[str]:
        """What was done to the group's instances, the oldest first."""
        return [activity.kind for activity in self.told(group) if activity.kind.startswith("TSG_INSTANCE_")]

    def told(self, group: Group) -> list[Activity]:
        """The group's activities, the oldest first."""
        with self.db.read() as connection:
            return activities.list_of_group(connection, group.id, limit=1000)[::-1]

    def group_row(self, group: Group) -> Any:
        """What was observed of the group."""
        return self.sql("SELECT * FROM tsg_group_state WHERE group_id = :id", id=group.id)[0]

    def pause_after_converging(self, group: Group) -> tuple[float, float]:
        """One turn; seconds from it to the next look, at least and at most: counted from its end, and from its beginning."""
        began = self.sql("SELECT now()")[0][0]
        self.converge()
        ended = self.sql("SELECT now()")[0][0]
        check_at = self.group_row(group).check_at
        return (check_at - ended).total_seconds(), (check_at - began).total_seconds()

    @property
    def creates(self) -> int:
        return int(self.sim.cloud.counters.to_json()["creates_accepted"])

    @property
    def deletes(self) -> int:
        return int(self.sim.cloud.counters.to_json()["deletes_accepted"])

    def asked(self, endpoint: str) -> int:
        """How often an endpoint of CloudAPI was asked."""
        return self.sim.cloud.counters.asked(endpoint)

    def sql(self, statement: str, **parameters: Any) -> list[Any]:
        return sql(self.db, statement, **parameters)


@pytest.fixture(autouse=True)
def _small_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Management keys by the dozen. Those of the programs, in processes of their own, are as large as anybody's."""
    monkeypatch.setattr(keys, "RSA_BITS", FEW_BITS)


@pytest.fixture(scope="session")
def pair() -> KeyPair:
    return new_pair()


@pytest.fixture(scope="session")
def common_database(postgres: Postgres) -> Iterator[Database]:
    """One database for many tests, each of which has an account of its own in it: some 50 ms less for each."""
    with new_database(postgres) as opened:
        yield opened


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A cloud whose time stands still until the test moves it, without a throttle."""
    began = time.time()
    knobs = {"provision_seconds": PROVISION_SECONDS, "delete_seconds": DELETE_SECONDS}
    with Simulator(now=lambda: began, throttle=False, threads=THREADS, **knobs) as simulator:
        yield simulator


@pytest.fixture
def world(common_database: Database, sim: Simulator, pair: KeyPair) -> Iterator[World]:
    built = World(common_database, sim, pair)
    yield built
    built.close()


@pytest.fixture
def tls(sim: Simulator, tmp_path: Path) -> Iterator[Tls]:
    """The cloud under a certificate of a private authority."""
    with Tls(sim.url, tmp_path / "tls") as server:
        yield server


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """None that this machine's environment has."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
