"""The routes, what happens to every request, and how errors become answers."""

import logging
from typing import Any

import falcon

from dev.sim.common.admin import PREFIX as ADMIN_PREFIX
from dev.sim.common.admin import add_routes as add_admin_routes
from dev.sim.common.server import cut_connection
from dev.sim.common.wanted import Unwanted
from dev.sim.nomad import admin, resources
from dev.sim.nomad.cluster import Cluster
from dev.sim.nomad.errors import Cut, Refusal, bad_request, failed, no_leader
from dev.sim.nomad.resources import ERROR_TYPE, Endpoint

log = logging.getLogger(__name__)

ENDPOINTS = {
    "/v1/validate/job": resources.Validate,
    "/v1/jobs": resources.Jobs,
    "/v1/job/{path:path}": resources.JobResource,
    "/v1/status/leader": resources.Leader,
}

ADMIN = {
    "state": admin.State,
    "clock/advance": admin.Clock,
}


def create_app(cluster: Cluster, token: str | None) -> falcon.App[falcon.Request, falcon.Response]:
    app = falcon.App(middleware=[Pipeline(cluster, token)])
    app.req_options.auto_parse_qs_csv = False
    app.req_options.keep_blank_qs_values = True
    app.add_error_handler(Exception, _on_bug)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(Refusal, _on_refusal)
    app.add_error_handler(Unwanted, _on_unwanted)
    app.add_error_handler(Cut, _on_cut)
    for path, endpoint in ENDPOINTS.items():
        app.add_route(path, endpoint(cluster))
    add_admin_routes(app, cluster.counters, cluster.knobs, {path: resource(cluster) for path, resource in ADMIN.items()})
    return app


class Pipeline:
    """Falcon middleware: the token, and the knobs that disturb."""

    def __init__(self, cluster: Cluster, token: str | None) -> None:
        self.cluster = cluster
        self._token = token

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        if not req.path.startswith(ADMIN_PREFIX) and self.cluster.knobs.down:
            raise Cut

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, resource: object, path: dict[str, str]) -> None:
        if not isinstance(resource, Endpoint):
            return
        knobs = self.cluster.knobs
        endpoint = req.context.endpoint = resource.endpoint(req, path)
        self.cluster.closing.wait(knobs.latency_seconds)
        if _concerns(knobs.error_endpoints, endpoint) and self.cluster.chance(knobs.error_share):
            self.cluster.counters.inject()
            raise Refusal(knobs.error_status, knobs.error_message)
        if resource.open:
            return
        if knobs.no_leader:
            raise no_leader()
        if self._token and req.get_header("X-Nomad-Token") != self._token:  # as for a token that has no rights
            raise Refusal(403, "Permission denied")

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, req_succeeded: bool) -> None:
        if req.path.startswith(ADMIN_PREFIX):
            return
        knobs = self.cluster.knobs
        endpoint = getattr(req.context, "endpoint", "(no endpoint)")
        if req_succeeded and _concerns(knobs.hang_endpoints, endpoint):
            self.cluster.closing.wait(knobs.hang_seconds)
            if knobs.down:
                _on_cut(req, resp, Cut(), {})
        self.cluster.counters.answered(endpoint, "cut" if resp.stream else str(resp.status_code))


def _concerns(endpoints: list[str], endpoint: str) -> bool:
    return not endpoints or endpoint in endpoints


def _on_refusal(_req: falcon.Request, resp: falcon.Response, error: Refusal, _params: dict[str, Any]) -> None:
    resp.status = error.status
    resp.data = error.message.encode()
    resp.content_type = ERROR_TYPE


def _on_unwanted(req: falcon.Request, resp: falcon.Response, error: Unwanted, params: dict[str, Any]) -> None:
    _on_refusal(req, resp, bad_request(str(error)), params)


def _on_cut(_req: falcon.Request, resp: falcon.Response, _error: Cut, _params: dict[str, Any]) -> None:
    resp.data, resp.stream = None, cut_connection()


def _on_http_error(_req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, _params: dict[str, Any]) -> None:
    """What Falcon itself refuses. Nomad: a path that it does not know is a 404 without a word."""
    resp.status = error.status_code
    resp.content_type = ERROR_TYPE
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        resp.data = b"Invalid method"
    elif not isinstance(error, falcon.HTTPNotFound):
        resp.data = (error.description or error.title or "bad request").encode()


def _on_bug(req: falcon.Request, resp: falcon.Response, error: Exception, _params: dict[str, Any]) -> None:
    log.error("nomad simulator: %s %s", req.method, req.path, exc_info=error)
    _on_refusal(req, resp, failed(f"a bug of the simulator: {error!r}"), {})
