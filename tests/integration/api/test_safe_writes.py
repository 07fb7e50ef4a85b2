"""Writes that may be sent again (`Idempotency-Key`), and writes that touch only what the caller has seen (`ETag`, `If-Match`)."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from sqlalchemy import Connection, event

from dev.processes import wait_for
from shared.state import idempotency
from shared.state.idempotency import Answer
from tests.integration.api.service import NOBODY, Api, Caller, error, field_errors, template_body, together

KEY = {"Idempotency-Key": "a key"}
#: What of an answer is the same whenever it is given.
KEPT = ("Location", "ETag", "Content-Type")
STEP = {"instance_count": 2, "max_instance": 90}
DOWN = {"instance_count": 2, "min_instance": 0}


def same(first: requests.Response, again: requests.Response) -> None:
    """The second is the first, told again."""
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert [again.headers.get(name) for name in KEPT] == [first.headers.get(name) for name in KEPT]


def as_body(group: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {name: group[name] for name in ("group_name", "template_id", "capacity")} | changes


# Idempotency-Key


def test_every_write_is_done_once_and_answered_as_often_as_it_is_asked_for(tsg: Caller) -> None:
    group = tsg.make_group(10)
    path = f"/groups/{group['id']}"
    spare = tsg.make_template()
    for number, (method, where, body) in enumerate(
        [
            ("POST", "/templates", template_body()),
            ("POST", "/groups", as_body(group, group_name="new")),
            ("PUT", path, as_body(group, capacity=20)),
            ("PUT", "/groups", as_body(group, capacity=30)),
            ("PUT", f"{path}/increment", STEP),
            ("PUT", f"{path}/decrement", DOWN),
            ("DELETE", path, None),
            ("DELETE", f"/templates/{spare}", None),
        ]
    ):
        key = {"Idempotency-Key": f"write {number}"}
        first = tsg(method, where, body, headers=key)
        assert first.ok, first.text
        assert "Idempotency-Replayed" not in first.headers
        before = tsg.api.sql("SELECT name, capacity, generation FROM tsg_groups WHERE account_id = :id ORDER BY name", id=tsg.id)
        same(first, tsg(method, where, body, headers=key))
        assert before == tsg.api.sql("SELECT name, capacity, generation FROM tsg_groups WHERE account_id = :id ORDER BY name", id=tsg.id)


def test_an_answer_is_given_again_when_its_object_is_long_gone_or_changed(tsg: Caller) -> None:
    template_id = tsg.make_template()
    body = {"group_name": "web", "template_id": template_id, "capacity": 1}
    first = tsg("POST", "/groups", body, headers=KEY)
    tsg.ok("PUT", f"/groups/{first.json()['id']}", body | {"capacity": 5})
    same(first, tsg("POST", "/groups", body, headers=KEY))
    tsg.ok("DELETE", f"/groups/{first.json()['id']}")
    same(first, tsg("POST", "/groups", body, headers=KEY))
    assert tsg.ok("GET", "/groups") == []


def test_eight_at_once_under_one_key_count_once(tsg: Caller) -> None:
    group = tsg.make_group(10)
    path = f"/groups/{group['id']}/increment"
    answers = together(8, lambda _number: tsg("PUT", path, STEP, headers=KEY))
    assert {answer.status_code for answer in answers} == {202}
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert tsg.capacity(group) == 12


def test_eight_creates_at_once_under_one_key_are_one_and_all_are_201(tsg: Caller) -> None:
    answers = together(8, lambda _number: tsg("POST", "/templates", template_body(), headers=KEY))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert len(tsg.ok("GET", "/templates")) == 1


@pytest.mark.parametrize(
    ("method", "where", "body"),
    [
        ("POST", "/templates", template_body(userdata="other")),
        ("POST", "/templates?x=1", template_body()),
        ("POST", "/groups", template_body()),
        ("DELETE", f"/templates/{NOBODY}", None),
    ],
)
def test_a_key_stands_for_one_request(tsg: Caller, method: str, where: str, body: object) -> None:
    tsg("POST", "/templates", template_body(), headers=KEY)
    told = field_errors(tsg(method, where, body, headers=KEY))
    assert told == {"Idempotency-Key": "this Idempotency-Key was used for another request in the last 24 hours"}
    assert len(tsg.ok("GET", "/templates")) == 1


def test_a_key_is_the_accounts_own(tsg: Caller, stranger: Caller) -> None:
    one, other = (caller("POST", "/templates", template_body(), headers=KEY) for caller in (tsg, stranger))
    assert one.json()["id"] != other.json()["id"]


def test_what_was_refused_may_be_sent_again_under_its_key(tsg: Caller) -> None:
    """It changed nothing, and may be right by now."""
    taken = tsg.ok("POST", "/templates", template_body())
    error(tsg("POST", "/templates", template_body(), headers=KEY), 409, "Conflict")
    error(tsg("POST", "/templates", {}, headers=KEY), 422, "InvalidArgument")
    tsg.ok("DELETE", f"/templates/{taken['id']}")
    first = tsg("POST", "/templates", template_body(), headers=KEY)
    assert first.status_code == 201
    same(first, tsg("POST", "/templates", template_body(), headers=KEY))


@pytest.mark.parametrize("key", ["", "x" * 256, "ä".encode(), "a\tb"])
def test_a_key_that_is_none_is_422(tsg: Caller, key: str | bytes) -> None:
    answer = tsg("POST", "/templates", template_body(), headers={"Idempotency-Key": key})  # type: ignore[dict-item]
    assert field_errors(answer) == {"Idempotency-Key": "Idempotency-Key must have 1 to 255 printable ASCII characters"}
    assert tsg.ok("GET", "/templates") == []


@pytest.mark.parametrize("key", ["x", "x" * 255, "{'\"%} ~", "8e03978e-40d5-43e8-bc93-6894a57f9324"])
def test_a_key_that_will_do(tsg: Caller, key: str) -> None:
    headers = {"Idempotency-Key": key}
    same(*(tsg("POST", "/templates", template_body(), headers=headers) for _ in range(2)))


def test_a_key_on_a_get_means_nothing(tsg: Caller) -> None:
    assert [tsg("GET", path, headers=KEY).status_code for path in ("/groups", "/templates")] == [200, 200]


@pytest.mark.parametrize("name", ["%ED%A0%80", "%ff", "%00", "%F0%9F%98%80", "x?%ED%A0%80=%ff"])
def test_a_key_on_a_path_of_strange_bytes_is_404_all_the_same(tsg: Caller, name: str) -> None:
    for _ in range(2):
        error(tsg("DELETE", f"/groups/{name}", headers=KEY), 404, "ResourceNotFound")


def test_a_key_makes_no_method_of_what_is_none(tsg: Caller) -> None:
    tsg("POST", "/templates", template_body(), headers=KEY)
    error(tsg("PUT", "/templates", template_body(), headers=KEY), 405, "MethodNotAllowed")


def test_a_key_is_remembered_for_24_hours(tsg: Caller) -> None:
    first = tsg("POST", "/templates", template_body(), headers=KEY)
    age = "UPDATE tsg_idempotency_keys SET created_at = now() - CAST(:age AS interval) WHERE account_id = :id"
    tsg.api.sql(age, age="23 hours 59 minutes", id=tsg.id)
    same(first, tsg("POST", "/templates", template_body(), headers=KEY))
    tsg.api.sql(age, age="24 hours 1 second", id=tsg.id)
    second = tsg("POST", "/templates", template_body(template_name="other"), headers=KEY)
    assert second.status_code == 201
    same(second, tsg("POST", "/templates", template_body(template_name="other"), headers=KEY))


def test_keys_are_forgotten_in_batches_the_oldest_first(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    for number in range(5):
        tsg("POST", "/templates", template_body(template_name=f"t{number}"), headers={"Idempotency-Key": str(number)})
    api.sql("UPDATE tsg_idempotency_keys SET created_at = now() - (30 - CAST(key AS integer)) * interval '1 hour' WHERE key <> '4'")
    assert [api.db.transact(lambda connection: idempotency.delete_old(connection, limit=3)) for _ in range(3)] == [3, 1, 0]
    assert api.sql("SELECT key FROM tsg_idempotency_keys") == [("4",)]


@contextmanager
def held(tsg: Caller, answer: Answer | None) -> Iterator[None]:
    """Another request holds the key until the block ends; it then has given its answer, or, without one, has failed."""
    done = tsg("POST", "/templates", template_body(), headers={"Idempotency-Key": "another key"})
    tsg.ok("DELETE", f"/templates/{done.json()['id']}")
    ((request,),) = tsg.api.sql("SELECT request FROM tsg_idempotency_keys WHERE account_id = :id", id=tsg.id)
    with tsg.api.db.engine.connect() as connection:
        assert idempotency.claim(connection, tsg.id, "a key", request)
        yield
        if answer:
            idempotency.mark_answered(connection, tsg.id, "a key", answer)
            connection.commit()


@pytest.mark.parametrize("answer", [Answer(201, '{"id": "x"}', "/there", '"tag"'), None])
def test_the_same_key_while_the_first_is_under_way_waits_for_it(tsg: Caller, answer: Answer | None) -> None:
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO tsg_idempotency_keys%'"
    with ThreadPoolExecutor(1) as pool:
        with held(tsg, answer):
            second = pool.submit(lambda: tsg("POST", "/templates", template_body(), headers=KEY))
            assert wait_for(lambda: bool(tsg.api.sql(waits)), seconds=20)
            assert not second.done()
        told = second.result(timeout=30)
    if answer:
        assert (told.status_code, told.text, told.headers["Location"], told.headers["ETag"]) == answer
        assert tsg.ok("GET", "/templates") == []
    else:
        assert tsg.ok("GET", "/templates") == [told.json()]


@pytest.mark.parametrize("is_committed", [False, True])
def test_a_database_that_goes_away_during_a_commit_leaves_nobody_in_doubt_who_has_a_key(
    make_api: Callable[..., Api], is_committed: bool
) -> None:
    api = make_api()
    tsg = api.new_account()
    group = tsg.make_group(10)
    path = f"/groups/{group['id']}/increment"

    def go_away(connection: Connection) -> None:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        pid = raw.info.backend_pid
        if is_committed:
            raw.commit()
            connection.exec_driver_sql("SELECT 1")  # a new transaction, that there may be a commit that fails
        api.sql("SELECT pg_terminate_backend(:pid)", pid=pid)
        assert wait_for(lambda: not api.sql("SELECT 1 FROM pg_stat_activity WHERE pid = :pid", pid=pid), seconds=10)

    event.listen(api.db.engine, "commit", go_away, once=True)
    told = error(tsg("PUT", path, STEP, headers=KEY), 503, "ServiceUnavailable")
    assert "nobody knows" in told["message"]
    again = tsg("PUT", path, STEP, headers=KEY)
    assert (again.status_code, again.headers.get("Idempotency-Replayed")) == (202, "true" if is_committed else None)
    assert tsg.capacity(group) == 12


def test_without_a_key_not_a_statement_more_is_sent(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    group = tsg.make_group(3)
    sent: list[str] = []
    lock = threading.Lock()

    def gather(_connection: object, _cursor: object, statement: str, *_more: object) -> None:
        with lock:
            sent.append(statement)

    for engine in (api.db.engine, api.db.reader):
        event.listen(engine, "before_cursor_execute", gather)
    assert tsg("PUT", f"/groups/{group['id']}/increment", STEP).status_code == 202
    assert tsg("POST", "/groups", {"group_name": "another", "template_id": group["template_id"], "capacity": 1}).status_code == 201
    assert not sent, "their own statements are run by the driver"


# ETag and If-Match


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("value", ["", '"a"' + ", " * 4000 + "x", '"a"' + "," * 8000 + "x", " ," * 4000 + "x"])
def test_what_is_no_list_of_tags_is_refused_and_takes_no_time(tsg: Caller, header: str, value: str) -> None:
    group = tsg.make_group(1)
    told = tsg("PUT", f"/groups/{group['id']}", as_body(group), headers={header: value.strip()})
    assert set(field_errors(told)) == {header}


def writes(group: dict[str, Any]) -> list[tuple[str, str, Any]]:
    path = f"/groups/{group['id']}"
    steps = [("PUT", f"{path}/increment", STEP), ("PUT", f"{path}/decrement", DOWN)]
    return [("PUT", path, as_body(group)), ("PUT", "/groups", as_body(group)), *steps, ("DELETE", path, None)]


def etag(tsg: Caller, group: dict[str, Any]) -> str:
    return tsg("GET", f"/groups/{group['id']}").headers["ETag"]


def test_a_group_says_its_etag_wherever_it_is_shown_alone_and_each_change_makes_a_new_one(tsg: Caller) -> None:
    made = tsg("POST", "/groups", {"group_name": "web", "template_id": tsg.make_template(), "capacity": 10})
    group = made.json()
    tags = [made.headers["ETag"]]
    assert tags[0] == etag(tsg, group)
    for method, where, body in writes(group)[:-1]:
        answer = tsg(method, where, body)
        tags.append(etag(tsg, group))
        assert answer.headers.get("ETag", tags[-1]) == tags[-1]
    assert len(set(tags)) == len(tags)
    assert all(tag.startswith('"') for tag in tags), "strong ones"


def test_a_template_has_one_etag_for_ever(tsg: Caller) -> None:
    made = tsg("POST", "/templates", template_body())
    path = f"/templates/{made.json()['id']}"
    assert made.headers["ETag"] == tsg("GET", path).headers["ETag"] == f'"{made.json()["id"]}"'
    error(tsg("DELETE", path, headers={"If-Match": '"other"'}), 412, "PreconditionFailed")
    assert tsg("DELETE", path, headers={"If-Match": made.headers["ETag"]}).status_code == 204
    error(tsg("DELETE", path, headers={"If-Match": made.headers["ETag"]}), 404, "ResourceNotFound")


@pytest.mark.parametrize("form", ["{}", "*", '"other", {}', '{} , "other"', ',{},, W/"x"'])
def test_a_write_of_what_was_read_is_done(tsg: Caller, form: str) -> None:
    group = tsg.make_group(10)
    for method, where, body in writes(group):
        answer = tsg(method, where, body, headers={"If-Match": form.format(etag(tsg, group))})
        assert answer.ok, answer.text


@pytest.mark.parametrize("form", ["{}", '"other"', 'W/{current}, "other"', '""'])
def test_a_write_of_what_was_changed_meanwhile_is_412_and_changes_nothing(tsg: Caller, form: str) -> None:
    group = tsg.make_group(10)
    seen = etag(tsg, group)
    tsg.ok("PUT", f"/groups/{group['id']}", as_body(group, capacity=11))
    current = etag(tsg, group)
    for method, where, body in writes(group):
        told = error(tsg(method, where, body, headers={"If-Match": form.format(seen, current=current)}), 412, "PreconditionFailed")
        assert current in told["message"]
    assert (tsg.capacity(group), etag(tsg, group)) == (11, current)


def test_of_eight_writes_of_what_was_read_one_is_done(tsg: Caller) -> None:
    group = tsg.make_group(10)
    headers = {"If-Match": etag(tsg, group)}
    path = f"/groups/{group['id']}/increment"
    answers = together(8, lambda _number: tsg("PUT", path, STEP, headers=headers).status_code)
    assert sorted(answers) == [202] + [412] * 7
    assert tsg.capacity(group) == 12


def test_a_group_of_the_same_name_is_not_the_one_that_was_read(tsg: Caller) -> None:
    old = tsg.make_group(1, group_name="web")
    seen = etag(tsg, old)
    tsg.ok("DELETE", f"/groups/{old['id']}")
    new = tsg.make_group(1, group_name="web")
    error(tsg("PUT", "/groups", as_body(new), headers={"If-Match": seen}), 412, "PreconditionFailed")


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
@pytest.mark.parametrize("value", ["x", '"a', '"a" "b"', '*, "a"', ",", 'w/"a"', '"a b"', '"' * 3])
def test_an_entity_tag_that_is_none_is_422(tsg: Caller, header: str, value: str) -> None:
    group = tsg.make_group(10)
    for method, where, body in writes(group):
        assert set(field_errors(tsg(method, where, body, headers={header: value}))) == {header}
    assert tsg.capacity(group) == 10


def test_what_the_caller_has_is_304_without_a_body(tsg: Caller) -> None:
    group = tsg.make_group(10)
    for path in (f"/groups/{group['id']}", f"/templates/{group['template_id']}"):
        tag = tsg("GET", path).headers["ETag"]
        for form in (tag, f"W/{tag}", "*", f'"other", {tag}'):
            answer = tsg("GET", path, headers={"If-None-Match": form})
            assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", tag)
        assert tsg("GET", path, headers={"If-None-Match": '"other"'}).status_code == 200
        error(tsg("GET", path, headers={"If-Match": '"other"'}), 412, "PreconditionFailed")
    error(tsg("PUT", f"/groups/{group['id']}", as_body(group), headers={"If-None-Match": "*"}), 412, "PreconditionFailed")


def test_an_answer_kept_under_a_key_is_given_whatever_the_etag_is_by_now(tsg: Caller) -> None:
    group = tsg.make_group(10)
    headers = {**KEY, "If-Match": etag(tsg, group)}
    path = f"/groups/{group['id']}"
    first = tsg("PUT", path, as_body(group, capacity=20), headers=headers)
    tsg.ok("PUT", path, as_body(group, capacity=30))
    same(first, tsg("PUT", path, as_body(group, capacity=20), headers=headers))
    assert tsg.capacity(group) == 30
