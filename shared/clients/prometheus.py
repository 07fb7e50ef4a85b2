"""Prometheus' HTTP API, as far as policies need it: one number by an instant query."""

import math

import requests

from shared.clients import https
from shared.clients.access import PUBLIC, Timeouts, Trust
from shared.rules import storable

#: Bytes of an answer with one element, and its labels.
MAX_ANSWER_BYTES = 1 << 20
#: The tenant of Cortex, Mimir, Thanos and others that speak as Prometheus.
TENANT = "X-Scope-OrgID"
CONNECTIONS = 32


class NoValue(Exception):
    """There is no number to be had. The text says why."""


class Prometheus:
    """One server. Thread-safe."""

    def __init__(self, url: str, timeouts: Timeouts, trust: Trust = PUBLIC) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/query"
        self._timeouts = timeouts
        self._session = https.open_session(url, trust, connections=CONNECTIONS)

    def query(self, promql: str, *, tenant: str) -> float:
        """The one element of an instant query. `NoValue` for none, for several, for NaN and infinity, and for a server that fails."""
        try:
            response = self._session.post(
                self._url,
                data={"query": promql, "timeout": f"{self._timeouts.read:g}s"},
                headers={TENANT: tenant, "Accept": "application/json"},
                timeout=self._timeouts,
                allow_redirects=False,
                stream=True,
            )
            answer = https.read(response, MAX_ANSWER_BYTES, seconds=self._timeouts.read)
        except requests.RequestException as error:
            raise NoValue(f"Prometheus did not answer: {https.describe(error)}") from None
        try:
            body = answer.json()
            if answer.status != 200 or body["status"] != "success":
                raise NoValue(f"Prometheus answered {answer.status}: {storable(str(body.get('error', '')))[:200]}")
            return _number(body["data"])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            raise NoValue(f"Prometheus answered {answer.status}, and nothing that can be read") from None


def _number(data: dict[str, object]) -> float:
    result = data["result"]
    if data["resultType"] == "scalar":
        result = [{"value": result}]
    if not isinstance(result, list) or data["resultType"] not in {"scalar", "vector"}:
        raise NoValue(f"the query gives a {data['resultType']}, and must give one number")
    if len(result) != 1:
        raise NoValue(f"the query gives {len(result)} elements, and must give one" if result else "the query gives nothing")
    value = float(result[0]["value"][1])
    if not math.isfinite(value):
        raise NoValue(f"the query gives {value}")
    return value
