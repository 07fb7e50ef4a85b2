"""What a command asks CloudAPI itself, with the caller's own key: packages, images and networks by their names."""

from typing import Any

from tsg_client.errors import NotFound
from tsg_client.models import Json
from tsg_client.names import is_uuid, pick
from tsg_client.signer import Signer
from tsg_client.transport import Transport


class CloudAPI:
    """An account's view of its data center. `role` is a list of roles with commas between, which a sub-user takes on."""

    def __init__(self, url: str, signer: Signer, *, verify: bool | str = True, role: str | None = None, patience: float = 20.0) -> None:
        self._transport = Transport(url, signer, verify=verify, patience=patience)
        self._account = signer.account
        self._role = role

    @property
    def url(self) -> str:
        return self._transport.url

    def close(self) -> None:
        self._transport.close()

    def account(self) -> Json:
        """The account as CloudAPI knows it."""
        found: Json = self._get("")
        return found

    def image_id(self, text: str) -> str:
        """The id of an image: its own, or that of the newest active one of `NAME` or `NAME@VERSION`."""
        if is_uuid(text):
            return text
        name, _, version = text.partition("@")
        found = [image for image in self._list("images", name=name, version=version or None) if image.get("state", "active") == "active"]
        if not found:
            raise NotFound(f"no image with name {text!r} was found (triton image ls name={name})")
        return str(max(found, key=lambda image: str(image.get("published_at", "")))["id"])

    def network_id(self, text: str) -> str:
        """The id of a network, by its id, name or short id."""
        if is_uuid(text):
            return text
        return str(pick("network", text, self._list("networks"), name=lambda network: str(network.get("name")))["id"])

    def machine_id(self, text: str) -> str:
        """The id of a machine of the account, by its id, name or short id."""
        if is_uuid(text):
            return text
        return str(pick("instance", text, self._list("machines"), name=lambda machine: str(machine.get("name")))["id"])

    def _list(self, kind: str, **query: Any) -> list[Json]:
        found: list[Json] = self._get(f"/{kind}", **query)
        return found

    def _get(self, path: str, **query: Any) -> Any:
        return self._transport.send("GET", f"/{self._account}{path}", query=query | {"as-role": self._role}).json()
