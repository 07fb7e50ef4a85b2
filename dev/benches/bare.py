"""The limit of the API: the least that Falcon and waitress do, served as tsg-api is.

`/bytes`, `/select/<id>` with one SELECT, and POST to `/insert` with one INSERT.
"""

import argparse
import json
import os
import sys
import threading
from datetime import UTC
from pathlib import Path

import falcon
import psycopg2
from sqlalchemy.engine import URL

from shared import log
from shared.runtime import settings
from shared.runtime.signals import on_signal
from tsg_api.main import run, settle
from tsg_api.server.listeners import listen

SELECT = (
    "SELECT id::text, name, template_id::text, capacity, created_at, updated_at FROM tsg_groups"
    " WHERE id = %s AND account_id = %s AND NOT archived"
)
INSERT = (
    "INSERT INTO tsg_groups (name, template_id, account_id, capacity, created_at, updated_at, archived, check_at, by_name)"
    " VALUES (%s, %s, %s, %s, now(), now(), false, now(), false)"
    " RETURNING id::text, name, template_id::text, capacity, created_at, updated_at"
)
JSON = "application/json; charset=utf-8"


class Bytes:
    """The same bytes to everybody."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = JSON
        resp.data = self._data


class Statement:
    """A row by one statement, over a connection to each thread that commits by itself."""

    def __init__(self, url: URL, account_id: str) -> None:
        self._dsn = url.render_as_string(hide_password=False)
        self._account_id = account_id
        self._local = threading.local()

    def on_get(self, _req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        self._answer(resp, SELECT, (group_id, self._account_id))

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        asked = json.loads(req.bounded_stream.read())
        self._answer(resp, INSERT, (asked["group_name"], asked["template_id"], self._account_id, asked["capacity"]))
        resp.status = falcon.HTTP_201

    def _answer(self, resp: falcon.Response, statement: str, parameters: tuple[object, ...]) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = psycopg2.connect(self._dsn)
            connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            found, name, template_id, capacity, *times = cursor.fetchone()
        created_at, updated_at = (when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") for when in times)
        body = {"id": found, "group_name": name, "template_id": template_id, "capacity": capacity}
        resp.content_type = JSON
        resp.text = json.dumps({**body, "created_at": created_at, "updated_at": updated_at}, separators=(",", ":"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="The settings are those of tsg-api.")
    parser.add_argument("--account-id", required=True)
    parser.add_argument("--answer", type=Path, required=True, help="the file whose bytes /bytes answers")
    given = parser.parse_args()
    chosen = settings.load(os.environ)
    log.configure(chosen.log_level, chosen.log_format)
    app = falcon.App()
    app.add_route("/bytes", Bytes(given.answer.read_bytes()))
    statement = Statement(chosen.database_url.set(drivername="postgresql"), given.account_id)
    app.add_route("/select/{group_id}", statement)
    app.add_route("/insert", statement)
    listeners = listen("127.0.0.1", 0)

    def started() -> None:
        log.get("bare").info("listening", url=f"http://127.0.0.1:{listeners[0].getsockname()[1]}")

    settle(pin=chosen.http_pin)
    stop = threading.Event()
    on_signal(stop.set)
    run(app, listeners, chosen, stop, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
