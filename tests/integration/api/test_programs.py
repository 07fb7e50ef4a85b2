"""`tsg-admin` and `tsg-api` as they are installed: processes with settings, logs and exit statuses."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import falcon
import pytest
import requests
from sqlalchemy import text

from dev.faults import killed
from dev.processes import Child, free_port, wait_for
from dev.services import Valkey
from dev.sim.cloudapi.simulator import Simulator
from shared.cli import admin as tsg_admin
from shared.cli import seed
from shared.clients import keys
from shared.runtime import settings
from shared.store.db import Database
from tests.conftest import run_here
from tests.conftest import sql as rows_of
from tests.integration.api.service import JSON, PAIR, WHITELIST, Api, error, legacy, now, template_body
from tests.integration.api.test_long_lists import LARGE_TEMPLATES, MANY, USERDATA_BYTES
from tsg_api import main as tsg_api
from tsg_api.http.address import CallerAddress
from tsg_api.server.listeners import listen

BIN = Path(sys.executable).parent
SEEDED_CAPACITIES = (3, 3, 6, 1, 3, 12)


@pytest.fixture
def url(database: Database) -> str:
    return database.engine.url.render_as_string(hide_password=False)


@pytest.fixture
def sql(database: Database) -> Callable[..., list[Any]]:
    return partial(rows_of, database)


@pytest.fixture
def environment(url: str, valkey: Valkey, simulator: Simulator) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TSG_", "NOMAD_"))}
    settings = {"DATABASE_URL": url, "REDIS_URL": valkey.url, "TRITON_URL": simulator.url, "SECRET_KEYS": keys.make_secret_key()}
    return clean | {f"TSG_{name}": value for name, value in settings.items()}


@pytest.fixture
def admin(environment: dict[str, str]) -> Callable[..., str]:
    """Runs tsg-admin, which must succeed; what it prints."""

    def run(*arguments: str) -> str:
        done = run_here(tsg_admin.main, arguments, environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


DEMOUSER = (
    "INSERT INTO tsg_accounts (account_name, triton_uuid, created_at, updated_at) "
    "VALUES ('demouser', 'd82a1f04-b9f6-4075-998f-af20e3d49de6', NOW(), NOW());"
)


def test_upgrade_makes_the_tables_of_2018_and_twice_is_once(
    sql: Callable[..., list[Any]], admin: Callable[..., str], environment: dict[str, str]
) -> None:
    def columns() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for table, column in sql("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"):
            found.setdefault(table, set()).add(column)
        return found

    migrated = columns()
    sql("DROP SCHEMA public CASCADE")
    sql("CREATE SCHEMA public")
    assert columns() == {}
    subprocess.run([BIN / "tsg-admin", "db", "upgrade"], env=environment, check=True)
    assert columns() == migrated
    of_2018 = {
        "tsg_keys": "name fingerprint material account_id updated_at",
        "tsg_accounts": "account_name triton_uuid key_id updated_at",
        "tsg_users": "username account_id updated_at",
        "tsg_templates": "template_name account_id package image_id firewall_enabled networks userdata metadata tags",
        "tsg_groups": "name template_id account_id capacity health_check_interval updated_at",
    }
    for table, names in of_2018.items():
        assert {"id", "created_at", "archived", *names.split()} <= migrated[table]
    sql(DEMOUSER)
    admin("db", "upgrade")
    assert columns() == migrated
    assert sql("SELECT account_name FROM tsg_accounts") == [("demouser",)]


def test_accounts_are_enabled_by_the_seeds_sql_or_by_the_command_once(sql: Callable[..., list[Any]], admin: Callable[..., str]) -> None:
    sql(DEMOUSER)
    assert "is enabled" in admin("accounts", "add", "demouser", "d82a1f04-b9f6-4075-998f-af20e3d49de6")
    (line,) = [line for line in admin("accounts", "list").splitlines() if line.startswith("demouser")]
    assert line.split()[:3] == ["demouser", "d82a1f04-b9f6-4075-998f-af20e3d49de6", "enabled"]


def test_seed_twice_is_once_and_leaves_what_was_changed(sql: Callable[..., list[Any]], admin: Callable[..., str]) -> None:
    admin("db", "seed")
    assert sql("SELECT id::text, account_name, triton_uuid FROM tsg_accounts") == [
        ("6f873d02-172c-418f-8416-4da2b50d5c53", "joyent", "87307a00-ab96-4fec-8df7-1a256e49fbcc")
    ]
    assert sql("SELECT name, fingerprint FROM tsg_keys") == [("TSG_Management", "5a:ce:1e:1d:b0:96:78:c6:7a:f2:f8:26:e1:b3:55:79")]
    assert sql("SELECT template_name FROM tsg_templates ORDER BY 1") == [(f"test-template-{number}",) for number in range(1, 7)]
    groups = "SELECT name, capacity FROM tsg_groups ORDER BY name"
    assert sql(groups) == [(f"test-group-{number}", capacity) for number, capacity in enumerate(SEEDED_CAPACITIES, start=1)]
    sql("UPDATE tsg_groups SET capacity = 9, archived = true WHERE name = 'test-group-1'")
    sql("DELETE FROM tsg_groups WHERE name = 'test-group-6'")
    admin("db", "seed")
    assert sql(groups) == [("test-group-1", 9), *((f"test-group-{number}", SEEDED_CAPACITIES[number - 1]) for number in range(2, 7))]
    assert [sql(f"SELECT count(*) FROM tsg_{table}") for table in ("accounts", "keys", "templates")] == [[(1,)], [(1,)], [(6,)]]


class Served:
    """A running `tsg-api`."""

    def __init__(self, environment: dict[str, str], directory: Path, *arguments: str) -> None:
        command = [BIN / "tsg-api", "--port=0", "--log-format=json", *arguments]
        self.child = Child(command, log=directory / f"api-{uuid.uuid4()}.log", env=environment)
        found: list[str] = []

        def listens() -> bool:
            found[:] = re.findall(r'"url": "(http://[^"]+)"', self.child.tail(100))
            return bool(found)

        self.child.wait_until(listens)
        self.url = found[0]

    def lines(self, event: str) -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in self.child.tail(10_000).splitlines()]
        return [line for line in parsed if line.get("event") == event]


@pytest.fixture
def serve(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(*arguments: str, **settings: str) -> Served:
        started.append(Served(environment | settings, tmp_path, *arguments))
        return started[-1]

    yield start
    for served in started:
        served.child.stop()


def test_a_request_is_followed_by_its_id_through_the_log(
    serve: Callable[..., Served], simulator: Simulator, sql: Callable[..., list[Any]]
) -> None:
    served = serve(TSG_HTTP_TRUSTED_PROXY="127.0.0.1")
    account = simulator.cloud.add_account("demo", [PAIR.public_line], uuid=str(uuid.uuid4()))
    sql(WHITELIST, login="demo", uuid=account.id)
    signed = legacy(f"/demo/keys/{PAIR.fingerprint}", now())
    given = {**signed, "X-Request-Id": "my-request.1", "X-Forwarded-For": "192.0.2.7"}
    body = template_body(userdata="a secret of the user")
    assert requests.post(f"{served.url}/v1/tsg/templates", json=body, headers=given, timeout=30).status_code == 201
    refused = requests.get(f"{served.url}/v1/tsg/templates", timeout=30)
    assert wait_for(lambda: len(served.lines("request")) == 2, seconds=10)
    first, second = served.lines("request")
    assert (first["request_id"], first["method"], first["path"]) == ("my-request.1", "POST", "/v1/tsg/templates")
    assert (first["status"], first["account"], first["peer"]) == (201, "demo", "192.0.2.7")
    assert (second["request_id"], second["status"], second["account"]) == (refused.headers["X-Request-Id"], 401, None)
    told = served.child.tail(10_000)
    for secret in (signed["Authorization"].rpartition(" ")[2], "PRIVATE KEY", "a secret of the user"):
        assert secret not in told


def test_settings_reach_the_app(serve: Callable[..., Served], database: Database) -> None:
    served = serve(TSG_DEV_MODE="1", TSG_MAX_CAPACITY="7", TSG_HTTP_MAX_BODY="1000", TSG_SECRET_KEYS="", TSG_METRICS_ENABLE="0")
    database.transact(seed.load)
    found = requests.get(f"{served.url}/v1/tsg/groups", timeout=30)
    assert found.headers["Content-Type"] == JSON
    assert sorted((group["group_name"], group["capacity"]) for group in found.json()) == [
        (f"test-group-{number}", capacity) for number, capacity in enumerate(SEEDED_CAPACITIES, start=1)
    ]
    assert all(datetime.fromisoformat(group["created_at"]).tzinfo == UTC for group in found.json())
    body = {"group_name": "web", "template_id": seed.TEMPLATES[0], "capacity": 8}
    answer = requests.post(f"{served.url}/v1/tsg/groups", json=body, timeout=30)
    assert error(answer, 422, "InvalidArgument")["message"] == "group capacity cannot be more than 7 compute instances"
    error(requests.post(f"{served.url}/v1/tsg/groups", data=b" " * 1001, timeout=30), 413, "PayloadTooLarge")
    group, *_ = found.json()
    error(requests.get(f"{served.url}/v1/tsg/groups/{group['id']}/instances", timeout=30), 503, "ServiceUnavailable")
    assert served.lines("development_mode")
    assert not served.lines("monitoring")


@pytest.mark.parametrize(("proxy", "peer"), [("", "127.0.0.1"), ("127.0.0.1", "192.0.2.7"), ("*", "192.0.2.7"), ("192.0.2.1", "127.0.0.1")])
def test_an_address_behind_a_proxy_is_believed_of_that_proxy_alone(proxy: str, peer: str) -> None:
    stop, started = threading.Event(), threading.Event()
    (listener,) = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    class Peer:
        def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
            resp.text = f"{req.remote_addr} {req.host}"

    app = falcon.App(middleware=[CallerAddress(proxy)])
    app.add_route("/", Peer())
    chosen = settings.load({"TSG_HTTP_TRUSTED_PROXY": proxy}, needs_keys=False)
    server = threading.Thread(target=tsg_api.run, args=(app, [listener], chosen, stop, started.set))
    server.start()
    try:
        assert started.wait(timeout=30)
        # What the caller says comes first, what the proxy adds comes last.
        headers = {"X-Forwarded-For": "198.51.100.1, 192.0.2.7", "X-Forwarded-Host": "elsewhere", "Forwarded": "for=198.51.100.2"}
        assert requests.get(url, headers=headers, timeout=30).text == f"{peer} 127.0.0.1"
    finally:
        stop.set()
        server.join()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the machine speaks no IPv6")
@pytest.mark.parametrize(("bind", "shown", "reached"), [("::", "[::]", ("127.0.0.1", "::1")), ("[::1]", "[::1]", ("::1",))])
def test_an_address_of_ipv6_is_a_bind_and_any_takes_ipv4_too(
    serve: Callable[..., Served], bind: str, shown: str, reached: tuple[str, ...]
) -> None:
    served = serve(TSG_HTTP_BIND=bind, TSG_METRICS_BIND=bind, TSG_METRICS_PORT="0")
    urls = [served.url, served.lines("monitoring")[0]["monitor_url"]]
    for url in urls:
        host, _, port = url.removeprefix("http://").rpartition(":")
        assert host == shown
        for address in reached:
            socket.create_connection((address, int(port)), timeout=10).close()


def test_a_request_under_way_is_answered_when_the_api_is_told_to_stop(serve: Callable[..., Served], database: Database) -> None:
    served = serve(TSG_DEV_MODE="1")
    database.transact(seed.load)
    (group, *_) = requests.get(f"{served.url}/v1/tsg/groups", timeout=30).json()
    url, step = f"{served.url}/v1/tsg/groups/{group['id']}/increment", {"instance_count": 1, "max_instance": 50}
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    def is_waiting() -> bool:
        with database.read() as connection:
            return bool(connection.execute(text(waiting)).scalar_one())

    def listens() -> bool:
        try:
            connect(served).close()
        except ConnectionError:
            return False
        return True

    with ThreadPoolExecutor(1) as pool:
        with database.engine.begin() as connection:
            connection.execute(text("SELECT id FROM tsg_groups FOR UPDATE"))
            answer = pool.submit(requests.put, url, json=step, timeout=30)
            assert wait_for(is_waiting, seconds=10)
            served.child.send(signal.SIGTERM)
            assert wait_for(lambda: not listens(), seconds=10)
        assert answer.result().status_code == 202
    assert wait_for(lambda: served.child.status == 0, seconds=10)
    assert served.lines("stopped")


def connect(served: Served) -> socket.socket:
    host, _, port = served.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def test_several_apis_share_a_port_and_one_that_is_killed_is_not_missed(serve: Callable[..., Served], tmp_path: Path) -> None:
    first = serve("--reuse-port", TSG_DEV_MODE="1")
    port = first.url.rpartition(":")[2]
    second = serve("--reuse-port", f"--port={port}", TSG_DEV_MODE="1")
    assert first.url == second.url

    def answered(served: Served) -> float:
        (line,) = served.lines("monitoring")
        page = requests.get(f"{line['monitor_url']}/metrics", timeout=30).text
        return sum(float(value) for value in re.findall(r"^tsg_http_requests_total\{.*\} (\S+)$", page, re.MULTILINE))

    def ask() -> int:
        """Over a connection of its own, which the system deals to one of them."""
        return requests.get(f"{first.url}/healthz", timeout=30).status_code

    asked = 0
    while not (answered(first) and answered(second)):
        assert ask() == 200
        asked += 1
        assert asked < 200, "one of them gets no connection"
    assert answered(first) + answered(second) == asked
    first.child.kill()
    assert [ask() for _ in range(20)] == [200] * 20


def test_a_port_is_not_shared_with_an_api_that_did_not_ask_for_it(serve: Callable[..., Served], environment: dict[str, str]) -> None:
    port = serve(TSG_DEV_MODE="1").url.rpartition(":")[2]
    done = run_here(tsg_api.main, ["--port", port, "--reuse-port"], environment)
    assert done.returncode == 1
    assert done.stderr == f"tsg-api: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_the_processes_of_earlier_versions_are_not_passed_over_in_silence(serve: Callable[..., Served]) -> None:
    (line,) = serve("--processes=2", TSG_DEV_MODE="1").lines("setting_not_used")
    assert (line["setting"], line["level"]) == ("TSG_HTTP_PROCESSES", "warning")
    assert "TSG_HTTP_REUSE_PORT" in line["meaning"]


def test_a_child_that_is_not_ours_is_no_concern(environment: dict[str, str], tmp_path: Path) -> None:
    """A shell's child becomes that of the program that the shell turns into, as strangers' children become those of process 1."""
    pids = tmp_path / "pids"
    script = f"true & echo $! >{pids}; sleep 600 & echo $! >>{pids}; exec {BIN / 'tsg-api'} --port=0 --log-format=json"
    child = Child(["sh", "-c", script], log=tmp_path / "shell.log", env=environment)
    try:
        child.wait_until(lambda: '"listening"' in child.tail(100))
        soon, late = map(int, pids.read_text().split())
        assert not Path(f"/proc/{soon}").exists(), "it is left as a zombie"
        os.kill(late, signal.SIGTERM)
        assert wait_for(lambda: not Path(f"/proc/{late}").exists(), seconds=30), "it is left as a zombie"
        url = re.findall(r'"url": "(http://[^"]+)"', child.tail(100))[0]
        assert requests.get(f"{url}/healthz", timeout=30).status_code == 200
    finally:
        child.stop()
    assert child.status == 0


#: Becomes another program, which can write no byte to any file.
WITHOUT_A_DISK = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); os.execv(sys.argv[1], sys.argv[1:])"


def test_requests_answers_and_counters_need_no_disk(environment: dict[str, str]) -> None:
    """Files for them would fail here, as they do on a disk that is full."""
    command = [sys.executable, "-c", WITHOUT_A_DISK, BIN / "tsg-api", "--port=0", "--log-format=json"]
    given = environment | {"TSG_DEV_MODE": "1", "TSG_HTTP_MAX_BODY": "2000000"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=given) as process:
        assert process.stdout is not None
        found: dict[str, str] = {}
        for line in process.stdout:  # by a pipe: the log needs no disk either
            found |= {name: json.loads(line)[name] for name in ("url", "monitor_url") if f'"{name}"'.encode() in line}
            if "url" in found:
                break
        reader = threading.Thread(target=process.stdout.read)
        reader.start()
        try:
            templates = f"{found['url']}/v1/tsg/templates"
            for number in range(16):
                body = template_body(template_name=f"t-{number}", userdata="x" * 90_000)
                assert requests.post(templates, json=body, timeout=30).status_code == 201
            assert len(requests.get(templates, timeout=30).content) > 1 << 20
            large = requests.post(templates, data=b" " * 1_900_000, timeout=30)
            assert "the body is empty" in error(large, 422, "InvalidContent")["message"]
            assert "tsg_http_requests_total" in requests.get(f"{found['monitor_url']}/metrics", timeout=30).text
        finally:
            process.terminate()
            reader.join()
    assert process.returncode == 0


def test_a_port_that_is_taken_is_told(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_here(tsg_api.main, ["--port", str(port)], environment)
    assert done.returncode == 1
    assert done.stderr == f"tsg-api: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_another_wsgi_server_serves_the_same_app(environment: dict[str, str], database: Database, tmp_path: Path) -> None:
    database.transact(seed.load)
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "waitress", f"--listen={address}", "tsg_api.wsgi:app"]
    meant = {"TSG_DEV_MODE": "1", "TSG_DEV_MODE_ANYWHERE": "1"}  # where the server listens is not the app's to know
    server = Child(command, log=tmp_path / "server.log", env=environment | meant | {"TSG_LOG_FORMAT": "json"})
    try:
        server.wait_until(lambda: "Serving on" in server.tail(100))
        group, *_ = requests.get(f"http://{address}/v1/tsg/groups", timeout=30).json()
        path = f"http://{address}/v1/tsg/groups/{group['id']}"
        assert requests.put(f"{path}/increment", json={"instance_count": 1, "max_instance": 90}, timeout=30).status_code == 202
        assert requests.get(path, timeout=30).json()["capacity"] == group["capacity"] + 1
        monitor = re.findall(r'"monitor_url": "([^"]+)"', server.tail(100))[0]
        assert 'tsg_http_requests_total{method="PUT"' in requests.get(f"{monitor}/metrics", timeout=30).text
    finally:
        server.stop()


def test_another_wsgi_server_does_not_start_in_development_mode_that_is_not_meant(environment: dict[str, str]) -> None:
    given = environment | {"TSG_DEV_MODE": "1"}
    done = subprocess.run([sys.executable, "-c", "import tsg_api.wsgi"], env=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "TSG_DEV_MODE_ANYWHERE=1" in done.stderr


def test_another_wsgi_server_does_not_start_with_wrong_settings(environment: dict[str, str]) -> None:
    wrong = environment | {"TSG_HTTP_THREADS": "many", "TSG_SCALER": "nobody"}
    done = subprocess.run([sys.executable, "-c", "import tsg_api.wsgi"], env=wrong, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert {"TSG_HTTP_THREADS", "TSG_SCALER"} <= set(re.findall(r"TSG_\w+", done.stderr))
    assert "Traceback" not in done.stderr


def test_a_write_whose_answer_died_with_the_api_is_asked_for_again_and_done_once(
    serve: Callable[..., Served], make_api: Callable[..., Api], sql: Callable[..., list[Any]], database: Database
) -> None:
    """Killed when the change is committed and nobody has been told. Another process answers for the dead one."""
    database.transact(seed.load)
    alive = make_api(dev_mode=True, database=database)
    group, *_ = requests.get(f"{alive.url}/v1/tsg/groups", timeout=30).json()
    path = f"/v1/tsg/groups/{group['id']}"
    state = "SELECT name, capacity, generation, archived FROM tsg_groups ORDER BY name"
    writes: list[tuple[str, str, Any]] = [
        ("POST", "/v1/tsg/groups", {"group_name": "new", "template_id": group["template_id"], "capacity": 2}),
        ("PUT", f"{path}/increment", {"instance_count": 2, "max_instance": 90}),
        ("DELETE", path, None),
    ]
    for method, where, body in writes:
        doomed = serve(TSG_DEV_MODE="1", **killed("after shared.store.db:Database.transact"))
        key = {"Idempotency-Key": f"{method} {where}"}
        before = sql(state)
        with pytest.raises(requests.ConnectionError):
            requests.request(method, doomed.url + where, json=body, headers=key, timeout=30)
        assert wait_for(lambda doomed=doomed: doomed.child.status == -signal.SIGKILL, seconds=10)
        after = sql(state)
        assert len(set(after) - set(before)) == 1, "it was done"
        told = [requests.request(method, alive.url + where, json=body, headers=key, timeout=30) for _ in range(2)]
        assert sql(state) == after, "and is not done again"
        assert {answer.headers["Idempotency-Replayed"] for answer in told} == {"true"}
        assert told[0].status_code == {"POST": 201, "PUT": 202, "DELETE": 204}[method]
        assert told[0].content == told[1].content
        if method == "POST":
            made = told[0].json()
            assert (made["group_name"], made["capacity"]) == ("new", 2)
            assert requests.get(f"{alive.url}{told[0].headers['Location']}", timeout=30).json() == made


def test_a_write_that_died_uncommitted_is_done_when_it_is_asked_for_again(
    serve: Callable[..., Served], make_api: Callable[..., Api], sql: Callable[..., list[Any]], database: Database
) -> None:
    """Killed when all is written down and nothing is committed: the key is free again."""
    database.transact(seed.load)
    doomed = serve(TSG_DEV_MODE="1", **killed("after shared.state.idempotency:mark_answered"))
    alive = make_api(dev_mode=True, database=database)
    body = {"group_name": "new", "template_id": seed.TEMPLATES[0], "capacity": 2}
    key = {"Idempotency-Key": "a key"}
    with pytest.raises(requests.ConnectionError):
        requests.post(f"{doomed.url}/v1/tsg/groups", json=body, headers=key, timeout=30)
    answer = requests.post(f"{alive.url}/v1/tsg/groups", json=body, headers=key, timeout=30)
    assert (answer.status_code, answer.headers.get("Idempotency-Replayed")) == (201, None)
    assert sql("SELECT count(*) FROM tsg_groups WHERE name = 'new'") == [(1,)]


def test_the_clock_forgets_keys_whose_time_is_over_one_batch_at_a_look(
    environment: dict[str, str], sql: Callable[..., list[Any]], database: Database, tmp_path: Path
) -> None:
    database.transact(seed.load)
    insert = (
        "INSERT INTO tsg_idempotency_keys (account_id, key, request, status, created_at)"
        " SELECT :account, 'key ' || n, 'r', 202, now() - CAST(:age AS interval) FROM generate_series(1, :count) n"
    )
    sql(insert, account=seed.ACCOUNT_ID, age="25 hours", count=1500)
    sql(insert.replace("'key '", "'new '"), account=seed.ACCOUNT_ID, age="23 hours", count=3)
    clock = Child([BIN / "tsg-clock", "--log-format=json"], log=tmp_path / "clock.log", env=environment | {"TSG_METRICS_PORT": "0"})
    try:
        assert wait_for(lambda: sql("SELECT count(*) FROM tsg_idempotency_keys") == [(3,)], seconds=30)
        assert clock.status is None
    finally:
        clock.stop()


def resident_megabytes(process: int) -> int:
    """The most memory that a process ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) // 1024


def test_eight_readers_of_a_long_list_cost_the_process_little_memory(
    serve: Callable[..., Served],
    database: Database,
    sql: Callable[..., list[Any]],
) -> None:
    database.transact(seed.load)
    sql(LARGE_TEMPLATES, owner=seed.ACCOUNT_ID, length=USERDATA_BYTES, count=MANY)
    served = serve(TSG_DEV_MODE="1")

    def read(_reader: int) -> int:
        with requests.get(f"{served.url}/v1/tsg/templates", stream=True, timeout=60) as answer:
            return sum(len(piece) for piece in answer.iter_content(1 << 20))

    assert read(0) > MANY * USERDATA_BYTES * 0.99
    with ThreadPoolExecutor(8) as readers:
        assert len(set(readers.map(read, range(8)))) == 1
    assert resident_megabytes(served.child.pid) < 200
