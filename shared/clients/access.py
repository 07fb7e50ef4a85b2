"""How this service connects to other services: addresses, credentials, certificates and time limits, as the settings have them."""

from pathlib import Path
from typing import NamedTuple


class Trust(NamedTuple):
    """Which certificates of a server are accepted."""

    #: A file of PEM certificates, or a directory of them by hash (`openssl rehash`), in place of the public authorities.
    authorities: Path | None = None
    #: Accept any certificate.
    skip_verify: bool = False


#: The public authorities.
PUBLIC = Trust()


class Timeouts(NamedTuple):
    """Seconds to wait for a connection, and for an answer."""

    connect: float
    read: float


class NomadAccess(NamedTuple):
    """Where Nomad is, and how to connect to it: the conventional `NOMAD_*` settings."""

    address: str
    token: str = ""
    namespace: str = ""
    region: str = ""
    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    skip_verify: bool = False

    def __repr__(self) -> str:
        return f"NomadAccess({self.address})"
