"""HTTP Signature: reading a caller's header, and signing our own requests."""

import base64
import contextlib
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from shared.clients import keys
from shared.clients.signature import MAX_HEADER, MAX_SKEW, SignatureError, Signer, check_skew, parse, parse_date

RAW = bytes(range(256))
SIGNED = base64.b64encode(RAW).decode()
FINGERPRINT = "a8:37:aa:27:a8:53:2b:c1:d2:44:b4:9a:77:5a:6b:dd"
KEY_ID = f"/demo/keys/{FINGERPRINT}"
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def modern(key_id: str = KEY_ID, *, algorithm: str = "rsa-sha256", headers: str | None = "date", signature: str = SIGNED) -> str:
    of_headers = "" if headers is None else f',headers="{headers}"'
    return f'Signature keyId="{key_id}",algorithm="{algorithm}"{of_headers},signature="{signature}"'


def legacy(key_id: str = KEY_ID, *, algorithm: str = "rsa-sha256", headers: str | None = "date", signature: str = SIGNED) -> str:
    of_headers = "" if headers is None else f',headers="{headers}"'
    return f'Signature keyId="{key_id}",algorithm="{algorithm}"{of_headers} {signature}'


@pytest.fixture(scope="module")
def pair() -> keys.KeyPair:
    return keys.generate()


# Reading


def test_the_modern_form_is_read() -> None:
    got = parse(modern(headers="(request-target) Date"))
    assert got == ("demo", None, FINGERPRINT, "rsa-sha256", ("(request-target)", "date"), RAW, False)


def test_the_legacy_form_of_the_curl_function_is_read() -> None:
    assert parse(legacy()) == ("demo", None, FINGERPRINT, "rsa-sha256", ("date",), RAW, True)


@pytest.mark.parametrize("form", [modern, legacy])
def test_a_sub_user_is_read(form: Any) -> None:
    got = parse(form(f"/demo/users/bob/keys/{FINGERPRINT}"))
    assert (got.account, got.user, got.key) == ("demo", "bob", FINGERPRINT)


@pytest.mark.parametrize("form", [modern, legacy])
def test_without_a_list_of_headers_the_date_is_what_is_signed(form: Any) -> None:
    assert parse(form(headers=None)).headers == ("date",)


def test_the_parameters_may_stand_in_any_order() -> None:
    assert parse(f'Signature signature="{SIGNED}",headers="date",algorithm="rsa-sha256",keyId="{KEY_ID}"') == parse(modern())


def test_an_algorithm_is_the_same_in_capitals() -> None:
    assert parse(modern(algorithm="RSA-SHA256")).algorithm == "rsa-sha256"


def test_a_parameter_that_means_nothing_here_is_passed_over() -> None:
    assert parse(modern() + ',opaque="x"') == parse(modern())


@pytest.mark.parametrize(
    ("headers", "only"), [("date", True), ("Date", True), ("date (request-target)", False), ("host", False), ("", False)]
)
def test_only_a_header_that_signs_the_date_alone_can_be_passed_on(headers: str, only: bool) -> None:
    assert parse(modern(headers=headers)).signs_only_date is only


@pytest.mark.parametrize(
    "account",
    ["bob", "demo-user", "me@example.com", "first.last", "under_score", "6f873d02-172c-418f-8416-4da2b50d5c53", "x" * 255],
)
def test_a_name_that_triton_has_is_an_account(account: str) -> None:
    assert parse(modern(f"/{account}/keys/{FINGERPRINT}")).account == account


@pytest.mark.parametrize("key", [FINGERPRINT, "my-key", "laptop_2018.pub", "(unnamed)", "SHA256:abc+def", "ключ"])
def test_a_key_goes_by_fingerprint_or_name(key: str) -> None:
    assert parse(modern(f"/demo/keys/{key}")).key == key


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("", "scheme"),
        ("Signature", "no keyId"),
        ("Signature ", "no keyId"),
        ("Basic ZGVtbzpzZWNyZXQ=", "scheme"),
        ("Bearer abc", "scheme"),
        (modern().replace("Signature", "signature"), "scheme"),
        (modern().replace(" ", "\t", 1), "scheme"),
        (SIGNED, "scheme"),
        (f"Signature {SIGNED}", "no spaces between"),
        (modern().replace(f'keyId="{KEY_ID}",', ""), "no keyId"),
        (modern(key_id=""), "no keyId"),
        (modern().replace('algorithm="rsa-sha256",', ""), "no algorithm"),
        (modern(algorithm=""), "no algorithm"),
        (modern(signature=""), "not base64"),
        (legacy(signature=""), "not base64"),
        (modern().partition(",signature")[0], "not base64"),
        (modern(signature="not base64!"), "not base64"),
        (modern(signature="QUJD\n"), "not base64"),
        (modern(signature="QUJ"), "not base64"),
        (modern(signature="===="), "not base64"),
        (legacy(signature="QUJD QUJD"), "not base64"),
        (legacy(signature=" QUJD"), "not base64"),
        (modern() + " QUJD", "two signatures"),
        (modern().replace(",", ", "), "no spaces between"),
        (modern().replace(",", ";"), "no spaces between"),
        (modern().replace('"', "'"), "no spaces between"),
        (modern().replace('"', ""), "no spaces between"),
        (modern() + "x", "no spaces between"),
        (modern()[:-1], "no spaces between"),
        (modern() + f',keyId="{KEY_ID}"', "keyId twice"),
        (modern() + ',algorithm="none"', "algorithm twice"),
        (modern() + f',signature="{SIGNED}"', "signature twice"),
        (modern(key_id=f"demo/keys/{FINGERPRINT}"), "keyId must read"),
        (modern(key_id="/demo"), "keyId must read"),
        (modern(key_id="/demo/keys/"), "keyId must read"),
        (modern(key_id="/demo/keys/a/b"), "keyId must read"),
        (modern(key_id="/demo/keys/a b"), "keyId must read"),
        (modern(key_id=f"/demo/users/keys/{FINGERPRINT}"), "keyId must read"),
        (modern(key_id=f"/demo/users//keys/{FINGERPRINT}"), "keyId must read"),
        (modern(key_id=f"//keys/{FINGERPRINT}"), "keyId must read"),
        (modern(key_id=f"/de/keys/{FINGERPRINT}"), "keyId must read"),
        (modern(key_id=f"/../keys/{FINGERPRINT}"), "keyId must read"),
        (modern(key_id=f"/a%2fb/keys/{FINGERPRINT}"), "keyId must read"),
        (modern(key_id=f"/de mo/keys/{FINGERPRINT}"), "keyId must read"),
        (modern(key_id=f"/démo/keys/{FINGERPRINT}"), "keyId must read"),
        (modern(key_id=f"/{'x' * 256}/keys/{FINGERPRINT}"), "keyId must read"),
        (modern(key_id=f"{KEY_ID}\n"), "keyId must read"),
        (modern(signature="A" * MAX_HEADER), "longer than 4096"),
    ],
)
def test_a_malformed_header_is_refused_with_the_reason(header: str, told: str) -> None:
    with pytest.raises(SignatureError, match=told):
        parse(header)


def test_the_longest_header_is_read_and_one_byte_more_is_not() -> None:
    padded = modern() + ',opaque=""'
    longest = f'{padded[:-1]}{"x" * (MAX_HEADER - len(padded))}"'
    assert len(longest) == MAX_HEADER
    assert parse(longest) == parse(modern())
    with pytest.raises(SignatureError, match="longer than"):
        parse(f'{longest[:-1]}x"')


@given(st.text(max_size=200), st.sampled_from(["", "Signature ", modern() + ",", legacy(signature="")]))
def test_no_header_at_all_brings_the_reader_down(text: str, before: str) -> None:
    with contextlib.suppress(SignatureError):
        assert parse(before + text).account == "demo"


def test_a_refusal_repeats_neither_signature_nor_key() -> None:
    with pytest.raises(SignatureError) as caught:
        parse(modern() + " QUJD")
    assert SIGNED not in str(caught.value)
    assert FINGERPRINT not in str(caught.value)


@needs_openssl
def test_what_the_curl_function_makes_is_read_to_the_byte(pair: keys.KeyPair, tmp_path: Path) -> None:
    file = tmp_path / "id_rsa"
    file.write_text(pair.private_pem)
    date = "Wed, 04 Mar 2026 05:06:07 GMT"
    sign = f"printf %s '{date}' | openssl dgst -sha256 -sign {file} | openssl enc -e -a | tr -d '\\n'"
    text = subprocess.run(["sh", "-c", sign], check=True, capture_output=True, text=True).stdout
    got = parse(legacy(signature=text))
    public_of(pair).verify(got.signature, date.encode(), padding.PKCS1v15(), hashes.SHA256())


# Dates


@pytest.mark.parametrize(
    "text",
    [
        "Wed, 04 Mar 2026 05:06:07 GMT",
        "Wed, 04 Mar 2026 05:06:07 UTC",  # triton-go
        "Wed, 04 Mar 2026 06:06:07 +0100",
        "2026-03-04T05:06:07Z",
        "2026-03-04T05:06:07.000Z",
        "2026-03-04T00:06:07-05:00",
    ],
)
def test_a_date_of_http_or_iso_is_a_date(text: str) -> None:
    assert parse_date(text) == NOW


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "now",
        "yesterday",
        "1772600767",
        "2026-03-04T05:06:07",
        "2026-03-04",
        "2026-13-04T05:06:07Z",
        "Wed, 99 Mar 2026 05:06:07 GMT",
        "9" * 400,
        "Wed, 04 Mar 99999999 05:06:07 GMT",
        "0001-01-01T00:00:00+23:59",
        "\u0662\u0660\u0662\u0666-03-04T05:06:07Z",
    ],
)
def test_a_date_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SignatureError, match="Date header"):
        parse_date(text)


@given(st.text(max_size=60))
def test_no_date_at_all_brings_the_reader_down(text: str) -> None:
    with contextlib.suppress(SignatureError):
        assert parse_date(text).tzinfo is UTC


@pytest.mark.parametrize("seconds", [-MAX_SKEW, -1, 0, 1, MAX_SKEW])
def test_a_date_that_is_a_little_off_will_do(seconds: int) -> None:
    check_skew((NOW + timedelta(seconds=seconds)).isoformat(), NOW)


@pytest.mark.parametrize("seconds", [-86400, -MAX_SKEW - 1, MAX_SKEW + 1, 86400])
def test_a_date_that_is_far_off_is_refused_with_a_hint(seconds: int) -> None:
    with pytest.raises(SignatureError, match=f"{abs(seconds)} s off; at most 300 s are allowed: set your clock"):
        check_skew((NOW + timedelta(seconds=seconds)).isoformat(), NOW)


# Signing


def public_of(pair: keys.KeyPair) -> rsa.RSAPublicKey:
    public = serialization.load_ssh_public_key(pair.public_line.encode())
    assert isinstance(public, rsa.RSAPublicKey)
    return public


def test_a_signature_covers_the_request_line_and_the_date(pair: keys.KeyPair) -> None:
    made = Signer("demo", pair.fingerprint, pair.private_pem).headers("DELETE", "/demo/machines?tag.a=b%20c", NOW)
    got = parse(made["Authorization"])
    assert (got.account, got.user, got.key) == ("demo", None, pair.fingerprint)
    assert got.headers == ("(request-target)", "date")
    assert (got.algorithm, got.legacy) == ("rsa-sha256", False)
    text = "(request-target): delete /demo/machines?tag.a=b%20c\ndate: Wed, 04 Mar 2026 05:06:07 GMT"
    public_of(pair).verify(got.signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())


def test_a_date_is_told_in_gmt_wherever_we_are(pair: keys.KeyPair) -> None:
    elsewhere = NOW.astimezone(datetime.strptime("+0530", "%z").tzinfo)
    made = Signer("demo", pair.fingerprint, pair.private_pem).headers("GET", "/demo", elsewhere)
    assert made["Date"] == "Wed, 04 Mar 2026 05:06:07 GMT"


def test_no_space_follows_a_comma(pair: keys.KeyPair) -> None:
    made = Signer("demo", pair.fingerprint, pair.private_pem).headers("GET", "/demo", NOW)
    assert ", " not in made["Authorization"]


@needs_openssl
def test_openssl_finds_our_signature_good_and_another_request_s_bad(pair: keys.KeyPair, tmp_path: Path) -> None:
    made = Signer("demo", pair.fingerprint, pair.private_pem).headers("GET", "/demo/machines", NOW)
    public, signature = tmp_path / "public.pem", tmp_path / "signature"
    public.write_bytes(
        public_of(pair).public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
    signature.write_bytes(parse(made["Authorization"]).signature)

    def verified(text: str) -> bool:
        command = ["openssl", "dgst", "-sha256", "-verify", public, "-signature", signature]
        return subprocess.run(command, input=text.encode(), capture_output=True, check=False).returncode == 0

    assert verified(f"(request-target): get /demo/machines\ndate: {made['Date']}")
    assert not verified(f"(request-target): get /demo/machines/1\ndate: {made['Date']}")


def test_a_key_that_is_not_rsa_does_not_sign() -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(SignatureError, match="not an RSA key"):
        Signer("demo", FINGERPRINT, pem.decode())
