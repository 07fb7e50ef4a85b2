"""Long lists: whole however large, sent in pieces, and no burden to the process or to others."""

import json
import socket
from collections.abc import Callable
from typing import Any

import falcon.testing
import pytest
import requests

from dev.processes import wait_for
from tests.integration.api.service import Api, Caller, error
from tsg_api.http import paging, slots
from tsg_api.server import channel

MANY = 400
USERDATA_BYTES = 95_000
#: 400 of 95 kB, each text another one.
LARGE_TEMPLATES = (
    "INSERT INTO tsg_templates (template_name, account_id, package, image_id, userdata, created_at)"
    " SELECT 'large-' || n, :owner, 'p', 'i', repeat(md5(CAST(n AS text)), :length / 32), now() + n * interval '1 ms'"
    " FROM generate_series(1, :count) n"
)


def fill(tsg: Caller, count: int = MANY) -> None:
    tsg.api.sql(LARGE_TEMPLATES, owner=tsg.id, length=USERDATA_BYTES, count=count)


def test_a_long_list_is_whole_and_in_order(tsg: Caller) -> None:
    fill(tsg, 30)
    answer = tsg("GET", "/templates")
    found = answer.json()
    assert [one["template_name"] for one in found] == [f"large-{number}" for number in range(1, 31)]
    assert {len(one["userdata"]) for one in found} == {USERDATA_BYTES // 32 * 32}
    assert (answer.headers["X-Resource-Count"], answer.headers.get("Content-Length"), "Link" in answer.headers) == ("30", None, False)
    # A page of it is the same, piece by piece.
    page = tsg("GET", f"/templates?limit=20&marker={found[4]['id']}")
    assert page.json() == found[5:25]
    assert (page.headers["X-Resource-Count"], f"marker={found[24]['id']}" in page.headers["Link"]) == ("30", True)
    head = tsg("HEAD", "/templates")
    assert (head.headers["X-Resource-Count"], head.content, "Content-Length" in head.headers) == ("30", b"", False)


def test_a_list_of_many_small_objects_is_whole(tsg: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "BATCH", 2)
    template_id = tsg.make_template()
    ids = [tsg.make_group(template_id=template_id)["id"] for _ in range(5)]
    assert [one["id"] for one in tsg.ok("GET", "/groups")] == ids
    assert [one["id"] for one in tsg.ok("GET", f"/groups?marker={ids[1]}")] == ids[2:]


def test_what_is_deleted_while_the_list_is_read_is_in_it(tsg: Caller) -> None:
    fill(tsg, 200)  # far more than the sockets' buffers hold
    answer = tsg.api.request("GET", "/v1/tsg/templates", headers=tsg.signed(), stream=True)
    assert tsg.api.slots.lists.held == 1
    tsg.api.sql("UPDATE tsg_templates SET archived = true WHERE account_id = :owner", owner=tsg.id)
    assert len(answer.json()) == 200
    assert tsg.ok("GET", "/templates") == []


def test_readers_that_stall_keep_no_thread_and_are_cut_off(make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch) -> None:
    api = make_api()
    tsg, other = api.new_account(), api.new_account()
    fill(tsg)
    stalled = [stall(tsg) for _ in range(slots.LISTS_OF_ONE)]
    assert wait_for(lambda: api.slots.lists.held == slots.LISTS_OF_ONE, seconds=30)
    assert "long lists" in error(tsg("GET", "/templates"), 503, "ServiceUnavailable")["message"]
    assert other.ok("GET", "/templates") == []
    fill(other, 10)
    assert len(other.ok("GET", "/templates")) == 10
    stalled.pop().close()
    assert wait_for(lambda: api.slots.lists.held < slots.LISTS_OF_ONE, seconds=30)
    monkeypatch.setattr(channel, "STALL_SECONDS", 0.1)
    other.ok("GET", "/groups")  # the server looks at its sockets
    assert wait_for(lambda: other.ok("GET", "/groups") == [] and api.slots.lists.held == 0, seconds=30)
    for one in stalled:
        one.close()


def stall(tsg: Caller) -> socket.socket:
    """Somebody who asks for a list, and does not read it."""
    host, _, port = tsg.api.url.removeprefix("http://").partition(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    headers = "".join(f"{name}: {value}\r\n" for name, value in tsg.signed().items())
    connection.sendall(f"GET /v1/tsg/templates HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    return connection


def test_a_database_that_fails_in_the_middle_cuts_the_answer_off(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    fill(tsg)
    answer = api.request("GET", "/v1/tsg/templates", headers=tsg.signed(), stream=True)
    api.sql("ALTER TABLE tsg_templates RENAME COLUMN userdata TO other")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        _ = answer.content
    assert wait_for(lambda: api.slots.lists.held == 0, seconds=30)
    error(tsg("GET", "/templates"), 500, "InternalError")


def test_another_server_sends_it_whole_too(make_api: Callable[..., Api]) -> None:
    """One that does not ask for the pieces: PEP 3333's own way."""
    api = make_api()
    tsg = api.new_account()
    fill(tsg, 30)
    answer: list[Any] = []
    environ = falcon.testing.create_environ("/v1/tsg/templates", headers=tsg.signed())
    body = api.app(environ, lambda status, headers: answer.extend((status, dict(headers))))
    pieces = list(body)
    assert api.slots.lists.held == 1
    body.close()  # type: ignore[attr-defined] # as PEP 3333 has a server do
    assert api.slots.lists.held == 0
    assert len(pieces) > 2
    assert len(json.loads(b"".join(pieces))) == 30
    assert (answer[0], answer[1]["x-resource-count"]) == ("200 OK", "30")


def test_a_long_page_of_activities_is_whole(api: Api, tsg: Caller) -> None:
    group = tsg.make_group()
    api.sql(
        "INSERT INTO tsg_activities (account_id, group_id, kind, status, description, cause, actor, at)"
        " SELECT :owner, :its_id, 'TSG_GROUP_UPDATE', 'success', n || repeat('ä', 1990), repeat('ö', 1000), 'a', now() + n * interval '1 s'"
        " FROM generate_series(1, 250) n",
        owner=tsg.id,
        its_id=group["id"],
    )
    answer = tsg("GET", f"/groups/{group['id']}/activities?limit=200")
    assert [int(one["description"].rstrip("ä")) for one in answer.json()] == list(range(250, 50, -1))
    assert ("Content-Length" in answer.headers, f"before={answer.json()[-1]['id']}" in answer.headers["Link"]) == (False, True)
