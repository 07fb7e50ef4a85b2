"""The sources of measures that there are with these settings."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from cachetools import TTLCache

from shared.clients.access import Timeouts
from shared.clients.cloudapi import Client, CloudAPI, CloudAPIError
from shared.clients.cmon import Cmon, NoMetrics, make_certificate
from shared.clients.keys import Sealer, SealError
from shared.clients.prometheus import Prometheus
from shared.clients.pushed import Pushed
from shared.clients.samples import Samples
from shared.management.access import NoManagementKey, client_for, key_of, open_key
from shared.measures.cmon import CmonSource
from shared.measures.gather import Gatherer
from shared.measures.prometheus import PrometheusSource
from shared.measures.pushed import PushedSource
from shared.measures.source import Source
from shared.runtime.settings import Settings
from shared.state import accounts, policies, templates
from shared.state.policies import Scaled
from shared.store.db import Database

T = TypeVar("T")

#: Seconds to wait for a connection to a source, and for its answer.
TIMEOUTS = Timeouts(2.0, 3.0)
#: Seconds for which it is believed what CloudAPI said of a package, and where CMON is.
BELIEVED = 3600.0


def make_gatherer(chosen: Settings, database: Database) -> Gatherer:
    """Asks all sources, each on threads of its own."""
    account = AsAccount(chosen, database)
    sources: dict[str, Source] = {
        "pushed": PushedSource(Pushed(chosen.redis_url)),
        "cmon": CmonSource(Samples(chosen.redis_url), account.connect, account.vcpus),
    }
    if chosen.prometheus_url:
        prometheus = Prometheus(chosen.prometheus_url, TIMEOUTS)
        named = [name.strip() for name in chosen.prometheus_accounts.split(",") if name.strip()]
        sources["prometheus"] = PrometheusSource(prometheus, named, knows_tenants=chosen.prometheus_tenants)
    return Gatherer(sources, list_members(database))


def list_members(database: Database) -> Callable[[Scaled], Sequence[str]]:
    """Lists the machines of a group's available members."""

    def members(group: Scaled) -> list[str]:
        with database.read() as connection:
            return policies.list_available(connection, group.id, group.settings)

    return members


class AsAccount:
    """What CMON is asked by, and CloudAPI for it: the account's management key. Thread-safe."""

    def __init__(self, chosen: Settings, database: Database) -> None:
        self._database = database
        self._sealer = Sealer(chosen.secret_keys)
        self._clouds = CloudAPI(chosen.triton_url, TIMEOUTS, chosen.triton_trust)
        self._trust = chosen.triton_trust
        self._cmon_url = chosen.cmon_url
        self._known: TTLCache[str, float | str] = TTLCache(10_000, BELIEVED)

    def connect(self, group: Scaled) -> Cmon:
        """Connections to CMON under a certificate of the account's. `NoMetrics` where there can be none."""
        account = self._account(group)
        try:
            pair = open_key(self._database, self._sealer, key_of(self._database, account))
        except (NoManagementKey, SealError) as error:
            raise NoMetrics(f"CMON cannot be asked: {error}") from None
        return Cmon(self._url(group), make_certificate(account.name, pair), TIMEOUTS, self._trust)

    def vcpus(self, group: Scaled) -> float:
        """Those of the package of the group's template. `NoMetrics` where CloudAPI does not say."""
        with self._database.read() as connection:
            package = str(templates.get(connection, group.account_id, group.template_id).spec.values["package"])
        key = f"{group.account_id} {package}"
        if key not in self._known:
            found = self._ask(group, lambda client: client.find("packages", package))
            count = (found or {}).get("vcpus")
            if not isinstance(count, int) or count < 1:
                raise NoMetrics("the members have no CPU cap, and their package says nothing of vCPUs")
            self._known[key] = float(count)
        return float(self._known[key])

    def _url(self, group: Scaled) -> str:
        if self._cmon_url:
            return self._cmon_url
        if "cmon" not in self._known:
            url = self._ask(group, lambda client: client.services()).get("cmon")
            if not url:
                raise NoMetrics("CloudAPI lists no CMON: its operator must set TSG_CMON_URL")
            self._known["cmon"] = url
        return str(self._known["cmon"])

    def _ask(self, group: Scaled, question: Callable[[Client], T]) -> T:
        try:
            return question(client_for(self._database, self._clouds, self._sealer, self._account(group)))
        except (CloudAPIError, NoManagementKey) as error:
            raise NoMetrics(f"CloudAPI did not say what is needed to ask CMON: {error}") from None

    def _account(self, group: Scaled) -> accounts.Account:
        with self._database.read() as connection:
            found = accounts.get(connection, group.account_id)
        if found is None:
            raise NoMetrics("the account is gone")
        return found
