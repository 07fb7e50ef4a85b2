"""`/--sim/...`: look inside the simulator, turn its knobs, and move its clock.

Unauthenticated: the simulator is meant for a loopback address. Refusals are 400 with a plain text that names the field.
"""

from __future__ import annotations

import json
from typing import Any

import falcon

from dev.cloudapi.wanted import SECONDS
from dev.nomad.cluster import Cluster
from dev.nomad.errors import bad_request
from dev.nomad.knobs import KnobError

Req = falcon.Request
Resp = falcon.Response


def _read_object(req: Req) -> dict[str, Any]:
    raw = req.bounded_stream.read()
    try:
        fields = json.loads(raw) if raw.strip() else {}
    except ValueError as error:
        raise bad_request(f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise bad_request("the body must be a JSON object")
    return fields


class Admin:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster


class State(Admin):
    """GET: the node, every job with its children's ids, every allocation, knobs and counters."""

    def on_get(self, _req: Req, resp: Resp) -> None:
        cluster = self.cluster
        resp.media = {
            "node": {"id": cluster.node.id, "datacenter": cluster.node.datacenter, "role": cluster.node.role},
            "now": cluster.now(),
            "jobs": cluster.list_state(),
            "allocations": [allocation.to_json() for allocation in list(cluster.allocations.values())],
            "counters": cluster.counters.to_json(),
            "knobs": cluster.knobs.to_json(),
        }


class CountersResource(Admin):
    def on_get(self, _req: Req, resp: Resp) -> None:
        resp.media = self.cluster.counters.to_json()


class CountersReset(Admin):
    def on_post(self, _req: Req, resp: Resp) -> None:
        self.cluster.counters.reset()
        resp.media = self.cluster.counters.to_json()


class KnobsResource(Admin):
    """GET: all knobs. PATCH: turn some, all or none; the answer is all of them."""

    def on_get(self, _req: Req, resp: Resp) -> None:
        resp.media = self.cluster.knobs.to_json()

    def on_patch(self, req: Req, resp: Resp) -> None:
        try:
            self.cluster.knobs.turn(_read_object(req))
        except KnobError as error:
            raise bad_request(str(error)) from None
        resp.media = self.cluster.knobs.to_json()


class Clock(Admin):
    """POST {"seconds": 120}: the clock goes forward at once; what became due is launched, once a job."""

    def on_post(self, req: Req, resp: Resp) -> None:
        fields = _read_object(req)
        if fields.keys() != {"seconds"} or not SECONDS.accepts(fields["seconds"]):
            raise bad_request(f"seconds, and nothing else, must be {SECONDS.text}")
        self.cluster.advance(fields["seconds"])
        resp.media = {"now": self.cluster.now()}
