"""`/--sim/...`: look inside the simulator, turn its knobs, and move its clock.

Unauthenticated: the simulator is meant for a loopback address. Refusals are 400 with a plain text that names the field.
"""

import falcon

from dev.sim.common.admin import read
from dev.sim.common.wanted import SECONDS
from dev.sim.nomad.cluster import Cluster

Req = falcon.Request
Resp = falcon.Response


class Admin:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster


class State(Admin):
    """GET: the node, every job, every run, knobs and counters."""

    def on_get(self, _req: Req, resp: Resp) -> None:
        cluster = self.cluster
        resp.media = {
            "node": {"datacenter": cluster.node.datacenter, "role": cluster.node.role},
            "now": cluster.now(),
            **cluster.list_state(),
            "counters": cluster.counters.to_json(),
            "knobs": cluster.knobs.to_json(),
        }


class Clock(Admin):
    """POST {"seconds": 120}: the clock goes forward at once; what became due is launched, once a job."""

    def on_post(self, req: Req, resp: Resp) -> None:
        self.cluster.advance(read(req, {"seconds": SECONDS}, required=("seconds",))["seconds"])
        resp.media = {"now": self.cluster.now()}
