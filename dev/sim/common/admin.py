"""`/--sim/...`, as far as it is the same for all simulators: what was counted, and the knobs.

Unauthenticated: a simulator is meant for a loopback address. A body that can't be used raises Unwanted.
"""

import json
from collections.abc import Mapping
from typing import Any

import falcon

from dev.sim.common.knobs import Knobs
from dev.sim.common.wanted import Unwanted, Wanted, check

#: Admin routes: no token, no signature, no knobs.
PREFIX = "/--sim/"

Req = falcon.Request
Resp = falcon.Response


def read(req: Req, wanted: Mapping[str, Wanted], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The JSON object of the body, every field checked. An unknown field is refused. Raises Unwanted."""
    fields = _read_object(req)
    for name in required:
        if name not in fields:
            raise Unwanted(f"{name} is required")
    check(fields, wanted)
    return fields


def _read_object(req: Req) -> dict[str, Any]:
    raw = req.bounded_stream.read()
    try:
        fields = json.loads(raw) if raw.strip() else {}
    except ValueError as error:
        raise Unwanted(f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Unwanted("the body must be a JSON object")
    return fields


def add_routes(app: falcon.App[Req, Resp], counters: Any, knobs: Knobs, more: Mapping[str, object]) -> None:
    """The routes of every simulator, and those that only this one has."""
    app.add_route(f"{PREFIX}counters", _Counters(counters))
    app.add_route(f"{PREFIX}counters/reset", _Counters(counters), suffix="reset")
    app.add_route(f"{PREFIX}knobs", _Knobs(knobs))
    for path, resource in more.items():
        app.add_route(PREFIX + path, resource)


class _Counters:
    def __init__(self, counters: Any) -> None:
        self._counters = counters

    def on_get(self, _req: Req, resp: Resp) -> None:
        resp.media = self._counters.to_json()

    def on_post_reset(self, _req: Req, resp: Resp) -> None:
        self._counters.reset()
        resp.media = self._counters.to_json()


class _Knobs:
    """GET: all knobs. PATCH: turn some, all or none; the answer is all of them."""

    def __init__(self, knobs: Knobs) -> None:
        self._knobs = knobs

    def on_get(self, _req: Req, resp: Resp) -> None:
        resp.media = self._knobs.to_json()

    def on_patch(self, req: Req, resp: Resp) -> None:
        self._knobs.turn(_read_object(req))
        resp.media = self._knobs.to_json()
