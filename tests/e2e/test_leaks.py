"""Nothing secret is in what the service writes, at the most talkative log level, when things go wrong too."""

import base64
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import requests

from dev.client import Tsg
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE
from shared.clients.keys import Sealer
from tests.e2e.conftest import Service

USERDATA = "#!/bin/sh\necho userdata-that-nobody-may-read-in-a-log\n"
USERDATA_MARK = "userdata-that-nobody-may-read"
WRONG = {
    "TSG_DATABASE_URL": "mysql://tsg:db-password@h/x",
    "TSG_REDIS_URL": "http://:redis-password@h",
    "TSG_SECRET_KEYS": "a-key-that-is-none-password",
    "TSG_HTTP_PORT": "x",
}
METADATA_MARK = "metadata-that-nobody-may-read"


class Recorder(Tsg):
    """A client that keeps the signatures it sends."""

    def __init__(self, service: Service) -> None:
        stack = service.stack
        super().__init__(stack.url, stack.account, stack.key_file, stack.key_id)
        self.sent: set[str] = set()
        #: Lines of the management keys there were.
        self.keys: list[str] = []

    def headers(self, now: datetime | None = None) -> dict[str, str]:
        made = super().headers(now)
        self.sent.add(made["Authorization"].rpartition(" ")[2])
        return made

    def bad(self, headers: Mapping[str, str]) -> requests.Response:
        """A request with headers that are wrong."""
        self.sent |= set(re.findall(r"[A-Za-z0-9+/]{40,}={0,2}", headers.get("Authorization", "")))
        return requests.get(f"{self.url}/v1/tsg/groups", headers=dict(headers), timeout=60)


@pytest.mark.stack("workers")
def test_workers_write_nothing_secret(calm: Service) -> None:
    examine(calm, administer)


@pytest.mark.stack("nomad")
def test_jobs_of_nomad_write_nothing_secret(calm: Service) -> None:
    examine(calm)


def examine(service: Service, besides: Callable[[Service, Recorder], dict[str, bytes]] = lambda *_: {}) -> None:
    recorder = Recorder(service)
    tour(service, recorder)
    admins = besides(service, recorder)
    keys = [*recorder.keys, *private_lines(service)]
    secrets = {
        **{f"line {number} of the management key": line for number, line in enumerate(keys)},
        **{f"a caller's signature, {signature[:8]}": signature for signature in recorder.sent},
        "TSG_SECRET_KEYS": service.stack.environment["TSG_SECRET_KEYS"],
    }
    assert len(keys) > 20
    assert len(recorder.sent) > 2
    texts = dict(written(service)) | admins
    logs = {name: text for name, text in texts.items() if name.startswith(("log ", "tsg-admin "))}
    assert {"log api.log", "log worker-1.log", "log clock.log"} <= logs.keys()
    assert b'"level": "debug"' in logs["log api.log"] + logs["log worker-1.log"], "the level was what was asked for"
    # What is looked for would be found: each kind of place holds something that is known to be there.
    assert re.search(rb"management_key_registered", logs["log api.log"])
    assert b"tsg_accounts" in texts["database"]
    ((account_id,),) = service.stack.sql("SELECT id::text FROM tsg_accounts")
    messages = b"".join(text for name, text in texts.items() if name.startswith("redis"))
    jobs = b"".join(text for name, text in texts.items() if name.startswith("nomad job"))
    assert account_id.encode() in messages or b"group_id" in jobs
    found = [f"{what} in {name}" for what, secret in secrets.items() for name, text in texts.items() if secret.encode() in text]
    elsewhere = {name: text for name, text in texts.items() if name != "database"}
    found += [f"{mark} in {name}" for mark in (USERDATA_MARK, METADATA_MARK) for name, text in elsewhere.items() if mark.encode() in text]
    found += [f"a private key in {name}" for name, text in texts.items() if b"PRIVATE KEY-----" in text]
    assert found == []
    assert USERDATA_MARK.encode() in texts["database"], "which is where it belongs"


def tour(service: Service, tsg: Recorder) -> None:
    """Use the service, and have it fail in every way."""
    stack = service.stack
    template = {"template_name": "web", "package": DEFAULT_PACKAGE, "image_id": DEFAULT_IMAGE, "userdata": USERDATA}
    made = tsg.ok("POST", "/templates", {**template, "metadata": {"note": METADATA_MARK}}, status=201)
    group = tsg.ok("POST", "/groups", {"group_name": "web", "template_id": made["id"], "capacity": 2}, status=201)
    service.settles(group, 2)

    # bad requests
    good = tsg.headers()
    for authorization in (
        good["Authorization"][:-8] + "AAAAAAA=",
        good["Authorization"].replace("rsa-sha256", "ecdsa-sha256"),
        good["Authorization"].replace("Signature", "Basic"),
        good["Authorization"].replace("/keys/", "/keys"),
        good["Authorization"] + "x" * 5000,
    ):
        assert tsg.bad({**good, "Authorization": authorization}).status_code == 401
    assert tsg.bad(tsg.headers(datetime.now(UTC) - timedelta(hours=1))).status_code == 401
    stranger = good["Authorization"].replace(f"/{stack.account}/", "/somebody-else/")
    assert tsg.bad({**good, "Authorization": stranger}).status_code == 401
    for body in ({**template, "package": USERDATA}, {**template, "metadata": {"a": 1, METADATA_MARK: [METADATA_MARK]}}, [USERDATA]):
        assert tsg("POST", "/templates", body).status_code == 422
    assert tsg("POST", "/templates", {**template, "userdata": USERDATA * 3000}).status_code == 413
    assert tsg("POST", "/templates", template).status_code == 409

    # CloudAPI fails
    service.stack.knobs(error_share=1.0, error_message="the cloud is on fire")
    tsg.ok("PUT", f"/groups/{group['id']}", {"group_name": "web", "template_id": made["id"], "capacity": 4})
    service.wait("the failure is noted", lambda: bool(last_error(service, group)))
    assert tsg("GET", f"/groups/{group['id']}/instances").status_code == 503
    service.stack.knobs(error_share=0.0, refuse_next_creates=1, lost_answers_next=1)
    stack.sql("UPDATE tsg_group_state SET check_at = now() WHERE group_id = %s", group["id"])
    service.settles(group, 4)

    # the management key does not open
    sealed = stack.sql("SELECT id::text, material FROM tsg_keys")
    stack.sql("UPDATE tsg_keys SET material = left(material, 40)")
    stack.sql("UPDATE tsg_group_state SET check_at = now()")
    service.wait("the key does not open", lambda: "can't be used" in (last_error(service, group) or ""))
    for key_id, material in sealed:
        stack.sql("UPDATE tsg_keys SET material = %s WHERE id = %s", material, key_id)
    stack.sql("UPDATE tsg_group_state SET check_at = now()")
    service.settles(group, 4)


def administer(service: Service, tsg: Recorder) -> dict[str, bytes]:
    """What is said when the key is rotated and sealed anew, and by programs with wrong settings."""
    said = {}
    tsg.keys += private_lines(service)
    for words in (("accounts", "list"), ("keys", "rotate", service.stack.account), ("keys", "reseal")):
        done = run(service, "tsg-admin", *words)
        assert done.returncode == 0, done.stderr
        said[f"tsg-admin {words}"] = done.stdout + done.stderr
    for program in ("tsg-api", "tsg-worker", "tsg-clock", "tsg-admin"):
        done = run(service, program, *(("db", "upgrade") if program == "tsg-admin" else ()), **WRONG)
        assert done.returncode == 2, (program, done.stderr)
        assert b"-password" not in done.stdout + done.stderr
        said[f"wrong settings {program}"] = done.stdout + done.stderr
    return said


def last_error(service: Service, group: dict[str, Any]) -> str | None:
    ((found,),) = service.stack.sql("SELECT last_error FROM tsg_group_state WHERE group_id = %s", group["id"])
    return None if found is None else str(found)


def run(service: Service, program: str, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[bytes]":
    command = [Path(sys.executable).parent / program, *arguments]
    environment = {**os.environ, **service.stack.environment, **settings}
    return subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)


def private_lines(service: Service) -> list[str]:
    """The lines of the management key's PEM."""
    sealer = Sealer([base64.urlsafe_b64decode(service.stack.environment["TSG_SECRET_KEYS"])])
    lines: list[str] = []
    for key_id, material in service.stack.sql("SELECT id::text, material FROM tsg_keys"):
        lines += [line for line in sealer.open(material, row=key_id).splitlines() if not line.startswith("-----")]
    return [line for line in lines if len(line) > 20]


def written(service: Service) -> Iterator[tuple[str, bytes]]:
    """All that the service wrote anywhere, by where."""
    stack = service.stack
    for file in sorted((stack.directory / "log").iterdir()):
        # Postgres and the simulated CloudAPI are not ours, but what we tell them could be in their logs.
        yield f"log {file.name}", file.read_bytes()
    for file in sorted(stack.directory.glob("postgres/**/*.log")):
        yield f"log {file.name}", file.read_bytes()
    with redis.Redis.from_url(stack.valkey.url) as client:
        for key in client.scan_iter():
            yield f"redis {key!r}", client.dump(key) or b""
    for file in (path for path in (stack.directory / "valkey").rglob("*") if path.is_file() and not path.is_socket()):
        yield f"redis file {file.name}", file.read_bytes()
    if stack.nomad_url:
        for stub in requests.get(f"{stack.nomad_url}/v1/jobs", timeout=30).json():
            job = requests.get(f"{stack.nomad_url}/v1/job/{stub['ID'].replace('/', '%2F')}", timeout=30)
            yield f"nomad job {stub['ID']}", job.content
        for file in (path for path in (stack.directory / "nomad").rglob("*") if path.is_file() and path.name != "node.env"):
            yield f"nomad file {file.name}", file.read_bytes()
    tables = [name for (name,) in stack.sql("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")]
    rows = [f"{table}: {row}" for table in tables for (row,) in stack.sql(f"SELECT to_jsonb(t) - 'material' FROM {table} t")]
    yield "database", "\n".join(rows).encode()
