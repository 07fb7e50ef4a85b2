"""The app and all that it stands on, put together as the settings say: for tsg-api, and for any other WSGI server (`tsg_api.wsgi`)."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import falcon

from shared.clients.access import Timeouts
from shared.clients.budget import Budget
from shared.clients.cloudapi import Client, CloudAPI
from shared.clients.keys import Sealer
from shared.clients.pushed import Pushed
from shared.clients.queue import DECIDE, WakeUps, make_broker, waker
from shared.management.access import NoManagementKey, client_for
from shared.measures.sources import make_gatherer
from shared.runtime import health
from shared.runtime.checks import health_of
from shared.runtime.health import Health
from shared.runtime.settings import Settings
from shared.state.accounts import Account
from shared.store import db
from tsg_api.app import create_app
from tsg_api.auth.caller_keys import CallerKeys
from tsg_api.auth.development import DevelopmentMode
from tsg_api.auth.enrol import Enrolment
from tsg_api.auth.middleware import Authenticator
from tsg_api.auth.signed import Signed
from tsg_api.auth.tenants import Tenants
from tsg_api.auth.vouching import Vouching
from tsg_api.http.errors import Unavailable
from tsg_api.http.service import Service
from tsg_api.http.slots import Slots, slots_of

App = falcon.App[falcon.Request, falcon.Response]

#: How often a request that CloudAPI throttles is sent again, up to `cloudapi.THROTTLED_TRIES` times: for a second.
TRIES_A_SECOND = 4.0
#: Requests to CloudAPI, for one to this service, that are sent without a wait between them, as long as none is throttled.
PAGES = 10


@contextmanager
def assembled(chosen: Settings, stopping: threading.Event, *, parks: bool = False) -> Iterator[tuple[App, Health]]:
    """The process's app, and its health. Once `stopping` is set no request waits in it any more.

    `parks`: its server can park requests, as ours can (`tsg_api.server.channel`).
    """
    database = db.connect(chosen.database_url, pool_size=chosen.http_threads)
    healthy = health_of(chosen, database.engine.url, needed={health.DATABASE, health.MIGRATIONS})
    timeouts = Timeouts(chosen.cloudapi_connect_timeout, chosen.cloudapi_read_timeout)
    clouds = CloudAPI(chosen.triton_url, timeouts, chosen.triton_trust)
    vouching_cloud = (
        clouds if chosen.triton_auth_url == chosen.triton_url else CloudAPI(chosen.triton_auth_url, timeouts, chosen.triton_trust)
    )
    sealer = Sealer(chosen.secret_keys)
    wake_ups = WakeUps(make_broker(chosen.redis_url))
    slots = slots_of(chosen.http_threads, parks=parks)
    pushed = Pushed(chosen.redis_url)
    gatherer = make_gatherer(chosen, database)
    service = Service(
        db=database,
        wake=waker(wake_ups, chosen.scaler),
        wake_policies=lambda group_id: wake_ups.enqueue(DECIDE, group_id),
        cloud=cloud_of(database, clouds, sealer),
        max_capacity=chosen.max_capacity,
        max_body=chosen.http_max_body,
        interval=chosen.health_check_interval,
        has_jobs=chosen.scaler == "nomad",
        stopping=stopping,
        slots=slots,
        parks=parks,
        pushed=pushed,
        gatherer=gatherer,
        sealer=sealer,
        notify_rules=chosen.notify_rules,
        public_url=chosen.http_public_url,
        rate_per_account=chosen.rate_per_account,
        rate_per_address=chosen.rate_per_address,
        trusted_proxy=chosen.http_trusted_proxy,
    )
    authenticator: Authenticator = (
        DevelopmentMode(database, chosen.http_public_url)
        if chosen.dev_mode
        else signed(
            service,
            vouching_cloud,
            Tenants(database, Enrolment(database, sealer, key_name=chosen.key_name), whitelist=chosen.triton_whitelist),
            slots.keys,
            CallerKeys(chosen.auth_cache_seconds),
        )
    )
    try:
        yield create_app(service, authenticator, healthy), healthy
    finally:
        wake_ups.close()
        gatherer.close()
        pushed.close()
        database.close()


def signed(service: Service, cloud: CloudAPI, tenants: Tenants, slots: Slots, keys: CallerKeys) -> Signed:
    """Callers prove who they are by a signature, which `cloud` vouches for."""
    vouching = Vouching(service.db, keys, tenants, cloud, service.cloud, slots=slots)
    return Signed(keys, vouching, tenants, max_body=service.max_body)


def cloud_of(database: db.Database, clouds: CloudAPI, sealer: Sealer) -> Callable[[Account], Client]:
    def cloud(account: Account) -> Client:
        # A worker that launches may have used up what CloudAPI allows the account: the next request has its turn a moment later.
        patience = Budget(TRIES_A_SECOND, burst=PAGES)
        try:
            return client_for(database, clouds, sealer, account, patience)
        except NoManagementKey as error:
            raise Unavailable(str(error)) from None

    return cloud
