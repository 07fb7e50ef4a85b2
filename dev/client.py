"""A client of the service's API: signs the Date as the curl function does, and speaks JSON. Its key, and the curl function itself."""

import base64
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any, NamedTuple

import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE
from shared.clients import keys
from tsg_client.sessions import open_session

#: Where the programs of the service, and `tsg`, are installed.
PROGRAMS = Path(sys.executable).parent


class Tsg:
    """Requests of one account. Thread-safe enough for tests: a session to each client."""

    def __init__(self, url: str, account: str, key_file: Path, key_id: str, *, verify: bool | Path = True) -> None:
        """`verify` is the certificate that vouches for the service, or whether any of the machine's must."""
        private = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        assert isinstance(private, rsa.RSAPrivateKey)
        self._private = private
        self._key_id = f"/{account}/keys/{key_id}"
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(verify) if isinstance(verify, Path) else verify

    def headers(self, now: datetime | None = None) -> dict[str, str]:
        """Date and Authorization, in the legacy form: the signature follows the parameters after a space."""
        date = format_datetime(now or datetime.now(UTC), usegmt=True)
        signed = base64.b64encode(self._private.sign(date.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()
        return {"Date": date, "Authorization": f'Signature keyId="{self._key_id}",algorithm="rsa-sha256",headers="date" {signed}'}

    def __call__(self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None) -> requests.Response:
        """One request, answered whatever its status."""
        sent = {**self.headers(), **(headers or {})}
        return self._session.request(method, f"{self.url}/v1/tsg{path}", json=body, headers=sent, timeout=60, allow_redirects=False)

    def ok(self, method: str, path: str, body: object = None, *, status: int = 200) -> Any:
        """One request that must be answered with `status`; the body of the answer."""
        response = self(method, path, body)
        if response.status_code != status:
            raise UnexpectedAnswer(f"{method} {path} answered {response.status_code}, not {status}: {response.text[:500]}")
        return response.json() if response.content else None

    def make_template(self, name: str = "t", **fields: Any) -> str:
        """The id of a new template of the simulator's usual image and package, where `fields` name no others."""
        body = {"template_name": name, "package": DEFAULT_PACKAGE, "image_id": DEFAULT_IMAGE, **fields}
        return str(self.ok("POST", "/templates", body, status=201)["id"])


def send(method: str, url: str, **options: Any) -> requests.Response:
    """One request to a server of this machine, past the proxies of the environment; `options` are those of requests."""
    with open_session() as session:
        return session.request(method, url, **options)


class UnexpectedAnswer(Exception):
    """The service answered something else than it should."""


def make_key(file: Path, account: str) -> str:
    """The MD5 fingerprint of an account's own RSA key, as OpenSSL and ssh have it. Made, if need be, with its public line beside it."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        pair = keys.of_private_key(rsa.generate_private_key(public_exponent=65537, key_size=2048))
        write_private(file, pair.private_pem)
        file.with_suffix(".pub").write_text(f"{pair.public_line} {account}\n")
    private = serialization.load_pem_private_key(file.read_bytes(), password=None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return keys.of_private_key(private).fingerprint


def write_private(file: Path, text: str) -> None:
    """Write what nobody else may read."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)


class Account(NamedTuple):
    """Who sends requests, and with which key."""

    name: str
    key_id: str
    key_file: Path


def shell(url: str, account: Account, *, cloudapi: str, trust: Sequence[str | Path] = ()) -> str:
    """For a POSIX shell: the profile `env` of `tsg` and `triton`, `tsg` itself, and curl with a signature, `tsg_curl`.

    `trust` are curl's options about certificates.
    """
    names = {
        "TRITON_PROFILE": "env",
        "TRITON_URL": cloudapi,
        "TRITON_TSG_URL": url,
        "TRITON_ACCOUNT": account.name,
        "TRITON_KEY_ID": account.key_id,
        "TRITON_KEY_MATERIAL": str(account.key_file),
        "CLOUDAPI_URL": cloudapi,
        **({"TRITON_TLS_INSECURE": "true"} if "--insecure" in trust else {}),
        **({"REQUESTS_CA_BUNDLE": str(trust[1])} if "--cacert" in trust else {}),
    }
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in names.items())
    options = "".join(f" {shlex.quote(str(option))}" for option in trust)
    return f"{exports}\n{NO_PROXY}\nPATH=$PATH:{shlex.quote(str(PROGRAMS))}\n{SHELL_FUNCTION.replace(' @trust@', options)}"


#: What runs here is asked past the proxies of the environment, by curl too.
NO_PROXY = 'export NO_PROXY="127.0.0.1,localhost,${no_proxy:-${NO_PROXY:-}}"; export no_proxy="$NO_PROXY"'

#: curl with a signed Date, for any POSIX shell: `local` and `function` are not POSIX, `echo -n` prints "-n" in some shells, and zsh
#: keeps `path` and `status` for itself. The names in the Date are English in every locale.
SHELL_FUNCTION = r"""tsg_curl() (
    resource=${1:?usage: tsg_curl PATH [OPTIONS OF CURL], for example: tsg_curl /v1/tsg/groups}
    shift
    now=$(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S GMT')
    signature=$(printf '%s' "$now" | openssl dgst -sha256 -sign "$TRITON_KEY_MATERIAL" | openssl enc -e -a | tr -d '\n')
    curl -s -i @trust@ \
        -H 'Accept: application/json' \
        -H 'Accept-Version: ~8' \
        -H "Date: $now" \
        -H 'Content-Type: application/json' \
        -H "Authorization: Signature keyId=\"/${TRITON_ACCOUNT}/keys/${TRITON_KEY_ID}\",algorithm=\"rsa-sha256\",headers=\"date\" $signature" \
        "$@" "${TRITON_TSG_URL}${resource}"
    echo
)"""  # noqa: E501
