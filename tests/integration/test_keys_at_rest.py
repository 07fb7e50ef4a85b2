"""Private keys at rest: sealed, resealed, rotated; and accounts that are disabled and enabled again. Real database, simulated cloud."""

import base64
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from sqlalchemy import Connection

from dev.services import Valkey
from shared.cli import admin as tsg_admin
from shared.clients import keys
from shared.clients.access import Timeouts
from shared.clients.cloudapi import CloudAPI
from shared.clients.keys import KeyPair, Sealer
from shared.errors import Conflict
from shared.management.access import NoManagementKey, client_for
from shared.management.rotation import INTERIM, Rotation
from shared.state import accounts
from shared.state.accounts import Account, ManagementKey
from shared.store.db import Database
from tests.conftest import run_here
from tests.integration.api.service import KEY_NAME, PAIR, Api, error, legacy, now
from tests.integration.conftest import World

OLD, NEW = b"k" * 32, b"n" * 32
TIMEOUTS = Timeouts(connect=5, read=30)


@pytest.fixture
def common_database(database: Database) -> Database:
    """One of each test's own: commands that go over all rows would find those of other tests."""
    return database


@pytest.fixture
def owner(world: World) -> World:
    """An account that calls with a key of its own, beside the management key."""
    world.triton.keys.add(f"{PAIR.public_line} own")
    return world


@pytest.fixture
def api(owner: World, valkey: Valkey) -> Iterator[Api]:
    with Api(owner.db, owner.sim, valkey.url) as served:
        yield served


@pytest.fixture
def clouds(world: World) -> Iterator[CloudAPI]:
    opened = CloudAPI(world.sim.url, TIMEOUTS)
    yield opened
    opened.close()


@pytest.fixture
def admin(world: World) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs tsg-admin on the world's database, under the old key or the keys given."""

    def run(*arguments: str, secrets: tuple[bytes, ...] = (OLD,)) -> "subprocess.CompletedProcess[str]":
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TSG_", "NOMAD_"))}
        environment |= {
            "TSG_DATABASE_URL": world.db.engine.url.render_as_string(hide_password=False),
            "TSG_TRITON_URL": world.sim.url,
            "TSG_SECRET_KEYS": ",".join(base64.urlsafe_b64encode(secret).decode() for secret in secrets),
        }
        return run_here(tsg_admin.main, arguments, environment)

    return run


def get(api: Api, world: World, path: str) -> requests.Response:
    return api.request("GET", f"/v1/tsg{path}", headers=legacy(f"/{world.login}/keys/{PAIR.fingerprint}", now()))


def key_row(world: World) -> ManagementKey:
    with world.db.read() as connection:
        found = accounts.get_key(connection, world.account.id)
    assert found is not None
    return found


def put_material(world: World, material: str) -> None:
    world.sql("UPDATE tsg_keys SET material = :material WHERE id = :id", material=material, id=key_row(world).id)


def other_row(world: World, pair: KeyPair) -> str:
    """The sealed material of another account's key."""

    def add(connection: Connection) -> str:
        other = accounts.insert_account(connection, "other", f"{world.triton.id[:-1]}x")
        key_id = str(other.id)
        material = world.sealer.seal(pair.private_pem, row=key_id)
        accounts.insert_key(connection, other.id, key_id=key_id, name="k", fingerprint=pair.fingerprint, material=material)
        return material

    return world.db.transact(add)


# Clear text, and rows that were tampered with


def test_a_row_of_2018_in_clear_text_works_and_is_sealed_afterwards(owner: World, api: Api) -> None:
    group = owner.make_group(2)
    put_material(owner, owner.pair.private_pem)
    owner.settle()
    assert owner.running(group) == 2
    material = key_row(owner).material
    assert material.startswith("v1.")
    assert "PRIVATE" not in material
    assert owner.sealer.open(material, row=key_row(owner).id) == owner.pair.private_pem
    assert len(get(api, owner, f"/groups/{group.id}/instances").json()) == 2


def test_a_request_seals_a_row_in_clear_text_as_well(owner: World, api: Api) -> None:
    group = owner.make_group(0)
    put_material(owner, owner.pair.private_pem)
    assert get(api, owner, f"/groups/{group.id}/instances").status_code == 200
    assert key_row(owner).material.startswith("v1.")


def test_without_a_key_to_seal_with_clear_text_stays_as_it_is(owner: World, clouds: CloudAPI) -> None:
    put_material(owner, owner.pair.private_pem)
    assert client_for(owner.db, clouds, Sealer([]), owner.account).account().login == owner.login
    assert key_row(owner).material == owner.pair.private_pem


@pytest.mark.parametrize("form", ["sealed", "clear"])
def test_material_of_another_row_is_refused_with_a_clear_error(owner: World, api: Api, form: str) -> None:
    group = owner.make_group(1)
    thief = keys.generate()
    material = other_row(owner, thief)
    put_material(owner, material if form == "sealed" else thief.private_pem)
    asked = error(get(api, owner, f"/groups/{group.id}/instances"), 503, "ServiceUnavailable")
    assert "belongs to another row" in asked["message"]
    assert owner.login in asked["message"]
    owner.converge()
    assert "belongs to another row" in owner.group_row(group).last_error
    assert owner.machines(group) == []
    assert key_row(owner).material == (material if form == "sealed" else thief.private_pem), "what is wrong is not sealed for good"


# Resealing


def test_reseal_puts_every_key_under_the_first_one_and_again_does_nothing(world: World, admin: Callable[..., Any]) -> None:
    clear = keys.generate()
    other_row(world, clear)
    world.sql("UPDATE tsg_keys SET material = :pem WHERE fingerprint = :fp", pem=clear.private_pem, fp=clear.fingerprint)
    done = admin("keys", "reseal", secrets=(NEW, OLD))
    assert (done.returncode, done.stdout) == (0, "2 keys sealed again, 0 keys unchanged\n"), done.stderr
    assert admin("keys", "reseal", secrets=(NEW, OLD)).stdout == "0 keys sealed again, 2 keys unchanged\n"
    alone = Sealer([NEW])
    for key_id, material in world.sql("SELECT id::text, material FROM tsg_keys WHERE material <> ''"):
        assert alone.open(material, row=key_id).startswith("-----BEGIN RSA PRIVATE KEY-----")
    group = world.make_group(1)
    world.settle(world.make_worker(sealer=alone))
    assert world.running(group) == 1


def test_reseal_tells_which_keys_do_not_open_and_does_the_rest(world: World, admin: Callable[..., Any]) -> None:
    bad = key_row(world)
    put_material(world, Sealer([b"x" * 32]).seal(world.pair.private_pem, row=bad.id))
    other_row(world, keys.generate())
    done = admin("keys", "reseal", secrets=(NEW, OLD))
    assert done.returncode == 1
    assert f"key {bad.id} is unchanged: no key in TSG_SECRET_KEYS has the id" in done.stderr
    assert world.sql("SELECT 1 FROM tsg_keys WHERE id <> :id AND material NOT LIKE :under", id=bad.id, under=under(NEW)) == []
    assert done.stdout == "1 key sealed again, 0 keys unchanged\n"


def under(secret: bytes) -> str:
    """How material begins that is sealed under this key, for LIKE."""
    return ".".join(Sealer([secret]).seal("", row="").split(".")[:2]) + ".%"


@pytest.mark.parametrize("arguments", [("keys", "reseal"), ("keys", "rotate", "somebody")])
def test_without_secret_keys_nothing_is_sealed(admin: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    done = admin(*arguments, secrets=())
    assert done.returncode == 2
    assert "TSG_SECRET_KEYS: is needed" in done.stderr


# Rotation


def has_one_key(world: World, name: str = KEY_NAME) -> str:
    """The account has one management key here, the same that CloudAPI has under the name; its fingerprint."""
    (row,) = world.sql("SELECT * FROM tsg_keys WHERE account_id = :id", id=world.account.id)
    assert row.name == name
    assert not row.archived
    assert row.registered_at is not None
    assert world.sealer.open(row.material, row=str(row.id))
    managed = [key for key in world.triton.keys if key.name != "own"]
    assert [(key.name, key.fingerprint) for key in managed] == [(name, row.fingerprint)]
    return str(row.fingerprint)


@pytest.mark.parametrize("by", ["name", "uuid"])
def test_rotate_ends_with_a_new_key_under_the_same_name(owner: World, admin: Callable[..., Any], by: str) -> None:
    assert admin("keys", "rotate", owner.login).returncode == 0  # from a key of another name
    before = has_one_key(owner)
    done = admin("keys", "rotate", owner.login if by == "name" else owner.triton.id)
    assert done.returncode == 0, done.stderr
    after = has_one_key(owner)
    assert done.stdout.endswith(f"account {owner.login} has the management key {KEY_NAME}, {after}\n")
    assert after not in {before, owner.pair.fingerprint}
    group = owner.make_group(1)
    owner.settle()
    assert owner.running(group) == 1


def test_what_cannot_be_rotated_is_told(world: World, admin: Callable[..., Any]) -> None:
    unknown = admin("keys", "rotate", "nobody-at-all")
    assert (unknown.returncode, unknown.stderr) == (3, "tsg-admin: there is no account nobody-at-all\n")
    admin("accounts", "add", "keyless", "5ba4dcbc-5c92-4e0b-98cb-000000000001")
    keyless = admin("keys", "rotate", "keyless")
    assert keyless.returncode == 1
    assert "no management key yet; its first signed request makes one" in keyless.stderr
    world.sim.knobs.turn({"error_share": 1.0})
    away = admin("keys", "rotate", world.login)
    world.sim.knobs.turn({"error_share": 0.0})
    assert away.returncode == 75
    assert "nothing is lost, repeat the command" in away.stderr


def test_a_foreign_key_of_that_name_is_not_touched(owner: World, clouds: CloudAPI) -> None:
    foreign = keys.generate()
    owner.triton.keys.add(foreign.public_line, KEY_NAME)
    rotation = Rotation(owner.db, clouds, owner.sealer, key_name=KEY_NAME)
    with pytest.raises(Conflict, match=f"triton key delete {KEY_NAME}"):
        rotation.rotate(owner.account)
    assert client_for(owner.db, clouds, owner.sealer, owner.account).account().login == owner.login
    assert owner.triton.keys.get(KEY_NAME).fingerprint == foreign.fingerprint
    owner.triton.keys.remove(KEY_NAME)
    rotation.rotate(owner.account)
    has_one_key(owner)


class Killed(BaseException):
    """What ends a process in the middle."""


class Death:
    """Comes at the given step: before an even one is taken, or after an odd one was."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps = 0

    def step(self, work: Callable[[], Any]) -> Any:
        self._next()
        result = work()
        self._next()
        return result

    def _next(self) -> None:
        self.steps += 1
        if self.steps - 1 == self.at:
            raise Killed


class MortalCloudAPI(CloudAPI):
    def __init__(self, url: str, death: Death) -> None:
        super().__init__(url, TIMEOUTS)
        self._death = death

    def call(self, *arguments: Any, **keywords: Any) -> requests.Response:
        return self._death.step(lambda: super(MortalCloudAPI, self).call(*arguments, **keywords))


class MortalDatabase(Database):
    def __init__(self, database: Database, death: Death) -> None:
        # The other's connections, and the other closes them.
        self.__dict__.update(database.__dict__)
        self._death = death

    def transact(self, work: Callable[[Connection], Any]) -> Any:
        return self._death.step(lambda: super(MortalDatabase, self).transact(work))


def test_a_rotation_that_is_killed_at_any_step_harms_nobody_and_is_gone_on_with(owner: World, clouds: CloudAPI) -> None:
    whole = Rotation(owner.db, clouds, owner.sealer, key_name=KEY_NAME)
    before = whole.rotate(owner.account)
    died = 0
    for at in range(1000):
        death = Death(at)
        mortal = MortalCloudAPI(owner.sim.url, death)
        try:
            Rotation(MortalDatabase(owner.db, death), mortal, owner.sealer, key_name=KEY_NAME).rotate(owner.account)
            break
        except Killed:
            died += 1
        finally:
            mortal.close()
        assert client_for(owner.db, clouds, owner.sealer, owner.account).account().login == owner.login, at
        after = whole.rotate(owner.account)
        assert after == has_one_key(owner) != before, at
        before = after
    assert died == 20, "ten steps, before and after each"


def test_two_rotations_at_once_leave_one_key(owner: World, clouds: CloudAPI) -> None:
    def rotate(_number: int) -> str:
        try:
            return Rotation(owner.db, clouds, owner.sealer, key_name=KEY_NAME).rotate(owner.account)
        except (Conflict, NoManagementKey) as refused:
            return str(refused)

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(rotate, range(4)))
    assert client_for(owner.db, clouds, owner.sealer, owner.account).account().login == owner.login, told
    Rotation(owner.db, clouds, owner.sealer, key_name=KEY_NAME).rotate(owner.account)
    has_one_key(owner)


def test_an_interim_key_that_cloudapi_lost_is_put_back_by_the_next_request(owner: World, api: Api, clouds: CloudAPI) -> None:
    owner.triton.keys.add(keys.generate().public_line, KEY_NAME)
    with pytest.raises(Conflict):
        Rotation(owner.db, clouds, owner.sealer, key_name=KEY_NAME).rotate(owner.account)
    interim = key_row(owner)
    owner.triton.keys.remove(interim.fingerprint)
    owner.make_group(1)
    owner.converge()  # finds the key refused
    assert get(api, owner, "/groups").status_code == 200
    assert owner.triton.keys.get(KEY_NAME + INTERIM).fingerprint == interim.fingerprint


def test_rotation_under_load_loses_no_request_and_no_pass(owner: World, api: Api, clouds: CloudAPI) -> None:
    group = owner.make_group(3)
    owner.settle()
    over = threading.Event()
    started = threading.Barrier(6)
    first = key_row(owner).fingerprint

    def ask(_number: int) -> list[int]:
        statuses = [get(api, owner, f"/groups/{group.id}/instances").status_code]
        started.wait(timeout=30)
        while not over.is_set():
            statuses.append(get(api, owner, f"/groups/{group.id}/instances").status_code)
        return statuses

    def work() -> list[tuple[int, str | None]]:
        outcomes = []
        owner.converge()
        started.wait(timeout=30)
        while not over.is_set():
            owner.resize(group, 3 + len(outcomes) % 3)
            owner.converge()
            row = owner.group_row(group)
            outcomes.append((row.failures, row.last_error))
        return outcomes

    with ThreadPoolExecutor(5) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        working = pool.submit(work)
        started.wait(timeout=30)
        began = time.monotonic()
        rotation = Rotation(owner.db, clouds, owner.sealer, key_name=KEY_NAME)
        try:
            seen = {first, *(rotation.rotate(owner.account) for _ in range(10))}
        finally:
            took = time.monotonic() - began
            over.set()
        statuses = [status for asker in asking for status in asker.result()]
        outcomes = working.result()
    assert len(seen) == 11
    assert set(statuses) == {200}
    assert set(outcomes) == {(0, None)}
    assert len(statuses) > 50, f"{len(statuses)} requests in {took:.1f} s are no load"
    assert len(outcomes) > 5, f"{len(outcomes)} passes in {took:.1f} s are no load"
    has_one_key(owner)


# Accounts


def test_a_disabled_account_is_let_in_no_longer_and_its_groups_stay_as_they_are(owner: World, api: Api, admin: Callable[..., Any]) -> None:
    group = owner.make_group(2)
    owner.settle()
    assert get(api, owner, "/groups").status_code == 200
    done = admin("accounts", "disable", owner.login)
    assert (done.returncode, done.stdout) == (0, f"account {owner.login} ({owner.triton.id}) is disabled\n"), done.stderr
    assert listed(admin, owner) == [owner.login, owner.triton.id, "disabled", "registered"]
    api.clock.ahead += 6
    error(get(api, owner, "/groups"), 403, "NotAuthorized")
    owner.resize(group, 5)
    owner.settle()
    assert owner.running(group) == 2
    assert owner.group_row(group).last_error == "The account is disabled."
    assert admin("accounts", "disable", owner.triton.id).returncode == 0, "twice is once"
    refused = admin("accounts", "add", owner.login, owner.triton.id)
    assert refused.returncode == 4
    assert f"tsg-admin accounts enable {owner.triton.id}" in refused.stderr

    assert admin("accounts", "enable", owner.triton.id).stdout == f"account {owner.login} ({owner.triton.id}) is enabled\n"
    assert listed(admin, owner) == [owner.login, owner.triton.id, "enabled", "registered"]
    assert owner.worker.run(owner.account.id) is False
    assert len(owner.machines(group)) == 5, "it is looked at at once"
    assert get(api, owner, "/groups").status_code == 200


def listed(admin: Callable[..., Any], world: World) -> list[str]:
    header, *lines = admin("accounts", "list").stdout.splitlines()
    assert header.split() == ["NAME", "TRITON", "UUID", "STATE", "MANAGEMENT", "KEY"]
    assert {line.index(line.split()[1]) for line in lines} == {header.index("TRITON")}, "columns"
    (line,) = [line.split() for line in lines if line.startswith(f"{world.login} ")]
    return line


def test_accounts_that_can_not_be_told_apart_are_named_by_their_ids(world: World, admin: Callable[..., Any]) -> None:
    def rename(connection: Connection) -> Account:
        other = accounts.insert_account(connection, world.login, "5ba4dcbc-5c92-4e0b-98cb-000000000002")
        accounts.mark_renamed(connection, other.id, world.login)
        return other

    other = world.db.transact(rename)
    done = admin("accounts", "disable", world.login)
    assert done.returncode == 4
    assert other.id in done.stderr
    assert world.account.id in done.stderr
    assert admin("accounts", "disable", other.id).returncode == 0
    assert admin("accounts", "disable", world.login).returncode == 0, "one of them is left"
    unknown = admin("accounts", "enable", "nobody-at-all")
    assert (unknown.returncode, unknown.stderr) == (3, "tsg-admin: there is no account nobody-at-all\n")


def test_a_second_row_of_the_same_account_stands_in_the_way(world: World, admin: Callable[..., Any]) -> None:
    assert admin("accounts", "disable", world.login).returncode == 0
    world.sql(
        "INSERT INTO tsg_accounts (account_name, triton_uuid, created_at, updated_at) VALUES (:name, :uuid, now(), now())",
        name=world.login,
        uuid=world.triton.id,
    )
    done = admin("accounts", "enable", world.account.id)
    assert done.returncode == 4
    assert "has another row" in done.stderr
