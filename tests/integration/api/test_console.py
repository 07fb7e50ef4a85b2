"""The console's proxy: it forwards the page's own requests, signed, and refuses all that another page or program might send."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from waitress.channel import ClientDisconnected

from dev.sim.common.server import Server
from tests.integration.api.service import NOBODY, PAIR, Api, Caller
from tsg_client.console import pages, proxy
from tsg_client.console.proxy import Upstream
from tsg_client.console.serve import serving
from tsg_client.errors import NoKey
from tsg_client.keys import key
from tsg_client.signer import ByDate, Signer


class Answered(NamedTuple):
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Console:
    """A proxy, and requests to it with just the headers that a test says."""

    def __init__(self, address: str) -> None:
        found = re.fullmatch(r"http://(127\.0\.0\.1:(\d+))/console\?token=([\w-]{43})", address)
        assert found, address
        self.host, self.port, self.token = found[1], int(found[2]), found[3]
        self.origin = f"http://{self.host}"
        self.cookie = f"tsg_console_{self.port}={self.token}"

    def raw(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Answered:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            sent = {"Host": self.host, **headers, **({} if body is None else {"Content-Length": str(len(body))})}
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answered(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def page(self, method: str, path: str, body: object = None, **more: str) -> Answered:
        """As a page of the console sends it."""
        headers = {"Cookie": self.cookie, "Origin": self.origin, "Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}
        return self.raw(method, path, {**headers, **more}, None if body is None else json.dumps(body).encode())


KEY = key.read(PAIR.private_pem)


def upstream(url: str, caller: Caller) -> Upstream:
    return Upstream(url, caller.login, ByDate(Signer(caller.login, KEY)))


@pytest.fixture
def console(api: Api, tsg: Caller) -> Iterator[Console]:
    with serving(upstream(api.url, tsg)) as address:
        yield Console(address)


def test_the_pages_requests_are_signed_and_forwarded(console: Console, tsg: Caller) -> None:
    template = tsg.make_template()
    made = console.page("POST", "/v1/tsg/groups", {"group_name": "web", "template_id": template, "capacity": 2})
    assert (made.status, made.json["capacity"]) == (201, 2)
    path, tag = made.headers["Location"], made.headers["ETag"]
    assert console.page("GET", path, **{"If-None-Match": tag}).status == 304
    change = {"group_name": "web", "template_id": template, "capacity": 3}
    assert console.page("PUT", path, change, **{"If-Match": tag}).status == 200
    assert console.page("PUT", path, change, **{"If-Match": tag}).status == 412
    listed = console.page("GET", "/v1/tsg/groups?limit=1", **{"X-Request-Id": "mine"})
    assert (listed.headers["X-Resource-Count"], listed.headers["X-Request-Id"]) == ("1", "mine")
    assert console.page("DELETE", path).status == 204
    assert set(field_errors_of(console.page("POST", "/v1/tsg/groups", {}))) == {"group_name", "template_id"}


def field_errors_of(answer: Answered) -> list[str]:
    assert answer.status == 422
    return [one["field"] for one in answer.json["errors"]]


def test_a_key_of_idempotency_is_passed_on(console: Console, tsg: Caller) -> None:
    body = {"group_name": "once", "template_id": tsg.make_template()}
    first, second = (console.page("POST", "/v1/tsg/groups", body, **{"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.body, second.headers["Idempotency-Replayed"]) == (second.body, "true")


def test_the_address_gives_a_cookie_that_no_script_and_no_other_site_has(console: Console) -> None:
    entered = console.raw("GET", f"/console?token={console.token}", {})
    assert (entered.status, entered.headers["Location"]) == (303, "/console")
    assert entered.headers["Set-Cookie"] == f"{console.cookie}; Path=/; HttpOnly; SameSite=Strict"
    moved = console.raw("GET", "/", {})
    assert (moved.status, moved.headers["Location"], "Set-Cookie" in moved.headers) == (303, "/console", False)


def test_pages_load_nothing_from_elsewhere_and_run_nothing_inline(console: Console) -> None:
    shown = console.raw("GET", "/console", {})
    assert (shown.status, shown.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = dict(part.strip().partition(" ")[::2] for part in shown.headers["Content-Security-Policy"].split(";"))
    assert policy.pop("default-src") == "'none'"
    assert set(policy.values()) == {"'self'", "'none'", "'script'"}
    assert {name: shown.headers[name] for name in pages.HEADERS} == pages.HEADERS


@pytest.mark.parametrize("name", sorted(pages._NAMES))
def test_no_file_of_the_pages_needs_more_than_the_policy_allows(name: str) -> None:
    page = pages.find(f"{pages.BASE}/{name}")
    assert page is not None
    text = page.body.decode()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|insertAdjacent|document\.write|\beval\(|@import|url\(", text)
    if name.endswith(".html"):
        assert not re.search(r"<script(?![^>]*\bsrc=)|\bon[a-z]+=|\bstyle=|<style", text)


@pytest.mark.parametrize(
    "path", ["/console/../console/pages.py", "/console/..%2fpages.py", "/console/x/main.js", "/console/pages.py", "/x"]
)
def test_there_are_no_other_files(console: Console, path: str) -> None:
    assert console.page("GET", path).status == 404


FOREIGN = "http://evil.example"


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": ""},
        {"Cookie": "tsg_console_{port}=x"},
        {"Cookie": "tsg_console_1={token}"},
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": "[::1]:{port}"},
        {"Origin": FOREIGN},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": FOREIGN, "Upgrade": "websocket", "Connection": "Upgrade"},
        {"Origin": "null", "Content-Type": "application/x-www-form-urlencoded"},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_not_the_pages_own_request_is_not_forwarded(console: Console, tsg: Caller, method: str, headers: dict[str, str]) -> None:
    filled = {name: value.format(port=console.port, token=console.token) for name, value in headers.items()}
    body = {"group_name": "forged", "template_id": tsg.make_template()}
    answer = console.page(method, "/v1/tsg/groups", body if method == "POST" else None, **filled)
    assert (answer.status, answer.json["code"]) == (403, "NotAuthorized")
    assert console.token.encode() not in answer.body
    assert tsg.ok("GET", "/groups") == []


def test_a_change_without_an_origin_is_not_forwarded(console: Console, tsg: Caller) -> None:
    group = tsg.make_group(1)
    assert console.raw("DELETE", f"/v1/tsg/groups/{group['id']}", {"Cookie": console.cookie}).status == 403
    assert console.raw("GET", f"/v1/tsg/groups/{group['id']}", {"Cookie": console.cookie}).status == 200


def test_another_token_opens_nothing(console: Console) -> None:
    answer = console.raw("GET", f"/console?token={'x' * 43}", {})
    assert (answer.status, "Set-Cookie" in answer.headers) == (403, False)
    assert console.raw("GET", "/console/about.json", {}).status == 403
    assert console.raw("GET", "/console", {"Host": "evil.example"}).status == 403, "not even a page, by another name"
    assert console.page("GET", "/console/about.json").json["service"]


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/healthz",
        "/v1/tsg",
        "/v1/other",
        "/v1/tsg/../../metrics",
        "/v1/tsg/%2e%2e/%2e%2e/metrics",
        "/v1/tsg/..%2f..%2fmetrics",
        "/v1/tsg/%252e%252e/metrics",
        "/v1/tsg//groups",
        "/v1/tsg/groups%2f",
        "/v1/tsg/groups%0d%0aX:%20y",
        "/v1/tsg/groups//",
        "/v1/tsg/groups/%00",
        "/v1/tsg/groups/%5c..%5c",
        "/v1/tsg/groups?x=<y>",
        "//evil.example/v1/tsg/groups",
    ],
)
def test_nothing_but_the_api_is_forwarded(make_upstream: "Callable[..., Seen]", path: str) -> None:
    seen = make_upstream()
    assert seen.console.page("GET", path).status in {400, 404}
    assert seen.requests == []


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "TRACE", "CONNECT", "HEAD"])
def test_other_methods_are_not_forwarded(make_upstream: "Callable[..., Seen]", method: str) -> None:
    seen = make_upstream()
    assert seen.console.page(method, "/v1/tsg/groups").status in {400, 405}
    assert seen.requests == []


def test_neither_cookies_nor_other_headers_pass_either_way(make_upstream: "Callable[..., Seen]") -> None:
    seen = make_upstream(
        headers=[("Set-Cookie", "a=b"), ("Access-Control-Allow-Origin", "*"), ("Content-Type", "text/html"), ("ETag", '"1"')]
    )
    answer = seen.console.page("GET", "/v1/tsg/docs", Authorization="Signature mine", **{"X-Forwarded-For": "192.0.2.1"})
    ((_, told),) = seen.requests
    assert "HTTP_COOKIE" not in told
    assert "HTTP_X_FORWARDED_FOR" not in told
    assert "mine" not in told["HTTP_AUTHORIZATION"]
    assert not {"Set-Cookie", "Access-Control-Allow-Origin"} & set(answer.headers)
    assert answer.headers["ETag"] == '"1"'
    assert "sandbox" in answer.headers["Content-Security-Policy"], "what the service answers is never a page of the console"


def test_bodies_have_bounds(make_upstream: "Callable[..., Seen]", monkeypatch: pytest.MonkeyPatch) -> None:
    seen = make_upstream(body=b"x" * 1000)
    # Refused as soon as its length is known.
    too_long = {**seen.console_headers, "Content-Length": str(proxy.MAX_BODY + 1)}
    assert seen.console.raw("POST", "/v1/tsg/groups", too_long).status == 413
    assert seen.requests == []
    monkeypatch.setattr(proxy, "MAX_ANSWER", 999)
    answer = seen.console.page("GET", "/v1/tsg/groups")
    assert (answer.status, answer.json["code"]) == (502, "TooLarge")


def test_an_answer_that_ends_too_soon_ends_too_soon_for_the_page(make_upstream: "Callable[..., Seen]") -> None:
    def cut() -> Iterator[bytes]:
        yield b"["
        raise ClientDisconnected

    seen = make_upstream(chunks=cut)
    with pytest.raises(http.client.IncompleteRead):
        seen.console.page("GET", "/v1/tsg/groups")


def test_a_service_that_is_away_is_told_in_words(tsg: Caller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with serving(upstream(f"http://127.0.0.1:{port}", tsg)) as address:
        answer = Console(address).page("GET", "/v1/tsg/groups")
    assert (answer.status, answer.json["code"]) == (502, "Unreachable")
    assert answer.json["message"] == f"The service at http://127.0.0.1:{port} can't be reached (ConnectionError)."


def test_a_key_that_cannot_sign_is_told_in_words(tsg: Caller) -> None:
    def refuse(_request: requests.PreparedRequest) -> requests.PreparedRequest:
        raise NoKey("the agent refuses to sign")

    with serving(Upstream(tsg.api.url, tsg.login, refuse)) as address:
        answer = Console(address).page("GET", "/v1/tsg/groups")
    assert (answer.status, answer.json) == (502, {"code": "Signing", "message": "the agent refuses to sign"})


def test_two_consoles_do_not_open_each_other(console: Console, api: Api, tsg: Caller) -> None:
    with serving(upstream(api.url, tsg)) as address:
        other = Console(address)
        assert other.cookie.partition("=")[0] != console.cookie.partition("=")[0]
        assert other.page("GET", "/v1/tsg/groups", Cookie=f"{console.cookie}; {other.cookie}").status == 200
        assert other.page("GET", "/v1/tsg/groups", Cookie=console.cookie).status == 403


class Seen:
    """A console whose service is a recorder."""

    def __init__(self, requests: list[tuple[str, dict[str, Any]]], console: Console) -> None:
        self.requests = requests
        self.console = console
        self.console_headers = {"Cookie": console.cookie, "Origin": console.origin}


@pytest.fixture
def make_upstream(tsg: Caller, request: pytest.FixtureRequest) -> Callable[..., Seen]:
    def make(
        headers: list[tuple[str, str]] | None = None, body: bytes = b"[]", chunks: Callable[[], Iterator[bytes]] | None = None
    ) -> Seen:
        requests: list[tuple[str, dict[str, Any]]] = []

        def recorder(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            requests.append((environ["PATH_INFO"], environ))
            start_response("200 OK", [*(headers or []), *([] if chunks else [("Content-Length", str(len(body)))])])
            return chunks() if chunks else [body]

        service = Server(lambda: recorder)
        request.addfinalizer(service.close)
        served = serving(upstream(service.url, tsg))
        address = served.__enter__()
        request.addfinalizer(lambda: served.__exit__(None, None, None))
        return Seen(requests, Console(address))

    return make


# In development mode


def test_the_pages_are_the_apis_own_in_development_mode(make_api: Callable[..., Api]) -> None:
    api = make_api(dev_mode=True)
    shown = api.request("GET", "/console/")
    assert (shown.status_code, shown.headers["Content-Security-Policy"]) == (200, pages.POLICY)
    assert shown.headers["X-Content-Type-Options"] == "nosniff"
    assert api.request("GET", "/console/about.json").json() == {"account": "joyent", "service": ""}
    assert api.request("GET", "/console/pages.py").status_code == 404
    assert api.request("POST", "/console").status_code == 405


def test_the_pages_are_not_there_where_requests_are_signed(api: Api) -> None:
    assert api.request("GET", "/console").status_code == 404
    assert api.request("GET", f"/console/{NOBODY}").status_code == 404


# The command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_an_address_that_works_and_ends_by_a_signal(api: Api, tsg: Caller, tmp_path: Path, number: int) -> None:
    profile = {"TRITON_ACCOUNT": tsg.login, "TRITON_KEY_ID": PAIR.fingerprint, "TRITON_KEY_MATERIAL": PAIR.private_pem, "TSG_URL": api.url}
    command = [Path(sys.executable).parent / "tsg", "console", "--no-browser"]
    environ = {**profile, "HOME": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout
        line = child.stdout.readline()
        try:
            console = Console(line.rpartition(" ")[2].strip())
            assert line.startswith(f"The console of {tsg.login} is at ")
            assert console.page("GET", "/v1/tsg/groups").json == []
            assert console.page("GET", "/console/about.json").json == {"account": tsg.login, "service": api.url}
        finally:
            child.send_signal(number)
        assert child.wait(timeout=30) == 0
        assert child.stderr
        assert "acts with your key" in child.stderr.read()
