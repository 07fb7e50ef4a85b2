"""HashiCorp Nomad: one method a call, errors by what the caller must do.

NomadError
  Unavailable   it can't be reached, has no leader, or failed. Later
  Denied        the token is not accepted, or may not do this
  Rejected      the job is wrong as it stands; the text is Nomad's own
"""

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from shared import metrics
from shared.clients import https
from shared.clients.access import NomadAccess, Trust
from shared.clients.https import Answer
from shared.rules import storable

#: Seconds to wait for a connection, for an answer, and for all of it.
TIMEOUTS = (3.05, 6.0)
ANSWER_SECONDS = 10.0
#: Bytes of the largest answer: the runs of a job, and what became of each.
MAX_ANSWER_BYTES = 16 << 20
#: Characters of one of Nomad's plain-text errors that are passed on.
MAX_ERROR = 2000

Job = Mapping[str, Any]


class NomadError(Exception):
    """Nomad did not do what it was asked. The text is Nomad's own where it gave one."""


class Unavailable(NomadError):
    """Nomad can't be reached, or can't work now."""


class Denied(NomadError):
    """The token is not accepted, or is not allowed this."""


class Rejected(NomadError):
    """Nomad does not take the job."""


class Nomad:
    """The calls of Nomad's HTTP API that jobs of groups need."""

    def __init__(self, access: NomadAccess) -> None:
        self._address = access.address.rstrip("/")
        self._query = {name: value for name, value in (("namespace", access.namespace), ("region", access.region)) if value}
        self._session = https.open_session(access.address, Trust(access.ca_cert, access.skip_verify))
        if access.client_cert and access.client_key:
            self._session.cert = (str(access.client_cert), str(access.client_key))
        if access.token:
            self._session.headers["X-Nomad-Token"] = access.token

    def close(self) -> None:
        self._session.close()

    def validate(self, job: Job) -> None:
        """`Rejected` with all that is wrong. Nomad answers 200 whatever it finds: the body says."""
        body = _json(self._call("PUT", "/v1/validate/job", {"Job": job}))
        errors = body.get("ValidationErrors") or ([body["Error"]] if body.get("Error") else [])
        if errors:
            raise Rejected("; ".join(str(error) for error in errors)[:MAX_ERROR])

    def register(self, job: Job) -> int:
        """Make the job, or change it in place; a run under way goes on. Its modify index, which an identical job leaves as it is."""
        return int(_json(self._call("PUT", "/v1/jobs", {"Job": job}))["JobModifyIndex"])

    def force(self, job_id: str) -> None:
        """Start a run of a periodic job now."""
        self._call("PUT", f"{_job(job_id)}/periodic/force")

    def plan(self, job: Job) -> Mapping[str, Any]:
        """What Nomad would make of the job: `FailedTGAllocs` says why no node would run it. Changes nothing."""
        body: Mapping[str, Any] = _json(self._call("PUT", f"{_job(job['ID'])}/plan", {"Job": job, "Diff": False}))
        return body

    def children(self, job_id: str) -> list[Mapping[str, Any]]:
        """The runs of a periodic job, as stubs with `ID` and `Status` (pending, running, dead)."""
        prefix = f"{job_id}/periodic-"
        stubs: list[Mapping[str, Any]] = _json(self._call("GET", "/v1/jobs", query={"prefix": prefix}))
        return [stub for stub in stubs if str(stub.get("ID", "")).startswith(prefix)]

    def allocations(self, job_id: str) -> list[Mapping[str, Any]]:
        """What became of a job that is no periodic one: `ClientStatus`, and the `Events` of each task in `TaskStates`."""
        found: list[Mapping[str, Any]] = _json(self._call("GET", f"{_job(job_id)}/allocations", query={"all": "true"}))
        return found

    def deregister(self, job_id: str) -> None:
        """Remove a job without a trace. An unknown one is as good. The runs of a periodic job are jobs of their own."""
        self._call("DELETE", _job(job_id), query={"purge": "true"})

    def leader(self) -> str:
        """The address of the leader; `Unavailable` when there is none."""
        return str(_json(self._call("GET", "/v1/status/leader")))

    def _call(self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None) -> Answer:
        endpoint, outcome, started = endpoint_of(method, path), metrics.NO_ANSWER, time.monotonic()
        try:
            response = self._session.request(
                method,
                self._address + path,
                json=body,
                params={**self._query, **(query or {})},
                timeout=TIMEOUTS,
                allow_redirects=False,
                stream=True,
            )
            answer = https.read(response, MAX_ANSWER_BYTES, seconds=ANSWER_SECONDS)
            outcome = str(answer.status)
        except OSError as error:  # of requests, or of a file of certificates that has gone since the start
            if why := https.distrust(error):
                raise Unavailable(f"Nomad's certificate is not trusted ({why}): see NOMAD_CACERT.") from error
            raise Unavailable(f"Nomad can't be reached: {https.describe(error)}") from error
        finally:
            metrics.nomad_requests.labels(endpoint, outcome).inc()
            metrics.nomad_seconds.labels(endpoint).observe(time.monotonic() - started)
        if 200 <= answer.status < 300:
            return answer
        raise _error(answer.status, storable(answer.body[: 4 * MAX_ERROR].decode(errors="replace"))[:MAX_ERROR].strip())


def _json(answer: Answer) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise Unavailable("Nomad answered something that is not JSON: is this its address?") from error


def endpoint_of(method: str, path: str) -> str:
    """A request without the job it is about: `PUT /v1/job/:id/plan`."""
    parts = path.split("/")
    return f"{method} {'/'.join([*parts[:3], ':id', *parts[4:]] if parts[2] == 'job' else parts)}"


def _error(status: int, text: str) -> NomadError:
    if status in {401, 403}:
        return Denied(f"Nomad answered {status}: {text}")
    # 500 is Nomad's answer to nearly everything: a job it does not take, and a server that has no leader.
    lowered = text.lower()
    away = status in {429, 502, 503, 504} or "no cluster leader" in lowered or "rpc error" in lowered or "timeout" in lowered
    return (Unavailable if away else Rejected)(f"Nomad answered {status}: {text}")


def _job(job_id: str) -> str:
    return f"/v1/job/{quote(job_id, safe='')}"
