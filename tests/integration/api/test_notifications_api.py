"""Notifications over HTTP: secrets are shown once, URLs are looked at, deliveries are listed and replayed."""

import uuid
from typing import Any

import pytest

from tests.integration.api.service import NOBODY, Caller, error, field_errors

BODY = {"url": "https://hooks.example.com/tsg", "groups": ["*"], "kinds": ["policy.*", "TSG_GROUP_CREATE"]}


def test_a_notification_is_made_shown_changed_and_deleted(tsg: Caller) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    answer = tsg("POST", "/notifications", BODY, headers=headers)
    assert answer.status_code == 201
    made = answer.json()
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert tsg("POST", "/notifications", BODY, headers=headers).json() == made, "the secret is shown once"
    assert {name: made[name] for name in BODY} == BODY
    one = f"/notifications/{made['id']}"
    shown = tsg("GET", one)
    assert (shown.json(), shown.headers["ETag"]) == (made, answer.headers["ETag"])
    changed = tsg("PUT", one, {**BODY, "enabled": False})
    assert (changed.status_code, changed.json()["enabled"]) == (200, False)
    error(tsg("DELETE", one, headers={"If-Match": shown.headers["ETag"]}), 412, "PreconditionFailed")
    rotated = tsg.ok("POST", f"{one}/rotate")
    assert rotated["secret"] not in {secret, ""}
    for (table,) in tsg.api.sql("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"):
        for one_secret in (secret, rotated["secret"]):
            found = tsg.api.sql(f"SELECT count(*) FROM {table} AS one WHERE CAST(one AS text) LIKE :it", it=f"%{one_secret}%")
            assert found[0][0] == 0, table
    assert [one["id"] for one in tsg.ok("GET", "/notifications")] == [made["id"]]
    assert tsg("DELETE", one).status_code == 204
    assert tsg.ok("GET", "/notifications") == []


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {"url"}),
        ({"url": "http://example.com"}, {"url"}),
        ({"url": "https://127.0.0.1/"}, {"url"}),
        ({"url": "https://example.com", "groups": [], "kinds": ["all"], "enabled": 1}, {"groups", "kinds", "enabled"}),
        ({"url": "https://example.com", "groups": [NOBODY]}, {"groups"}),
    ],
)
def test_what_is_wrong_is_told(tsg: Caller, body: dict[str, Any], wrong: set[str]) -> None:
    assert set(field_errors(tsg("POST", "/notifications", body))) == wrong


def test_deliveries_are_listed_and_replayed(tsg: Caller, stranger: Caller) -> None:
    made = tsg.ok("POST", "/notifications", BODY)
    group = tsg.make_group(1)
    tsg.make_group(1)
    where = f"/notifications/{made['id']}/deliveries"
    page = tsg("GET", f"{where}?limit=1&state=waiting")
    (newest,) = page.json()
    assert (newest["kind"], newest["state"], newest["attempts"]) == ("TSG_GROUP_CREATE", "waiting", 0)
    (oldest,) = tsg.ok("GET", page.headers["Link"].split(";")[0].strip("<>").removeprefix("/v1/tsg"))
    assert oldest["group_id"] == group["id"]
    assert tsg("POST", f"{where}/{newest['id']}/replay").status_code == 202
    error(tsg("POST", f"{where}/{NOBODY}/replay"), 404, "ResourceNotFound")
    assert set(field_errors(tsg("GET", f"{where}?state=lost&before=x"))) == {"state", "before"}
    for method, path, body in (
        ("GET", "", None),
        ("PUT", "", BODY),
        ("DELETE", "", None),
        ("POST", "/rotate", None),
        ("GET", "/deliveries", None),
        ("POST", f"/deliveries/{newest['id']}/replay", None),
    ):
        error(stranger(method, f"/notifications/{made['id']}{path}", body), 404, "ResourceNotFound")
    assert stranger.ok("GET", "/notifications") == []


def test_an_account_has_at_most_so_many(tsg: Caller) -> None:
    for _ in range(20):
        tsg.ok("POST", "/notifications", BODY)
    error(tsg("POST", "/notifications", BODY), 409, "Conflict")
