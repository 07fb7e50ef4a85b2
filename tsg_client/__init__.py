"""A client of Triton Service Groups, and the command `tsg` on top of it.

    from tsg_client import Client, Signer
    from tsg_client.keys.keyring import find

    client = Client("https://tsg.example.com", Signer("alice", find("4a:5b:...")))
    group = client.create_group(group_name="web", template_id=..., capacity=3)
    client.wait_settled(group.id, timeout=300)

What is named here is loaded when it is asked for, so that `tsg --help` loads none of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tsg_client.client import Client
    from tsg_client.errors import TsgError
    from tsg_client.signer import Signer

__all__ = ["Client", "Signer", "TsgError"]

_PLACES = {"Client": "client", "Signer": "signer", "TsgError": "errors"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
