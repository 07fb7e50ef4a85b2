"""How the service is, asked over HTTP without a signature; and how `tsg-api` goes."""

import json
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from dev.processes import free_port, wait_for
from shared.cli import seed
from shared.store.db import Database
from tests.integration.api.service import JSON, error
from tests.integration.api.test_programs import Served, environment, serve, sql, url

__all__ = ["environment", "serve", "sql", "url"]


def ready(served: Served) -> tuple[int, dict[str, Any]]:
    answer = requests.get(f"{served.url}/readyz", timeout=30)
    assert answer.headers["Content-Type"] == JSON
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.status_code, answer.json()


def monitor(served: Served) -> str:
    (line,) = served.lines("monitoring")
    return str(line["monitor_url"])


def test_the_api_is_ready_on_its_own_port_and_on_the_monitors_if_its_tables_are_as_new_as_it_is(
    serve: Callable[..., Served], sql: Callable[..., list[Any]]
) -> None:
    served = serve(TSG_RATE_PER_ADDRESS="0.1")
    everything = {"status": "ready", "checks": dict.fromkeys(("database", "migrations", "queue", "cloudapi"), "ok")}
    for _ in range(3):
        assert ready(served) == (200, everything)
    answer = requests.get(f"{monitor(served)}/readyz", timeout=30)
    assert (answer.status_code, answer.json()) == (200, everything)
    for base in (served.url, monitor(served)):
        answer = requests.get(f"{base}/healthz", timeout=30)
        assert (answer.status_code, answer.json()) == (200, {"status": "alive"})
        assert requests.head(f"{base}/healthz", timeout=30).status_code in {200, 405}
    assert requests.get(f"{monitor(served)}/v1/tsg/groups", timeout=30).status_code == 404
    for revision, code, status, state in (("0001", 503, "unavailable", "outdated"), ("9999", 200, "ready", "ok")):
        sql("UPDATE alembic_version SET version_num = :revision", revision=revision)
        assert wait_for(lambda code=code: ready(served)[0] == code, seconds=10)
        report = ready(served)[1]
        assert (report["status"], report["checks"]["migrations"]) == (status, state)
    assert not served.lines("request"), "those who ask every second are no news"


def test_the_api_answers_without_queue_cloudapi_and_nomad_and_says_that_they_are_away(serve: Callable[..., Served]) -> None:
    away = f"127.0.0.1:{free_port()}"
    served = serve(
        TSG_REDIS_URL=f"redis://:hunter2@{away}",
        TSG_TRITON_URL=f"http://{away}",
        TSG_TRITON_AUTH_URL=f"http://{away}/auth",
        TSG_SCALER="nomad",
        NOMAD_ADDR=f"http://{away}",
    )
    states = {"database": "ok", "migrations": "ok", **dict.fromkeys(("queue", "cloudapi", "cloudapi_auth", "nomad"), "unavailable")}
    assert ready(served) == (200, {"status": "degraded", "checks": states})
    told = {"queue", "cloudapi", "cloudapi_auth", "nomad"}
    assert wait_for(lambda: {line["check"] for line in served.lines("health_changed")} == told, seconds=10)
    assert "hunter2" not in served.child.tail(10_000)


def test_without_its_database_the_api_is_alive_and_not_ready(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve(TSG_DEV_MODE="1", TSG_DATABASE_URL=f"postgresql://postgres:hunter2@/tsg?host={tmp_path}")
    error(requests.get(f"{served.url}/v1/tsg/groups", timeout=30), 503, "ServiceUnavailable")
    status, report = ready(served)
    assert (status, report["status"]) == (503, "unavailable")
    assert (report["checks"]["database"], report["checks"]["migrations"]) == ("unavailable", "unavailable")
    assert requests.get(f"{served.url}/healthz", timeout=30).status_code == 200
    assert str(tmp_path) not in json.dumps(report)


def test_a_port_that_is_taken_is_told(environment: dict[str, str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Exception, match=rf"cannot listen on 127\.0\.0\.1:{port} \(TSG_METRICS_PORT\)"):
            Served(environment | {"TSG_METRICS_PORT": str(port)}, tmp_path)


# Going


def listens(served: Served) -> bool:
    try:
        connect(served).close()
    except ConnectionRefusedError:
        return False
    return True


def connect(served: Served) -> socket.socket:
    host, _, port = served.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def test_a_request_under_way_is_answered_before_the_api_goes(serve: Callable[..., Served], database: Database) -> None:
    served = serve(TSG_DEV_MODE="1")
    database.transact(seed.load)
    body = json.dumps({"group_name": "web", "template_id": seed.TEMPLATES[0], "capacity": 1}).encode()
    with connect(served) as idle, connect(served) as connection:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: tsg\r\n\r\n")
        received = b""
        while not received.endswith(b'{"status":"alive"}'):
            received += idle.recv(65536)
        connection.sendall(b"POST /v1/tsg/groups HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body[:10]))
        # The other half is sent when nobody new is let in any more.
        assert wait_for(lambda: requests.get(f"{served.url}/healthz", timeout=30).ok, seconds=10)
        served.child.send(signal.SIGTERM)
        assert wait_for(lambda: not listens(served), seconds=10)
        connection.sendall(body[10:])
        assert re.match(rb"HTTP/1.1 201 ", connection.recv(65536))
        assert wait_for(lambda: served.child.status is not None, seconds=10)
        assert idle.recv(65536) == b""
    assert served.child.status == 0
    assert served.lines("stopped")
    assert not served.lines("requests_cut_off")
    assert "still running" not in served.child.tail(100)


def test_a_request_that_does_not_end_is_cut_off(serve: Callable[..., Served]) -> None:
    served = serve(TSG_DEV_MODE="1", TSG_STOP_SECONDS="1")
    with connect(served) as connection:
        connection.sendall(b"POST /v1/tsg/groups HTTP/1.1\r\nHost: tsg\r\nContent-Length: 10\r\n\r\n{")
        assert requests.get(f"{served.url}/healthz", timeout=30).ok
        served.child.stop()
    assert served.child.status == 0
    assert served.lines("requests_cut_off")


def test_a_load_balancer_is_told_in_time_and_a_second_signal_is_obeyed_at_once(serve: Callable[..., Served]) -> None:
    served = serve(TSG_DRAIN_SECONDS="300")
    assert ready(served)[0] == 200
    served.child.send(signal.SIGTERM)
    assert wait_for(lambda: ready(served)[0] == 503, seconds=10)
    assert ready(served)[1]["status"] == "draining"
    assert requests.get(f"{served.url}/v1/tsg/groups", timeout=30).status_code == 401, "it is served still"
    served.child.send(signal.SIGTERM)
    assert wait_for(lambda: served.child.status is not None, seconds=10)
    assert served.child.status == -signal.SIGTERM
