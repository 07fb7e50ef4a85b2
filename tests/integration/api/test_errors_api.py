"""What is the same for every route: bodies that are none, paths and methods that are none, headers, and servers that are away."""

import gzip
import json
import re
import signal
import socket
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPResponse

import pytest
import redis

from dev.processes import wait_for
from dev.services import Postgres, Valkey, scratch
from shared.clients.queue import CONVERGE
from tests.conftest import new_database
from tests.integration.api.service import JSON, NOBODY, Api, Caller, error, field_errors, now, template_body
from tsg_api.server.refusals import WAITING

GROUP, TEMPLATE = f"/groups/{NOBODY}", f"/templates/{NOBODY}"
METHODS = {
    "/templates": {"GET", "HEAD", "POST"},
    TEMPLATE: {"GET", "HEAD", "DELETE"},
    "/groups": {"GET", "HEAD", "POST", "PUT"},
    GROUP: {"GET", "HEAD", "PUT", "DELETE"},
    f"{GROUP}/increment": {"PUT"},
    f"{GROUP}/decrement": {"PUT"},
    f"{GROUP}/instances": {"GET", "HEAD"},
}


# Bodies


def takers(tsg: Caller) -> list[tuple[str, str]]:
    """Every call that takes a body."""
    path = f"/groups/{tsg.make_group(3)['id']}"
    puts = ["/groups", path, f"{path}/increment", f"{path}/decrement"]
    return [("POST", "/templates"), ("POST", "/groups"), *(("PUT", path) for path in puts)]


@pytest.mark.parametrize("data", ["", " \n", "null", "[]", '[{"group_name": "web"}]', '"text"', "5", "true", '""'])
def test_a_body_that_is_no_object_is_422(tsg: Caller, data: str) -> None:
    for method, path in takers(tsg):
        error(tsg(method, path, data=data), 422, "InvalidContent")


@pytest.mark.parametrize(
    "data", ["{", "{'a': 1}", '{"a": 1,}', '{"a": 1e}', '{"a": 1} {"b": 2}', "a=b", "<a/>", b"\xff\xfe{}", b'{"a": "\xc3\x28"}', b"\0"]
)
def test_malformed_json_is_422(tsg: Caller, data: str | bytes) -> None:
    for method, path in takers(tsg):
        error(tsg(method, path, data=data), 422, "InvalidContent")


OBJECT = '{"group_name": "web"}'


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (gzip.compress(OBJECT.encode(), mtime=0), "compressed (gzip)"),
        (zlib.compress(OBJECT.encode()), "compressed (deflate)"),
        (b"\x28\xb5\x2f\xfd" + OBJECT.encode(), "compressed (zstd)"),
        (OBJECT.encode("utf-16"), "in UTF-16"),
        (OBJECT.encode("utf-16-le"), "in UTF-16"),
        (OBJECT.encode("utf-16-be"), "in UTF-16"),
        (OBJECT.encode("utf-32"), "in UTF-32"),
        (OBJECT.encode("utf-32-be"), "in UTF-32"),
        (OBJECT.encode("utf-8-sig"), "byte order mark (BOM)"),
        ('{"group_name": "w\xe4b"}'.encode("latin-1"), "not in UTF-8 (byte 18)"),
    ],
)
def test_a_body_that_is_no_plain_utf_8_is_422_that_says_what_it_is(tsg: Caller, data: bytes, told: str) -> None:
    for method, path in takers(tsg):
        assert told in error(tsg(method, path, data=data), 422, "InvalidContent")["message"]


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity", "GZIP"])
def test_a_content_encoding_is_415_that_names_it(tsg: Caller, encoding: str) -> None:
    for method, path in takers(tsg):
        answer = tsg(method, path, data=gzip.compress(OBJECT.encode()), headers={"Content-Encoding": encoding})
        assert encoding in error(answer, 415, "UnsupportedMediaType")["message"]
        assert answer.headers["Accept-Encoding"] == "identity"
    plain = tsg("POST", "/templates", template_body(), headers={"Content-Encoding": "identity"})
    assert plain.status_code == 201


@pytest.mark.parametrize("deep", ["[" * 50_000, '{"a":' * 15_000, '{"tags": ' + "[" * 20_000 + "]" * 20_000 + "}"])
def test_json_that_is_very_deep_is_422(tsg: Caller, deep: str) -> None:
    assert tsg("POST", "/templates", data=deep).status_code == 422


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "x"]
)
def test_a_body_is_json_whatever_it_is_called(tsg: Caller, content_type: str | None) -> None:
    data = f'{{"group_name": "web", "template_id": "{tsg.make_template()}"}}'
    answer = tsg("POST", "/groups", data=data, headers={"Content-Type": content_type} if content_type else {})
    assert answer.status_code == 201


def test_a_body_over_the_limit_is_413_and_one_at_the_limit_is_not(tsg: Caller) -> None:
    body = '{"userdata": "%s"}'
    fits = body % ("x" * (100_000 - len(body) + 2))
    assert len(fits) == 100_000
    assert set(field_errors(tsg("POST", "/templates", data=fits))) == {"template_name", "package", "image_id"}
    for method, path in takers(tsg):
        error(tsg(method, path, data=fits + " "), 413, "PayloadTooLarge")


def test_a_body_over_the_limit_that_does_not_say_so_is_413(tsg: Caller) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"userdata": "'
        for _ in range(11):
            yield b"x" * 10_000

    error(tsg("POST", "/templates", data=chunks()), 413, "PayloadTooLarge")


def test_a_body_in_chunks_is_a_body(tsg: Caller) -> None:
    template_id = tsg.make_template()
    data = f'{{"group_name": "web", "template_id": "{template_id}"}}'.encode()
    assert tsg("POST", "/groups", data=iter([data[:9], data[9:]])).status_code == 201


# Paths and methods


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v1", "/v1/tsg", "/v1/tsg/", "/v2/tsg/groups", "/V1/tsg/groups", "/v1/tsg/group", "/v1/tsg//groups"),
        *(f"/v1/tsg{GROUP}/x", f"/v1/tsg{GROUP}/instances/1", "/%00", "/%FF", "/favicon.ico"),
    ],
)
def test_an_unknown_path_is_404(tsg: Caller, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        error(tsg.api.request(method, path, headers=tsg.signed()), 404, "ResourceNotFound")


@pytest.mark.parametrize(
    ("path", "method"),
    [(path, method) for path, known in METHODS.items() for method in ("GET", "POST", "PUT", "DELETE", "PATCH") if method not in known],
)
def test_a_known_path_with_a_wrong_method_is_405_with_allow(tsg: Caller, path: str, method: str) -> None:
    answer = tsg(method, path)
    error(answer, 405, "MethodNotAllowed")
    assert set(re.split(r",\s*", answer.headers["Allow"])) - {"OPTIONS"} == METHODS[path]


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"nonsense", 400, "BadRequest"),
        (b"get / HTTP/1.1", 400, "BadRequest"),
        (b"GET /\xff HTTP/1.1", 400, "BadRequest"),
        (b"GET / HTTP/1.1\r\nno colon", 400, "BadRequest"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300_000, 431, "BadRequest"),  # waitress takes 256 kB where nobody says
        (b"POST / HTTP/1.1\r\nContent-Length: -1", 400, "BadRequest"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999", 413, "PayloadTooLarge"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip", 501, "InternalError"),
    ],
)
def test_what_is_no_http_is_refused_like_anything_else(api: Api, sent: bytes, status: int, code: str) -> None:
    with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2])), timeout=20) as connection:
        with suppress(ConnectionError):  # it may be refused before all of it is read
            connection.sendall(sent + b"\r\n\r\n")
        answer = HTTPResponse(connection)
        answer.begin()
        told = json.loads(answer.read())
    assert (answer.status, told["code"], answer.headers["Content-Type"]) == (status, code, JSON)
    assert told["message"]
    assert answer.headers["X-Request-Id"]


def answers(api: Api, sent: bytes) -> list[tuple[int, dict[str, object]]]:
    """The answers to these bytes, until the server closes the connection: all are sent before the first is read."""
    found = []
    with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2])), timeout=20) as connection:
        connection.sendall(sent)
        with connection.makefile("rb") as stream:
            while line := stream.readline():
                length = 0
                while (header := stream.readline().strip().lower()) != b"":
                    length = int(header.partition(b":")[2]) if header.startswith(b"content-length:") else length
                found.append((int(line.split()[1]), json.loads(stream.read(length))))
    return found


def test_requests_that_wait_for_others_on_a_connection_are_few(api: Api) -> None:
    told = answers(api, b"GET /x HTTP/1.1\r\nHost: tsg\r\n\r\n" * 30_000)
    assert [status for status, _ in told] == [404] * WAITING + [400]
    assert str(WAITING) in str(told[-1][1]["message"])


def test_a_few_requests_at_once_are_all_answered(api: Api) -> None:
    last = b"GET /y HTTP/1.1\r\nHost: tsg\r\nConnection: close\r\n\r\n"
    assert [status for status, _ in answers(api, b"GET /x HTTP/1.1\r\nHost: tsg\r\n\r\n" * (WAITING - 1) + last)] == [404] * WAITING


@pytest.mark.parametrize("authorization", [b"", b"Authorization: Signature x\r\n"])
def test_a_client_that_sends_all_of_a_large_body_gets_to_read_why_it_is_refused(api: Api, authorization: bytes) -> None:
    head = b"POST /v1/tsg/templates HTTP/1.1\r\nHost: tsg\r\nContent-Length: 900000\r\n" + authorization
    ((status, told),) = answers(api, head + b"\r\n" + b" " * 900_000)
    assert (status, told["code"], told["message"]) == (413, "PayloadTooLarge", "The body is larger than 100000 bytes.")


def test_a_large_body_without_a_signature_is_401_before_it_is_taken_in(api: Api) -> None:
    with socket.create_connection(("127.0.0.1", int(api.url.rpartition(":")[2])), timeout=20) as connection:
        connection.sendall(b"POST /v1/tsg/templates HTTP/1.1\r\nHost: tsg\r\nContent-Length: 50000\r\n\r\n")
        answer = HTTPResponse(connection)
        answer.begin()
        assert (answer.status, json.loads(answer.read())["code"]) == (401, "InvalidCredentials")
        assert answer.headers["WWW-Authenticate"] == "Signature"


@pytest.mark.parametrize("method", ["FOO", "TRACE", "PROPFIND", "WEBSOCKET"])
def test_a_method_that_nobody_knows_is_the_callers_fault(tsg: Caller, method: str) -> None:
    answer = tsg(method, "/groups")
    assert 400 <= answer.status_code < 500
    assert answer.headers["X-Request-Id"]


def test_an_expectation_of_a_request_without_a_body_does_not_mix_it_with_the_next(tsg: Caller) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "tsg", **tsg.signed()}.items())
    host, port = tsg.api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        for more in ("Expect: 100-continue\r\n", ""):
            connection.sendall(f"GET /v1/tsg/groups HTTP/1.1\r\n{head}{more}\r\n".encode())
            answer = HTTPResponse(connection)
            answer.begin()
            assert (answer.status, answer.read()) == (200, b"[]")


def test_a_trailing_slash_changes_nothing(tsg: Caller) -> None:
    template = tsg("POST", "/templates/", template_body())
    assert template.status_code == 201
    assert template.headers["Location"] == f"/v1/tsg/templates/{template.json()['id']}"
    group = tsg("POST", "/groups/", {"group_name": "web", "template_id": template.json()["id"], "capacity": 3}).json()
    path = f"/groups/{group['id']}"
    assert tsg.ok("GET", "/templates/") == tsg.ok("GET", "/templates")
    assert tsg.ok("GET", "/groups/") == [group]
    assert tsg.ok("GET", f"{path}/") == group
    assert tsg.ok("GET", f"{path}/instances/") == []
    assert tsg("PUT", f"{path}/increment/", {"instance_count": 1, "max_instance": 9}).status_code == 202
    assert tsg("PUT", f"{path}/decrement/", {"instance_count": 1, "min_instance": 0}).status_code == 202
    body = {"group_name": "web", "template_id": group["template_id"], "capacity": 3}
    assert tsg("PUT", f"{path}/", body).status_code == tsg("PUT", "/groups/", body).status_code == 200
    assert tsg("DELETE", f"{path}/").status_code == 204
    assert tsg("DELETE", f"/templates/{group['template_id']}/").status_code == 204


# X-Request-Id


@pytest.mark.parametrize("token", ["a", "x" * 128, "A-b_c.9", str(uuid.UUID(int=5))])
def test_a_sane_request_id_is_answered(tsg: Caller, token: str) -> None:
    for method, path in (("GET", "/groups"), ("GET", "/nothing"), ("GET", GROUP), ("PATCH", "/groups"), ("POST", "/groups")):
        assert tsg(method, path, headers={"X-Request-Id": token}).headers["X-Request-Id"] == token
    unsigned = tsg.api.request("GET", "/v1/tsg/groups", headers={"X-Request-Id": token})
    assert (unsigned.status_code, unsigned.headers["X-Request-Id"]) == (401, token)


@pytest.mark.parametrize("token", [None, "", "x" * 129, "a b", "a/b", "ä".encode(), 'a"', "a,b", "{a}"])
def test_any_other_request_id_is_replaced(tsg: Caller, token: str | bytes | None) -> None:
    given = {} if token is None else {"X-Request-Id": token}
    answers = [tsg("GET", path, headers=given) for path in ("/groups", "/groups", "/nothing")]  # type: ignore[arg-type]
    made = [answer.headers["X-Request-Id"] for answer in answers]
    assert len(set(made)) == 3
    assert [str(uuid.UUID(one)) for one in made] == made


def test_answers_without_a_body_have_a_request_id_too(tsg: Caller) -> None:
    group = tsg.make_group(3)
    for method, path, body in (
        ("PUT", f"/groups/{group['id']}/increment", {"instance_count": 1, "max_instance": 9}),
        ("DELETE", f"/groups/{group['id']}", None),
    ):
        assert tsg(method, path, body, headers={"X-Request-Id": "mine"}).headers["X-Request-Id"] == "mine"


# Limits of requests


def test_an_account_over_its_rate_is_429_and_another_is_not(make_api: Callable[..., Api]) -> None:
    api = make_api(rate_per_account=0.5)  # 2.5 at once
    tsg, other = api.new_account(), api.new_account()
    assert [tsg("GET", "/groups").status_code for _ in range(2)] == [200, 200]
    refused = tsg("GET", "/groups")
    error(refused, 429, "TooManyRequests")
    assert 1 <= int(refused.headers["Retry-After"]) <= 2
    assert other("GET", "/groups").status_code == 200


def test_an_address_over_its_rate_is_429_whoever_it_is(make_api: Callable[..., Api]) -> None:
    api = make_api(rate_per_address=0.2)  # 1 at once
    assert api.request("GET", "/v1/tsg/groups").status_code == 401
    error(api.request("GET", "/v1/tsg/groups"), 429, "TooManyRequests")


def test_a_good_key_does_not_pay_for_strangers_behind_its_address(make_api: Callable[..., Api]) -> None:
    api = make_api(rate_per_address=0.2)  # 1 at once
    tsg = api.new_account()
    tsg.ok("GET", "/groups")  # its key is known from now on
    assert api.request("GET", "/v1/tsg/groups").status_code == 401
    stranger = {**tsg.signed(), "Authorization": tsg.signed()["Authorization"].replace('keyId="/', 'keyId="/no')}
    for headers in ({}, stranger):
        error(api.request("GET", "/v1/tsg/groups", headers=headers), 429, "TooManyRequests")
    assert [tsg("GET", "/groups").status_code for _ in range(5)] == [200] * 5
    # Nor is a known key's name enough.
    error(api.request("GET", "/v1/tsg/groups", headers={**tsg.signed(now(1)), "Date": now(2)}), 429, "TooManyRequests")


# What fails


def test_a_bug_is_a_500_that_tells_nothing(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    tsg.make_group(1)
    api.sql("ALTER TABLE tsg_groups RENAME COLUMN capacity TO secret_column")
    body = error(tsg("GET", "/groups"), 500, "InternalError")
    assert "secret_column" not in body["message"]
    assert "capacity" not in body["message"]


def test_postgresql_away_is_503_and_all_is_well_when_it_is_back(breakable: Postgres, make_api: Callable[..., Api]) -> None:
    with new_database(breakable) as database:
        tsg = make_api(database=database).new_account()
        group = tsg.make_group(3)
        breakable.stop("immediate")
        for method, path, body in (
            ("GET", "/groups", None),
            ("GET", f"/groups/{group['id']}", None),
            ("POST", "/templates", template_body(template_name="new")),
            ("POST", "/groups", {"group_name": "new", "template_id": group["template_id"]}),
            ("PUT", f"/groups/{group['id']}/increment", {"instance_count": 1, "max_instance": 9}),
            ("DELETE", f"/groups/{group['id']}", None),
        ):
            answer = tsg(method, path, body)
            error(answer, 503, "ServiceUnavailable")
            assert int(answer.headers["Retry-After"]) > 0
        tsg.api.clock.ahead += 10  # the account's row is to be read again
        error(tsg("GET", "/groups"), 503, "ServiceUnavailable")
        breakable.start()
        assert tsg.ok("GET", "/groups") == [group]
        assert tsg.make_group(1)["capacity"] == 1


def test_a_restart_of_postgresql_between_two_requests_costs_nobody_an_answer(breakable: Postgres, make_api: Callable[..., Api]) -> None:
    with new_database(breakable) as database:
        tsg = make_api(database=database).new_account()
        group = tsg.make_group(3)
        breakable.restart()
        assert tsg.ok("GET", "/groups") == [group]
        breakable.restart()
        assert tsg.make_group(4)["capacity"] == 4


def test_a_first_request_is_503_while_postgresql_is_away(breakable: Postgres, make_api: Callable[..., Api]) -> None:
    with new_database(breakable) as database:
        api = make_api(database=database)
        account = api.new_triton()
        breakable.stop("immediate")
        error(Caller(api, account)("GET", "/groups"), 503, "ServiceUnavailable")
        breakable.start()
        api.enable(account)
        assert Caller(api, account).ok("GET", "/groups") == []


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    with scratch() as directory, Valkey(directory / "valkey") as server:
        yield server


def test_a_change_is_answered_with_valkey_stopped(own_valkey: Valkey, make_api: Callable[..., Api]) -> None:
    tsg = make_api(redis_url=own_valkey.url).new_account()
    own_valkey.stop()
    group = tsg.make_group(3)
    assert tsg("PUT", f"/groups/{group['id']}/increment", {"instance_count": 1, "max_instance": 9}).status_code == 202
    assert tsg("DELETE", f"/groups/{group['id']}").status_code == 204


def test_a_change_does_not_wait_for_a_valkey_that_hangs(own_valkey: Valkey, make_api: Callable[..., Api]) -> None:
    """Its client waits up to 5 seconds for an answer: nobody else does."""
    tsg = make_api(redis_url=own_valkey.url).new_account()
    template_id = tsg.make_template()
    own_valkey._child.send(signal.SIGSTOP)  # type: ignore[union-attr]
    try:
        answers = [tsg("POST", "/groups", {"group_name": f"web-{number}", "template_id": template_id}) for number in range(3)]
    finally:
        own_valkey._child.send(signal.SIGCONT)  # type: ignore[union-attr]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert sum(answer.elapsed.total_seconds() for answer in answers) < 3


def test_a_change_rings_for_a_worker(own_valkey: Valkey, make_api: Callable[..., Api]) -> None:
    tsg = make_api(redis_url=own_valkey.url).new_account()
    client = redis.Redis.from_url(own_valkey.url)
    queued = f"dramatiq:{CONVERGE}"

    def rung(deed: Callable[[], object]) -> bool:
        before = client.llen(queued)
        deed()
        return wait_for(lambda: client.llen(queued) == before + 1, seconds=10)

    group = tsg.make_group(3)
    assert wait_for(lambda: client.llen(queued) == 1, seconds=10)
    body = {"group_name": group["group_name"], "template_id": group["template_id"], "capacity": 5}
    path = f"/groups/{group['id']}"
    assert rung(lambda: tsg.ok("PUT", path, body))
    assert rung(lambda: tsg.ok("PUT", "/groups", body))
    assert rung(lambda: tsg.ok("PUT", f"{path}/increment", {"instance_count": 1, "max_instance": 9}))
    assert rung(lambda: tsg.ok("PUT", f"{path}/decrement", {"instance_count": 1, "min_instance": 0}))
    assert rung(lambda: tsg.ok("DELETE", path))
    client.close()


def test_a_change_waits_for_no_cloudapi(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    template_id = tsg.make_template()
    api.sim.knobs.turn({"down": True})
    asked = api.sim.cloud.counters.to_json()["requests"]
    tsg.make_group(3, template_id=template_id)
    assert api.sim.cloud.counters.to_json()["requests"] == asked


def test_every_answer_with_a_body_says_the_same_content_type(tsg: Caller) -> None:
    group = tsg.make_group(3)
    path = f"/groups/{group['id']}"
    for method, asked in (("GET", "/groups"), ("GET", path), ("GET", f"{path}/instances"), ("GET", "/x"), ("PATCH", path), ("PUT", path)):
        assert tsg(method, asked, headers={"Accept": "text/html"}).headers["Content-Type"] == JSON
