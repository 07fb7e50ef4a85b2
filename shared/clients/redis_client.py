"""A client of Redis or Valkey: of one server, or of the primary that Sentinel names.

    sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME?db=0&sentinel_password=...

The hosts are those of Sentinel, the name is the one under which they watch the primary, user and password are those of the servers.
`sentinels://` is the same by TLS. All other options are those of `redis://` and `rediss://`.
"""

import re
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

#: Seconds to wait for a connection.
CONNECT_TIMEOUT = 2.0
#: The port of Sentinel, where the URL has none.
SENTINEL_PORT = 26379

_BY_SENTINEL = re.compile(r"sentinel(?P<tls>s?)://(?P<user>[^/?@]*@)?(?P<hosts>[^/?@]+)/(?P<name>[^/?]+)(?P<query>\?.*)?")
_HOST = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")


class _Watched(NamedTuple):
    """Where the Sentinels are, and what they call the primary; the options of connections to it, and to them."""

    hosts: list[tuple[str, int]]
    name: str
    of_servers: dict[str, Any]
    of_sentinels: dict[str, Any]


def connect(url: str, *, patience: float, **options: Any) -> redis.Redis:
    """A client without retries of its own, which waits `patience` seconds for an answer. `ValueError` for a URL that is none.

    After a failover, Sentinel is asked again as soon as the old primary is away or refuses a write.
    """
    options = {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_timeout": patience, "retry": Retry(NoBackoff(), 0), **options}
    if not url.startswith("sentinel"):
        return redis.Redis.from_url(url, **options)
    watched = _watched(url)
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        watched.hosts,
        sentinel_kwargs={**options, **watched.of_sentinels, "decode_responses": False},
        **{**options, **watched.of_servers},
    )
    client: redis.Redis = sentinel.master_for(watched.name, connection_pool_class=_Pool)  # type: ignore[no-untyped-call]
    return client


class _Pool(SentinelConnectionPool):
    """Closes the connections to the Sentinels with those to the servers."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                sentinel.close()


def check(url: str) -> None:
    """`ValueError` where `connect` would raise it. The message repeats nothing of the URL: a slip may make a password of any part."""
    if url.startswith("sentinel"):
        _watched(url)
    else:
        _parsed(url)


def _watched(url: str) -> _Watched:
    found = _BY_SENTINEL.fullmatch(url)
    if not found:
        raise ValueError("must be like sentinel://HOST:PORT,HOST:PORT/NAME")
    hosts = [_host(one) for one in found["hosts"].split(",")]
    of_servers = _parsed(f"redis://{found['user'] or ''}localhost{found['query'] or ''}")
    del of_servers["host"]
    of_sentinels = {
        name.removeprefix("sentinel_"): of_servers.pop(name) for name in ("sentinel_username", "sentinel_password") if name in of_servers
    }
    # What the connection is like, and not what is asked by it.
    of_sentinels |= {name: value for name, value in of_servers.items() if name.startswith(("ssl", "socket_"))}
    if found["tls"]:
        of_servers["ssl"] = of_sentinels["ssl"] = True
    return _Watched(hosts, found["name"], of_servers, of_sentinels)


def _parsed(url: str) -> dict[str, Any]:
    try:
        options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError:
        raise ValueError("its port or one of its options is wrong") from None
    return options


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if not found or int(found["port"] or 1) not in range(1, 65_536):
        raise ValueError("its Sentinels must be like HOST:PORT, with commas between")
    return found["v6"] or found["host"], int(found["port"] or SENTINEL_PORT)
