"""The checks of a process: each asks one service that the process needs."""

from collections.abc import Iterable, Mapping

import redis
from sqlalchemy.engine import URL

from shared import log
from shared.clients import https, queue
from shared.clients.access import Trust
from shared.clients.nomad import Nomad
from shared.runtime.health import (
    CLOUDAPI,
    CLOUDAPI_AUTH,
    DATABASE,
    MIGRATIONS,
    NOMAD,
    NOT_UTF8,
    OK,
    OUTDATED,
    PATIENCE,
    QUEUE,
    READ_ONLY,
    REFUSES,
    UNAVAILABLE,
    UNTRUSTED,
    Check,
    Health,
)
from shared.runtime.settings import Settings
from shared.store import db, schema

_log = log.get(__name__)


def health_of(chosen: Settings, database_url: URL, *, needed: Iterable[str], more: Mapping[str, Check] | None = None) -> Health:
    """The health of a process with these settings, and `more` checks of its own.

    Those here use connections of their own: a busy pool does not mean that the database is unavailable.
    """
    database = db.connect(database_url, pool_size=1)
    broker = queue.make_broker(chosen.redis_url, patience=PATIENCE)

    def migrations() -> str:
        with database.read() as connection:
            return OK if schema.is_current(connection) else OUTDATED

    def ask_database() -> str:
        with database.read() as connection:
            if not schema.holds_unicode(connection):
                return NOT_UTF8
            if db.is_writable(connection):
                return OK
            connection.invalidate()  # the next one may lead to the primary
            return READ_ONLY

    def ask_queue() -> str:
        try:
            queue.try_out(broker)
        except redis.ResponseError as error:
            _log.debug("queue_refuses", error=str(error))
            return REFUSES
        return OK

    checks: dict[str, Check] = {
        DATABASE: ask_database,
        MIGRATIONS: migrations,
        QUEUE: ask_queue,
        CLOUDAPI: _ping(chosen.triton_url, chosen.triton_trust),
    }
    if chosen.triton_auth_url != chosen.triton_url:
        checks[CLOUDAPI_AUTH] = _ping(chosen.triton_auth_url, chosen.triton_trust)
    if chosen.scaler == "nomad":
        nomad = Nomad(chosen.nomad)
        checks[NOMAD] = lambda: OK if nomad.leader() else UNAVAILABLE
    checks |= more or {}
    return Health({name: _with_distrust(check) for name, check in checks.items()}, needed=needed)


def _with_distrust(check: Check) -> Check:
    """The same check; a certificate that is not trusted is a state of its own."""

    def ask() -> str:
        try:
            return check()
        except Exception as error:
            if https.distrust(error) is None:
                raise
            _log.debug("certificate_not_trusted", error=str(error))
            return UNTRUSTED

    return ask


def _ping(cloudapi_url: str, trust: Trust) -> Check:
    """CloudAPI answers this without a signature. An answer of 4xx also shows that it is there."""
    session = https.open_session(cloudapi_url, trust)

    def ping() -> str:
        response = session.get(f"{cloudapi_url}/--ping", timeout=PATIENCE, allow_redirects=False)
        return OK if response.status_code < 500 else UNAVAILABLE

    return ping
