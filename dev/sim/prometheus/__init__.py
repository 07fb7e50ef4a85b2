"""A small Prometheus: `POST /api/v1/query` answers what the test says, in Prometheus' own form."""

import threading
from collections.abc import Callable
from typing import Any

import falcon

from dev.sim.common.server import Server

#: Data, an error's text, or what gives the data for a query.
Answer = dict[str, Any] | str | Callable[[str], dict[str, Any]]


class Simulator(Server):
    """`answer` is that of all queries from now on; `asked` has the queries and their tenants, the newest last."""

    def __init__(self) -> None:
        self.answer: Answer = vector(1.0)
        self.status = 200
        self.asked: list[tuple[str, str | None]] = []
        self.hang = threading.Event()
        self._closing = threading.Event()
        super().__init__(self._app)

    def close(self) -> None:
        self._closing.set()
        super().close()

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        while self.hang.is_set() and not self._closing.wait(0.02):
            pass
        form = req.get_media()
        self.asked.append((form["query"], req.get_header("X-Scope-OrgID")))
        resp.status = falcon.code_to_http_status(self.status)
        answer = self.answer(form["query"]) if callable(self.answer) else self.answer
        if isinstance(answer, str):
            resp.media = {"status": "error", "errorType": "bad_data", "error": answer}
        else:
            resp.media = {"status": "success", "data": answer}

    def _app(self) -> falcon.App[falcon.Request, falcon.Response]:
        app = falcon.App()
        app.add_route("/api/v1/query", self)
        return app


def vector(*values: float | str) -> dict[str, Any]:
    """An instant vector of these values."""
    result = [{"metric": {"instance": str(number)}, "value": [1795749186.0, str(value)]} for number, value in enumerate(values)]
    return {"resultType": "vector", "result": result}


def scalar(value: float) -> dict[str, Any]:
    return {"resultType": "scalar", "result": [1795749186.0, str(value)]}
