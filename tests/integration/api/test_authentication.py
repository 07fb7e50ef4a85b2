"""Who may call, and how an account gets its management key."""

import base64
import hashlib
import json
import re
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes

from dev.processes import wait_for
from dev.sim.cloudapi import accounts as triton
from shared.clients import keys
from shared.clients.keys import KeyPair
from shared.state import accounts
from tests.conftest import new_pair
from tests.integration.api.service import KEY_NAME, NOBODY, PAIR, Api, Caller, error, legacy, modern, now, sign, template_body, together
from tsg_api.auth.development import DevelopmentMode
from tsg_api.auth.vouching import NOT_PROVEN

OTHER = new_pair()


def get(api: Api, headers: Mapping[str, str | bytes], path: str = "/v1/tsg/groups", **more: Any) -> Any:
    return api.request("GET", path, headers=dict(headers), **more)


def unauthenticated(answer: Any) -> str:
    """The message of a 401 that says how to do better."""
    assert answer.headers.get("WWW-Authenticate") == "Signature", answer.text
    return str(error(answer, 401, "InvalidCredentials")["message"])


@pytest.fixture
def newcomer(api: Api) -> Caller:
    """An account that is enabled and has not called yet."""
    account = api.new_triton()
    api.enable(account)
    return Caller(api, account)


def key_rows(api: Api, account: triton.Account) -> list[Any]:
    return api.sql(
        "SELECT k.* FROM tsg_keys k JOIN tsg_accounts a ON a.id = k.account_id WHERE a.triton_uuid = :uuid ORDER BY k.created_at",
        uuid=account.id,
    )


def management_keys(account: triton.Account) -> list[str]:
    """The fingerprints that CloudAPI has under the name of the management key."""
    return [key.fingerprint for key in account.keys if key.name == KEY_NAME]


def enrolled_once(api: Api, account: triton.Account) -> None:
    """One management key, the same here and in CloudAPI."""
    (row,) = key_rows(api, account)
    assert management_keys(account) == [row.fingerprint]
    assert row.name == KEY_NAME
    assert row.registered_at is not None
    assert [key.name for key in account.keys].count(KEY_NAME) == 1


# Forms

FORMS: dict[str, Callable[[str, str], dict[str, str]]] = {"legacy": legacy, "modern": modern}


def dates() -> dict[str, str]:
    moment = datetime.now(UTC)
    return {
        "GMT": now(),
        "UTC, as Go sends it": now().replace("GMT", "UTC"),
        "offset": now().replace("GMT", "+0000"),
        "a zone of its own": (moment + timedelta(hours=2)).strftime("%a, %d %b %Y %H:%M:%S +0200"),
        "ISO": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ISO with microseconds": moment.isoformat(),
    }


@pytest.mark.parametrize("date", dates())
@pytest.mark.parametrize("form", FORMS)
def test_both_forms_and_every_date_are_taken_at_first_and_later(newcomer: Caller, form: str, date: str) -> None:
    for _ in range(2):
        assert get(newcomer.api, FORMS[form](newcomer.key_id, dates()[date])).status_code == 200


@pytest.mark.parametrize("login", ["abc", "a-b", "joe.user_9@example.com", "x" * 32])
def test_names_of_accounts(api: Api, login: str) -> None:
    account = api.new_triton(login)
    api.enable(account)
    assert get(api, legacy(f"/{login}/keys/{PAIR.fingerprint}", now())).status_code == 200


def test_an_account_may_be_named_by_its_uuid(newcomer: Caller) -> None:
    made = newcomer.make_group(3)
    by_uuid = legacy(f"/{newcomer.triton.id}/keys/{PAIR.fingerprint}", now())
    assert get(newcomer.api, by_uuid).json() == [made]


def test_an_account_may_be_named_by_its_uuid_from_the_first(newcomer: Caller) -> None:
    assert get(newcomer.api, legacy(f"/{newcomer.triton.id}/keys/{PAIR.fingerprint}", now())).status_code == 200
    enrolled_once(newcomer.api, newcomer.triton)


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha512"])
def test_rsa_with_any_digest_of_cloudapi(newcomer: Caller, digest: str) -> None:
    algorithm = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha512": hashes.SHA512()}[digest]
    date = now()
    signature = sign(f"date: {date}", digest=algorithm)
    header = f'Signature keyId="{newcomer.key_id}",algorithm="rsa-{digest}",headers="date",signature="{signature}"'
    for _ in range(2):
        assert get(newcomer.api, {"Date": date, "Authorization": header}).status_code == 200


@pytest.mark.parametrize("has_slash", [False, True])
def test_a_key_of_a_known_account_may_be_named_by_its_sha256_fingerprint(newcomer: Caller, *, has_slash: bool) -> None:
    pairs = iter(keys.generate, None)
    pair = next(pair for pair in pairs if ("/" in keys.sha256_fingerprint(pair.public_line)) == has_slash)
    newcomer.triton.keys.add(f"{pair.public_line} second")
    headers = legacy(f"/{newcomer.login}/keys/{keys.sha256_fingerprint(pair.public_line)}", now(), pair=pair)
    assert "signs the Date alone" in unauthenticated(get(newcomer.api, headers))
    newcomer.ok("GET", "/groups")
    assert get(newcomer.api, headers).status_code == 200


def signed_more(caller: Caller, *names: str, **values: str) -> dict[str, str]:
    """Headers of a signature over more than the date. `values` are those of the names, `-` being `_`."""
    values = {"date": now(), **values}
    lines = [f"{name}: {values[name.strip('()').replace('-', '_')]}" for name in names]
    text = "\n".join(lines)
    header = f'Signature keyId="{caller.key_id}",algorithm="rsa-sha256",headers="{" ".join(names)}",signature="{sign(text)}"'
    sent = {name: values[name.replace("-", "_")] for name in names if name != "(request-target)"}
    return {"Authorization": header, **sent}


def test_a_signature_over_the_request_line_holds_for_that_request_alone(newcomer: Caller) -> None:
    newcomer.ok("GET", "/groups")
    headers = signed_more(newcomer, "(request-target)", "date", request_target="get /v1/tsg/groups?a=%2F")
    assert get(newcomer.api, headers, "/v1/tsg/groups?a=%2F").status_code == 200
    for path in ("/v1/tsg/groups?a=/", "/v1/tsg/groups", "/v1/tsg/templates?a=%2F"):
        assert unauthenticated(get(newcomer.api, headers, path)) == NOT_PROVEN
    assert unauthenticated(newcomer.api.request("POST", "/v1/tsg/groups?a=%2F", headers=headers))


def test_a_value_that_the_legacy_form_signed_for_one_header_does_not_pass_for_that_of_another(newcomer: Caller) -> None:
    api, path = newcomer.api, "/v1/tsg/templates"
    newcomer.ok("GET", "/groups")
    date, body, other = now(), b'{"template_name": "captured"}', json.dumps(template_body(template_name="of-a-thief")).encode()

    def digest(of: bytes) -> str:
        return "SHA-256=" + base64.b64encode(hashlib.sha256(of).digest()).decode()

    signature = sign(f"{date}\n{digest(body)}")
    for names, sent in {
        "date digest": {"Digest": digest(body)},
        "date x-any": {"X-Any": digest(body), "Digest": digest(other)},
        "x-any x-other": {"X-Any": date, "X-Other": digest(body)},
        "date date": {},
        "x-date": {"X-Date": date},
        "date (request-target)": {},
        "date host": {},
        "": {},
    }.items():
        text = "\n".join({"date": date, "digest": digest(body), "x-any": digest(body)}.get(name, date) for name in names.split())
        for signed in {signature, sign(text), sign(date)}:
            header = f'Signature keyId="{newcomer.key_id}",algorithm="rsa-sha256",headers="{names}" {signed}'
            told = unauthenticated(api.request("POST", path, data=other, headers={"Date": date, "Authorization": header, **sent}))
            assert "signs the Date alone" in told, names
    assert newcomer.ok("GET", "/templates") == []


@pytest.mark.parametrize("key", [".", ".."])
@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_never_a_step_in_a_path_of_cloudapi(newcomer: Caller, form: str, key: str) -> None:
    before = newcomer.api.sim.cloud.counters.to_json()["requests"]
    for key_id in (f"/{newcomer.login}/keys/{key}", f"/{newcomer.login}/users/robin/keys/{key}"):
        assert "keyId names no key" in unauthenticated(get(newcomer.api, FORMS[form](key_id, now())))
    assert newcomer.api.sim.cloud.counters.to_json()["requests"] == before


def test_a_stranger_must_first_sign_the_date_alone(newcomer: Caller) -> None:
    headers = signed_more(newcomer, "(request-target)", "date", request_target="get /v1/tsg/groups")
    assert "signs the Date alone" in unauthenticated(get(newcomer.api, headers))


def raw(api: Api, *lines: str, body: bytes = b"") -> int:
    """The status of a request that goes out byte by byte as it stands here."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "Host: x", f"Content-Length: {len(body)}", "Connection: close", "", ""]).encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split(b" ", 2)[1])


def test_headers_that_come_twice_folded_or_by_another_spelling_prove_nothing(newcomer: Caller) -> None:
    api = newcomer.api
    newcomer.ok("GET", "/groups")
    path, body, other = "/v1/tsg/templates", b"{}", json.dumps(template_body()).encode()
    digest, others = ("SHA-256=" + base64.b64encode(hashlib.sha256(of).digest()).decode() for of in (body, other))
    signed = signed_more(newcomer, "(request-target)", "date", "digest", request_target=f"post {path}", digest=digest)
    date, authorization = f"Date: {signed['date']}", f"Authorization: {signed['Authorization']}"
    line = f"POST {path} HTTP/1.1"
    assert raw(api, line, date, authorization, f"Digest: {digest}", body=body) == 422, "it is known who sent it, and the body is none"
    for more in (
        [f"Digest: {digest}", f"Digest: {others}"],
        [f"Digest: {others}", f"Digest: {digest}"],
        [f"Digest: {digest},{others}"],
        [f"Digest: {digest}\r\n {others}"],
        [f"Digest: {digest}", f"Content-Encoding: identity\r\nDigest : {others}"],
        [f"Digest_: {digest}", f"Digest: {others}"],
        [f"Digest: {digest}"],
    ):
        assert raw(api, line, date, authorization, *more, body=other) in {400, 401}, more
    plain = newcomer.signed()
    mine, late = f"Authorization: {plain['Authorization']}", f"Date: {now(250)}"
    for lines in ([mine, mine, f"Date: {plain['Date']}"], [mine, f"Date: {plain['Date']}", late], [mine, late, f"Date: {plain['Date']}"]):
        assert raw(api, "GET /v1/tsg/groups HTTP/1.1", *lines) in {400, 401}, lines
    for target in (f"http://x{path}", f"/{path}", f"{path}?", f"{path}/", f"{path}#a", "/v1/tsg/%74emplates", "/v1/tsg/./templates"):
        assert raw(api, f"POST {target} HTTP/1.1", date, authorization, f"Digest: {digest}", body=body) in {400, 401, 404}, target
    assert newcomer.ok("GET", "/templates") == []


# Refusals


def test_a_request_must_be_signed(tsg: Caller) -> None:
    signed = tsg.signed()
    for headers in ({}, {"Date": signed["Date"]}, {"Authorization": signed["Authorization"]}):
        assert unauthenticated(get(tsg.api, headers)) == "Requests must be signed: they need a Date and an Authorization header."


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("ahead", "status"), [(-310, 401), (310, 401), (-86400 * 365, 401), (-280, 200), (280, 200)])
def test_a_date_may_be_300_seconds_off(newcomer: Caller, form: str, ahead: float, status: int) -> None:
    for _ in range(2):
        answer = get(newcomer.api, FORMS[form](newcomer.key_id, now(ahead)))
        assert answer.status_code == status
        newcomer.ok("GET", "/groups")
    if status == 401:
        assert "set your clock" in unauthenticated(answer)


@pytest.mark.parametrize("known", [False, True])
def test_a_signature_over_something_else_is_401(newcomer: Caller, *, known: bool) -> None:
    if known:
        newcomer.ok("GET", "/groups")
    good, date = newcomer.signed(), now(5)
    unauthenticated(get(newcomer.api, {**good, "Date": date}))
    # The lines of one form are not those of the other.
    swapped = f'Signature keyId="{newcomer.key_id}",algorithm="rsa-sha256",headers="date" {sign(f"date: {date}")}'
    unauthenticated(get(newcomer.api, {"Date": date, "Authorization": swapped}))
    swapped = f'Signature keyId="{newcomer.key_id}",algorithm="rsa-sha256",headers="date",signature="{sign(date)}"'
    unauthenticated(get(newcomer.api, {"Date": date, "Authorization": swapped}))
    # Nor is a signature with one digest one with another.
    other = good["Authorization"].replace("rsa-sha256", "rsa-sha512")
    unauthenticated(get(newcomer.api, {**good, "Authorization": other}))


@pytest.mark.parametrize("known", [False, True])
def test_nobody_calls_as_another_account(newcomer: Caller, *, known: bool) -> None:
    api = newcomer.api
    attacker = Caller(api, api.sim.cloud.add_account(f"{newcomer.login}-x", [OTHER.public_line], uuid=str(uuid.uuid4())), pair=OTHER)
    api.enable(attacker.triton)
    attacker.ok("GET", "/groups")
    if known:
        newcomer.make_group(3)
    unauthenticated(get(api, legacy(f"/{newcomer.login}/keys/{OTHER.fingerprint}", now(), pair=OTHER)))
    unauthenticated(get(api, legacy(newcomer.key_id, now(), pair=OTHER)))


def test_a_key_or_an_account_that_cloudapi_does_not_know_is_401(newcomer: Caller) -> None:
    unauthenticated(get(newcomer.api, legacy(f"/{newcomer.login}/keys/{OTHER.fingerprint}", now(), pair=OTHER)))
    unauthenticated(get(newcomer.api, legacy(f"/nobody-at-all/keys/{PAIR.fingerprint}", now())))


def test_headers_that_were_good_are_good_no_longer_than_their_key_and_their_date(newcomer: Caller) -> None:
    api, early = newcomer.api, legacy(newcomer.key_id, now(-295))
    for _ in range(2):
        assert get(api, early).status_code == 200
    unauthenticated(get(api, {**early, "Date": now(-294)}))
    assert wait_for(lambda: get(api, early).status_code == 401, seconds=30)
    late = legacy(newcomer.key_id, now())
    assert get(api, late).status_code == 200
    newcomer.triton.keys.remove(PAIR.fingerprint)
    assert get(api, late).status_code == 200
    api.clock.ahead += 301
    unauthenticated(get(api, late))


# CloudAPI in the way


@pytest.mark.parametrize(
    "knobs",
    [
        {"down": True},
        {"bad_json": True},
        *({"error_share": 1.0, "error_status": status} for status in (500, 502, 503, 429)),
        {"error_share": 1.0, "error_endpoints": ["GetKey"]},
        {"lost_answer_share": 1.0, "lost_answer_endpoints": ["GetAccount"]},
    ],
)
def test_a_first_request_while_cloudapi_is_away_is_503_and_not_401(make_api: Callable[..., Api], knobs: dict[str, Any]) -> None:
    api = make_api()
    account = api.new_triton()
    api.enable(account)
    api.sim.knobs.turn(knobs)
    answer = Caller(api, account)("GET", "/groups")
    error(answer, 503, "ServiceUnavailable")
    assert "WWW-Authenticate" not in answer.headers
    api.sim.knobs.turn({"down": False, "bad_json": False, "error_share": 0.0, "lost_answer_share": 0.0})
    assert Caller(api, account).ok("GET", "/groups") == []


def test_a_cloudapi_that_is_not_there_is_503(make_api: Callable[..., Api]) -> None:
    api = make_api()
    account = api.new_triton()
    api.enable(account)
    api.sim.close()
    error(Caller(api, account)("GET", "/groups"), 503, "ServiceUnavailable")


# A slow CloudAPI, and strangers


@pytest.mark.parametrize("path", ["/groups", "/groups/{id}/instances"])
def test_while_cloudapi_hangs_few_wait_for_it_and_all_else_goes_on(make_api: Callable[..., Api], path: str) -> None:
    api = make_api(patience=0.2)
    tsg = api.new_account()
    group = tsg.make_group(1)
    strangers = [api.new_account() for _ in range(20)]
    if "{id}" in path:  # known, then: it is their machines that they wait for
        strangers = [tsg] * 20
    api.sim.knobs.turn({"latency_seconds": 60.0})
    # Of two slots one address, or one account, has one; the other is left to others.
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(one, "GET", path.format(**group)) for one in strangers]
        assert wait_for(lambda: sum(one.done() for one in asked) == 19, seconds=20)
        for one in asked:
            if one.done():
                error(one.result(), 503, "ServiceUnavailable")
                assert one.result().headers["Retry-After"]
        tsg.ok("PUT", f"/groups/{group['id']}/increment", {"instance_count": 1, "max_instance": 5})
        assert tsg.capacity(group) == 2
        assert sum(one.done() for one in asked) == 19
        api.sim.close()


def made_up_key(caller: Caller, number: int) -> dict[str, str]:
    """What a stranger sends who knows the account's name: a key that nobody has, and no signature to speak of."""
    key_id = f"/{caller.login}/keys/{number:02x}:" + ":".join(["00"] * 15)
    header = f'Signature keyId="{key_id}",algorithm="rsa-sha256",headers="(request-target) date",signature="AAAA"'
    return {"Date": now(), "Authorization": header}


def test_strangers_who_know_an_accounts_name_neither_shut_it_out_nor_use_up_its_requests_to_cloudapi(api: Api) -> None:
    tsg = api.new_account()
    before = api.asked("ListKeys"), api.asked("GetAccount")
    for number in range(40):
        unauthenticated(get(api, made_up_key(tsg, number)))
        if number % 10 == 5:
            target = f"/v1/tsg/groups?number={number}"
            signed = signed_more(tsg, "(request-target)", "date", request_target=f"get {target}")
            assert get(api, signed, target).status_code == 200
    assert (api.asked("ListKeys"), api.asked("GetAccount")) == (before[0] + 1, before[1] + 1)


def test_strangers_do_not_shut_out_an_owner_whose_key_has_run_out(api: Api) -> None:
    tsg = api.new_account()
    tsg.ok("GET", "/groups")
    api.clock.ahead += 301
    try:
        for number in range(30):
            get(api, made_up_key(tsg, number))
        tsg.ok("GET", "/groups")
    finally:
        api.clock.ahead = 0


def test_date_signatures_that_strangers_make_up_are_counted_by_account_and_address(api: Api) -> None:
    one, two = api.new_account(), api.new_account()

    def forged(caller: Caller, number: int) -> int:
        key_id = f"/{caller.login}/keys/{number:02x}:" + ":".join(["00"] * 15)
        return int(get(api, legacy(key_id, now())).status_code)

    before = api.asked("GetAccount")
    statuses = [forged(one, number) for number in range(60)]
    assert set(statuses) == {401, 429}
    assert api.asked("GetAccount") - before == statuses.count(401) + 1 < 50
    assert forged(two, 0) == 401
    one.ok("GET", "/groups")


def test_a_key_in_use_is_asked_for_again_before_it_runs_out(make_api: Callable[..., Api]) -> None:
    api = make_api()
    tsg = api.new_account()
    tsg.ok("GET", "/groups")
    assert api.asked("ListKeys") == 1
    api.clock.ahead += 230
    for _ in range(5):
        tsg.ok("GET", "/groups")
    assert wait_for(lambda: api.asked("ListKeys") == 2, seconds=30)
    api.sim.close()
    api.clock.ahead += 200
    tsg.ok("GET", "/groups")


def test_a_key_that_is_named_by_a_name_may_be_another_key_tomorrow(newcomer: Caller) -> None:
    api = newcomer.api
    newcomer.triton.keys.add(OTHER.public_line, "laptop")
    key_id = f"/{newcomer.login}/keys/laptop"
    assert get(api, legacy(key_id, now(), pair=OTHER)).status_code == 200
    newcomer.triton.keys.remove("laptop")
    new = new_pair()
    newcomer.triton.keys.add(new.public_line, "laptop")
    assert get(api, legacy(key_id, now(), pair=new)).status_code == 200
    api.clock.ahead += 6
    unauthenticated(get(api, legacy(key_id, now(1), pair=OTHER)))
    assert get(api, legacy(key_id, now(1), pair=new)).status_code == 200
    api.clock.ahead -= 6


# The whitelist


def test_an_account_that_is_not_enabled_is_403(api: Api) -> None:
    account = api.new_triton()
    answer = Caller(api, account)("GET", "/groups")
    assert f"account {account.login} is not enabled for this service" in error(answer, 403, "NotAuthorized")["message"]
    assert not api.sql("SELECT 1 FROM tsg_accounts WHERE triton_uuid = :uuid", uuid=account.id)
    assert not management_keys(account)


def test_the_sql_of_the_seed_enables_an_account(make_api: Callable[..., Api]) -> None:
    api = make_api()
    demo = api.sim.cloud.add_account("demouser", [PAIR.public_line], uuid="d82a1f04-b9f6-4075-998f-af20e3d49de6")
    assert Caller(api, demo)("GET", "/groups").status_code == 403
    api.sql(
        "INSERT INTO tsg_accounts (account_name, triton_uuid, created_at, updated_at) "
        "VALUES ('demouser', 'd82a1f04-b9f6-4075-998f-af20e3d49de6', NOW(), NOW());"
    )
    assert Caller(api, demo).make_group(3)["capacity"] == 3
    enrolled_once(api, demo)


def test_without_the_whitelist_everybody_is_let_in(make_api: Callable[..., Api]) -> None:
    api = make_api(whitelist=False)
    account = api.new_triton()
    tsg = Caller(api, account)
    assert together(8, lambda _number: tsg("GET", "/groups").status_code) == [200] * 8
    assert api.sql("SELECT account_name, archived FROM tsg_accounts WHERE triton_uuid = :uuid", uuid=account.id) == [(account.login, False)]
    enrolled_once(api, account)


def test_without_the_whitelist_a_bad_signature_is_still_401(make_api: Callable[..., Api]) -> None:
    api = make_api(whitelist=False)
    account = api.new_triton()
    unauthenticated(get(api, legacy(f"/{account.login}/keys/{PAIR.fingerprint}", now(), pair=OTHER)))
    assert api.sql("SELECT 1 FROM tsg_accounts") == []


@pytest.mark.parametrize("whitelist", [True, False])
def test_an_account_that_was_disabled_is_403(make_api: Callable[..., Api], *, whitelist: bool) -> None:
    api = make_api(whitelist=whitelist)
    tsg = api.new_account()
    tsg.ok("GET", "/groups")
    api.sql("UPDATE tsg_accounts SET archived = true")
    api.clock.ahead += 6  # the account's row is taken as read for 5 seconds
    for _ in range(2):
        assert "is not enabled" in error(tsg("GET", "/groups"), 403, "NotAuthorized")["message"]
    assert len(api.sql("SELECT 1 FROM tsg_accounts")) == 1
    api.sql("UPDATE tsg_accounts SET archived = false")
    assert tsg.ok("GET", "/groups") == []


def test_an_account_that_triton_disabled_is_403(newcomer: Caller) -> None:
    newcomer.triton.disabled = True
    error(newcomer("GET", "/groups"), 403, "NotAuthorized")


def test_an_account_is_its_uuid_and_its_name_follows(api: Api) -> None:
    account = api.new_triton()
    api.enable(account, login="name-of-yesterday")
    Caller(api, account).ok("GET", "/groups")
    assert api.sql("SELECT account_name FROM tsg_accounts WHERE triton_uuid = :uuid", uuid=account.id) == [(account.login,)]


# Sub-users


def test_a_sub_user_is_its_account(api: Api) -> None:
    account = api.new_triton(users={"robin": [f"{OTHER.public_line} robin"]})
    api.enable(account)
    owner, robin = Caller(api, account), Caller(api, account, user="robin", pair=OTHER)
    group = owner.make_group(3)
    for headers in (legacy(robin.key_id, now(), pair=OTHER), modern(robin.key_id, now(), pair=OTHER)):
        assert get(api, headers).json() == [group]
    unauthenticated(get(api, legacy(robin.key_id, now(), pair=PAIR)))
    unauthenticated(get(api, legacy(f"/{account.login}/users/robin/keys/{PAIR.fingerprint}", now())))
    unauthenticated(get(api, legacy(f"/{account.login}/users/marian/keys/{OTHER.fingerprint}", now(), pair=OTHER)))
    unauthenticated(get(api, legacy(f"/{account.login}/keys/{OTHER.fingerprint}", now(), pair=OTHER)))


def test_a_sub_user_may_be_the_first_to_call(api: Api) -> None:
    account = api.new_triton(users={"robin": [OTHER.public_line]})
    api.enable(account)
    assert Caller(api, account, user="robin", pair=OTHER).ok("GET", "/groups") == []
    enrolled_once(api, account)


def test_a_sub_user_that_may_do_nothing_is_403(api: Api) -> None:
    account = api.new_triton(users={"robin": [OTHER.public_line]})
    api.enable(account)
    account.users[0].authorized = False
    error(Caller(api, account, user="robin", pair=OTHER)("GET", "/groups"), 403, "NotAuthorized")


def of_user(account: triton.Account, user: str = "robin", *, key: str = OTHER.fingerprint) -> str:
    return f"/{account.login}/users/{user}/keys/{key}"


def over(key_id: str, names: str, text: str) -> str:
    """An Authorization header in the modern form, by the key `OTHER`."""
    return f'Signature keyId="{key_id}",algorithm="rsa-sha256",headers="{names}",signature="{sign(text, pair=OTHER)}"'


def ways_past_cloudapi(key_id: str, prefixed: Sequence[str]) -> dict[str, dict[str, str]]:
    """Signatures of a sub-user that can't be passed on to CloudAPI as they are."""
    date = now()
    both = over(key_id, "(request-target) date", f"(request-target): get /v1/tsg/groups\ndate: {date}")
    twice = over(key_id, "date date", f"date: {date}\ndate: {date}")
    named = {f"{form.__name__} {name[-50:]}": form(name, date, pair=OTHER) for name in prefixed for form in (legacy, modern)}
    return {
        "the request line": {"Date": date, "Authorization": both},
        "the date twice": {"Date": date, "Authorization": twice},
        "another date": {"X-Date": date, "Authorization": over(key_id, "x-date", f"x-date: {date}")},
        **named,
    }


SHA256 = keys.sha256_fingerprint(OTHER.public_line)


@pytest.mark.parametrize("named_by", ["login", "uuid"])
def test_a_sub_user_that_may_do_nothing_gets_nothing_however_it_signs(api: Api, named_by: str) -> None:
    account = api.new_triton(users={"robin": [OTHER.public_line]})
    api.enable(account)
    owner = Caller(api, account)
    owner.make_group(3)
    robin = account.users[0]
    robin.authorized = False
    name = robin.id if named_by == "uuid" else "robin"
    prefixed = [of_user(account, name, key=f"MD5:{OTHER.fingerprint}"), of_user(account, name, key=SHA256)]
    for way, headers in ways_past_cloudapi(of_user(account, name), prefixed).items():
        answer = get(api, headers)
        assert answer.status_code in {401, 403}, way
        assert "signs the Date alone" in answer.text or "permission" in answer.text, way
    error(get(api, legacy(of_user(account, name), now(), pair=OTHER)), 403, "NotAuthorized")
    # And all of it once more: nothing was learned on the way.
    for way, headers in ways_past_cloudapi(of_user(account, name), prefixed).items():
        assert get(api, headers).status_code in {401, 403}, way


def test_a_sub_user_is_let_in_by_cloudapis_yes_for_its_time(api: Api) -> None:
    account = api.new_triton(users={"robin": [OTHER.public_line]})
    api.enable(account)
    Caller(api, account).ok("GET", "/groups")
    prefixed = [of_user(account, key=f"MD5:{OTHER.fingerprint}"), of_user(account, key=SHA256)]
    ways = ways_past_cloudapi(of_user(account), prefixed)
    told = error(get(api, ways["the request line"]), 403, "NotAuthorized")["message"]
    assert "Send one request that signs the Date alone" in told
    assert get(api, legacy(of_user(account), now(), pair=OTHER)).status_code == 200
    for way, headers in ways_past_cloudapi(of_user(account), prefixed).items():
        assert get(api, headers).status_code == 200, way
    account.users[0].authorized = False
    # CloudAPI is asked again at the latest when its yes is too old, however the sub-user signs meanwhile.
    api.sql("UPDATE tsg_users SET updated_at = updated_at - interval '301 seconds' WHERE username = 'robin'")
    api.clock.ahead += 301
    try:
        for way, headers in ways_past_cloudapi(of_user(account), prefixed).items():
            assert get(api, headers).status_code in {401, 403}, way
        error(get(api, legacy(of_user(account), now(), pair=OTHER)), 403, "NotAuthorized")
    finally:
        api.clock.ahead = 0


def test_cloudapis_yes_holds_in_all_processes_and_for_one_sub_user_of_one_account(make_api: Callable[..., Api]) -> None:
    one = make_api()
    two = make_api(database=one.db, simulator=one.sim)
    third = new_pair()
    account = one.new_triton(users={"robin": [OTHER.public_line], "marian": [f"{third.public_line} a", f"{OTHER.public_line} b"]})
    other = one.new_triton(users={"robin": [OTHER.public_line]})
    for enabled in (account, other):
        one.enable(enabled)
        Caller(one, enabled).ok("GET", "/groups")
    assert get(one, legacy(of_user(account), now(), pair=OTHER)).status_code == 200
    assert get(two, ways_past_cloudapi(of_user(account), [])["the request line"]).status_code == 200
    for key_id in (of_user(account, "marian"), of_user(other)):
        for api in (one, two):
            error(get(api, ways_past_cloudapi(key_id, [])["the request line"]), 403, "NotAuthorized")


def test_a_sub_users_no_ends_its_yes(api: Api) -> None:
    account = api.new_triton(users={"robin": [OTHER.public_line]})
    api.enable(account)
    assert get(api, legacy(of_user(account), now(), pair=OTHER)).status_code == 200
    account.users[0].authorized = False
    api.clock.ahead += 240
    try:  # it is in use, so CloudAPI is asked behind its back
        assert wait_for(lambda: get(api, legacy(of_user(account), now(), pair=OTHER)).status_code == 403, seconds=30)
        error(get(api, ways_past_cloudapi(of_user(account), [])["the request line"]), 403, "NotAuthorized")
    finally:
        api.clock.ahead = 0


def signing(key_id: str, method: str, path: str) -> dict[str, dict[str, str]]:
    """A sub-user's signatures that could be passed on to CloudAPI, and those that could not, over a request."""
    date = now()
    both = over(key_id, "(request-target) date", f"(request-target): {method.lower()} {path}\ndate: {date}")
    forms = {"the legacy form": legacy(key_id, date, pair=OTHER), "the modern form": modern(key_id, date, pair=OTHER)}
    return {**forms, "the request line": {"Date": date, "Authorization": both}}


CHANGES = [
    ("POST", "/v1/tsg/templates", template_body(template_name="sub-users")),
    ("POST", "/v1/tsg/groups", {"group_name": "sub-users", "template_id": "{template}", "capacity": 3}),
    ("PUT", "/v1/tsg/groups/{group}", {"group_name": "group-1", "template_id": "{template}", "capacity": 0}),
    ("PUT", "/v1/tsg/groups", {"group_name": "group-1", "template_id": "{template}", "capacity": 0}),
    ("PUT", "/v1/tsg/groups/{group}/increment", {"instance_count": 1, "max_instance": 9}),
    ("PUT", "/v1/tsg/groups/{group}/decrement", {"instance_count": 1, "min_instance": 0}),
    ("DELETE", "/v1/tsg/groups/{group}", None),
    ("DELETE", "/v1/tsg/templates/{template}", None),
]


def with_robin(api: Api, *actions: str) -> tuple[Caller, triton.Account]:
    """An account whose sub-user robin has policies with these actions, and its owner, who has called."""
    account = api.new_triton(users={"robin": [OTHER.public_line]})
    account.users[0].actions = list(actions)
    api.enable(account)
    owner = Caller(api, account)
    owner.ok("GET", "/groups")
    return owner, account


def test_a_sub_user_who_may_see_the_account_and_no_machines_gets_nothing(api: Api) -> None:
    owner, account = with_robin(api, "getaccount", "createmachine")
    owner.make_group(3)
    for _ in range(2):
        for way, headers in signing(of_user(account), "GET", "/v1/tsg/groups").items():
            assert get(api, headers).status_code == 403, way
    assert not account.live


def test_a_sub_user_who_may_not_create_machines_changes_nothing(make_api: Callable[..., Api]) -> None:
    one = make_api()
    apis = (one, make_api(database=one.db, simulator=one.sim))
    owner, account = with_robin(one, "getaccount", "listmachines", "getmachine")
    template_id = owner.make_template()
    group = owner.make_group(3, template_id=template_id)
    known = {"Idempotency-Key": "the-owners"}
    made = owner("POST", "/templates", template_body(template_name="kept"), headers=known)
    assert made.status_code == 201
    assert get(one, legacy(of_user(account), now(), pair=OTHER)).json() == [group]
    for api in apis:
        for path in ("/v1/tsg/groups", f"/v1/tsg/groups/{group['id']}", f"/v1/tsg/groups/{group['id']}/status"):
            for way, headers in signing(of_user(account), "GET", path).items():
                assert get(api, headers, path).status_code == 200, (way, path)
        for method, where, body in CHANGES:
            path = where.format(template=template_id, group=group["id"])
            filled = json.loads(json.dumps(body).replace("{template}", template_id))
            for way, headers in signing(of_user(account), method, path).items():
                answer = api.request(method, path, json=filled, headers=headers)
                assert "createmachine" in error(answer, 403, "NotAuthorized")["message"], (way, method, path)
        # Nor is what the owner was answered given to somebody who could not have asked for it.
        again = {**legacy(of_user(account), now(), pair=OTHER), **known}
        error(api.request("POST", "/v1/tsg/templates", json=template_body(template_name="kept"), headers=again), 403, "NotAuthorized")
    assert owner.ok("GET", "/groups") == [group]
    assert not account.live, "CloudAPI was asked whether, and made no machine"


def test_a_sub_user_who_may_create_machines_changes_what_the_owner_may(api: Api) -> None:
    owner, account = with_robin(api, "getaccount", "listmachines")
    assert get(api, legacy(of_user(account), now(), pair=OTHER)).status_code == 200
    path, body = "/v1/tsg/templates", template_body(template_name="robins")
    error(api.request("POST", path, json=body, headers=legacy(of_user(account), now(), pair=OTHER)), 403, "NotAuthorized")
    account.users[0].actions = ["getaccount", "listmachines", "createmachine"]
    api.clock.ahead += 301
    try:
        api.sql("UPDATE tsg_users SET updated_at = updated_at - interval '301 seconds' WHERE username = 'robin'")
        assert api.request("POST", path, json=body, headers=legacy(of_user(account), now(), pair=OTHER)).status_code == 201
        for name, headers in signing(of_user(account), "POST", path).items():
            assert api.request("POST", path, json={**body, "template_name": name}, headers=headers).status_code == 201
    finally:
        api.clock.ahead = 0
    assert len(owner.ok("GET", "/templates")) == 4
    assert not account.live


@pytest.mark.parametrize("knobs", [{"error_status": 500}, {"error_status": 429}, {"error_status": 503}])
@pytest.mark.parametrize("endpoint", ["ListMachines", "CreateMachine"])
def test_no_answer_to_what_a_sub_user_may_is_neither_yes_nor_no(make_api: Callable[..., Api], endpoint: str, knobs: dict[str, int]) -> None:
    api = make_api()
    _, account = with_robin(api, "getaccount", "listmachines", "createmachine")
    api.sim.cloud.knobs.turn({"error_share": 1.0, "error_endpoints": [endpoint], **knobs})
    error(get(api, legacy(of_user(account), now(), pair=OTHER)), 503, "ServiceUnavailable")
    assert api.sql("SELECT * FROM tsg_users") == []
    api.sim.cloud.knobs.turn({"error_share": 0.0})
    assert get(api, legacy(of_user(account), now(), pair=OTHER)).status_code == 200


def test_a_yes_that_lies_ahead_of_the_databases_clock_is_none(api: Api) -> None:
    account = api.new_triton(users={"robin": [OTHER.public_line]})
    api.enable(account)
    second = new_pair()
    account.users[0].keys.add(f"{second.public_line} second")
    assert get(api, legacy(of_user(account), now(), pair=OTHER)).status_code == 200
    api.sql("UPDATE tsg_users SET updated_at = updated_at + interval '1 hour' WHERE username = 'robin'")
    account.users[0].authorized = False
    error(get(api, legacy(of_user(account, key=f"MD5:{OTHER.fingerprint}"), now(), pair=OTHER)), 403, "NotAuthorized")
    api.sql("UPDATE tsg_users SET updated_at = now(), archived = false WHERE username = 'robin'")
    assert get(api, legacy(of_user(account, key=SHA256), now(), pair=OTHER)).status_code == 200


# Logins that change hands


def test_who_takes_over_a_login_gets_nothing_of_the_account_that_had_it(api: Api) -> None:
    alice, bob = api.new_triton("alice-of-old"), api.new_triton("bob-the-heir")
    for account in (alice, bob):
        api.enable(account)
    hers = Caller(api, alice)
    group = hers.make_group(2)
    management = next(key for key in alice.keys if key.name == KEY_NAME)
    api.sim.cloud.rename_account(alice, "alice-anew")
    bob.keys.add(management.openssh, "borrowed")
    bob.keys.add(f"{OTHER.public_line} bob")
    api.sim.cloud.rename_account(bob, "alice-of-old")
    heir = Caller(api, bob, pair=OTHER)
    api.clock.ahead += 6
    try:
        for key in (OTHER.fingerprint, f"MD5:{OTHER.fingerprint}", SHA256, "bob"):
            date = now()
            text = f"(request-target): get /v1/tsg/groups\ndate: {date}"
            header = (
                f'Signature keyId="/alice-of-old/keys/{key}",algorithm="rsa-sha256",headers="(request-target) date",'
                f'signature="{sign(text, pair=OTHER)}"'
            )
            unauthenticated(get(api, {"Date": date, "Authorization": header}))
        assert key_rows(api, alice)[0].registered_at is not None
        assert heir.ok("GET", "/groups") == []
        error(heir("DELETE", f"/groups/{group['id']}"), 404, "ResourceNotFound")
        assert heir.ok("GET", f"/groups/{heir.make_group(1)['id']}/instances") == []
        # She goes on under her new login, and what the service does for her it does in her own account.
        assert Caller(api, alice).ok("GET", "/groups") == [group]
        assert hers.api.sql("SELECT account_name FROM tsg_accounts WHERE triton_uuid = :id", id=alice.id) == [("alice-anew",)]
        assert Caller(api, alice).ok("GET", f"/groups/{group['id']}/instances") == []
    finally:
        api.clock.ahead = 0


def test_the_service_acts_for_an_account_under_its_uuid(api: Api) -> None:
    tsg = api.new_account()
    group = tsg.make_group(1)
    api.sim.cloud.rename_account(tsg.triton, f"{tsg.login}-2")
    api.new_triton(tsg.login)
    assert tsg.ok("GET", f"/groups/{group['id']}/instances") == []


# Words


def test_no_answer_tells_a_stranger_whether_an_account_or_a_key_is_known_here(api: Api) -> None:
    known, unknown = api.new_account(), api.new_triton()
    known.ok("GET", "/groups")

    def told(key_id: str, headers: str, pair: KeyPair) -> tuple[int, str]:
        date = now()
        text = {"date": f"date: {date}", "(request-target) date": f"(request-target): get /v1/tsg/groups\ndate: {date}"}[headers]
        signed = f'Signature keyId="{key_id}",algorithm="rsa-sha256",headers="{headers}",signature="{sign(text, pair=pair)}"'
        answer = get(api, {"Date": date, "Authorization": signed})
        return answer.status_code, answer.text

    for headers in ("date", "(request-target) date"):
        answers = {
            told(f"/{login}/keys/{key}", headers, OTHER)
            for login in (known.login, known.triton.id, unknown.login, unknown.id, "nobody-at-all", NOBODY)
            for key in (PAIR.fingerprint, OTHER.fingerprint, f"MD5:{PAIR.fingerprint}", SHA256, "laptop")
        }
        assert len(answers) == 1, answers
        answers = {told(of_user(one), headers, OTHER) for one in (known.triton, unknown)}
        assert len(answers) == 1, answers


def test_an_account_that_is_not_let_in_is_told_so_without_asking_cloudapi_each_time(api: Api) -> None:
    account = api.new_triton()
    caller = Caller(api, account)
    assert caller("GET", "/groups").status_code == 403
    asked = api.sim.cloud.counters.to_json()["requests"]
    for ahead in range(5):
        assert get(api, legacy(caller.key_id, now(ahead))).status_code == 403
    assert api.sim.cloud.counters.to_json()["requests"] == asked
    api.enable(account)
    caller.ok("GET", "/groups")
    enrolled_once(api, account)


# The management key


def test_fifty_first_requests_at_once_make_one_key(newcomer: Caller) -> None:
    assert together(50, lambda _number: newcomer("GET", "/groups").status_code) == [200] * 50
    enrolled_once(newcomer.api, newcomer.triton)
    assert newcomer.api.sim.cloud.counters.to_json()["by_endpoint"]["CreateKey"].get("409") is None


def test_first_requests_to_two_processes_at_once_make_one_key(make_api: Callable[..., Api]) -> None:
    one = make_api()
    two = make_api(database=one.db, simulator=one.sim)
    account = one.new_triton()
    one.enable(account)
    callers = [Caller(one, account), Caller(two, account)]
    assert together(10, lambda number: callers[number % 2]("GET", "/groups").status_code) == [200] * 10
    enrolled_once(one, account)


def test_of_ten_keys_given_to_an_account_at_once_one_is_kept(api: Api) -> None:
    for _ in range(5):
        account = api.new_triton()
        api.enable(account)
        caller_id = Caller(api, account).id

        def give(number: int, caller_id: str = caller_id) -> bool:
            values = {"key_id": str(uuid.uuid4()), "name": KEY_NAME, "fingerprint": str(number), "material": "sealed"}
            return api.db.transact(lambda connection: accounts.insert_key(connection, caller_id, **values))

        assert together(10, give).count(True) == 1
        assert len(key_rows(api, account)) == 1


def test_the_key_is_sealed_in_the_database(newcomer: Caller) -> None:
    newcomer.ok("GET", "/groups")
    (row,) = key_rows(newcomer.api, newcomer.triton)
    assert re.fullmatch(r"v1\.[0-9a-f]{8}\.[A-Za-z0-9+/=]+", row.material)
    assert "PRIVATE" not in row.material
    pair = keys.of_pem(newcomer.api.sealer.open(row.material, row=str(row.id)))
    assert pair.fingerprint == row.fingerprint
    assert b"PRIVATE" not in base64.b64decode(row.material.split(".")[2])


def test_a_second_request_makes_no_second_key(newcomer: Caller) -> None:
    for _ in range(3):
        newcomer.ok("GET", "/groups")
        newcomer.api.clock.ahead += 301
    enrolled_once(newcomer.api, newcomer.triton)


def test_a_key_of_that_name_in_cloudapi_that_is_not_ours_is_409(newcomer: Caller) -> None:
    newcomer.triton.keys.add(f"{OTHER.public_line} other", KEY_NAME)
    for _ in range(2):
        told = error(newcomer("GET", "/groups"), 409, "Conflict")["message"]
        assert f"triton key delete {KEY_NAME}" in told
    assert key_rows(newcomer.api, newcomer.triton) == []
    newcomer.triton.keys.remove(KEY_NAME)
    newcomer.ok("GET", "/groups")
    enrolled_once(newcomer.api, newcomer.triton)


def store_key(caller: Caller, pair: KeyPair, *, registered: bool = False) -> None:
    """Give an account a management key that CloudAPI has not got."""
    api, key_id = caller.api, str(uuid.uuid4())
    values = {"name": KEY_NAME, "fingerprint": pair.fingerprint, "material": api.sealer.seal(pair.private_pem, row=key_id)}
    assert api.db.transact(lambda connection: accounts.insert_key(connection, caller.id, key_id=key_id, **values))
    if registered:
        api.db.transact(lambda connection: accounts.mark_registered(connection, key_id, registered=True))


def test_an_owner_is_let_in_though_the_management_key_does_not_open(newcomer: Caller) -> None:
    newcomer.ok("GET", "/groups")
    newcomer.api.sql("UPDATE tsg_keys SET material = 'v1.00000000.AAAA' WHERE account_id = :id", id=newcomer.id)
    newcomer.api.clock.ahead += 301
    try:
        newcomer.ok("GET", "/groups")
        headers = signed_more(newcomer, "(request-target)", "date", request_target="get /v1/tsg/templates")
        assert get(newcomer.api, headers, "/v1/tsg/templates").status_code == 200
        assert unauthenticated(get(newcomer.api, made_up_key(newcomer, 1))) == NOT_PROVEN
    finally:
        newcomer.api.clock.ahead = 0


def test_who_holds_a_key_that_was_deleted_is_a_stranger(newcomer: Caller) -> None:
    api = newcomer.api
    newcomer.triton.keys.add(f"{OTHER.public_line} other")
    lost = Caller(api, newcomer.triton, pair=OTHER)
    lost.ok("GET", "/groups")
    newcomer.triton.keys.remove(OTHER.fingerprint)
    api.clock.ahead += 301
    try:
        statuses = [get(api, legacy(lost.key_id, now(ahead), pair=OTHER)).status_code for ahead in range(60)]
        assert set(statuses) == {401, 429}
        newcomer.ok("GET", "/groups")
    finally:
        api.clock.ahead = 0


def test_two_different_keys_of_that_name_are_409(newcomer: Caller) -> None:
    store_key(newcomer, OTHER)
    theirs = newcomer.triton.keys.add(f"{keys.generate().public_line} theirs", KEY_NAME)
    told = error(newcomer("GET", "/groups"), 409, "Conflict")["message"]
    assert theirs.fingerprint in told
    assert OTHER.fingerprint in told
    newcomer.triton.keys.remove(KEY_NAME)
    newcomer.ok("GET", "/groups")
    assert management_keys(newcomer.triton) == [OTHER.fingerprint]
    enrolled_once(newcomer.api, newcomer.triton)


def test_a_key_that_is_here_and_not_in_cloudapi_is_registered_again(newcomer: Caller) -> None:
    store_key(newcomer, OTHER)
    newcomer.ok("GET", "/groups")
    assert management_keys(newcomer.triton) == [OTHER.fingerprint]
    enrolled_once(newcomer.api, newcomer.triton)


def test_a_key_that_cloudapi_has_lost_is_registered_again_once_that_was_noted(newcomer: Caller) -> None:
    path = f"/groups/{newcomer.make_group(1)['id']}/instances"
    ((fingerprint,),) = [[key.fingerprint] for key in newcomer.triton.keys if key.name == KEY_NAME]
    newcomer.triton.keys.remove(KEY_NAME)
    told = error(newcomer("GET", path), 503, "ServiceUnavailable")["message"]
    assert "does not know this service's key" in told
    newcomer.api.clock.ahead += 6
    newcomer.ok("GET", "/groups")
    newcomer.ok("GET", "/groups")
    assert management_keys(newcomer.triton) == [fingerprint]
    enrolled_once(newcomer.api, newcomer.triton)
    assert newcomer.ok("GET", path) == []


@pytest.mark.parametrize(
    "knobs",
    [
        {"error_share": 1.0, "error_endpoints": ["CreateKey"]},
        {"lost_answers_next": 1, "lost_answer_endpoints": ["CreateKey"]},
        {"read_only": True},
    ],
)
def test_a_key_that_could_not_be_put_into_cloudapi_is_put_there_by_the_next_request(
    make_api: Callable[..., Api], knobs: dict[str, Any]
) -> None:
    api = make_api()
    account = api.new_triton()
    api.enable(account)
    api.sim.knobs.turn(knobs)
    error(Caller(api, account)("GET", "/groups"), 503, "ServiceUnavailable")
    api.sim.knobs.turn({"error_share": 0.0, "read_only": False})
    assert Caller(api, account).ok("GET", "/groups") == []
    enrolled_once(api, account)


# Development mode


def test_in_development_mode_every_request_is_the_seeded_accounts(make_api: Callable[..., Api]) -> None:
    api = make_api(dev_mode=True)
    for headers in ({}, {"Authorization": "nonsense"}, {"Date": "never"}, legacy("/somebody/keys/x", now(-10_000))):
        assert get(api, headers).json() == []
    made = api.request(
        "POST", "/v1/tsg/templates", json={"template_name": "a", "package": str(uuid.uuid4()), "image_id": str(uuid.uuid4())}
    )
    assert made.status_code == 201
    assert api.sql("SELECT account_id::text FROM tsg_templates") == [("6f873d02-172c-418f-8416-4da2b50d5c53",)]
    assert api.sim.cloud.counters.to_json()["requests"] == 0


def test_in_development_mode_no_page_of_another_site_sends_requests(make_api: Callable[..., Api]) -> None:
    api = make_api(dev_mode=True)
    for origin in (
        "https://evil.example",
        "http://evil.example:3000",
        "null",
        "",
        "http://[",
        "http://127.0.0.1.evil.example",
        "http://8.8.8.8",
    ):
        answer = api.request("POST", "/v1/tsg/templates", json=template_body(), headers={"Origin": origin, "Content-Type": "text/plain"})
        assert "development mode" in error(answer, 403, "NotAuthorized")["message"].lower(), origin
    for number, origin in enumerate(("http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:3000")):
        body = template_body(template_name=f"template-{number}")
        assert api.request("POST", "/v1/tsg/templates", json=body, headers={"Origin": origin}).status_code == 201


def test_in_development_mode_no_name_of_another_site_leads_here(make_api: Callable[..., Api]) -> None:
    api = make_api(dev_mode=True)
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "x@127.0.0.1.evil"):
        for path in ("/v1/tsg/groups", "/console", "/console/main.js", "/console/about.json"):
            answer = api.request("GET", path, headers={"Host": host})
            assert "development mode" in error(answer, 403, "NotAuthorized")["message"].lower(), (host, path)
    for number, host in enumerate(("localhost", "localhost:1", "127.0.0.1:1", "[::1]:1", "192.0.2.1:8080")):
        body, own = template_body(template_name=f"template-{number}"), {"Host": host, "Origin": f"http://{host}"}
        assert api.request("POST", "/v1/tsg/templates", json=body, headers=own).status_code == 201
    assert DevelopmentMode(api.db, "https://tsg.example:8443/")._leads_here("tsg.example:8443")


def test_a_header_that_cloudapi_refused_is_refused_for_a_while_without_asking(newcomer: Caller) -> None:
    headers = legacy(newcomer.key_id, now()) | {
        "Authorization": f'Signature keyId="{newcomer.key_id}",algorithm="rsa-sha256" {"A" * 342}=='
    }
    asked = newcomer.api.asked("GetAccount")
    answers = [get(newcomer.api, headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [401] * 3
    assert len({answer.json()["message"] for answer in answers}) == 1
    assert newcomer.api.asked("GetAccount") == asked + 1
    assert newcomer("GET", "/groups").status_code == 200, "another signature of the same key is not held back"


def test_a_captured_header_that_is_replayed_with_another_date_does_not_have_its_owner_refused(newcomer: Caller) -> None:
    headers = newcomer.signed()
    unauthenticated(get(newcomer.api, {**headers, "Date": now(7)}))
    assert get(newcomer.api, headers).status_code == 200
