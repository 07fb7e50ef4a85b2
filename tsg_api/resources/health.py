"""How the service is: `/healthz` and `/readyz`. No signature is needed, and the answers hold nothing that helps a stranger."""

from collections.abc import Callable

import falcon

from shared.runtime import monitor
from shared.runtime.health import Health
from shared.runtime.monitor import Answer


class Page:
    """One of the monitor's pages, on the API's own port."""

    public = True
    #: Load balancers ask every second: that is no news.
    quiet = True

    def __init__(self, page: Callable[[], Answer]) -> None:
        self._page = page

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        answer = self._page()
        resp.status = falcon.code_to_http_status(answer.status)
        resp.content_type = answer.content_type
        resp.cache_control = ["no-store"]
        resp.data = answer.body


def install(app: falcon.App[falcon.Request, falcon.Response], health: Health) -> None:
    """Add the pages to the app."""
    app.add_route("/healthz", Page(monitor.alive))
    app.add_route("/readyz", Page(lambda: monitor.ready(health.report())))
