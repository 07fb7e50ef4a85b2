"""What the client makes of a service's answers, which a small HTTP server gives one after the other."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from dev.client import send
from dev.processes import free_port
from shared.clients import keys
from tsg_client import errors
from tsg_client.client import Client
from tsg_client.keys.key import read
from tsg_client.signer import Signer

PAIR = keys.generate()
GROUP = {
    "id": "6c832611-ec3d-4bfe-af4f-23335c666893",
    "group_name": "web",
    "template_id": "f02b1f4f-b19b-407b-b717-bd93bb1ebb21",
    "capacity": 3,
    "created_at": "2026-11-27T07:53:51.687142Z",
    "updated_at": "2026-11-27T07:53:57.822527Z",
    "of_tomorrow": {"a": [1]},
}


class Answer(NamedTuple):
    status: int
    body: object = None
    headers: Mapping[str, str] = MappingProxyType({})


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@contextmanager
def answering(*answers: Answer) -> Iterator[tuple[Client, list[Asked]]]:
    """A client of a server that gives these answers, and what it was asked."""
    left, asked = list(answers), list[Asked]()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append(Asked(self.command, self.path, dict(self.headers), body))
            given = left.pop(0)
            text = given.body if isinstance(given.body, bytes) else b"" if given.body is None else json.dumps(given.body).encode()
            self.send_response(given.status)
            for name, value in {"Content-Length": str(len(text)), **given.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815 - their names in http.server

        def log_message(self, *_arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{server.server_port}", Signer("alice", read(PAIR.private_pem))) as client:
                yield client, asked
        finally:
            server.shutdown()
            thread.join()
    assert left == []


def refusal(status: int, code: str, **more: Any) -> Answer:
    return Answer(status, {"code": code, "message": "in words", **more}, {"X-Request-Id": "a-request"})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with answering(Answer(200, GROUP), Answer(200, GROUP)) as (client, asked):
        url = client.url.replace("127.0.0.1", host)
        assert Client(url, Signer("alice", read(PAIR.private_pem)), patience=0).get_group(GROUP["id"]).group_name == "web"
        assert send("GET", f"{url}/x", timeout=10).json() == GROUP
    assert [one.path.rpartition("/")[2] for one in asked] == [GROUP["id"], "x"]


def test_what_the_client_does_not_know_is_kept() -> None:
    with answering(Answer(200, GROUP, {"ETag": '"one"'})) as (client, _asked):
        group = client.get_group(GROUP["id"])
    assert (group.group_name, group.capacity, group.etag) == ("web", 3, '"one"')
    assert group.as_json() == GROUP


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.Conflict),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (412, errors.Changed),
        (413, errors.Invalid),
        (422, errors.Invalid),
        (500, errors.ServiceFailed),
    ],
)
def test_an_error_is_raised_by_what_to_do_about_it(status: int, kind: type[errors.TsgError]) -> None:
    with answering(refusal(status, "ItsCode")) as (client, _asked), pytest.raises(kind) as told:
        client.get_group(GROUP["id"])
    assert (str(told.value), told.value.code, told.value.request_id) == ("in words", "ItsCode", "a-request")


def test_wrong_fields_are_told_with_their_codes() -> None:
    problems = [{"field": "capacity", "code": "Invalid", "message": "too large"}, {"field": "tags"}]
    with answering(refusal(422, "InvalidArgument", errors=problems)) as (client, _asked), pytest.raises(errors.Invalid) as told:
        client.create_group({})
    assert told.value.fields == (errors.FieldProblem("capacity", "Invalid", "too large"), errors.FieldProblem("tags", "", ""))


def test_a_write_is_repeated_under_one_key_while_the_service_asks_to_wait() -> None:
    later = refusal(503, "ServiceUnavailable")._replace(headers={"Retry-After": "0"})
    with answering(later, refusal(429, "TooManyRequests"), Answer(502, b"<html>"), Answer(201, GROUP)) as (client, asked):
        assert client.create_group({"group_name": "web"}).id == GROUP["id"]
    assert [one.method for one in asked] == ["POST"] * 4
    assert len({one.headers["Idempotency-Key"] for one in asked}) == 1
    assert all(one.body == b'{"group_name": "web"}' for one in asked)


def test_two_writes_have_two_keys_and_a_read_none() -> None:
    with answering(Answer(204), Answer(204), Answer(200, GROUP)) as (client, asked):
        client.delete_group("a/b?c", if_match='"one"')
        client.delete_group("a")
        client.get_group("a")
    assert asked[0].path == "/v1/tsg/groups/a%2Fb%3Fc"
    assert asked[0].headers["If-Match"] == '"one"'
    assert asked[0].headers["Idempotency-Key"] != asked[1].headers["Idempotency-Key"]
    assert "Idempotency-Key" not in asked[2].headers


def test_a_signature_that_is_not_known_is_sent_again_over_the_date_alone() -> None:
    with answering(refusal(401, "InvalidCredentials"), Answer(200, GROUP), Answer(200, GROUP)) as (client, asked):
        client.get_group("a")
        client.get_group("a")
    signed = ['headers="(request-target) date"', 'headers="date"', 'headers="date"']
    assert all(words in one.headers["Authorization"] for words, one in zip(signed, asked, strict=True))


@pytest.mark.parametrize(("status", "kind"), [(401, errors.Unauthenticated), (403, errors.Forbidden)])
def test_who_is_not_let_in_is_told_after_two_tries(status: int, kind: type[errors.TsgError]) -> None:
    with answering(refusal(status, "No"), refusal(status, "No")) as (client, asked), pytest.raises(kind):
        client.get_group("a")
    assert len(asked) == 2


def test_pages_follow_each_other_until_there_is_no_next() -> None:
    following = {"Link": '</v1/tsg/groups?limit=500&marker=x>; rel="next"'}
    with answering(Answer(200, [GROUP], following), Answer(200, [GROUP])) as (client, asked):
        assert len(list(client.list_groups())) == 2
    assert [one.path for one in asked] == ["/v1/tsg/groups?limit=500", "/v1/tsg/groups?limit=500&marker=x"]


def test_a_page_is_asked_for_when_it_is_read() -> None:
    following = {"Link": '</v1/tsg/groups?marker=x>; rel="next"'}
    with answering(Answer(200, [GROUP, GROUP], following)) as (client, asked):
        assert next(iter(client.list_groups())).id == GROUP["id"]
    assert len(asked) == 1


def test_an_answer_of_somebody_else_is_no_success() -> None:
    with answering(Answer(200, b"<html>hello")) as (client, _asked), pytest.raises(errors.ServiceFailed, match="did not answer as"):
        client.get_group("a")
    with answering(Answer(302, b"", {"Location": "https://elsewhere"})) as (client, _asked), pytest.raises(errors.ServiceFailed):
        client.get_group("a")


def test_a_service_that_is_not_there_is_named() -> None:
    port = free_port()
    with (
        Client(f"http://127.0.0.1:{port}", None, patience=0) as client,
        pytest.raises(errors.TryLater, match=f":{port} can't be reached: .*refused"),
    ):
        client.is_alive()
    with Client("no-url", None) as client, pytest.raises(errors.Misconfigured, match="no request can be sent to no-url"):
        client.is_alive()


def test_a_capacity_is_never_left_out() -> None:
    with Client("http://127.0.0.1:1", None) as client, pytest.raises(ValueError, match="it would be 0"):
        client.update_group("a", {"group_name": "web"})
