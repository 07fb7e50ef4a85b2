"""Signs requests as node-triton does: HTTP Signature (draft-cavage) over the request line and the date, the key by its MD5 fingerprint."""

import base64
from datetime import UTC, datetime
from email.utils import format_datetime

from requests import PreparedRequest
from requests.auth import AuthBase

from tsg_client.keys.key import Key


class Signer(AuthBase):
    """The signature of one account, or of one of its sub-users, with one key."""

    def __init__(self, account: str, key: Key, *, user: str | None = None) -> None:
        self.account = account
        self.user = user
        self.key = key
        self._key_id = f"/{account}{f'/users/{user}' if user else ''}/keys/{key.fingerprint}"

    def headers(self, method: str, target: str, *, only_date: bool = False) -> dict[str, str]:
        """Date and Authorization of a request of now. `target` is its path and query, as they go over the wire.

        A signature over the date alone is one that the service can show to CloudAPI.
        """
        date = format_datetime(datetime.now(UTC), usegmt=True)
        lines = [f"date: {date}"] if only_date else [f"(request-target): {method.lower()} {target}", f"date: {date}"]
        names = "date" if only_date else "(request-target) date"
        signature = base64.b64encode(self.key.sign("\n".join(lines).encode())).decode()
        # CloudAPI: no space after a comma.
        parameters = f'keyId="{self._key_id}",algorithm="{self.key.algorithm}",headers="{names}",signature="{signature}"'
        return {"Date": date, "Authorization": f"Signature {parameters}"}

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """As requests' `auth`."""
        request.headers.update(self.headers(request.method or "", request.path_url))
        return request


class ByDate(AuthBase):
    """The same signer's signature over the date alone."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        request.headers.update(self._signer.headers(request.method or "", request.path_url, only_date=True))
        return request
