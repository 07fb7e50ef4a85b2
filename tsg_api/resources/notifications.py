"""Notifications over HTTP: who is told of an account's activities, and what became of it."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import falcon
from sqlalchemy import Connection

from shared.clients import webhooks
from shared.errors import FieldError, Invalid, NotFound
from shared.state import deliveries, groups, notifications
from shared.state.idempotency import Answer
from shared.state.notifications import Notification as Stored
from shared.store.paging import Entry
from tsg_api.http import etag, paging, write
from tsg_api.http.errors import Unavailable
from tsg_api.http.service import Service, found_id, read_body
from tsg_api.schema import notifications as schema
from tsg_api.schema import parse, render

BASE = "/v1/tsg/notifications"
#: Deliveries in an answer whose request does not say, and hours for which a secret that was replaced still signs.
PAGE, OVERLAP = 100, timedelta(hours=24)


class _Resource:
    def __init__(self, service: Service) -> None:
        self._service = service

    def _body(self, req: falcon.Request) -> schema.NotificationBody:
        body = read_body(req, schema.NotificationBody, self._service)
        wrong = [FieldError("url", f"url {problem}")] if (problem := webhooks.problem(body.url, self._service.notify_rules)) else []
        with self._service.db.read() as connection:
            strange = [one for one in body.groups if one != "*" and not _is_mine(connection, req.context.account.id, one)]
        wrong += [FieldError("groups", f"groups: there is no group {one}") for one in strange]
        if wrong:
            raise Invalid(wrong)
        return body

    def _seal(self, notification_id: str, document: dict[str, str]) -> str:
        if not self._service.sealer.can_seal:
            raise Unavailable("This service has no TSG_SECRET_KEYS to seal the secret with.")
        return self._service.sealer.seal(json.dumps(document), row=notification_id)


class Notifications(_Resource):
    """`/v1/tsg/notifications`"""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        with self._service.db.read() as connection:
            found = notifications.list_of_account(connection, req.context.account.id)
        resp.set_header("X-Resource-Count", str(len(found)))
        render.answer(resp, [schema.Notification.model_validate(one) for one in found])

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        body, its_id, secret = self._body(req), str(uuid.uuid4()), webhooks.make_secret()
        sealed = self._seal(its_id, {"secret": secret})

        def work(connection: Connection) -> Stored:
            return notifications.insert_notification(
                connection, req.context.account.id, its_id=its_id, secret=sealed, **body.model_dump(include=schema.FIELDS)
            )

        made = write.change(self._service.db, req, resp, work, lambda stored: _shown(stored, 201)._replace(location=f"{BASE}/{stored.id}"))
        if made:
            resp.text = _with_secret(made, secret)


class Notification(_Resource):
    """`/v1/tsg/notifications/<id>`"""

    def on_get(self, req: falcon.Request, resp: falcon.Response, notification_id: str) -> None:
        with self._service.db.read() as connection:
            found = notifications.get(connection, req.context.account.id, found_id("notification", notification_id))
        etag.answer(req, resp, found, etag.of_notification(found), schema.Notification.model_validate)

    def on_put(self, req: falcon.Request, resp: falcon.Response, notification_id: str) -> None:
        account, wanted = req.context.account.id, found_id("notification", notification_id)
        with self._service.db.read() as connection:
            notifications.get(connection, account, wanted)
        body, expected = self._body(req), etag.asked(req)

        def work(connection: Connection) -> Stored:
            if expected:
                expected.check(etag.of_notification(notifications.get(connection, account, wanted)))
            return notifications.update_notification(connection, account, wanted, **body.model_dump(include=schema.FIELDS))

        write.change(self._service.db, req, resp, work, lambda stored: _shown(stored, 200))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, notification_id: str) -> None:
        account, wanted, expected = req.context.account.id, found_id("notification", notification_id), etag.asked(req)

        def work(connection: Connection) -> None:
            if expected:
                expected.check(etag.of_notification(notifications.get(connection, account, wanted)))
            notifications.delete_notification(connection, account, wanted)

        write.change(self._service.db, req, resp, work, lambda _none: Answer(204))


class Secret(_Resource):
    """`/v1/tsg/notifications/<id>/rotate`"""

    def on_post(self, req: falcon.Request, resp: falcon.Response, notification_id: str) -> None:
        account, wanted, secret = req.context.account.id, found_id("notification", notification_id), webhooks.make_secret()

        def work(connection: Connection) -> Stored:
            before = json.loads(self._service.sealer.open(notifications.get(connection, account, wanted).secret, row=wanted))["secret"]
            until = (datetime.now(UTC) + OVERLAP).isoformat()
            sealed = self._seal(wanted, {"secret": secret, "before": before, "until": until})
            return notifications.mark_rotated(connection, account, wanted, sealed)

        made = write.change(self._service.db, req, resp, work, lambda stored: _shown(stored, 200))
        if made:
            resp.text = _with_secret(made, secret)


class Deliveries(_Resource):
    """`/v1/tsg/notifications/<id>/deliveries`"""

    def on_get(self, req: falcon.Request, resp: falcon.Response, notification_id: str) -> None:
        wanted = found_id("notification", notification_id)
        with self._service.db.read() as connection:
            notifications.get(connection, req.context.account.id, wanted)
            asked = parse.query(parse.DeliveriesQuery, req.params)
            most = asked.limit or PAGE
            found = deliveries.list_newest(connection, wanted, limit=most + 1, before=asked.before, state=asked.state)
        if len(found) > most:
            paging.link_next(req, resp, before=found[most - 1].id)
        by_id = {one.id: one for one in found[:most]}
        entries = [Entry(one, len(by_id[one].last_error or "")) for one in by_id]
        paging.send(req, resp, entries, lambda ids: [schema.Delivery.model_validate(by_id[one]) for one in ids], self._service.slots.lists)


class Replay(_Resource):
    """`/v1/tsg/notifications/<id>/deliveries/<id>/replay`"""

    def on_post(self, req: falcon.Request, resp: falcon.Response, notification_id: str, delivery_id: str) -> None:
        wanted, which = found_id("notification", notification_id), found_id("delivery", delivery_id)

        def work(connection: Connection) -> None:
            notifications.get(connection, req.context.account.id, wanted)
            deliveries.mark_replayed(connection, wanted, which)

        write.change(self._service.db, req, resp, work, lambda _none: Answer(202))


def _is_mine(connection: Connection, account_id: str, group_id: str) -> bool:
    try:
        groups.get(connection, account_id, group_id)
    except NotFound:
        return False
    return True


def _shown(stored: Stored, status: int) -> Answer:
    return Answer(status, render.to_json(schema.Notification.model_validate(stored)), etag=etag.of_notification(stored))


def _with_secret(stored: Stored, secret: str) -> str:
    """Once, and in no row but sealed: the answer that is kept for a repetition has none."""
    return render.to_json({**schema.Notification.model_validate(stored).model_dump(), "secret": secret})
