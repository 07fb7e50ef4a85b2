"""The routes, and how errors become answers."""

import logging
from typing import Any

import falcon

from dev.sim.cloudapi import admin, resources
from dev.sim.cloudapi.cloud import Cloud
from dev.sim.cloudapi.errors import ApiError
from dev.sim.cloudapi.knobs import ENDPOINTS as KNOWN_ENDPOINTS
from dev.sim.cloudapi.pipeline import Pipeline, answer
from dev.sim.common.admin import add_routes as add_admin_routes
from dev.sim.common.wanted import Unwanted

log = logging.getLogger(__name__)

ENDPOINTS = {
    "/--ping": resources.Ping,
    "/{account}": resources.AccountResource,
    "/{account}/limits": resources.Limits,
    "/{account}/keys": resources.Keys,
    "/{account}/keys/{key}": resources.KeyResource,
    "/{account}/users/{user}/keys": resources.UserKeys,
    "/{account}/users/{user}/keys/{key}": resources.UserKeyResource,
    "/{account}/machines": resources.Machines,
    "/{account}/machines/{machine}": resources.MachineResource,
    "/{account}/machines/{machine}/audit": resources.Audit,
    "/{account}/machines/{machine}/tags": resources.Tags,
    "/{account}/machines/{machine}/tags/{tag}": resources.Tag,
    "/{account}/machines/{machine}/metadata": resources.Metadata,
    "/{account}/machines/{machine}/metadata/{key}": resources.MetadataKey,
    "/{account}/packages": resources.Packages,
    "/{account}/packages/{package}": resources.PackageResource,
    "/{account}/images": resources.Images,
    "/{account}/images/{image}": resources.ImageResource,
    "/{account}/networks": resources.Networks,
    "/{account}/networks/{network}": resources.NetworkResource,
    "/{account}/volumes": resources.Volumes,
    "/{account}/volumes/{volume}": resources.VolumeResource,
    "/{account}/datacenters": resources.Datacenters,
    "/{account}/datacenters/{datacenter}": resources.Datacenter,
    "/{account}/services": resources.Services,
    "/{account}/changefeed": resources.Changefeed,
}

ADMIN = {
    "state": admin.State,
    "clock/advance": admin.Clock,
    "accounts": admin.Accounts,
    "accounts/{login}": admin.AccountResource,
    "accounts/{login}/keys": admin.AccountKeys,
    "accounts/{login}/keys/{key}": admin.AccountKey,
    "packages": admin.Packages,
    "images": admin.Images,
    "networks": admin.Networks,
    "volumes": admin.Volumes,
    "dns": admin.Dns,
    "machines": admin.Machines,
    "machines/kill": admin.KillMachines,
    "machines/{machine}/{deed}": admin.MachineDeed,
    "changefeed": admin.Changefeed,
    "changefeed/restart": admin.RestartChangefeed,
    "changefeed/cut": admin.CutChangefeed,
}


def create_app(cloud: Cloud) -> falcon.App[falcon.Request, falcon.Response]:
    app = falcon.App(middleware=[Pipeline(cloud)])
    app.req_options.strip_url_path_trailing_slash = True
    app.req_options.auto_parse_qs_csv = False
    app.req_options.keep_blank_qs_values = True
    app.add_error_handler(Exception, _on_bug)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(ApiError, _on_api_error)
    app.add_error_handler(Unwanted, _on_unwanted)
    for path, endpoint in ENDPOINTS.items():
        assert KNOWN_ENDPOINTS.issuperset(endpoint.names.values()), f"knobs.py does not know all of {endpoint.names}"
        app.add_route(path, endpoint(cloud))
    add_admin_routes(app, cloud.counters, cloud.knobs, {path: resource(cloud) for path, resource in ADMIN.items()})
    return app


def _on_api_error(req: falcon.Request, resp: falcon.Response, error: ApiError, _params: dict[str, Any]) -> None:
    answer(resp, error)
    if req.accept == "text/plain":  # CloudAPI: the bare message
        resp.data = error.message.encode()
        resp.content_type = req.accept


def _on_unwanted(_req: falcon.Request, resp: falcon.Response, error: Unwanted, _params: dict[str, Any]) -> None:
    answer(resp, ApiError(400, "InvalidArgument", str(error)))


def _on_http_error(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, _params: dict[str, Any]) -> None:
    """What Falcon itself refuses, in CloudAPI's words."""
    if isinstance(error, falcon.HTTPMethodNotAllowed):
        code, message = "MethodNotAllowedError", f"{req.method} is not allowed"
    elif isinstance(error, falcon.HTTPNotFound):
        code, message = "ResourceNotFound", f"{req.path} does not exist"
    else:
        code, message = "BadRequestError", error.description or error.title or "bad request"
    answer(resp, ApiError(error.status_code, code, message, headers=dict(error.headers or {})))


def _on_bug(req: falcon.Request, resp: falcon.Response, error: Exception, _params: dict[str, Any]) -> None:
    log.error("cloudapi simulator: %s %s", req.method, req.path, exc_info=error)
    answer(resp, ApiError(500, "InternalError", f"a bug of the simulator: {error!r}"))
