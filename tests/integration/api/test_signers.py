"""Signatures as real clients make them, with keys that ssh-keygen made, against the app as it is served."""

import base64
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from dev.client import Account, shell
from dev.sim.cloudapi import accounts as triton
from shared.clients.keys import fingerprint, sha256_fingerprint
from tests.integration.api.service import Api, error, now, template_body

#: What ssh-keygen is asked for, and what the Go and the Node SDK sign with then.
KINDS = {
    "rsa": (["-t", "rsa", "-b", "2048"], "rsa-sha512", "rsa-sha256"),
    "rsa4096": (["-t", "rsa", "-b", "4096"], "rsa-sha512", "rsa-sha1"),
    "ecdsa256": (["-t", "ecdsa", "-b", "256"], "ecdsa-sha512", "ecdsa-sha256"),
    "ecdsa384": (["-t", "ecdsa", "-b", "384"], "ecdsa-sha512", "ecdsa-sha384"),
    "ecdsa521": (["-t", "ecdsa", "-b", "521"], "ecdsa-sha512", "ecdsa-sha512"),
    "ed25519": (["-t", "ed25519"], "ed25519-sha512", "ed25519-sha512"),
}
HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}
GROUPS = "/v1/tsg/groups"

_numbers = itertools.count(1)


class Key(NamedTuple):
    """A key of ssh-keygen's."""

    file: Path
    line: str
    private: Any
    go: str
    node: str

    def sign(self, text: str, algorithm: str) -> str:
        digest = HASHES[algorithm.partition("-")[2]]
        if isinstance(self.private, rsa.RSAPrivateKey):
            signed = self.private.sign(text.encode(), padding.PKCS1v15(), digest)
        elif isinstance(self.private, ec.EllipticCurvePrivateKey):
            signed = self.private.sign(text.encode(), ec.ECDSA(digest))
        else:
            assert isinstance(self.private, ed25519.Ed25519PrivateKey)
            signed = self.private.sign(text.encode())
        return base64.b64encode(signed).decode()


@pytest.fixture(scope="module")
def ssh_keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Key]:
    program = shutil.which("ssh-keygen")
    if program is None and not os.environ.get("CI"):
        pytest.skip("ssh-keygen is not installed")
    assert program
    directory = tmp_path_factory.mktemp("ssh")
    made = {}
    for name, (options, go, node) in KINDS.items():
        file = directory / name
        subprocess.run([program, "-q", *options, "-N", "", "-C", f"{name} of a test", "-f", file], check=True)
        line = file.with_suffix(".pub").read_text().strip()
        private = serialization.load_ssh_private_key(file.read_bytes(), password=None)
        made[name] = Key(file, line, private, go, node)
    return made


@pytest.fixture
def owner(api: Api, ssh_keys: dict[str, Key]) -> triton.Account:
    """An enabled account that has all the keys, and a sub-user with the same ones, and has not called yet."""
    lines = [key.line for key in ssh_keys.values()]
    login = f"signer-{next(_numbers)}"
    account = api.sim.cloud.add_account(login, lines, str(uuid.uuid4()), {"ops.user": lines})
    api.enable(account)
    return account


def md5(key: Key) -> str:
    return fingerprint(key.line)


def modern(key: Key, key_id: str, algorithm: str, headers: dict[str, str], names: str, target: str = "") -> dict[str, str]:
    """Sign the named headers as the SDKs do: `headers` goes out, with Authorization."""
    values = {name.lower(): value for name, value in headers.items()} | {"(request-target)": target}
    text = "\n".join(f"{name}: {values[name]}" for name in names.split())
    parameters = f'keyId="{key_id}",algorithm="{algorithm}",headers="{names}",signature="{key.sign(text, algorithm)}"'
    return {**headers, "Authorization": f"Signature {parameters}"}


def go(key: Key, key_id: str) -> dict[str, str]:
    """triton-go: the date alone, and its zone is UTC."""
    date = now().replace("GMT", "UTC")
    return modern(key, key_id, key.go, {"Date": date}, "date")


def node(key: Key, key_id: str, method: str, path: str) -> dict[str, str]:
    """smartdc-auth: the request line and the date."""
    return modern(key, key_id, key.node, {"Date": now()}, "(request-target) date", f"{method.lower()} {path}")


def get(api: Api, headers: dict[str, str], path: str = GROUPS) -> requests.Response:
    return api.request("GET", path, headers=headers)


def introduce(api: Api, account: triton.Account, key: Key) -> None:
    """The account's first request, which signs the date alone."""
    assert get(api, go(key, f"/{account.login}/keys/{md5(key)}")).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_ssh_keygen_signs_as_the_go_sdk_does(api: Api, owner: triton.Account, ssh_keys: dict[str, Key], kind: str) -> None:
    key = ssh_keys[kind]
    for _ in range(2):  # at first CloudAPI is asked, then the key is known
        assert get(api, go(key, f"/{owner.login}/keys/{md5(key)}")).json() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_of_ssh_keygen_signs_as_the_node_sdk_does(api: Api, owner: triton.Account, ssh_keys: dict[str, Key], kind: str) -> None:
    introduce(api, owner, ssh_keys["rsa"])
    key, path = ssh_keys[kind], f"{GROUPS}?a=b%20c&d"
    for _ in range(2):
        assert get(api, node(key, f"/{owner.login}/keys/{md5(key)}", "GET", path), path).json() == []
    signed_for_another = node(key, f"/{owner.login}/keys/{md5(key)}", "GET", GROUPS)
    error(get(api, signed_for_another, path), 401, "InvalidCredentials")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", ["(request-target) host date digest", "date content-md5", "(request-target) date digest content-md5"])
def test_a_signed_digest_goes_with_its_body(api: Api, owner: triton.Account, ssh_keys: dict[str, Key], kind: str, names: str) -> None:
    introduce(api, owner, ssh_keys["rsa"])
    key, path = ssh_keys[kind], "/v1/tsg/templates"
    body = requests.Request("POST", "http://x", json=template_body()).prepare().body
    assert isinstance(body, bytes)
    given = {
        "Date": now(),
        "Host": api.url.removeprefix("http://"),
        "Digest": "SHA-256=" + base64.b64encode(hashlib.sha256(body).digest()).decode(),
        "Content-MD5": base64.b64encode(hashlib.md5(body).digest()).decode(),
        "Content-Type": "application/json",
    }
    signed = modern(key, f"/{owner.login}/keys/{md5(key)}", key.node, given, names, f"post {path}")
    error(api.request("POST", path, data=body.replace(b"template", b"tampered"), headers=signed), 401, "InvalidCredentials")
    assert api.request("POST", path, data=body, headers=signed).status_code == 201


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [True, False])
def test_a_key_goes_by_any_of_its_names(api: Api, owner: triton.Account, ssh_keys: dict[str, Key], kind: str, *, known: bool) -> None:
    key = ssh_keys[kind]
    owner.keys.remove(md5(key))
    owner.keys.add(key.line, f"laptop {kind}".replace(" ", "-"))
    if known:
        introduce(api, owner, key)
    names = {"MD5": f"MD5:{md5(key)}", "hex": md5(key), "name": f"laptop-{kind}", "SHA256": sha256_fingerprint(key.line)}
    for form, name in names.items():
        answer = get(api, go(key, f"/{owner.login}/keys/{name}"))
        assert answer.status_code == 200, (form, answer.text)


def test_a_first_request_does_not_name_its_key_by_sha256(api: Api, owner: triton.Account, ssh_keys: dict[str, Key]) -> None:
    """CloudAPI knows keys by MD5 alone, so it can't be asked with such a name; the account's list can be, once it is known here."""
    key_id = f"/{owner.login}/keys/{sha256_fingerprint(ssh_keys['rsa'].line)}"
    told = error(get(api, go(ssh_keys["rsa"], key_id)), 401, "InvalidCredentials")["message"]
    assert "send one request that signs the Date alone" in told
    introduce(api, owner, ssh_keys["rsa"])
    assert get(api, go(ssh_keys["rsa"], key_id)).status_code == 200


@pytest.mark.parametrize("kind", KINDS)
def test_a_sub_user_signs_with_keys_of_its_own(api: Api, owner: triton.Account, ssh_keys: dict[str, Key], kind: str) -> None:
    introduce(api, owner, ssh_keys["rsa"])
    key = ssh_keys[kind]
    for name in (md5(key), f"MD5:{md5(key)}", sha256_fingerprint(key.line)):
        key_id = f"/{owner.login}/users/ops.user/keys/{name}"
        assert get(api, go(key, key_id)).status_code == 200
        assert get(api, node(key, key_id, "GET", GROUPS)).status_code == 200


def test_the_keys_of_another_kind_do_not_pass(api: Api, owner: triton.Account, ssh_keys: dict[str, Key]) -> None:
    key_ids = {kind: f"/{owner.login}/keys/{md5(key)}" for kind, key in ssh_keys.items()}
    for key, key_id in zip(ssh_keys.values(), [*list(key_ids.values())[1:], key_ids["rsa"]], strict=True):
        error(get(api, go(key, key_id)), 401, "InvalidCredentials")
    introduce(api, owner, ssh_keys["rsa"])
    for known in (False, True):
        if known:
            for key in ssh_keys.values():
                introduce(api, owner, key)
        for (kind, key), (other, key_id) in itertools.product(ssh_keys.items(), key_ids.items()):
            if kind != other:
                error(get(api, go(key, key_id)), 401, "InvalidCredentials")


#: The curl function of the 2018 service's readers, to the letter.
CURL_FUNCTION = r"""function tsg() {
    local now=$(date -u '+%a, %d %h %Y %H:%M:%S GMT')
    local signature=$(echo -n "$now" | openssl dgst -sha256 -sign ~/.ssh/id_rsa | openssl enc -e -a | tr -d '\n')
    local url="${TSG_URL}$1"
    shift

    curl -s -k -i \
        -H 'Accept: application/json' \
        -H 'Accept-Version: ~8' \
        -H "Date: $now" \
        -H 'Content-Type: application/json' \
        -H "Authorization: Signature keyId=\"/${TRITON_ACCOUNT}/keys/${TRITON_KEY_ID}\",algorithm=\"rsa-sha256\",headers=\"date\" $signature" \
        "$@" "$url"
    echo
}"""  # noqa: E501


def test_openssl_and_curl_sign_as_the_seed_has_it(
    api: Api, owner: triton.Account, ssh_keys: dict[str, Key], tmp_path: Path, run_shell: Callable[..., str]
) -> None:
    key = ssh_keys["rsa"]
    traditional = key.private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    home = tmp_path / ".ssh"
    home.mkdir()
    (home / "id_rsa").write_bytes(traditional)
    known = {"TSG_URL": api.url, "TRITON_ACCOUNT": owner.login, "TRITON_KEY_ID": md5(key), "HOME": str(tmp_path)}
    for _ in range(2):
        told = run_shell(f"{CURL_FUNCTION}\ntsg /v1/tsg/groups", known)
        assert told.startswith("HTTP/1.1 200"), told
    body = json.dumps(template_body())
    assert run_shell(f"{CURL_FUNCTION}\ntsg /v1/tsg/templates -X POST -d '{body}'", known).startswith("HTTP/1.1 201")


@pytest.mark.parametrize("program", ["bash", "dash", "zsh", "mksh", "busybox sh"])
def test_the_printed_function_signs_in_any_shell_and_locale(
    api: Api, owner: triton.Account, ssh_keys: dict[str, Key], tmp_path: Path, program: str
) -> None:
    key = ssh_keys["rsa"]
    if shutil.which(program.split(maxsplit=1)[0]) is None:
        pytest.skip(f"{program} is not installed")
    file = tmp_path / "a key"
    file.write_bytes(key.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    # In place of a locale of this machine, which may have none: a date that translates what is not asked for in C.
    tools = tmp_path / "tools"
    tools.mkdir()
    date = tools / "date"
    date.write_text(f'#!/bin/sh\n[ "${{LC_ALL:-}}" = C ] && exec {shutil.which("date")} "$@"\necho "Fr, 27 Nov 2026"\n')
    date.chmod(0o755)
    text = shell(api.url, Account(owner.login, md5(key), file), cloudapi="http://127.0.0.1:9") + "\ntsg_curl /v1/tsg/groups && tsg_curl"
    environ = {"PATH": f"{tools}:{os.environ['PATH']}", "LC_ALL": "de_DE.UTF-8"}
    done = subprocess.run([*program.split(), "-c", text], env=environ, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("HTTP/1.1 200"), done
    assert done.returncode != 0
    assert "usage: tsg_curl PATH" in done.stderr


@pytest.fixture
def run_shell() -> Callable[..., str]:
    if not all(map(shutil.which, ("bash", "curl", "openssl"))) and not os.environ.get("CI"):
        pytest.skip("bash, curl or openssl is not installed")

    def run(script: str, environment: dict[str, str]) -> str:
        clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        return subprocess.run(["bash", "-ec", script], env=clean | environment, capture_output=True, text=True, check=True).stdout

    return run
