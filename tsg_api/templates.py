"""Templates over HTTP: parse, transact, render."""

import falcon
from sqlalchemy import Connection

from shared import templates
from shared.idempotency import Answer
from shared.templates import Template as StoredTemplate
from tsg_api import once, paging, parse, preconditions, render
from tsg_api.service import Service, found_id, read_body

BASE = "/v1/tsg/templates"


class Templates:
    """`/v1/tsg/templates`"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        page, account = paging.asked(req), req.context.account.id
        with self._service.db.read() as connection:
            found = templates.listed(connection, account, limit=(page.limit or paging.MOST) + 1, marker=page.marker)
            paging.answer(req, resp, page, found, render.template, lambda: templates.count(connection, account))

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        spec = read_body(req, parse.TemplateBody, self._service).spec()
        once.change(self._service.db, req, resp, lambda connection: templates.create(connection, req.context.account.id, spec), _created)


class Template:
    """`/v1/tsg/templates/<id>`"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, template_id: str) -> None:
        with self._service.db.read() as connection:
            found = templates.get(connection, req.context.account.id, found_id("template", template_id))
        preconditions.answer(req, resp, found, preconditions.of_template(found), render.template)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, template_id: str) -> None:
        wanted, account = found_id("template", template_id), req.context.account.id
        expected = preconditions.asked(req)

        def work(connection: Connection) -> None:
            if expected:
                expected.check(preconditions.of_template(templates.get(connection, account, wanted)))
            templates.archive(connection, account, wanted)

        once.change(self._service.db, req, resp, work, lambda _none: Answer(204))


def _created(made: StoredTemplate) -> Answer:
    return Answer(201, render.to_json(render.template(made)), f"{BASE}/{made.id}", preconditions.of_template(made))
