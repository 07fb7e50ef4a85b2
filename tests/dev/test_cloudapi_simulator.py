"""The CloudAPI simulator, over real HTTP, held against what was measured of CloudAPI."""

import base64
import contextlib
import hashlib
import http.client
import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from dev.sim.cloudapi.catalog import (
    DEFAULT_IMAGE,
    DEFAULT_NETWORK,
    DEFAULT_PACKAGE,
    FABRIC_NETWORK,
    FLEXIBLE_PACKAGE,
    HVM_IMAGE,
    HVM_PACKAGE,
    LARGE_PACKAGE,
    LX_IMAGE,
    OLD_IMAGE,
    PRIVATE_NETWORK,
)
from dev.sim.cloudapi.knobs import Knobs
from dev.sim.cloudapi.options import OPTIONS
from dev.sim.cloudapi.simulator import Simulator

HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
NOBODY = str(uuid.UUID(int=0))

PRIVATE = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "rsa-1024": rsa.generate_private_key(65537, 1024),  # the old server's keys
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "p521": ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def openssh(kind):
    public = PRIVATE[kind].public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} {kind}"


def sign(kind, algorithm, text):
    key, digest = PRIVATE[kind], HASHES.get(algorithm.rpartition("-")[2], hashes.SHA256())
    if kind.startswith("rsa"):
        raw = key.sign(text.encode(), padding.PKCS1v15(), digest)
    elif kind.startswith("p"):
        raw = key.sign(text.encode(), ec.ECDSA(digest))
    else:
        raw = key.sign(text.encode())
    return base64.b64encode(raw).decode()


def now_as_date():
    return formatdate(usegmt=True)


def modern(key_id, kind="rsa", algorithm="rsa-sha256", date=None, headers="date", target=None):
    date = date or now_as_date()
    text = f"date: {date}" if target is None else f"(request-target): {target}\ndate: {date}"
    signature = sign(kind, algorithm, text)
    params = f'keyId="{key_id}",algorithm="{algorithm}",headers="{headers}",signature="{signature}"'
    return {"Date": date, "Authorization": f"Signature {params}"}


def legacy(key_id, kind="rsa", algorithm="rsa-sha256", date=None):
    date = date or now_as_date()
    signature = sign(kind, algorithm, date)
    return {"Date": date, "Authorization": f'Signature keyId="{key_id}",algorithm="{algorithm}",headers="date" {signature}'}


class Clock:
    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now

    def goes_on(self, seconds):
        self.now += seconds


@dataclass
class Client:
    """Somebody with an account, signing the date of every call."""

    url: str
    account: str = "demo"
    kind: str = "rsa"
    key: str = "rsa"

    def call(self, method, path, **kwargs):
        headers = modern(f"/{self.account}/keys/{self.key}", self.kind) | kwargs.pop("headers", {})
        return requests.request(method, self.url + path, headers=headers, timeout=kwargs.pop("timeout", 10), **kwargs)

    def get(self, path, **kwargs):
        return self.call("GET", path, **kwargs)

    def post(self, path, body=None, **kwargs):
        return self.call("POST", path, json=body, **kwargs)

    def put(self, path, body=None, **kwargs):
        return self.call("PUT", path, json=body, **kwargs)

    def delete(self, path, **kwargs):
        return self.call("DELETE", path, **kwargs)

    def create(self, headers=None, **fields):
        return self.post("/my/machines", {"image": DEFAULT_IMAGE, "package": DEFAULT_PACKAGE} | fields, headers=headers or {})

    def created(self, **fields):
        answer = self.create(**fields)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def state(self, machine):
        return self.get(f"/my/machines/{machine}").json()["state"]

    def listed(self, query=""):
        answer = self.get(f"/my/machines{query}")
        assert answer.status_code == 200, answer.text
        return [machine["id"] for machine in answer.json()]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sim(clock):
    """A cloud whose time stands still until the test moves it, without a throttle."""
    with Simulator(now=clock, seed=1, throttle=False, threads=8) as simulator:
        simulator.cloud.add_account("demo", [openssh("rsa")])
        simulator.cloud.add_account("other", [openssh("p256")])
        yield simulator


@pytest.fixture
def demo(sim):
    return Client(sim.url)


@pytest.fixture
def booted(demo, clock):
    """A running machine."""
    machine = demo.created(name="web")
    clock.goes_on(5)
    return machine


def error(answer):
    return answer.status_code, answer.json()["code"]


def offered(sim, kind, **fields):
    """The id of a package, an image, a network or a volume that the cloud did not offer before."""
    new = str(uuid.uuid4())
    answer = requests.post(f"{sim.url}/--sim/{kind}", json={"id": new, **fields}, timeout=5)
    assert answer.status_code == 201, answer.text
    return new


def refusal(answer):
    assert answer.status_code == 409, answer.text
    return answer.json()["message"]


# Signatures


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("rsa", "rsa-sha1"),
        ("rsa", "rsa-sha256"),
        ("rsa", "RSA-SHA512"),
        ("rsa-1024", "rsa-sha256"),
        ("p256", "ecdsa-sha256"),
        ("p384", "ecdsa-sha512"),
        ("p521", "ecdsa-sha256"),
        ("ed25519", "ed25519-sha512"),
    ],
)
def test_every_key_and_algorithm_of_cloudapi_is_accepted(sim, kind, algorithm):
    account = sim.cloud.add_account("signer", [openssh(kind)])
    fingerprint = next(iter(account.keys)).fingerprint
    headers = modern(f"/signer/keys/{fingerprint}", kind, algorithm.lower())
    headers["Authorization"] = headers["Authorization"].replace(algorithm.lower(), algorithm)
    answer = requests.get(sim.url + "/my", headers=headers, timeout=5)
    assert (answer.status_code, answer.json()["login"]) == (200, "signer")


@pytest.mark.parametrize("algorithm", ["rsa-sha1", "rsa-sha256", "rsa-sha512"])
def test_the_legacy_form_signs_the_value_of_the_date_alone(sim, algorithm):
    assert requests.get(sim.url + "/my", headers=legacy("/demo/keys/rsa", algorithm=algorithm), timeout=5).status_code == 200


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [("rsa", "rsa-sha384"), ("p384", "ecdsa-sha384"), ("p256", "ecdsa-sha1"), ("rsa", "hs2019"), ("rsa", "hmac-sha256")],
)
def test_an_algorithm_that_cloudapi_does_not_support_is_a_bad_header(sim, kind, algorithm):
    answer = requests.get(sim.url + "/my", headers=modern("/demo/keys/rsa", kind, algorithm), timeout=5)
    assert error(answer) == (400, "InvalidHeader")
    assert answer.json()["message"] == f"Authorization header invalid: {algorithm} is not supported"


def test_a_legacy_header_can_not_name_an_elliptic_curve(sim):
    answer = requests.get(sim.url + "/my", headers=legacy("/other/keys/p256", "p256", "ecdsa-sha256"), timeout=5)
    assert answer.json()["message"] == "Authorization header invalid: bad param format"


@pytest.mark.parametrize(("kind", "algorithm"), [("rsa", "ecdsa-sha256"), ("p256", "ecdsa-sha256"), ("ed25519", "ed25519-sha512")])
def test_a_signature_of_another_key_or_family_is_refused(sim, kind, algorithm):
    answer = requests.get(sim.url + "/my", headers=modern("/demo/keys/rsa", kind, algorithm), timeout=5)
    assert error(answer) == (401, "InvalidCredentials")
    assert answer.json()["message"] == "Invalid authorization credentials supplied"
    assert "WWW-Authenticate" not in answer.headers


def test_a_right_signature_under_the_name_of_another_family_is_refused(sim):
    sim.cloud.add_account("edward", [openssh("ed25519")])
    assert requests.get(sim.url + "/my", headers=modern("/edward/keys/ed25519", "ed25519", "rsa-sha256"), timeout=5).status_code == 401


def test_a_legacy_signature_of_a_modern_text_is_refused(sim):
    date = now_as_date()
    signature = sign("rsa", "rsa-sha256", f"date: {date}")
    headers = {"Date": date, "Authorization": f'Signature keyId="/demo/keys/rsa",algorithm="rsa-sha256",headers="date" {signature}'}
    assert requests.get(sim.url + "/my", headers=headers, timeout=5).status_code == 401


def test_a_date_only_signature_can_be_used_again_for_any_call(sim, demo, booted):
    headers = modern("/demo/keys/rsa")
    assert requests.get(f"{sim.url}/demo/keys", headers=headers, timeout=5).status_code == 200
    assert requests.delete(f"{sim.url}/demo/machines/{booted}", headers=headers, timeout=5).status_code == 204


def test_a_signed_request_target_binds_the_signature_to_its_path_and_query(sim):
    target = "get /my/machines?limit=5"
    headers = modern("/demo/keys/rsa", headers="(request-target) date", target=target)
    assert requests.get(sim.url + "/my/machines?limit=5", headers=headers, timeout=5).status_code == 200
    assert requests.get(sim.url + "/my/machines?limit=6", headers=headers, timeout=5).status_code == 401
    assert requests.head(sim.url + "/my/machines?limit=5", headers=headers, timeout=5).status_code == 401


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text.replace('",algorithm', '", algorithm'), "bad param format"),
        (lambda text: text.replace('keyId="/demo/keys/rsa"', "keyId=/demo/keys/rsa"), "bad param format"),
        (lambda text: text.replace("Signature ", "signature "), 'scheme was not "Signature"'),
        (lambda text: text.replace('algorithm="rsa-sha256",', ""), "algorithm was not specified"),
        (lambda text: text.replace('keyId="/demo/keys/rsa",', ""), "keyId was not specified"),
        (lambda text: text[: text.index(',signature="')], "signature was not specified"),
        (lambda text: text.replace('headers="date"', 'headers="host"'), "date was not a signed header"),
        (lambda text: text.replace('headers="date"', 'headers="date digest"'), "digest was not in the request"),
    ],
)
def test_a_malformed_authorization_is_400_and_says_why(sim, spoil, reason):
    headers = modern("/demo/keys/rsa")
    headers["Authorization"] = spoil(headers["Authorization"])
    answer = requests.get(sim.url + "/my", headers=headers, timeout=5)
    assert error(answer) == (400, "InvalidHeader")
    assert answer.json()["message"] == f"Authorization header invalid: {reason}"


def test_a_word_alone_is_no_authorization(sim):
    answer = requests.get(sim.url + "/my", headers={"Authorization": "Signature"}, timeout=5)
    assert (answer.status_code, answer.json()["message"]) == (400, "BasicAuth content is invalid.")


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic YTpi"}, {"Authorization": "Bearer x"}, {"Signature": "x"}])
def test_without_a_signature_there_is_no_answer(sim, headers):
    answer = requests.get(sim.url + "/my", headers=headers, timeout=5)
    assert error(answer) == (401, "InvalidCredentials")
    assert answer.json()["message"] == "You must make authenticated requests to use CloudAPI"


@pytest.mark.parametrize("seconds", [-310, 310])
@pytest.mark.parametrize(("form", "reason"), [(modern, "clock skew of 3"), (legacy, "bad param format")])
def test_a_clock_five_minutes_off_is_a_bad_header(sim, seconds, form, reason):
    date = formatdate(time.time() + seconds, usegmt=True)
    answer = requests.get(sim.url + "/my", headers=form("/demo/keys/rsa", date=date), timeout=5)
    assert error(answer) == (400, "InvalidHeader")
    assert answer.json()["message"].startswith(f"Authorization header invalid: {reason}")


@pytest.mark.parametrize(
    "date",
    [
        lambda: now_as_date().replace("GMT", "UTC"),
        lambda: datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        lambda: formatdate(time.time() - 290, usegmt=True),
    ],
)
def test_dates_of_go_and_of_javascript_are_read(sim, date):
    assert requests.get(sim.url + "/my", headers=modern("/demo/keys/rsa", date=date()), timeout=5).status_code == 200


@pytest.mark.parametrize("date", ["yesterday", "x", "12345"])
def test_a_date_that_is_none_is_refused(sim, date):
    answer = requests.get(sim.url + "/my", headers=modern("/demo/keys/rsa", date=date), timeout=5)
    assert error(answer) == (400, "InvalidHeader")


def test_an_old_date_without_a_signature_has_expired(sim):
    past, future = (formatdate(time.time() + seconds, usegmt=True) for seconds in (-400, 400))
    assert error(requests.get(sim.url + "/my", headers={"Date": past}, timeout=5)) == (400, "RequestExpired")
    assert requests.get(sim.url + "/my", headers={"Date": future}, timeout=5).status_code == 401


@pytest.mark.parametrize("key_id", ["/demo/keys", "demo/keys/rsa", "/demo/keys/rsa/x", "rsa", "/demo/nokeys/rsa"])
def test_a_key_id_of_another_shape_is_named_in_the_refusal(sim, key_id):
    answer = requests.get(sim.url + "/my", headers=modern(key_id), timeout=5)
    assert (answer.status_code, answer.json()["message"]) == (401, f"Invalid KeyId {key_id} in authorization header")


def test_a_key_goes_by_name_or_md5_fingerprint_and_an_account_by_login_or_uuid(sim):
    account = sim.cloud.accounts["demo"]
    fingerprint = next(iter(account.keys)).fingerprint
    for key_id in (f"/demo/keys/{fingerprint}", f"/{account.id}/keys/rsa"):
        assert requests.get(sim.url + "/my", headers=modern(key_id), timeout=5).status_code == 200
    for key_id in (f"/demo/keys/MD5:{fingerprint}", f"/my/keys/{fingerprint}", "/demo/keys/SHA256:x", "/nobody/keys/rsa"):
        assert requests.get(sim.url + "/my", headers=modern(key_id), timeout=5).status_code == 401


def test_a_sub_user_signs_with_his_own_key_and_sees_the_parent_account(sim):
    account = sim.cloud.add_account("parent", [openssh("rsa")], users={"ann": [openssh("p256")]})
    ann = modern("/parent/users/ann/keys/p256", "p256", "ecdsa-sha256")
    assert requests.get(sim.url + "/parent", headers=ann, timeout=5).json()["login"] == "parent"
    assert requests.get(sim.url + "/my", headers=ann | {"Accept-Version": "~7.1"}, timeout=5).status_code == 401
    assert requests.get(sim.url + "/my", headers=modern("/parent/users/ann/keys/rsa"), timeout=5).status_code == 401
    account.users[0].authorized = False
    assert error(requests.get(sim.url + "/my", headers=ann, timeout=5)) == (403, "NotAuthorized")


def test_a_sub_user_may_do_what_its_policies_say(sim):
    sim.cloud.add_account("parent", [openssh("rsa")], users={"ann": [openssh("p256")]})
    ann = modern("/parent/users/ann/keys/p256", "p256", "ecdsa-sha256")
    patch = sim.url + "/--sim/accounts/parent"
    for rights, statuses in (({"actions": ["getaccount"]}, (200, 403)), ({"actions": []}, (403, 403)), ({"actions": None}, (200, 200))):
        assert requests.patch(patch, json={"user": "ann", **rights}, timeout=5).status_code == 200
        assert tuple(requests.get(sim.url + path, headers=ann, timeout=5).status_code for path in ("/parent", "/parent/keys")) == statuses
    assert requests.patch(patch, json={"actions": []}, timeout=5).status_code == 400


def test_who_may_not_create_machines_is_told_so_before_what_is_wrong_with_the_order(sim):
    """CloudAPI: `authorize` comes before `ensureDataset`. So it can be asked who may, and makes nothing."""
    account = sim.cloud.add_account("parent", [openssh("rsa")], users={"ann": [openssh("p256")]})
    ann = modern("/parent/users/ann/keys/p256", "p256", "ecdsa-sha256")
    for actions, expected in ((["listmachines"], (403, "NotAuthorized")), (["createmachine"], (409, "MissingParameter"))):
        account.users[0].actions = actions
        assert error(requests.post(sim.url + "/parent/machines", json={}, headers=ann, timeout=5)) == expected
    assert error(requests.post(sim.url + "/parent/machines", json={}, headers=modern("/parent/keys/rsa"), timeout=5))[0] == 409
    assert not account.live


def test_a_login_may_change_hands(sim):
    for login, key in (("alice", "rsa"), ("bob", "p256")):
        sim.cloud.add_account(login, [openssh(key)])
    alice, bob = (sim.cloud.accounts[login].id for login in ("alice", "bob"))
    assert requests.patch(sim.url + "/--sim/accounts/alice", json={"login": "bob"}, timeout=5).status_code == 409
    assert requests.patch(sim.url + "/--sim/accounts/alice", json={"login": "alice2"}, timeout=5).json()["uuid"] == alice
    assert requests.patch(sim.url + "/--sim/accounts/bob", json={"login": "alice"}, timeout=5).json()["uuid"] == bob
    hers = modern(f"/{alice}/keys/rsa")
    assert requests.get(f"{sim.url}/{alice}", headers=hers, timeout=5).json()["login"] == "alice2"
    assert requests.get(f"{sim.url}/alice", headers=hers, timeout=5).status_code == 403
    assert requests.get(f"{sim.url}/my", headers=modern("/alice/keys/rsa"), timeout=5).status_code == 401
    assert requests.get(f"{sim.url}/my", headers=modern("/alice/keys/p256", "p256", "ecdsa-sha256"), timeout=5).json()["id"] == bob


def test_a_disabled_account_is_told_so(sim, demo):
    sim.cloud.accounts["demo"].disabled = True
    assert demo.get("/my").json() == {"code": "NotAuthorized", "message": "Account or user is disabled"}


# The order of refusals


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("GET", "/my/no/such/route", {}, (404, "ResourceNotFound")),
        ("PUT", "/my/machines", {}, (405, "MethodNotAllowedError")),
        ("GET", "/my/machines", {"Accept-Version": "~10"}, (400, "InvalidVersion")),
        ("GET", "/my/machines", {"X-Api-Version": "garbage"}, (400, "InvalidVersion")),
        ("POST", "/my/keys", {"Content-Type": "application/xml"}, (415, "UnsupportedMediaTypeError")),
        ("GET", "/my/machines/%zz", {}, (400, "BadRequestError")),
        ("GET", "/my", {"Accept": "text/html"}, (406, "NotAcceptableError")),
    ],
)
def test_what_is_refused_before_anybody_is_asked_who_he_is_carries_no_cloudapi_headers(sim, method, path, headers, expected):
    # Not with requests, which mends a bad escape.
    connection = http.client.HTTPConnection(sim.url.removeprefix("http://"), timeout=5)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == expected
    assert not {"server", "request-id", "api-version"} & {name.lower() for name, _ in answer.getheaders()}
    connection.close()


def test_a_refused_method_names_the_allowed_ones(sim):
    assert "POST" in requests.put(sim.url + "/my/machines", timeout=5).headers["Allow"]


def test_a_body_is_read_before_the_signature_is_checked(sim):
    json_type = {"Content-Type": "application/json"}
    assert error(requests.post(sim.url + "/my/machines", data="{", headers=json_type, timeout=5)) == (400, "InvalidContent")
    large = requests.post(sim.url + "/my/machines", data=" " * 100_001, headers=json_type, timeout=5)
    assert error(large) == (413, "PayloadTooLargeError")
    assert requests.post(sim.url + "/my/machines", data=b"{}" + b" " * 99_998, headers=json_type, timeout=5).status_code == 401
    digest = {"Content-MD5": base64.b64encode(b"0" * 16).decode()}
    assert error(requests.post(sim.url + "/my/machines", data="{}", headers=json_type | digest, timeout=5)) == (400, "BadDigest")


def test_another_account_is_forbidden_and_an_unknown_one_is_not_found(sim, demo):
    assert error(demo.get("/other/machines")) == (403, "NotAuthorized")
    answer = demo.get("/nobody/machines")
    assert answer.json() == {"code": "ResourceNotFound", "message": "nobody does not exist"}


def test_an_unknown_image_wins_over_a_forbidden_account_and_over_the_throttle(sim, demo):
    sim.knobs.turn({"throttle": True, "throttle_burst": 1})
    assert demo.post("/other/machines", {"image": NOBODY, "package": DEFAULT_PACKAGE}).status_code == 404
    assert demo.get("/my/machines").status_code == 200
    assert demo.post("/my/machines", {"image": NOBODY, "package": DEFAULT_PACKAGE}).status_code == 404


def test_maintenance_stops_writes_before_the_throttle_and_lets_reads_through(sim, demo):
    sim.knobs.turn({"throttle": True, "throttle_burst": 1, "read_only": True})
    assert demo.get("/my/machines").status_code == 200
    answer = demo.create()
    assert (answer.status_code, answer.json()["message"]) == (503, "This Triton data center is being upgraded")
    assert "Retry-After" not in answer.headers


def test_a_body_field_replaces_the_segment_of_the_url(demo, booted, clock):
    other = demo.created(name="db")
    clock.goes_on(5)
    assert demo.post(f"/my/machines/{booted}", {"action": "stop", "machine": other}).status_code == 202
    clock.goes_on(1)
    assert (demo.state(booted), demo.state(other)) == ("running", "stopped")


def test_incomplete_pre_signed_parameters_are_a_500_without_a_code(demo):
    for query in ("algorithm=x", "method=GET"):
        answer = demo.get(f"/my?{query}")
        assert (answer.status_code, list(answer.json())) == (500, ["message"])


def test_a_client_that_wants_text_gets_the_bare_message(demo):
    assert demo.get("/nobody", headers={"Accept": "text/plain"}).text == "nobody does not exist"


def test_every_answer_to_a_known_caller_carries_cloudapis_headers(demo):
    answer = demo.get("/my", headers={"Accept-Version": "~8"})
    assert answer.headers["Server"] == "cloudapi/9.20.0"
    assert answer.headers["Api-Version"] == "9.0.0"
    assert answer.headers["Content-Type"] == "application/json"
    assert uuid.UUID(answer.headers["Request-Id"]).version == 4
    assert int(answer.headers["Response-Time"]) >= 0
    assert answer.headers["Content-MD5"] == base64.b64encode(hashlib.md5(answer.content).digest()).decode()
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    wanted = str(uuid.uuid4())
    assert demo.get("/my/none", headers={"X-Request-Id": wanted}).status_code == 404
    assert demo.get("/my", headers={"X-Request-Id": wanted}).headers["Request-Id"] == wanted


@pytest.mark.parametrize("wanted", ["8", "~9||~8", "*", "~7.0", "7.3.0", ">=7.2", "^7.1", "7.x", ">=7 <8", "<8.0.0"])
def test_version_ranges_of_npm_are_understood(demo, wanted):
    assert demo.get("/my", headers={"Accept-Version": wanted}).status_code == 200


def test_image_types_follow_the_version_asked_for(demo):
    def type_at(version):
        return demo.get(f"/my/images/{HVM_IMAGE}", headers={"Accept-Version": version}).json()["type"]

    assert (type_at("~7"), type_at("~8"), type_at("*")) == ("virtualmachine", "zvol", "zvol")


def test_ping_needs_nobody(sim):
    answer = requests.get(sim.url + "/--ping", timeout=5)
    assert answer.json() == {"ping": "pong", "cloudapi": {"versions": ["7.0.0", "7.1.0", "7.2.0", "7.3.0", "8.0.0", "9.0.0"]}}
    assert answer.headers["Triton-Datacenter-Name"] == "us-east-1"


# Account and keys


def test_an_account_is_shown_and_updated(sim, demo):
    assert demo.post("/my", {"companyName": "Acme", "login": "mallory"}).json()["companyName"] == "Acme"
    account = demo.get(f"/{sim.cloud.accounts['demo'].id}").json()
    assert (account["login"], account["companyName"], account["triton_cns_enabled"]) == ("demo", "Acme", False)
    assert demo.call("HEAD", "/my").status_code == 200


def test_a_key_is_added_used_and_deleted(sim, demo):
    answer = demo.post("/my/keys", {"name": "TSG Management", "key": openssh("p256")})
    fingerprint = answer.json()["fingerprint"]
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/demo/keys/{fingerprint.replace(':', '%3A')}"
    signed = modern("/demo/keys/TSG Management", "p256", "ecdsa-sha256")
    assert requests.get(sim.url + "/my", headers=signed, timeout=5).status_code == 200
    assert demo.get("/my/keys/TSG%20Management").json() == answer.json() == demo.get(f"/my/keys/{fingerprint}").json()
    assert [key["name"] for key in demo.get("/my/keys").json()] == ["rsa", "TSG Management"]
    assert demo.delete("/my/keys/TSG%20Management").status_code == 204
    assert demo.delete("/my/keys/TSG%20Management").json()["message"] == "TSG Management does not exist"
    assert requests.get(sim.url + "/my", headers=signed, timeout=5).status_code == 401


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({}, "MissingParameter", "key is a required argument"),
        ({"key": 1}, "InvalidArgument", "key must be a String"),
        ({"key": "nonsense"}, "InvalidArgument", "key is invalid"),
        ({"key": "ssh-rsa nonsense"}, "InvalidArgument", "key already exists or is invalid"),
        ({"key": openssh("p256"), "name": "rsa"}, "InvalidArgument", "key already exists or is invalid"),
        ({"key": openssh("rsa"), "name": "new"}, "InvalidArgument", "key already exists or is invalid"),
    ],
)
def test_a_key_that_can_not_be_added_is_a_conflict(demo, body, code, message):
    answer = demo.post("/my/keys", body)
    assert (answer.status_code, answer.json()) == (409, {"code": code, "message": message})


def test_keys_without_a_comment_collide_on_their_default_name(demo):
    bare = [" ".join(openssh(kind).split()[:2]) for kind in ("p384", "p521")]
    assert demo.post("/my/keys", {"key": bare[0]}).json()["name"] == "(unnamed)"
    assert demo.post("/my/keys", {"key": bare[1]}).status_code == 409


def test_a_key_without_a_content_type_is_not_seen(demo):
    answer = demo.call("POST", "/my/keys", data=json.dumps({"key": openssh("p256")}).encode(), headers={"Content-Type": ""})
    assert error(answer) == (409, "MissingParameter")


# Making machines


def test_a_new_machine_is_provisioning_and_has_neither_nics_nor_a_package_name(demo):
    answer = demo.create(name="web", **{"tag.role": "web", "tag.n": 3, "tag.up": True, "metadata.user-data": "#!"})
    machine = answer.json()
    assert answer.headers["Location"] == f"/demo/machines/{machine['id']}"
    assert (machine["state"], machine["package"], machine["ips"], machine["networks"]) == ("provisioning", "", [], [])
    assert not {"nics", "primaryIp", "dns_names"} & set(machine)
    assert machine["tags"] == {"role": "web", "n": 3, "up": True}
    assert machine["metadata"]["user-data"] == "#!"
    assert machine["metadata"]["root_authorized_keys"].startswith("ssh-rsa ")
    assert (machine["memory"], machine["disk"], machine["type"], machine["brand"]) == (512, 10240, "smartmachine", "joyent")


def test_a_machine_runs_once_its_time_has_come(demo, clock):
    machine = demo.created()
    clock.goes_on(4.9)
    assert demo.state(machine) == "provisioning"
    clock.goes_on(0.2)
    shown = demo.get(f"/my/machines/{machine}").json()
    assert (shown["state"], shown["package"], shown["name"]) == ("running", "sim-small", machine[:8])
    assert shown["networks"] == [DEFAULT_NETWORK, PRIVATE_NETWORK]
    assert shown["primaryIp"] == shown["ips"][0] == shown["nics"][0]["ip"]
    booted = datetime.fromisoformat(shown["updated"]) - datetime.fromisoformat(shown["created"])
    assert booted.total_seconds() == pytest.approx(5, abs=0.01)


def test_machines_have_addresses_of_their_own(demo, clock):
    machines = [demo.created() for _ in range(3)]
    clock.goes_on(5)
    addresses = [ip for machine in machines for ip in demo.get(f"/my/machines/{machine}").json()["ips"]]
    assert len(set(addresses)) == 6


def test_jitter_makes_some_machines_slower(sim, demo, clock):
    sim.knobs.provision_jitter = 10
    machines = [demo.created() for _ in range(8)]
    clock.goes_on(10)
    assert {demo.state(machine) for machine in machines} == {"provisioning", "running"}
    clock.goes_on(5)
    assert {demo.state(machine) for machine in machines} == {"running"}


@pytest.mark.parametrize(
    ("fields", "status", "code", "message"),
    [
        ({"image": None}, 409, "MissingParameter", "image must be specified"),
        ({"image": "x"}, 409, "InvalidArgument", "x is not a valid image"),
        ({"image": NOBODY}, 404, "ResourceNotFound", "image not found"),
        ({"dataset": DEFAULT_IMAGE}, 409, "InvalidArgument", None),
        ({"package": None}, 409, "MissingParameter", "package must be specified"),
        ({"package": "x"}, 409, "InvalidArgument", "x is not a valid package"),
        ({"package": NOBODY}, 404, "ResourceNotFound", None),
        ({"networks": [NOBODY]}, 409, "InvalidArgument", "Invalid Networks"),
        ({"affinity": "web"}, 409, "InvalidArgument", None),
        ({"affinity": "role!=web", "locality": {"near": NOBODY}}, 409, "InvalidArgument", None),
        ({"locality": {"near": "x"}}, 409, "ValidationFailed", None),
        ({"brand": "lx"}, 409, "InvalidArgument", None),
        ({"name": "no spaces"}, 409, "ValidationFailed", "Invalid VM parameters: Invalid machine name"),
        ({"name": "x" * 190}, 409, "ValidationFailed", None),
        ({"tag.triton.x": "y"}, 409, "ValidationFailed", None),
        ({"tag.x": {"a": 1}}, 409, "ValidationFailed", None),
    ],
)
def test_a_wrong_order_is_refused(demo, fields, status, code, message):
    answer = demo.create(**fields)
    assert error(answer) == (status, code)
    assert message is None or answer.json()["message"] == message


def test_networks_that_are_no_uuids_and_names_that_are_no_texts_break_cloudapi(demo):
    answer = demo.create(networks=["sim-public"])
    assert (answer.status_code, answer.json()) == (500, {"message": "netUuid (uuid) is required"})
    answer = demo.create(name=1)
    assert (answer.status_code, list(answer.json())) == (500, ["message"])


def test_networks_are_given_as_ids_or_as_objects(demo, clock):
    ids = [FABRIC_NETWORK, DEFAULT_NETWORK, FABRIC_NETWORK]
    objects = [{"ipv4_uuid": FABRIC_NETWORK, "primary": True}, {"ipv4_uuid": DEFAULT_NETWORK, "ipv4_count": 1}]
    machines = [demo.created(networks=ids), demo.created(networks=objects)]
    ignored = demo.created(networks="nothing")
    clock.goes_on(5)
    for machine in machines:
        shown = demo.get(f"/my/machines/{machine}").json()
        assert shown["networks"] == [FABRIC_NETWORK, DEFAULT_NETWORK]
        assert [nic["primary"] for nic in shown["nics"]] == [False, True], "the public one is, whatever was asked"
    assert demo.get(f"/my/machines/{ignored}").json()["networks"] == [DEFAULT_NETWORK, PRIVATE_NETWORK]


@pytest.mark.parametrize(
    ("networks", "code", "message"),
    [
        ([{"ipv4_uuid": FABRIC_NETWORK}, DEFAULT_NETWORK], "InvalidArgument", "Invalid Networks"),
        ([FABRIC_NETWORK, {"ipv4_uuid": DEFAULT_NETWORK}], "InvalidArgument", "Invalid Networks"),
        ([{"uuid": FABRIC_NETWORK}], "MissingParameter", "network objects must contain ipv4_uuid"),
        ([{"ipv4_uuid": 1}], "InvalidArgument", "ipv4_uuid must be a string"),
        ([{"ipv4_uuid": "sim-fabric"}], "InvalidArgument", "ipv4_uuid: sim-fabric is not a uuid"),
        ([{"ipv4_uuid": FABRIC_NETWORK, "ipv4_count": 2}], "InvalidArgument", "ipv4_count can only be set to 1"),
        (
            [{"ipv4_uuid": FABRIC_NETWORK, "ipv4_count": 1, "ipv4_ips": ["10.0.0.9"]}],
            "InvalidArgument",
            "ipv4_count and ipv4_ips cannot be specified together",
        ),
        ([{"ipv4_uuid": FABRIC_NETWORK, "ipv4_ips": []}], "InvalidArgument", None),
        ([{"ipv4_uuid": DEFAULT_NETWORK, "ipv4_ips": ["198.18.0.9"]}], "InvalidArgument", None),
        ([7], "InvalidArgument", 'property "networks[0]": array of strings or objects expected'),
        ([NOBODY], "InvalidArgument", "Invalid Networks"),
    ],
)
def test_networks_that_will_not_do_are_refused(demo, networks, code, message):
    answer = demo.create(networks=networks)
    assert error(answer) == (409, code)
    assert message is None or answer.json()["message"] == message


def test_network_objects_are_for_version_7_3_and_later(demo):
    networks = [{"ipv4_uuid": FABRIC_NETWORK}]
    assert refusal(demo.create(networks=networks, headers={"Accept-Version": "~7.2"})) == "Invalid Networks"
    assert demo.create(networks=networks, headers={"Accept-Version": "~7.3"}).status_code == 201


def test_a_machine_has_one_public_network_at_most(sim, demo):
    answer = demo.create(networks=[DEFAULT_NETWORK, offered(sim, "networks", public=True)])
    assert refusal(answer) == "Can specify a maximum of 1 public networks"


def test_fabric_networks_may_be_for_some_packages_alone(sim, demo):
    sim.knobs.fabric_packages = ["g1-", "sim-l"]
    answer = demo.create(networks=[FABRIC_NETWORK])
    assert error(answer) == (409, "InvalidFabricPackage")
    assert answer.json()["message"].endswith("with a fabric network: g1-, sim-l")
    assert demo.create(networks=[FABRIC_NETWORK], package=LARGE_PACKAGE).status_code == 201
    assert demo.create(networks=[PRIVATE_NETWORK]).status_code == 201


GIB = 1024
FLEXIBLE = {"image": HVM_IMAGE, "package": FLEXIBLE_PACKAGE}  # 50 GiB; the image has 10


@pytest.mark.parametrize(
    ("disks", "sizes"),
    [
        (None, [10 * GIB, 40 * GIB]),
        ([{}], [10 * GIB]),
        ([{"size": 20 * GIB}], [20 * GIB]),
        ([{"size": "remaining"}], [50 * GIB]),
        ([{}, {"size": 1 * GIB}, {"size": "remaining"}], [10 * GIB, 1 * GIB, 39 * GIB]),
        ([{"size": "remaining"}, {"size": 5 * GIB}], [45 * GIB, 5 * GIB]),
        ([{}, {"size": 40 * GIB}], [10 * GIB, 40 * GIB]),
    ],
)
def test_a_flexible_package_shares_out_its_disk(demo, clock, disks, sizes):
    machine = demo.created(**FLEXIBLE, disks=disks)
    clock.goes_on(5)
    shown = demo.get(f"/my/machines/{machine}").json()
    assert [disk["size"] for disk in shown["disks"]] == sizes
    assert (shown["disks"][0]["boot"], shown["disks"][0]["image"]) == (True, HVM_IMAGE)
    assert not any("boot" in disk or "image" in disk for disk in shown["disks"][1:])
    assert (shown["flexible"], shown["disk"]) == (True, 50 * GIB)


def test_a_disk_has_its_block_size_and_id(demo):
    disk = {"size": 1024, "block_size": 4096, "id": str(uuid.uuid4())}
    assert demo.create(**FLEXIBLE, disks=[{}, disk]).json()["disks"][1] == disk


@pytest.mark.parametrize(
    ("disks", "message"),
    [
        ([{}] * 9, "A maximum of 8 disks per VM are supported"),
        ([{}, {"size": "remaining"}, {"size": "remaining"}], "Only one disk.size can be set to `remaining`"),
        ([{"size": 1024}], "Size must be greater than or equal to image size for the boot disk"),
        ([{}, {"size": 41 * GIB}], "The size of the disks must not be greater than the package quota"),
        ([{"size": "remaining"}, {"size": 41 * GIB}], "The size of the disks must not be greater than the package quota"),
        ([{"block_size": 512}], "Cannot set block_size and image_uuid."),
        ([{}, {"size": 9, "block_size": 1000}], "Invalid block_size: 1000 on disk: 1. Must be 512-131072 and a power of 2."),
        ([{}, {"size": 40 * GIB}, {"size": "remaining"}], "Invalid VM parameters"),
        ([{}, {}], "Invalid VM parameters"),
        ([{}, {"size": 0}], "Invalid VM parameters"),
        ([{}, {"size": "10"}], "Invalid VM parameters"),
    ],
)
def test_disks_that_do_not_fit_are_refused(demo, disks, message):
    assert refusal(demo.create(**FLEXIBLE, disks=disks)) == message


@pytest.mark.parametrize("disks", ["all", [], {}, [None]])
def test_disks_that_are_no_array_of_objects_break_cloudapi(demo, disks):
    assert demo.create(**FLEXIBLE, disks=disks).status_code == 500


def test_disks_are_for_flexible_packages_and_a_zone_ignores_them(demo):
    disks, message = [{}], "The use of `disks` is only supported if the package has the flexible_disk attr set to true"
    assert refusal(demo.create(image=HVM_IMAGE, package=HVM_PACKAGE, disks=disks)) == message
    assert refusal(demo.create(image=HVM_IMAGE, brand="kvm", disks=disks)) == message
    assert "disks" not in demo.create(disks=disks).json()
    fixed = demo.create(image=HVM_IMAGE, package=HVM_PACKAGE).json()
    assert ([disk["size"] for disk in fixed["disks"]], fixed["flexible"]) == ([10 * GIB, 50 * GIB], False)
    assert demo.get(f"/my/packages/{FLEXIBLE_PACKAGE}").json()["flexible_disk"] is True


MOUNT = {"name": "sim-volume", "mountpoint": "/data"}


def test_volumes_are_listed_got_and_kept_from_other_accounts(sim, demo):
    foreign = offered(sim, "volumes", name="theirs", owners=[sim.cloud.accounts["other"].id])
    mine = offered(sim, "volumes", name="mine", size=20480, networks=[FABRIC_NETWORK], owners=[sim.cloud.accounts["demo"].id])
    failed = offered(sim, "volumes", name="broken", state="failed")
    assert [volume["name"] for volume in demo.get("/my/volumes").json()] == ["sim-volume", "mine"]
    assert [volume["id"] for volume in demo.get("/my/volumes?name=mine").json()] == [mine]
    assert [volume["id"] for volume in demo.get("/my/volumes?state=failed").json()] == [failed]
    assert refusal(demo.get("/my/volumes?colour=red")) == "Error: invalid parameter: colour"
    shown = demo.get(f"/my/volumes/{mine}").json()
    assert (shown["name"], shown["size"], shown["networks"], shown["state"], shown["refs"]) == (
        "mine",
        20480,
        [FABRIC_NETWORK],
        "ready",
        [],
    )
    assert error(demo.get(f"/my/volumes/{foreign}")) == (404, "VolumeNotFound")
    assert error(demo.get("/my/volumes/mine")) == (409, "InvalidArgument")


def test_a_machine_mounts_volumes_of_its_networks(sim, demo, clock):
    volumes = [MOUNT, {"name": "more", "mountpoint": "/more", "mode": "ro", "type": "tritonnfs"}]
    volume = offered(sim, "volumes", name="more", networks=[FABRIC_NETWORK, PRIVATE_NETWORK])
    machine = demo.created(volumes=volumes, networks=[FABRIC_NETWORK])
    clock.goes_on(5)
    assert demo.state(machine) == "running"
    assert "volumes" not in demo.get(f"/my/machines/{machine}").json()
    assert requests.get(sim.url + "/--sim/state", timeout=5).json()["machines"][0]["volumes"] == volumes
    assert demo.get(f"/my/volumes/{volume}").json()["refs"] == [machine]
    demo.delete(f"/my/machines/{machine}")
    clock.goes_on(1)
    assert demo.get(f"/my/volumes/{volume}").json()["refs"] == []


def test_a_volume_on_no_network_of_the_machine_is_not_reachable(demo):
    answer = demo.create(volumes=[MOUNT], networks=[PRIVATE_NETWORK])
    assert error(answer) == (409, "VolumesNotReachableError")
    assert answer.json()["message"] == (
        f"Volumes not reachable from machine: Volume sim-volume not reachable on networks {PRIVATE_NETWORK}"
    )


def test_a_machine_with_a_volume_that_is_not_there_fails(sim, demo, clock):
    offered(sim, "volumes", name="coming", state="creating", networks=[FABRIC_NETWORK])
    for name in ("none", "coming"):
        machine = demo.created(volumes=[MOUNT | {"name": name}], networks=[FABRIC_NETWORK])
        clock.goes_on(5)
        assert demo.state(machine) == "failed"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "x"},
        {"name": "-x"},
        {"name": "a b"},
        {"name": 1},
        {"name": "x" * 257},
        {"mountpoint": "data"},
        {"mountpoint": "//"},
        {"mountpoint": "/a\0"},
        {"mountpoint": None},
        {"mode": "rx"},
        {"type": "nfs"},
    ],
)
def test_a_wrong_volume_gets_an_error_that_explains_nothing(demo, wrong):
    answer = demo.create(volumes=[MOUNT, MOUNT | wrong], networks=[FABRIC_NETWORK])
    assert (answer.status_code, answer.json()) == (500, {"message": ""})


def test_volumes_are_for_zones_and_where_the_operator_allows_them(sim, demo):
    assert refusal(demo.create(image=HVM_IMAGE, volumes=[MOUNT])) == 'volumes not yet supported with brand "bhyve"'
    assert demo.create(volumes=[]).status_code == 201
    sim.knobs.mount_volumes = False
    assert refusal(demo.create(volumes=[MOUNT], networks=[FABRIC_NETWORK])) == "Support for automounting volumes is not enabled"


def test_a_package_goes_by_name_and_its_highest_version_wins(sim, demo):
    requests.post(sim.url + "/--sim/packages", json={"id": NOBODY, "name": "sim-small", "version": "1.0.10", "memory": 1}, timeout=5)
    assert demo.create(package="sim-small").json()["memory"] == 1


def test_of_a_package_that_went_out_of_use_the_name_goes_first(sim, demo):
    older, newer = (offered(sim, "packages", name="g1.nano", version=version, memory=memory) for version, memory in (("1", 64), ("2", 128)))
    assert demo.create(package="g1.nano").json()["memory"] == 128
    offered(sim, "packages", name="g1.nano", version="3", active=False)
    assert demo.create(package="g1.nano").json()["memory"] == 128
    unused = offered(sim, "packages", name="g1.micro", active=False)
    assert refusal(demo.create(package="g1.micro")) == "g1.micro is not a valid package"
    assert refusal(demo.create(package=unused)) == f"{unused} is inactive. Must use an active package"
    assert demo.get("/my/packages/g1.nano").json()["id"] == newer
    assert [package["id"] for package in demo.get("/my/packages?name=g1.*").json()] == [older, newer]
    assert demo.get("/my/packages/g1.micro").status_code == 404
    assert demo.get(f"/my/packages/{unused}").status_code == 200


@pytest.mark.parametrize(
    ("version", "consent", "accepted"),
    [
        ("8", {}, True),
        ("~8", {}, True),
        ("~9||~8", {}, False),
        ("*", {}, False),
        ("9", {"allow_shared_images": "true"}, False),
        ("9", {"allow_shared_images": True}, True),
    ],
)
def test_a_shared_image_wants_a_word_from_version_9(sim, demo, version, consent, accepted):
    owner, shared_with = (sim.cloud.accounts[login].id for login in ("other", "demo"))
    image = offered(sim, "images", owner=owner, public=False, acl=[shared_with])
    answer = demo.create(image=image, headers={"Accept-Version": version}, **consent)
    if accepted:
        assert answer.status_code == 201
    else:
        assert error(answer) == (409, "InvalidArgument")
        assert answer.json()["message"] == (
            f'{image} is a shared image - to provision a shared image you can either clone the image or set "allow_shared_images" to true.'
        )


def test_an_image_is_there_for_its_owner_and_those_it_is_shared_with(sim, demo):
    owner, other = sim.cloud.add_account("owner", [openssh("rsa")]).id, Client(sim.url, "owner")
    image = offered(sim, "images", owner=owner, public=False)
    operators = offered(sim, "images", public=False, acl=[sim.cloud.accounts["demo"].id])
    assert demo.get(f"/my/images/{image}").status_code == demo.create(image=image).status_code == 404
    assert other.get(f"/my/images/{image}").json()["owner"] == owner
    assert other.create(image=image).status_code == 201
    assert demo.create(image=operators).status_code == 201
    assert operators in [row["id"] for row in demo.get("/my/images").json()]
    assert demo.get(f"/my/images/{operators}").json()["acl"] == [sim.cloud.accounts["demo"].id]
    assert operators not in [row["id"] for row in other.get("/my/images").json()]


def test_an_image_that_is_out_of_use_is_refused_and_says_so(sim, demo):
    image = offered(sim, "images", state="disabled")
    assert refusal(demo.create(image=image)) == f"image {image} is not active"
    assert demo.get(f"/my/images/{image}").json()["state"] == "disabled"


def test_a_package_must_have_the_memory_and_the_system_of_the_image(sim, demo):
    image = offered(sim, "images", min_ram=1024, os="linux")
    assert demo.get(f"/my/images/{image}").json()["requirements"] == {"min_memory": 1024, "min_ram": 1024}
    message = refusal(demo.create(image=image))
    assert message == "You must use a package with at least 1024 MiB of RAM in order to provision the selected image"
    assert demo.create(image=image, package=LARGE_PACKAGE).status_code == 201
    package = offered(sim, "packages", os="smartos", memory=1024)
    assert refusal(demo.create(image=image, package=package)).startswith("The package and image must have the same OS")


@pytest.mark.parametrize(
    ("fields", "brand"),
    [
        ({}, "joyent"),
        ({"image": LX_IMAGE}, "lx"),
        ({"image": HVM_IMAGE}, "bhyve"),
        ({"image": HVM_IMAGE, "brand": "kvm"}, "kvm"),
        ({"image": HVM_IMAGE, "package": HVM_PACKAGE, "brand": "bhyve"}, "bhyve"),
    ],
)
def test_a_brand_follows_from_the_request_the_image_and_the_package(demo, fields, brand):
    machine = demo.create(**fields).json()
    assert machine["brand"] == brand
    assert machine["type"] == ("virtualmachine" if brand in ("kvm", "bhyve") else "smartmachine")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"brand": "lx"}, 'Unknown brand "lx". Brand is restricted to one of ["bhyve","kvm"]'),
        ({"brand": "kvm"}, 'Brand "kvm" requires the image type to be "zvol"'),
        ({"package": HVM_PACKAGE}, 'Brand "bhyve" requires the image type to be "zvol"'),
        ({"package": HVM_PACKAGE, "image": HVM_IMAGE, "brand": "kvm"}, 'Package requires brand "bhyve", but brand "kvm" was selected'),
        ({"image": LX_IMAGE, "brand": "bhyve"}, 'Image requires brand "lx", but brand "bhyve" was selected'),
    ],
)
def test_a_brand_that_does_not_fit_is_refused(demo, fields, message):
    assert refusal(demo.create(**fields)) == message


def test_tags_and_metadata_keep_their_types(demo, clock):
    values = {"text": "true", "flag": True, "whole": 3, "part": 0.5, "none": ""}
    machine = demo.created(**{f"{kind}.{key}": value for kind in ("tag", "metadata") for key, value in values.items()})
    clock.goes_on(5)
    for shown in (demo.get(f"/my/machines/{machine}").json(), demo.get("/my/machines").json()[0]):
        assert json.dumps(shown["tags"], sort_keys=True) == json.dumps(values, sort_keys=True)
        del shown["metadata"]["root_authorized_keys"]
        assert json.dumps(shown["metadata"], sort_keys=True) == json.dumps(values, sort_keys=True)
    assert demo.listed("?tag.flag=true") == demo.listed("?tag.whole=3") == [machine]


def test_metadata_that_cloudapi_drops_or_overwrites_is_lost_without_a_word(demo):
    names = ["root_pw", "-dash", " blank", ".dot", "é", "", "root_authorized_keys", "kept", "user-data", "1", "cloud-init:user-data"]
    machine = demo.create(**{f"metadata.{name}": "mine" for name in names}, **{"metadata.credentials": "x"}).json()
    assert set(machine["metadata"]) == {"root_authorized_keys", "kept", "user-data", "1", "cloud-init:user-data"}
    assert machine["metadata"]["root_authorized_keys"] != "mine"
    assert refusal(demo.create(**{"metadata.x": ["a"]})) == "Invalid VM parameters: Invalid customer_metadata"


def test_machines_get_the_addresses_of_their_networks(sim, demo, clock):
    assert requests.post(f"{sim.url}/--sim/networks", json={"id": NOBODY, "subnet": "127.0.0.0/33"}, timeout=5).status_code == 400
    first, second = offered(sim, "networks", subnet="127.7.0.0/16"), offered(sim, "networks", subnet="127.8.0.0/16", public=True)
    machine = demo.created(networks=[first, second])
    clock.goes_on(5)
    shown = demo.get(f"/my/machines/{machine}").json()
    assert (shown["ips"], shown["networks"], shown["primaryIp"]) == (["127.7.0.10", "127.8.0.10"], [first, second], "127.8.0.10")


def test_dns_has_the_running_machines_of_a_service_that_are_not_down(sim, demo, clock):
    def ids(name):
        return [machine for ip in dns().get(f"{name}.svc.{zone}", ()) for machine in machines if ips[machine] == ip]

    def dns():
        return requests.get(f"{sim.url}/--sim/dns", timeout=5).json()

    zone = f"{sim.cloud.accounts['demo'].id}.us-east-1.cns.example.com"
    services = {"tag.triton.cns.services": "web:80:priority=1, db"}
    first, second, hidden, other = machines = [
        demo.created(**services),
        demo.created(**services),
        demo.created(**services, **{"tag.triton.cns.disable": True}),
        demo.created(),
    ]
    assert dns() == {}, "the account has no CNS"
    sim.cloud.accounts["demo"].cns = True
    assert ids("web") == []
    clock.goes_on(5)
    ips = {machine: demo.get(f"/my/machines/{machine}").json()["primaryIp"] for machine in machines}
    assert ids("web") == ids("db") == [first, second]
    for status, left in (("down", [second]), ("DOWN", [second]), ("up", [first, second])):
        assert demo.post(f"/my/machines/{first}/metadata", {"triton.cns.status": status}).status_code == 200
        clock.goes_on(0.5)
        assert ids("web") == left, status
    demo.post(f"/my/machines/{second}?action=stop", {})
    clock.goes_on(0.5)
    assert ids("web") == [first]
    assert {name for name in dns() if ".inst." in name} == {f"{machine}.inst.{zone}" for machine in machines if machine != hidden}
    assert ips[other] in dns()[f"{other}.inst.{zone}"]


def test_nested_tags_and_metadata_are_ignored_as_are_passwords_and_a_uuid(demo):
    nested = {"tags": {"a": "b"}, "metadata": {"a": "b"}, "metadata.root_pw": "x", "uuid": NOBODY, "deletion_protection": "true"}
    machine = demo.create(**nested).json()
    assert machine["id"] != NOBODY
    assert (machine["tags"], list(machine["metadata"])) == ({}, ["root_authorized_keys"])
    assert machine["deletion_protection"] is False


def test_a_machine_can_be_ordered_by_form_or_query_with_tags_of_text(demo):
    answer = demo.call("POST", f"/my/machines?image={DEFAULT_IMAGE}&tag.n=3", data={"package": "sim-small"})
    assert (answer.status_code, answer.json()["tags"]) == (201, {"n": "3"})


def test_a_name_is_unique_among_the_machines_that_are_left(sim, demo, clock):
    sim.knobs.fail_next_creates = 1
    demo.created(name="web")
    answer = demo.create(name="web")
    assert answer.json() == {
        "code": "ValidationFailed",
        "message": "Invalid VM parameters: Invalid machine name",
        "errors": [{"field": "alias", "code": "Duplicate", "message": "Already exists for this owner_uuid"}],
    }
    clock.goes_on(5)  # the first one fails
    second = demo.created(name="web")
    demo.delete(f"/my/machines/{second}")
    assert demo.create(name="web").status_code == 409
    clock.goes_on(0.6)
    assert demo.create(name="web").status_code == 201


def test_a_short_id_is_put_into_the_name(demo):
    machine = demo.create(name="web-{{shortId}}").json()
    assert machine["name"] == f"web-{machine['id'][:8]}"


def test_an_account_with_cns_has_short_names_and_dns_names(sim, demo):
    sim.cloud.accounts["demo"].cns = True
    message = "Name cannot be longer than 63 characters, because you have triton_cns_enabled set on your Account."
    assert refusal(demo.create(name="x" * 64)) == refusal(demo.create(name="x" * 56 + "{{shortId}}")) == message
    machine = demo.created(name="x" * 55 + "{{shortId}}")
    assert demo.get(f"/my/machines/{machine}").json()["dns_names"]
    assert "dns_names" not in demo.get("/my/machines").json()[0]


def test_an_account_without_keys_or_approval_can_not_provision(sim, demo):
    sim.cloud.add_account("keyless", users={"ann": [openssh("rsa")]})
    order = {"image": DEFAULT_IMAGE, "package": DEFAULT_PACKAGE}
    answer = requests.post(sim.url + "/my/machines", json=order, headers=modern("/keyless/users/ann/keys/rsa"), timeout=5)
    assert error(answer) == (409, "KeyRequired")
    sim.cloud.accounts["demo"].approved = False
    assert demo.create().json()["message"] == "User is not currently approved for provisioning"


def test_the_quota_is_a_403_and_failed_machines_leave_it(sim, demo, clock):
    sim.knobs.turn({"quota": {"demo": 2}, "fail_next_creates": 1})
    demo.created()
    demo.created()
    answer = demo.create()
    assert error(answer) == (403, "NotAuthorized")
    assert answer.json()["message"] == "Quota exceeded; to have your limits raised please contact Support"
    assert demo.get("/my/limits").json() == [{"value": 2, "used": 2}]
    clock.goes_on(5)
    assert demo.create().status_code == 201


def test_a_full_datacenter_has_no_allocatable_servers(sim, demo):
    sim.knobs.capacity = 1
    demo.created()
    assert error(demo.create()) == (409, "NoAllocatableServersError")


def nodes(demo, machines):
    return [demo.get(f"/my/machines/{machine}").json()["compute_node"] for machine in machines]


@pytest.mark.parametrize("rule", ["tsg.group!=one", "tsg.group!=o*", "tsg.group!=/^on/", "instance!=web-*", "container!=/web-/"])
def test_a_hard_spread_takes_one_machine_a_server(sim, demo, rule):
    sim.knobs.servers = 3
    spread = {"name": "web-{{shortId}}", "affinity": [rule], "tag.tsg.group": "one"}
    machines = [demo.created(**spread) for _ in range(3)]
    assert len(set(nodes(demo, machines))) == 3
    answer = demo.create(**spread)
    assert error(answer) == (409, "NoAllocatableServersError")
    assert demo.create(name="db", **{"tag.tsg.group": "two"}).status_code == 201, "others still find room"
    sim.knobs.servers = 4
    machines.append(demo.created(**spread))
    assert len(set(nodes(demo, machines))) == 4
    assert error(demo.create(**spread)) == (409, "NoAllocatableServersError")


def test_a_soft_spread_fills_servers_evenly(sim, demo):
    sim.knobs.servers = 3
    machines = [demo.created(affinity="tsg.group!=~one", **{"tag.tsg.group": "one"}) for _ in range(6)]
    counts = [nodes(demo, machines).count(node) for node in set(nodes(demo, machines))]
    assert counts == [2, 2, 2]


def test_a_deleted_machine_leaves_its_server_to_a_spread_and_a_stopped_one_does_not(sim, demo, clock):
    sim.knobs.servers = 2
    spread = {"affinity": ["role!=web"], "tag.role": "web"}
    first, second = demo.created(**spread), demo.created(**spread)
    clock.goes_on(5)
    demo.post(f"/my/machines/{first}", {"action": "stop"})
    clock.goes_on(1)
    assert error(demo.create(**spread)) == (409, "NoAllocatableServersError")
    (freed,) = nodes(demo, [second])
    demo.delete(f"/my/machines/{second}")
    clock.goes_on(1)
    assert nodes(demo, [demo.created(**spread)]) == [freed]


def test_a_rule_is_about_the_machines_of_its_account(sim, demo):
    sim.cloud.add_account("neighbour", [openssh("rsa")])
    sim.knobs.servers = 1
    spread = {"affinity": ["role!=web"], "tag.role": "web"}
    assert Client(sim.url, "neighbour").create(**spread).status_code == 201
    assert demo.create(**spread).status_code == 201


@pytest.mark.parametrize("rule", ["role=={}", "role==~{}", "instance=={}", "instance==~{}", "container==/^{}$/", "role==*{}"])
def test_a_machine_comes_near_to_another(sim, demo, rule):
    sim.knobs.servers = 8
    other = demo.created(name="db", **{"tag.role": "db"})
    for _ in range(3):
        assert nodes(demo, [demo.created(affinity=rule.format("db"))]) == nodes(demo, [other])
    assert nodes(demo, [demo.created(affinity=f"instance=={other}")]) == nodes(demo, [other])


@pytest.mark.parametrize(("rule", "accepted"), [("role==db", False), ("role==~db", True), ("role!=db", True), ("image==x", True)])
def test_of_the_rules_that_match_nothing_only_a_hard_near_counts(demo, rule, accepted):
    answer = demo.create(affinity=rule)
    assert answer.status_code == 201 if accepted else error(answer) == (409, "NoAllocatableServersError")


def test_a_hard_near_wants_all_that_match_on_one_server(sim, demo):
    sim.knobs.servers = 2
    machines = [demo.created(**{"tag.role": "db"}) for _ in range(2)]
    assert len(set(nodes(demo, machines))) == 2
    assert error(demo.create(affinity="role==db")) == (409, "NoAllocatableServersError")
    assert demo.create(affinity="role==~db").status_code == 201


def test_beside_a_hard_rule_soft_ones_are_dropped_without_a_word(sim, demo):
    sim.knobs.servers = 2
    web = demo.created(**{"tag.role": "web"})
    demo.created(**{"tag.role": "db"})
    near_web_far_from_db = ["role==~web", "role!=db"]
    assert nodes(demo, [demo.created(affinity=near_web_far_from_db)]) == nodes(demo, [web])
    sim.knobs.servers = 3
    assert nodes(demo, [demo.created(affinity=near_web_far_from_db)]) != nodes(demo, [web]), "the soft rule would have led there"


def test_a_full_server_takes_no_more(sim, demo):
    sim.knobs.turn({"servers": 2, "server_room": 2})
    machines = [demo.created(**{"tag.role": "web"}) for _ in range(4)]
    assert sorted(nodes(demo, machines).count(node) for node in set(nodes(demo, machines))) == [2, 2]
    assert error(demo.create()) == (409, "NoAllocatableServersError")
    sim.cloud.kill(sim.cloud.all_machines()[0])
    assert demo.create(affinity="role==~web").status_code == 201


def test_a_rule_of_number_or_boolean_tags_compares_their_text(sim, demo):
    sim.knobs.servers = 1
    demo.created(**{"tag.num": 3, "tag.up": True})
    for rule in ("num!=3", "up!=true", "num!=/^3$/", "up!=/^true$/"):
        assert error(demo.create(affinity=rule)) == (409, "NoAllocatableServersError"), rule
    assert demo.create(affinity="num!=4").status_code == 201


@pytest.mark.parametrize(
    ("affinity", "message"),
    [
        ("web", 'could not find operator in affinity rule: expected one of "==", "!=": "web"'),
        (["a=b"], 'could not find operator in affinity rule: expected one of "==", "!=": "a=b"'),
        (["role!=web", "x==y"], 'invalid key in affinity rule: "x==y": "x" does not match /^[a-z_][a-z0-9\\-_.]+$/i'),
        ("1x!=y", None),
        ("ro le!=y", None),
        ("role!=", None),
        ("role!=a,b", None),
        ("role!=~~x", None),
        ("role!=ä", None),
    ],
)
def test_an_affinity_rule_that_is_none_is_refused(demo, affinity, message):
    answer = demo.create(affinity=affinity)
    assert error(answer) == (409, "InvalidArgument")
    assert "in affinity rule: " in answer.json()["message"]
    assert message is None or answer.json()["message"] == message


@pytest.mark.parametrize("affinity", [7, [None], ["role!=web", {}], "role==/(/"])
def test_an_affinity_that_cloudapi_does_not_expect_breaks_it(demo, affinity):
    assert demo.create(affinity=affinity).status_code == 500


def test_locality_is_obeyed_alone_and_refused_beside_affinity(sim, demo):
    sim.knobs.servers = 2
    first = demo.created(affinity=None, locality={"strict": False})
    assert nodes(demo, [demo.created(locality={"near": first})]) == nodes(demo, [first])
    assert nodes(demo, [demo.created(locality={"far": [first], "strict": True})]) != nodes(demo, [first])
    message = refusal(demo.create(affinity="role!=web", locality={"strict": False}))
    assert message == 'cannot specify both "locality" (deprecated) and "affinity"'


def test_an_encrypted_machine_stands_on_an_encrypted_server_and_no_other_does(sim, demo):
    sim.knobs.servers = 1
    plain, encrypted = demo.created(encrypted="true"), demo.created(encrypted=True)
    shown = [demo.get(f"/my/machines/{machine}").json() for machine in (plain, encrypted)]
    assert [machine.get("encrypted") for machine in shown] == [None, True]
    assert shown[0]["compute_node"] != shown[1]["compute_node"]
    sim.knobs.encrypted_servers = 0
    assert error(demo.create(encrypted=True)) == (409, "NoAllocatableServersError")


def test_a_delegated_dataset_is_for_true_and_where_the_operator_allows_it(sim, demo):
    assert demo.create(delegate_dataset=True).json()["delegate_dataset"] is True
    assert "delegate_dataset" not in demo.create(delegate_dataset="true").json()
    sim.knobs.delegate_datasets = False
    assert demo.create(delegate_dataset=False).status_code == 201
    assert "not enabled" in refusal(demo.create(delegate_dataset=True))


def test_a_new_option_is_one_entry(demo, clock, monkeypatch):
    monkeypatch.setitem(OPTIONS, "colour", lambda asked, _brand: asked.params.get("colour"))
    machine, plain = demo.created(colour="red"), demo.created()
    clock.goes_on(5)
    assert demo.get(f"/my/machines/{machine}").json()["colour"] == "red"
    assert "colour" not in demo.get(f"/my/machines/{plain}").json()


def test_what_cloudapi_does_not_show_of_a_machine_the_state_does(sim, demo):
    machine = demo.created(affinity="role!=web", encrypted=True)
    assert "affinity" not in demo.get(f"/my/machines/{machine}").json()
    (shown,) = requests.get(sim.url + "/--sim/state", timeout=5).json()["machines"]
    assert (shown["affinity"], shown["encrypted"]) == (["role!=web"], True)


def test_a_quota_holds_against_thirty_creates_at_once(sim, demo):
    sim.knobs.default_quota = 20
    with ThreadPoolExecutor(30) as pool:
        statuses = list(pool.map(lambda _: demo.create().status_code, range(30)))
    assert (statuses.count(201), statuses.count(403)) == (20, 10)
    assert len(demo.listed()) == 20


# Lists


def test_pages_go_by_id_descending_and_count_their_own_rows(demo):
    ids = sorted((demo.created() for _ in range(5)), reverse=True)
    answer = demo.get("/my/machines?limit=2&offset=2")
    assert [machine["id"] for machine in answer.json()] == ids[2:4]
    assert (answer.headers["x-query-limit"], answer.headers["x-resource-count"]) == ("2", "2")
    assert demo.get("/my/machines").headers["x-query-limit"] == "1000"
    head = demo.call("HEAD", "/my/machines?limit=3")
    assert (head.headers["x-resource-count"], head.text) == ("3", "")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "offset=-1",
        "tag.role=",
        "name=-",
        "image=x",
        "brand=xen",
        "state=unknown",
    ],
)
def test_a_list_that_can_not_be_asked_for_is_a_validation_failure(demo, query):
    assert error(demo.get(f"/my/machines?{query}")) == (409, "ValidationFailed")


@pytest.mark.parametrize("state", ["failed", "deleted", "offline", "nonsense"])
def test_a_state_that_can_not_be_asked_for_is_an_invalid_argument(demo, state):
    answer = demo.get(f"/my/machines?state={state}")
    assert answer.json() == {"code": "InvalidArgument", "message": f"{state} is not a valid state"}


def test_unknown_filters_are_ignored_and_an_unknown_image_is_not_found(demo, booted):
    assert demo.listed("?package=none&colour=blue") == [booted]
    assert demo.get(f"/my/machines?image={NOBODY}").status_code == 404


def test_filters_are_anded(demo):
    tagged = demo.created(name="web-1", **{"tag.role": "web", "tag.tier": "1"})
    demo.created(name="web-2", **{"tag.role": "web"})
    assert demo.listed("?tag.role=web&tag.tier=1") == [tagged]
    assert demo.listed(f"?name=web-1&memory=512&brand=joyent&type=smartmachine&image={DEFAULT_IMAGE}&docker=false") == [tagged]
    assert demo.listed("?docker=true") == demo.listed("?memory=1") == demo.listed(f"?image={OLD_IMAGE}") == []
    assert len(demo.listed("?name=web")) == 2  # a prefix


@pytest.mark.parametrize(
    ("value", "text", "found"),
    [
        ("web", "web", True),
        ("web", "we", False),
        ("web", "w*", True),
        ("web", "*", True),
        ("a.b", "a?b", False),
        ("wxb", "w.b", False),
        (True, "true", True),
        ("true", "true", True),
        (True, "1", False),
        (1, "true", False),
        (3, "3", True),
        ("3", "3", True),
        (3.5, "3.5", True),
        (-3, "-3", False),
        (3, "*", False),
        ("a=b", "a%3Db", False),
    ],
)
def test_a_tag_is_found_by_the_rules_of_cloudapi(demo, value, text, found):
    machine = demo.created(**{"tag.t": value})
    assert demo.listed(f"?tag.t={text}") == ([machine] if found else [])


def test_tags_with_a_star_lists_everything_tagged_whatever_its_state(sim, demo, clock):
    sim.knobs.fail_next_creates = 1
    failed, untagged = demo.created(**{"tag.a": "b"}), demo.created()
    clock.goes_on(5)
    answer = demo.get("/my/machines?tags=*&name=nothing&limit=1")
    assert [machine["id"] for machine in answer.json()] == [failed]
    assert "x-query-limit" not in answer.headers
    assert demo.listed() == [untagged]


def test_a_failed_machine_vanishes_from_the_default_list_and_can_still_be_got(sim, demo, clock):
    sim.knobs.fail_next_creates = 1
    failed, good = demo.created(), demo.created()
    clock.goes_on(5)
    assert demo.listed() == demo.listed("?state=active") == demo.listed("?state=provisioning") == [good]
    assert sorted(demo.listed("?tombstone=20")) == sorted([failed, good])
    answer = demo.get(f"/my/machines/{failed}")
    assert (answer.status_code, answer.json()["state"], "nics" in answer.json()) == (200, "failed", False)


def test_states_are_filters(demo, booted, clock):
    stopped, deleted = demo.created(), demo.created()
    clock.goes_on(5)
    demo.post(f"/my/machines/{stopped}?action=stop")
    demo.delete(f"/my/machines/{deleted}")
    clock.goes_on(1)
    assert demo.listed("?state=running") == [booted]
    assert demo.listed("?state=stopped") == [stopped]
    assert demo.listed("?state=destroyed") == [deleted]


def test_an_account_sees_only_its_own_machines(sim, demo, booted):
    other = Client(sim.url, "other", "p256", "p256")
    other_headers = modern("/other/keys/p256", "p256", "ecdsa-sha256")
    assert requests.get(f"{other.url}/my/machines", headers=other_headers, timeout=5).json() == []
    answer = requests.get(f"{other.url}/my/machines/{booted}", headers=other_headers, timeout=5)
    assert answer.json() == {"code": "ResourceNotFound", "message": "VM not found"}


@pytest.mark.parametrize("machine", ["x", NOBODY.replace("0", "A")])
def test_an_id_that_is_no_lower_case_uuid_is_a_validation_failure(demo, machine):
    answer = demo.get(f"/my/machines/{machine}")
    assert answer.status_code == 409
    assert answer.json()["errors"] == [{"field": "uuid", "code": "Invalid", "message": "Invalid UUID"}]


# Deleting machines


def test_a_deleted_machine_is_stopping_then_gone_with_its_object(demo, booted, clock):
    answer = demo.delete(f"/my/machines/{booted}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert demo.state(booted) == "stopping"
    assert demo.listed() == [booted]
    assert demo.delete(f"/my/machines/{booted}").status_code == 204
    clock.goes_on(0.6)
    for call in (demo.get, demo.delete):
        gone = call(f"/my/machines/{booted}")
        assert (gone.status_code, gone.json()["state"], "code" in gone.json()) == (410, "deleted", False)
    assert demo.post(f"/my/machines/{booted}", {"action": "start"}).status_code == 410
    assert demo.listed() == []


def test_between_the_job_and_the_state_a_delete_answers_with_the_bare_id(sim, demo, booted, clock):
    sim.knobs.delete_flip_seconds = 1
    demo.delete(f"/my/machines/{booted}")
    clock.goes_on(0.6)
    answer = demo.delete(f"/my/machines/{booted}")
    assert (answer.status_code, answer.json()) == (410, booted)
    assert demo.get(f"/my/machines/{booted}").status_code == 200
    clock.goes_on(1)
    assert demo.get(f"/my/machines/{booted}").status_code == 410


def test_a_machine_deleted_while_it_boots_never_runs(demo, clock):
    machine = demo.created()
    assert demo.delete(f"/my/machines/{machine}").status_code == 204
    clock.goes_on(10)
    assert demo.get(f"/my/machines/{machine}").json()["state"] == "deleted"


def test_a_protected_machine_stays(demo, booted, clock):
    assert demo.post(f"/my/machines/{booted}", {"action": "enable_deletion_protection"}).status_code == 202
    clock.goes_on(1)
    answer = demo.delete(f"/my/machines/{booted}")
    assert error(answer) == (409, "CannotDestroyMachineError")
    assert answer.json()["message"] == 'Instance has "deletion_protection" enabled, preventing deletion'
    demo.post(f"/my/machines/{booted}", {"action": "disable_deletion_protection"})
    clock.goes_on(1)
    assert demo.delete(f"/my/machines/{booted}").status_code == 204


# Changing machines


def test_power_actions_take_their_time_and_a_wrong_state_is_not_detected(demo, booted, clock):
    answer = demo.post(f"/my/machines/{booted}?action=stop")
    assert (answer.status_code, answer.content) == (202, b"")
    assert demo.state(booted) == "stopping"
    clock.goes_on(1)
    assert demo.state(booted) == "stopped"
    assert demo.post(f"/my/machines/{booted}", {"action": "stop"}).status_code == 202
    clock.goes_on(1)
    assert demo.post(f"/my/machines/{booted}", {"action": "start"}).status_code == 202
    clock.goes_on(1)
    assert demo.post(f"/my/machines/{booted}", {"action": "reboot"}).status_code == 202
    clock.goes_on(1)
    assert demo.state(booted) == "running"
    audit = demo.get(f"/my/machines/{booted}/audit").json()
    jobs = [(job["action"], job["success"]) for job in audit]
    assert jobs == [("reboot", "yes"), ("start", "yes"), ("stop", "no"), ("stop", "yes"), ("provision", "yes")]
    assert audit[0]["caller"]["keyId"] == "/demo/keys/rsa"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({}, "MissingParameter", "action is required"),
        ({"action": "explode"}, "InvalidArgument", "explode is not a valid action"),
        ({"action": "resize"}, "MissingParameter", None),
        ({"action": "resize", "package": "x"}, "InvalidArgument", "x is not a valid package"),
        ({"action": "rename", "name": "a b"}, "ValidationFailed", None),
    ],
)
def test_a_wrong_action_is_refused(demo, booted, body, code, message):
    answer = demo.post(f"/my/machines/{booted}", body)
    assert error(answer) == (409, code)
    assert message is None or answer.json()["message"] == message


def test_a_machine_without_a_server_yet_can_not_be_changed(demo):
    machine = demo.created()
    assert error(demo.post(f"/my/machines/{machine}", {"action": "stop"})) == (409, "UnallocatedVM")


def test_rename_resize_and_firewall(demo, booted, clock):
    for body in ({"action": "rename", "name": "db"}, {"action": "resize", "package": LARGE_PACKAGE}, {"action": "enable_firewall"}):
        assert demo.post(f"/my/machines/{booted}", body).status_code == 202
    assert demo.get(f"/my/machines/{booted}").json()["name"] == "web"
    clock.goes_on(1)
    shown = demo.get(f"/my/machines/{booted}").json()
    assert (shown["name"], shown["package"], shown["memory"], shown["firewall_enabled"]) == ("db", "sim-large", 4096, True)
    assert demo.create(name="web").status_code == 201
    assert demo.create(name="db").status_code == 409


def test_enabling_what_is_so_already_is_accepted_without_a_job(demo, booted, clock):
    for _ in range(2):
        assert demo.post(f"/my/machines/{booted}", {"action": "enable_firewall"}).status_code == 202
        clock.goes_on(1)
    assert [job["action"] for job in demo.get(f"/my/machines/{booted}/audit").json()] == ["enable_firewall", "provision"]


def test_tags_show_what_will_be_and_are_stored_when_the_job_ends(demo, clock):
    machine = demo.created(**{"tag.a": "1"})
    answer = demo.post(f"/my/machines/{machine}/tags", {"b": 2, "c.d": True, "account": "my", "image": "x"})
    assert (answer.status_code, answer.json()) == (200, {"a": "1", "b": 2, "c.d": True})
    assert uuid.UUID(answer.headers["x-job-uuid"])
    assert demo.get(f"/my/machines/{machine}/tags").json() == {"a": "1"}
    assert demo.listed("?tag.b=2") == []
    clock.goes_on(1)
    assert demo.listed("?tag.b=2") == [machine]
    assert demo.get(f"/my/machines/{machine}/tags/a").json() == "1"
    assert demo.get(f"/my/machines/{machine}/tags/b").json() == ""  # not a text
    assert demo.get(f"/my/machines/{machine}/tags/x").json()["message"] == 'tag "x" not found'
    assert demo.put(f"/my/machines/{machine}/tags", {"e": "f", "g": "h"}).json() == {"e": "f", "g": "h"}
    clock.goes_on(1)
    assert demo.delete(f"/my/machines/{machine}/tags/e").status_code == 204
    clock.goes_on(1)
    assert demo.get(f"/my/machines/{machine}/tags").json() == {"g": "h"}
    assert demo.delete(f"/my/machines/{machine}/tags").status_code == 204
    clock.goes_on(1)
    assert demo.get(f"/my/machines/{machine}/tags").json() == {}


@pytest.mark.parametrize(
    ("tags", "accepted"),
    [
        ({}, False),
        ({"a": None}, False),
        ({"a": ["x"]}, False),
        ({"triton.nonsense": "x"}, False),
        ({"triton.cns.disable": "true"}, False),
        ({"triton.cns.disable": True}, True),
        ({"triton.cns.services": "web:80:priority=1,db"}, True),
        ({"triton.cns.services": "web:99999"}, False),
        ({"triton.cns.services": "-web"}, False),
        ({"triton.cns.reverse_ptr": "a.example.com"}, True),
        ({"triton.cmon.groups": "a,b_c"}, True),
        ({"triton.cmon.groups": "a b"}, False),
        ({"triton.network.public": "sim-public"}, True),
    ],
)
def test_tags_are_checked_as_cloudapi_checks_them(demo, booted, tags, accepted):
    answer = demo.post(f"/my/machines/{booted}/tags", tags)
    assert answer.status_code == (200 if accepted else 409)
    if not accepted:
        assert answer.json()["message"] == "error adding tags: Invalid tag parameters"
        assert answer.json()["errors"][0]["field"].startswith("tags")


def test_a_special_tag_of_the_wrong_type_is_explained(demo, booted):
    answer = demo.post(f"/my/machines/{booted}/tags", {"triton.cns.disable": "true"})
    assert answer.json()["errors"][0]["message"] == 'Triton tag "triton.cns.disable" value must be a boolean: "true" (string)'


def test_metadata_is_merged_read_and_removed(demo, clock):
    machine = demo.created(**{"metadata.a": "1", "metadata.credentials": {"root": "x"}})
    answer = demo.post(f"/my/machines/{machine}/metadata", {"b": "2", "admin_pw": "secret"})
    assert set(answer.json()) == {"a", "b", "root_authorized_keys"}
    clock.goes_on(1)
    assert demo.get(f"/my/machines/{machine}/metadata/b").json() == "2"
    assert demo.get(f"/my/machines/{machine}/metadata?credentials=true").json()["credentials"] == {"root": "x"}
    assert "credentials" not in demo.get(f"/my/machines/{machine}").json()["metadata"]
    assert demo.get(f"/my/machines/{machine}?credentials=true").json()["metadata"]["credentials"] == {"root": "x"}
    assert demo.delete(f"/my/machines/{machine}/metadata/root_authorized_keys").status_code == 409
    assert demo.delete(f"/my/machines/{machine}/metadata/a").status_code == 204
    clock.goes_on(1)
    assert demo.get(f"/my/machines/{machine}/metadata/a").status_code == 404
    assert demo.delete(f"/my/machines/{machine}/metadata").status_code == 204
    clock.goes_on(1)
    assert demo.get(f"/my/machines/{machine}/metadata").json() == {}


# Packages, images, networks, datacenters


def test_the_catalogue_is_listed_filtered_and_got(sim, demo):
    assert [package["name"] for package in demo.get("/my/packages?name=sim-l*").json()] == ["sim-large"]
    assert demo.get("/my/packages/sim-large").json() == demo.get(f"/my/packages/{LARGE_PACKAGE}").json()
    assert demo.get("/my/packages/none").status_code == 404
    assert {image["name"] for image in demo.get("/my/images?os=linux").json()} == {"debian-12", "ubuntu-24.04"}
    assert demo.get(f"/my/images/{NOBODY}").status_code == 404
    assert demo.get(f"/my/networks/{DEFAULT_NETWORK}").json()["public"] is True
    assert len(demo.get("/my/networks").json()) == 3
    assert demo.get("/my/networks/x").json()["message"] == "x not found"


def test_the_datacenter_names_itself_and_redirects(sim, demo):
    answer = demo.get("/my/datacenters")
    assert answer.json() == {"us-east-1": sim.url}
    assert answer.headers["Triton-Datacenter-Name"] == "us-east-1"
    answer = demo.get("/my/datacenters/us-east-1", allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (302, sim.url)
    assert demo.get("/my/datacenters/mars").status_code == 404
    assert demo.get("/my/services").json() == {"cloudapi": sim.url}


# The throttle


def test_thirty_calls_at_once_pass_then_ten_a_second(sim, demo, clock):
    sim.knobs.throttle = True
    assert [demo.get("/my/machines").status_code for _ in range(31)] == [200] * 30 + [429]
    answer = demo.get(f"/my/machines/{NOBODY.replace('0', '1')}/tags")
    assert answer.status_code == 404  # looked up before the throttle is asked
    answer = demo.get("/my/machines")
    assert answer.json() == {"code": "TooManyRequestsError", "message": "You have exceeded your request rate of 10 r/s."}
    assert "Retry-After" not in answer.headers
    assert demo.get("/my/packages").status_code == 200  # a bucket of its own
    clock.goes_on(0.5)
    assert [demo.get("/my/machines").status_code for _ in range(6)] == [200] * 5 + [429]
    assert sim.cloud.counters.to_json()["throttled"] == 3


def test_accounts_have_buckets_of_their_own_and_strangers_none(sim, demo):
    sim.knobs.turn({"throttle": True, "throttle_burst": 1})
    assert [demo.get("/my").status_code for _ in range(2)] == [200, 429]
    assert [requests.get(sim.url + "/my", timeout=5).status_code for _ in range(3)] == [401] * 3
    other = modern("/other/keys/p256", "p256", "ecdsa-sha256")
    assert requests.get(sim.url + "/my", headers=other, timeout=5).status_code == 200


# Knobs: what goes wrong


def test_a_lost_answer_cuts_the_connection_though_the_machine_is_made(sim, demo):
    sim.knobs.lost_answers_next = 1
    with pytest.raises(requests.ConnectionError):
        demo.create(name="web")
    assert len(demo.listed()) == 1
    assert demo.create(name="web").json()["errors"][0]["code"] == "Duplicate"
    assert sim.cloud.counters.to_json()["by_endpoint"]["CreateMachine"] == {"cut": 1, "409": 1}


def test_a_lost_answer_may_look_like_a_gateways_error(sim, demo):
    sim.knobs.turn({"lost_answers_next": 1, "lost_answer_status": 504})
    assert demo.create().status_code == 504
    assert len(demo.listed()) == 1


def test_creates_can_be_made_to_fail_to_stick_and_to_be_refused(sim, demo, clock):
    sim.knobs.turn({"refuse_next_creates": 1, "refuse_status": 500, "refuse_code": "InternalError", "refuse_message": "no"})
    assert demo.create().json() == {"code": "InternalError", "message": "no"}
    sim.knobs.fail_next_creates = 1
    failing = demo.created()
    sim.knobs.stick_next_creates = 1
    sticking = demo.created()
    good = demo.created()
    clock.goes_on(3600)
    assert [demo.state(machine) for machine in (failing, sticking, good)] == ["failed", "provisioning", "running"]


def test_an_image_may_boot_late_or_never(sim, demo, clock):
    sim.knobs.turn({"failing_images": [LX_IMAGE], "stuck_images": [OLD_IMAGE], "provision_seconds_by_image": {DEFAULT_IMAGE: 60}})
    failing, sticking, slow = (demo.created(image=image) for image in (LX_IMAGE, OLD_IMAGE, DEFAULT_IMAGE))
    clock.goes_on(59)
    assert [demo.state(machine) for machine in (failing, sticking, slow)] == ["failed", "provisioning", "provisioning"]
    clock.goes_on(1)
    assert [demo.state(machine) for machine in (failing, sticking, slow)] == ["failed", "provisioning", "running"]


def test_errors_come_in_their_share_and_do_nothing(sim, demo):
    sim.knobs.turn({"error_share": 1.0, "error_status": 503, "error_endpoints": ["CreateMachine"]})
    assert demo.create().status_code == 503
    assert demo.listed() == []
    sim.knobs.turn({"error_share": 0.5})
    statuses = {demo.create().status_code for _ in range(40)}
    assert statuses == {201, 503}


def test_the_same_seed_gives_the_same_luck():
    def luck():
        with Simulator(seed=7, throttle=False, error_share=0.5) as simulator:
            simulator.cloud.add_account("demo", [openssh("rsa")])
            client = Client(simulator.url)
            return [client.get("/my").status_code for _ in range(20)]

    assert luck() == luck()


def test_errors_come_at_the_same_calls_whatever_else_is_asked(sim, demo):
    def failed(seed):
        sim.knobs.turn({"error_share": 0.5, "error_seed": seed, "error_endpoints": ["ListMachines"]})
        return [demo.get("/my/machines").status_code for _ in range(20)]

    first = failed(1)
    assert {200, 500} == set(first)
    demo.get("/my")
    other = failed(2)
    assert other != first
    with Simulator(throttle=False) as simulator:
        simulator.cloud.add_account("demo", [openssh("rsa")])
        simulator.knobs.turn({"error_share": 0.5, "error_seed": 1, "error_endpoints": ["ListMachines"]})
        client = Client(simulator.url)
        assert [client.get("/my/machines").status_code for _ in range(20)] == first


def test_errors_may_come_evenly(sim, demo):
    sim.knobs.turn({"error_share": 0.25, "error_evenly": True, "error_endpoints": ["ListMachines"]})
    assert [demo.get("/my/machines").status_code for _ in range(8)] == [200, 200, 200, 500] * 2


def test_answers_may_not_be_json(sim, demo):
    sim.knobs.bad_json = True
    answer = demo.get("/my/machines")
    assert answer.status_code == 200
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


def test_a_cloud_that_is_down_answers_503_to_all_but_its_admin(sim, demo):
    sim.knobs.down = True
    assert demo.get("/my").status_code == 503
    assert requests.get(sim.url + "/--ping", timeout=5).status_code == 503
    assert requests.patch(sim.url + "/--sim/knobs", json={"down": False}, timeout=5).json()["down"] is False
    assert demo.get("/my").status_code == 200


def test_lists_may_be_empty_short_or_stale(sim, demo, clock):
    old = demo.created()
    clock.goes_on(5)
    new = demo.created()
    sim.knobs.empty_lists = True
    assert demo.listed() == []
    sim.knobs.turn({"empty_lists": False, "truncate_lists": 1})
    assert demo.listed() == [max(old, new)]
    sim.knobs.turn({"truncate_lists": 0, "stale_list_seconds": 3})
    assert demo.listed() == [old]
    assert demo.get(f"/my/machines/{new}").status_code == 200
    clock.goes_on(3)
    assert len(demo.listed()) == 2


def test_a_hanging_answer_comes_too_late_for_the_client_and_the_deed_is_done(sim, demo):
    sim.knobs.turn({"hang_seconds": 30, "hang_endpoints": ["CreateMachine"]})
    with pytest.raises(requests.ReadTimeout):
        demo.call("POST", "/my/machines", json={"image": DEFAULT_IMAGE, "package": "sim-small"}, timeout=0.3)
    assert len(demo.listed()) == 1


def test_latency_is_added_to_every_answer_or_to_one_endpoints(sim, demo):
    def seconds(path):
        began = time.monotonic()
        demo.get(path)
        return time.monotonic() - began

    sim.knobs.turn({"latency_seconds": 0.1, "latency_by_endpoint": {"ListMachines": 0.3}})
    assert seconds("/my") >= 0.1
    assert seconds("/my/machines") >= 0.4


def test_closing_does_not_wait_for_a_hanging_answer():
    simulator = Simulator(hang_seconds=60)
    simulator.cloud.add_account("demo", [openssh("rsa")])
    caller = threading.Thread(target=lambda: _ignoring_errors(lambda: Client(simulator.url).get("/my")))
    caller.start()
    deadline = time.monotonic() + 10
    while simulator.cloud.counters.to_json()["in_flight"] == 0:
        assert time.monotonic() < deadline, "the call never arrived"
    began = time.monotonic()
    simulator.close()
    simulator.close()
    assert time.monotonic() - began < 5
    caller.join(10)
    with pytest.raises(requests.ConnectionError):
        requests.get(simulator.url + "/--ping", timeout=5)


def _ignoring_errors(call):
    with contextlib.suppress(requests.RequestException):
        call()


# The admin routes


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("provision_seconds", -1),
        ("provision_seconds", "5"),
        ("provision_seconds", True),
        ("error_share", 1.5),
        ("error_status", 200),
        ("error_endpoints", ["NoSuchEndpoint"]),
        ("latency_by_endpoint", {"NoSuchEndpoint": 1}),
        ("latency_by_endpoint", {"ListMachines": -1}),
        ("fail_next_creates", 1.5),
        ("throttle", "off"),
        ("throttle_rate", 0),
        ("throttle_burst", 0),
        ("capacity", -1),
        ("servers", 0),
        ("fabric_packages", [""]),
        ("quota", {"demo": "many"}),
        ("lost_answer_status", 200),
        ("no_such_knob", 1),
    ],
)
def test_a_wrong_knob_is_refused_by_name_and_nothing_is_turned(sim, knob, value):
    answer = requests.patch(sim.url + "/--sim/knobs", json={"delete_seconds": 9, knob: value}, timeout=5)
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(f"{knob} ")
    assert sim.knobs.delete_seconds == 0.5


@pytest.mark.parametrize("body", ["[]", "{", '"x"', "1"])
def test_an_admin_body_must_be_an_object(sim, body):
    assert requests.patch(sim.url + "/--sim/knobs", data=body, timeout=5).status_code == 400


def test_all_knobs_go_out_and_come_back(sim):
    knobs = requests.get(sim.url + "/--sim/knobs", timeout=5).json()
    assert knobs == Knobs(throttle=False).to_json()
    assert requests.patch(sim.url + "/--sim/knobs", json=knobs, timeout=5).json() == knobs
    assert requests.patch(sim.url + "/--sim/knobs", json={"quota": {"demo": 3}}, timeout=5).json()["quota"] == {"demo": 3}


def test_an_account_comes_by_http_and_so_do_its_keys(sim):
    body = {"login": "new", "uuid": "d82a1f04-b9f6-4075-998f-af20e3d49de6", "keys": [openssh("rsa")], "users": {"ann": [openssh("p256")]}}
    answer = requests.post(sim.url + "/--sim/accounts", json=body, timeout=5)
    assert (answer.status_code, answer.json()["uuid"]) == (201, body["uuid"])
    new = Client(sim.url, "new")
    assert new.get("/my").json()["id"] == body["uuid"]
    assert requests.post(sim.url + "/--sim/accounts", json=body, timeout=5).status_code == 409
    assert requests.post(f"{sim.url}/--sim/accounts/new/keys", json={"key": openssh("p384")}, timeout=5).status_code == 201
    assert requests.patch(f"{sim.url}/--sim/accounts/new", json={"disabled": True}, timeout=5).json()["disabled"] is True
    assert new.get("/my").status_code == 403
    requests.patch(f"{sim.url}/--sim/accounts/new", json={"disabled": False}, timeout=5)
    assert requests.delete(f"{sim.url}/--sim/accounts/new/keys/rsa", timeout=5).status_code == 204
    assert new.get("/my").status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "login"), ({"login": "x", "uuid": "X"}, "uuid"), ({"login": "x", "keys": "k"}, "keys"), ({"login": "x", "colour": 1}, "colour")],
)
def test_a_wrong_account_is_refused_by_field(sim, body, field):
    answer = requests.post(sim.url + "/--sim/accounts", json=body, timeout=5)
    assert (answer.status_code, answer.json()["message"].split()[0]) == (400, field)


def test_packages_images_and_networks_of_any_id_can_be_added(sim, demo, clock):
    ids = {kind: str(uuid.uuid4()) for kind in ("packages", "images", "networks")}
    for kind, new in ids.items():
        assert requests.post(f"{sim.url}/--sim/{kind}", json={"id": new}, timeout=5).status_code == 201
    machine = demo.created(package=ids["packages"], image=ids["images"], networks=[ids["networks"]])
    clock.goes_on(5)
    assert demo.get(f"/my/machines/{machine}").json()["networks"] == [ids["networks"]]
    assert requests.post(sim.url + "/--sim/networks", json={"id": "x"}, timeout=5).status_code == 400


def test_a_network_of_another_owner_is_not_visible(sim, demo):
    private = str(uuid.uuid4())
    owners = [sim.cloud.accounts["other"].id]
    requests.post(sim.url + "/--sim/networks", json={"id": private, "owners": owners}, timeout=5)
    assert demo.create(networks=[private]).json()["message"] == "Invalid Networks"
    assert demo.get(f"/my/networks/{private}").status_code == 404


@pytest.mark.parametrize(
    ("deed", "body", "state"),
    [
        ("kill", None, "deleted"),
        ("stop", None, "stopped"),
        ("fail", None, "failed"),
        ("break", None, "unknown"),
        ("break", {"state": "offline"}, "offline"),
    ],
)
def test_machines_come_to_harm_behind_their_owners_back(sim, demo, booted, deed, body, state):
    assert requests.post(f"{sim.url}/--sim/machines/{booted}/{deed}", json=body, timeout=5).json()["state"] == state
    assert demo.state(booted) == state
    assert (demo.listed() == [booted]) == (state not in ("deleted", "failed"))


def test_a_harm_that_does_not_exist_is_refused(sim, booted):
    assert requests.post(f"{sim.url}/--sim/machines/{booted}/tickle", timeout=5).status_code == 404
    assert requests.post(f"{sim.url}/--sim/machines/{NOBODY}/kill", timeout=5).status_code == 404
    answer = requests.post(f"{sim.url}/--sim/machines/{booted}/break", json={"state": "odd"}, timeout=5)
    assert (answer.status_code, answer.json()["message"].split()[0]) == (400, "state")


def test_every_machine_has_its_life_told(sim, demo, clock):
    machine, other = demo.created(), demo.created()
    clock.goes_on(10)
    demo.delete(f"/my/machines/{machine}")
    clock.goes_on(10)
    told = {row["id"]: row["life"] for row in requests.get(f"{sim.url}/--sim/machines", timeout=5).json()}
    assert [event for _, event in told[machine]] == ["provisioning", "running", "destroy", "stopping", "deleted"]
    assert told[machine][1][0] == told[machine][0][0] + sim.knobs.provision_seconds
    assert [row["id"] for row in requests.get(f"{sim.url}/--sim/machines?live=true", timeout=5).json()] == [other]


def test_a_broken_boot_does_not_come_to_life_and_a_broken_machine_can_be_deleted(sim, demo, clock):
    machine = demo.created()
    requests.post(f"{sim.url}/--sim/machines/{machine}/break", timeout=5)
    clock.goes_on(10)
    assert demo.state(machine) == "unknown"
    assert demo.delete(f"/my/machines/{machine}").status_code == 204
    clock.goes_on(1)
    assert demo.state(machine) == "deleted"


def test_some_machines_of_a_tag_are_killed_the_oldest_first(sim, demo, clock):
    machines = []
    for _ in range(3):
        machines.append(demo.created(**{"tag.tsg.group": "g"}))
        clock.goes_on(1)
    demo.created()
    answer = requests.post(sim.url + "/--sim/machines/kill", json={"count": 2, "tag": {"tsg.group": "g"}}, timeout=5)
    assert answer.json() == {"killed": machines[:2]}
    assert demo.listed("?tag.tsg.group=g") == machines[2:]
    everything = requests.post(sim.url + "/--sim/machines/kill", json={"account": "demo"}, timeout=5)
    assert len(everything.json()["killed"]) == 2


def test_the_state_shows_every_machine_and_the_counters_every_answer(sim, demo, booted):
    state = requests.get(sim.url + "/--sim/state", timeout=5).json()
    assert [(machine["id"], machine["state"], machine["account"]) for machine in state["machines"]] == [(booted, "running", "demo")]
    assert {account["login"]: account["machines"] for account in state["accounts"]} == {"demo": 1, "other": 0}
    demo.listed()
    demo.get("/my/no/such/route")
    counters = requests.get(sim.url + "/--sim/counters", timeout=5).json()
    assert (counters["creates_accepted"], counters["lists"], counters["gets"], counters["requests"]) == (1, 1, 0, 3)
    assert counters["by_endpoint"] == {"CreateMachine": {"201": 1}, "ListMachines": {"200": 1}, "(no endpoint)": {"404": 1}}
    assert requests.post(sim.url + "/--sim/counters/reset", timeout=5).json()["requests"] == 0


def test_the_most_calls_in_flight_are_counted(sim, demo):
    sim.knobs.latency_seconds = 3.0  # long enough for all of them to arrive on a busy machine
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: demo.get("/my"), range(8)))
    assert sim.cloud.counters.to_json()["in_flight_max"] == 8
    assert sim.cloud.counters.to_json()["in_flight"] == 0


def test_the_clouds_clock_can_be_put_forward_by_http(sim, demo):
    machine = demo.created()
    assert requests.post(sim.url + "/--sim/clock/advance", json={"seconds": 5}, timeout=5).status_code == 200
    assert demo.state(machine) == "running"
    assert requests.post(sim.url + "/--sim/clock/advance", json={}, timeout=5).json()["message"] == "seconds is required"


# The program


def test_the_program_says_where_it_listens_serves_and_stops_cleanly(tmp_path):
    (tmp_path / "id.pub").write_text(openssh("rsa") + "\n")
    account = f"demo:d82a1f04-b9f6-4075-998f-af20e3d49de6:{tmp_path}/id.pub"
    command = [sys.executable, "-m", "dev.sim.cloudapi", "--provision-seconds", "0", "--datacenter", "eu-1", "--account", account]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as program:
        url = program.stdout.readline().removeprefix("cloudapi simulator listening on ").strip()
        client = Client(url)
        assert client.get("/my").json()["id"] == "d82a1f04-b9f6-4075-998f-af20e3d49de6"
        assert client.get("/my/datacenters").json() == {"eu-1": url}
        assert client.state(client.created()) == "running"
        program.send_signal(signal.SIGTERM)
        assert program.wait(10) == 0


def test_a_program_that_keeps_its_state_goes_on_where_it_was(tmp_path):
    (tmp_path / "id.pub").write_text(openssh("rsa") + "\n")
    account = f"demo:d82a1f04-b9f6-4075-998f-af20e3d49de6:{tmp_path}/id.pub"
    command = [
        sys.executable,
        "-m",
        "dev.sim.cloudapi",
        "--state",
        str(tmp_path / "state.json"),
        "--account",
        account,
        "--provision-seconds",
    ]

    def run(seconds, body):
        with subprocess.Popen([*command, seconds], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as program:
            try:
                return body(Client(program.stdout.readline().removeprefix("cloudapi simulator listening on ").strip()))
            finally:
                program.send_signal(signal.SIGTERM)
                assert program.wait(10) == 0

    def first(client):
        assert client.post("/my/keys", {"name": "second", "key": openssh("p256")}).status_code == 201
        machines = [client.created(**{"tag.tsg.group": name}) for name in "ab"]
        assert client.delete(f"/my/machines/{machines[1]}").status_code == 204
        return machines

    def second(client):
        assert {key["name"] for key in client.get("/my/keys").json()} == {"rsa", "second"}
        (left,) = (machine for machine in client.get("/my/machines").json() if machine["state"] != "stopping")
        near = client.create(affinity=f"instance=={left['id']}").json()
        assert near["compute_node"] == left["compute_node"]
        return left["id"], left["state"], left["tags"]

    kept, _ = run("600", first)
    state = json.loads((tmp_path / "state.json").read_text())
    state["machines"][0]["delegate_dataset"] = True  # a field of older simulators
    (tmp_path / "state.json").write_text(json.dumps(state))
    # What was booting boots again.
    assert run("0", second) == (kept, "running", {"tsg.group": "a"})


def test_a_state_that_is_none_is_told(tmp_path):
    (tmp_path / "state.json").write_text("{")
    command = [sys.executable, "-m", "dev.sim.cloudapi", "--state", str(tmp_path / "state.json")]
    result = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)


def test_two_simulators_do_not_share_a_port(sim):
    with pytest.raises(OSError, match="in use"):
        Simulator(port=int(sim.url.rpartition(":")[2]))


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_other_loopback_addresses_will_do(host):
    with Simulator(host) as simulator:
        assert requests.get(simulator.url + "/--ping", timeout=5).status_code == 200


def test_a_wrong_account_on_the_command_line_ends_the_program():
    command = [sys.executable, "-m", "dev.sim.cloudapi", "--account", "demo:x:/nowhere"]
    result = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1
    assert "NAME:UUID:PUBKEYFILE is wanted" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_history_of_an_account_is_bounded(sim, demo, monkeypatch):
    monkeypatch.setattr("dev.sim.cloudapi.accounts.HISTORY_KEPT", 2)
    machines = [demo.created() for _ in range(3)]
    for machine in machines:
        requests.post(f"{sim.url}/--sim/machines/{machine}/kill", timeout=5)
    assert demo.get(f"/my/machines/{machines[0]}").status_code == 404
    assert demo.get(f"/my/machines/{machines[2]}").status_code == 410
