"""Lists in pages, and HEAD."""

import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from tests.integration.api.service import NOBODY, Caller, error, field_errors
from tests.integration.api.test_instances_api import launch_for
from tsg_api.http import paging


@pytest.fixture(params=["templates", "groups"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(tsg: Caller, kind: str, number: int) -> list[str]:
    """So many objects, in the order in which they were made."""
    if kind == "templates":
        return [tsg.make_template() for _ in range(number)]
    template_id = tsg.make_template()
    return [tsg.make_group(template_id=template_id)["id"] for _ in range(number)]


def pages(tsg: Caller, path: str, between: Callable[[int], object] = lambda _page: None) -> Iterator[list[Any]]:
    """The pages, as a client reads them that follows the links."""
    for number in count(1):
        answer = tsg("GET", path)
        assert answer.status_code == 200, answer.text
        yield [one["id"] for one in answer.json()]
        if "Link" not in answer.headers:
            return
        link = re.fullmatch(r'</v1/tsg(/[^>]+)>; rel="next"', answer.headers["Link"])
        assert link, answer.headers["Link"]
        path = link[1]
        between(number)


def test_a_list_without_a_limit_is_all_and_says_how_many(tsg: Caller, kind: str) -> None:
    ids = make(tsg, kind, 3)
    answer = tsg("GET", f"/{kind}")
    assert [one["id"] for one in answer.json()] == ids
    assert answer.headers["X-Resource-Count"] == "3"
    assert "Link" not in answer.headers


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (6, [5]), (1000, [5])])
def test_the_pages_are_the_list(tsg: Caller, kind: str, limit: int, sizes: list[int]) -> None:
    ids = make(tsg, kind, 5)
    found = list(pages(tsg, f"/{kind}?limit={limit}"))
    assert [len(page) for page in found] == sizes
    assert [one for page in found for one in page] == ids
    for marker in ("", f"&marker={ids[1]}", f"&marker={ids[4].upper()}"):
        assert tsg("GET", f"/{kind}?limit={limit}{marker}").headers["X-Resource-Count"] == "5"


def test_a_list_without_a_limit_that_is_too_long_goes_on_too(tsg: Caller, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MOST", 2)
    ids = make(tsg, kind, 5)
    assert list(pages(tsg, f"/{kind}")) == [ids[:2], ids[2:4], ids[4:]]
    assert tsg("GET", f"/{kind}").headers["X-Resource-Count"] == "5"


def test_a_marker_without_a_limit_gives_the_rest(tsg: Caller, kind: str) -> None:
    ids = make(tsg, kind, 3)
    assert [one["id"] for one in tsg.ok("GET", f"/{kind}?marker={ids[0]}")] == ids[1:]
    assert tsg.ok("GET", f"/{kind}?marker={ids[2]}") == []


def test_pages_stay_right_while_objects_come_and_go(tsg: Caller, kind: str) -> None:
    """The marker itself is deleted, too: its place is known all the same."""
    ids = make(tsg, kind, 6)

    def between(page: int) -> None:
        make(tsg, kind, 1)
        if page == 1:
            tsg.ok("DELETE", f"/{kind}/{ids[0]}")
            tsg.ok("DELETE", f"/{kind}/{ids[1]}")

    found = [one for page in pages(tsg, f"/{kind}?limit=2", between) for one in page]
    assert found[:6] == ids
    assert len(set(found)) == len(found)


def test_objects_made_in_one_moment_have_an_order_too(tsg: Caller, kind: str) -> None:
    ids = make(tsg, kind, 5)
    tsg.api.sql(f"UPDATE tsg_{kind} SET created_at = now() WHERE account_id = :id", id=tsg.id)
    assert [one for page in pages(tsg, f"/{kind}?limit=2") for one in page] == sorted(ids)


def test_a_marker_of_nobodys_or_of_another_account_is_422(tsg: Caller, stranger: Caller, kind: str) -> None:
    (foreign,) = make(stranger, kind, 1)
    for marker in (NOBODY, foreign):
        told = field_errors(tsg("GET", f"/{kind}?marker={marker}"))
        assert told == {"marker": f"marker: there is nothing with the id {marker} in this list"}


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "", "1.5", "1e1", "9" * 30, "%31%00", "+5", "٣", "1&limit=2"])
@pytest.mark.parametrize("path", ["/templates", "/groups", "instances"])
def test_a_wrong_limit_and_a_wrong_marker_are_told_together(tsg: Caller, path: str, limit: str) -> None:
    where = f"/groups/{tsg.make_group()['id']}/instances" if path == "instances" else path
    assert field_errors(tsg("GET", f"{where}?limit={limit}&marker=x")) == {
        "limit": "limit must be an integer from 1 to 1000",
        "marker": "marker must be the id of the last object of the page before",
    }


def test_other_parameters_mean_nothing(tsg: Caller, kind: str) -> None:
    ids = make(tsg, kind, 3)
    found = list(pages(tsg, f"/{kind}?limit=2&x=a%26b%22%3E&x=%0d%0a&%ff%ED%A0%80=&y=é"))
    assert found == [ids[:2], ids[2:]]


def test_a_page_is_found_by_its_index(tsg: Caller, kind: str) -> None:
    where = f"FROM tsg_{kind} WHERE account_id = '{NOBODY}' AND NOT archived AND (created_at, id) > (now(), '{NOBODY}')"
    with tsg.api.db.engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN SELECT id {where} ORDER BY created_at, id LIMIT 3").scalars())
    assert f"tsg_{kind}_listed" in plan
    assert "Sort" not in plan


def test_instances_come_in_pages_in_the_order_of_their_ids(tsg: Caller) -> None:
    group = tsg.make_group(5)
    path = f"/groups/{group['id']}/instances"
    ids = sorted(launch_for(tsg, group) for _ in range(5))
    assert [one for page in pages(tsg, f"{path}?limit=2") for one in page] == ids
    assert tsg("GET", f"{path}?limit=2").headers["X-Resource-Count"] == tsg("GET", path).headers["X-Resource-Count"] == "5"
    gone = ids[1].replace("0", "1") if "0" in ids[1] else ids[1]
    assert [one["id"] for one in tsg.ok("GET", f"{path}?marker={gone}")] == [one for one in ids if one > gone]


# HEAD


def test_head_is_a_get_without_its_body(tsg: Caller) -> None:
    group = tsg.make_group()
    for path in (
        "/templates",
        "/groups?limit=1",
        f"/groups/{group['id']}",
        f"/templates/{group['template_id']}",
        f"/groups/{group['id']}/instances",
    ):
        get, head = tsg("GET", path), tsg("HEAD", path)
        assert (head.status_code, head.content) == (get.status_code, b"") == (200, b"")
        for name in ("Content-Type", "Content-Length", "ETag", "Link", "X-Resource-Count"):
            assert head.headers.get(name) == get.headers.get(name)
    assert tsg("HEAD", f"/groups/{NOBODY}").status_code == 404
    assert tsg.api.request("HEAD", "/v1/tsg/groups").status_code == 401
    assert tsg("HEAD", f"/groups/{group['id']}/increment").status_code == 405


def test_options_says_what_there_is(tsg: Caller) -> None:
    answer = tsg("OPTIONS", "/groups")
    assert answer.status_code == 200
    assert set(re.split(r",\s*", answer.headers["Allow"])) == {"GET", "HEAD", "POST", "PUT"}
    error(tsg.api.request("OPTIONS", "/v1/tsg/groups"), 401, "InvalidCredentials")
