"""A real PostgreSQL and a real Valkey (a Redis) of our own, for development and tests; nothing but `pip install` is needed.

    with Postgres(directory / "postgres") as postgres, Valkey(directory / "valkey") as valkey:
        create_engine(postgres.url()), redis.from_url(valkey.url)

Both listen on unix sockets in directories that only their user can enter, keep their data in the directory they were given, and log
there. Run as root, PostgreSQL (which refuses root) runs as `nobody`; nothing above the given directory is ever chmod-ed for it.

__main__.py      python -m dev.services
postgres.py      Postgres
valkey.py        Valkey
sentinel.py      Sentinel
server.py        what all have in common: a lock, a child, a socket, and the ways of its end
directories.py   whose a directory is, and who can enter it
programs.py      where the servers' programs are
"""

from dev.services.directories import ServiceError, copy_of, scratch
from dev.services.postgres import Postgres, execute
from dev.services.sentinel import Sentinel
from dev.services.valkey import Address, Valkey

__all__ = ["Address", "Postgres", "Sentinel", "ServiceError", "Valkey", "copy_of", "execute", "scratch"]
