"""Measures by PromQL. It could read others' series: so only for accounts that the operator names, unless the server knows tenants."""

from collections.abc import Collection

from shared.clients.prometheus import NoValue, Prometheus
from shared.measures.source import Asked, Source
from shared.policies.seen import Measure, Missing, Value


class PrometheusSource(Source):
    """`accounts` are logins and UUIDs in Triton; `knows_tenants` lets in all, each as the tenant of its UUID."""

    def __init__(self, prometheus: Prometheus, accounts: Collection[str], *, knows_tenants: bool) -> None:
        self._prometheus = prometheus
        self._accounts = frozenset(accounts)
        self._knows_tenants = knows_tenants

    def refusal(self, login: str, triton_uuid: str | None) -> str | None:
        if self._knows_tenants or login in self._accounts or triton_uuid in self._accounts:
            return None
        return "is not offered to this account"

    def read(self, asked: Asked, /) -> Measure:
        group = asked.group
        if refused := self.refusal(group.account_name, group.triton_uuid):
            return Missing(f"Prometheus {refused}")
        # Names hold no quotes and no backslashes: they stand in PromQL's strings as they are.
        query = (asked.metric.query or "").replace("$group_id", group.id).replace("$group_name", group.name)
        try:
            return Value(self._prometheus.query(query, tenant=group.triton_uuid or group.account_name))
        except NoValue as error:
            return Missing(str(error))
