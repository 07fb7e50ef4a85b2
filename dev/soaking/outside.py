"""What is neither the service nor Triton: a Prometheus, and receivers of notifications. They run in the soak's own process."""

import json
import threading
import time
from typing import Any

import falcon
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from dev.sim.common.server import Server
from dev.sim.prometheus import Answer, vector
from dev.sim.prometheus import Simulator as Prometheus

#: Seconds that a slow receiver takes; the service waits for 5.
SLOW = 1.5


class Receivers(Server):
    """`/good/<account>` has to hear of everything, `/gone/<account>` wants nothing."""

    def __init__(self) -> None:
        #: What the good ones answer for now.
        self.status, self.is_slow, self.hang = 204, False, threading.Event()
        #: The secret of each account's good receiver, and the ids of the activities that it was told, each with the time.
        self.secrets: dict[str, str] = {}
        self.heard: dict[str, dict[str, float]] = {}
        self.problems: list[str] = []
        self._closing = threading.Event()
        super().__init__(self._app)

    def close(self) -> None:
        self._closing.set()
        super().close()

    def on_post(self, req: falcon.Request, resp: falcon.Response, account: str) -> None:
        while self.hang.is_set() and not self._closing.wait(0.05):
            pass
        if self.is_slow:
            self._closing.wait(SLOW)
        body = req.bounded_stream.read()
        resp.status = falcon.code_to_http_status(self.status)
        if self.status != 204:
            return
        try:
            headers = {name.lower(): value for name, value in req.headers.items()}
            Webhook(self.secrets[account]).verify(body, headers)
        except (KeyError, WebhookVerificationError) as error:
            self.problems.append(f"{account} was told something that its secret has not signed: {error!r}")
        self.heard.setdefault(account, {}).setdefault(json.loads(body)["data"]["id"], time.time())

    def on_post_gone(self, _req: falcon.Request, resp: falcon.Response, account: str) -> None:  # noqa: ARG002 - falcon's form
        resp.status = falcon.HTTP_410

    def _app(self) -> falcon.App[Any, Any]:
        app: falcon.App[Any, Any] = falcon.App()
        app.add_route("/good/{account}", self)
        app.add_route("/gone/{account}", self, suffix="gone")
        return app


class Outside:
    """Both, until `close()`."""

    def __init__(self) -> None:
        self.prometheus = Prometheus()
        self.receivers = Receivers()
        #: What Prometheus answers while nothing is wrong with it.
        self.usual: Answer = vector(10.0)

    @property
    def settings(self) -> dict[str, str]:
        """How the service reaches them."""
        return {
            "TSG_PROMETHEUS_URL": self.prometheus.url,
            "TSG_PROMETHEUS_TENANTS": "true",
            "TSG_NOTIFY_HTTP": "true",
            "TSG_NOTIFY_PRIVATE": "true",
        }

    def calm(self) -> None:
        """Nothing is wrong with them."""
        self.prometheus.hang.clear()
        self.prometheus.status, self.prometheus.answer = 200, self.usual
        self.receivers.hang.clear()
        self.receivers.status, self.receivers.is_slow = 204, False

    def close(self) -> None:
        self.prometheus.close()
        self.receivers.close()
