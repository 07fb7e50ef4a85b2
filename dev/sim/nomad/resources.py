"""What each endpoint answers: Nomad's JSON, or a plain text about what is wrong."""

import json
from typing import Any, ClassVar

import falcon

from dev.sim.nomad.cluster import Cluster
from dev.sim.nomad.errors import bad_request, error_list, no_leader, not_found

ERROR_TYPE = "text/plain; charset=utf-8"

Req = falcon.Request
Resp = falcon.Response


class Endpoint:
    """A Falcon resource that the knobs and the token concern: `class Leader(Endpoint, name="Leader")`."""

    name = ""
    open = False  #: wants no token, and sees for itself whether there is a leader

    def __init_subclass__(cls, name: str = "") -> None:
        cls.name = name

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def endpoint(self, _req: Req, _path: dict[str, str]) -> str:
        """What knobs and counters call it."""
        return self.name


class Validate(Endpoint, name="ValidateJob"):
    """Nomad: 200 for an invalid job too."""

    def on_put(self, req: Req, resp: Resp) -> None:
        errors = self.cluster.validate(_read_spec(req))
        resp.media = {"Error": error_list(errors) if errors else "", "ValidationErrors": errors or None, "Warnings": ""}


class Jobs(Endpoint):
    def endpoint(self, req: Req, _path: dict[str, str]) -> str:
        return "ListJobs" if req.method == "GET" else "RegisterJob"

    def on_get(self, req: Req, resp: Resp) -> None:
        resp.media = self.cluster.list_jobs(req.get_param("prefix") or "")

    def on_put(self, req: Req, resp: Resp) -> None:
        resp.media = self.cluster.register(_read_spec(req))


class JobResource(Endpoint):
    """`/v1/job/ID`, and what hangs below it. An id may hold slashes, encoded or not: the end of the path decides, as in Nomad."""

    BELOW = (("/periodic/force", "ForceJob", "PUT"), ("/allocations", "ListAllocations", "GET"), ("/plan", "PlanJob", "PUT"))
    OWN: ClassVar[dict[str, str]] = {"GET": "ReadJob", "DELETE": "DeregisterJob"}

    def endpoint(self, req: Req, path: dict[str, str]) -> str:
        """Raises HTTPMethodNotAllowed."""
        for suffix, name, method in self.BELOW:
            if path["path"].endswith(suffix):
                if req.method != method:
                    raise falcon.HTTPMethodNotAllowed([method])
                return name
        if req.method not in self.OWN:
            raise falcon.HTTPMethodNotAllowed(list(self.OWN))
        return self.OWN[req.method]

    def on_get(self, req: Req, resp: Resp, path: str) -> None:
        if req.context.endpoint == "ListAllocations":
            resp.media = self.cluster.list_allocations(path.removesuffix("/allocations"))
            return
        resp.media = self.cluster.read_job(path)
        if resp.media is None:
            raise not_found("job not found")

    def on_put(self, req: Req, resp: Resp, path: str) -> None:
        if req.context.endpoint == "ForceJob":
            resp.media = self.cluster.force(path.removesuffix("/periodic/force"))
            return
        spec = _read_spec(req)
        if spec.get("ID") != path.removesuffix("/plan"):
            raise bad_request("Job ID does not match")
        resp.media = self.cluster.plan(spec)

    def on_delete(self, req: Req, resp: Resp, path: str) -> None:
        if req.get_param("purge") != "true":
            raise bad_request("the simulator knows no job that is stopped and stays: purge=true is wanted")
        resp.media = self.cluster.deregister(path)


class Leader(Endpoint, name="Leader"):
    open = True

    def on_get(self, _req: Req, resp: Resp) -> None:
        if self.cluster.knobs.no_leader:
            raise no_leader()
        resp.media = "127.0.0.1:4647"


def _read_spec(req: Req) -> dict[str, Any]:
    """The job of a request. Raises Refusal."""
    try:
        request = json.loads(req.bounded_stream.read() or b"null")
    except ValueError as error:
        raise bad_request(str(error)) from None
    job = request.get("Job") if isinstance(request, dict) else None
    if not isinstance(job, dict):
        raise bad_request("Job must be specified")
    return job
