"""A client of the service's API: signs the Date as the curl function does, and speaks JSON."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa


class Tsg:
    """Requests of one account. Thread-safe enough for tests: a session to each client."""

    def __init__(self, url: str, account: str, key_file: Path, key_id: str) -> None:
        private = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        assert isinstance(private, rsa.RSAPrivateKey)
        self._private = private
        self._key_id = f"/{account}/keys/{key_id}"
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False

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


class UnexpectedAnswer(Exception):
    """The service answered something else than it should."""
