"""Templates over HTTP: parse, transact, render."""

import falcon
from sqlalchemy import Connection

from shared.errors import Invalid
from shared.state import templates
from shared.state.idempotency import Answer
from shared.state.templates import Template as StoredTemplate
from tsg_api.http import etag, paging, write
from tsg_api.http.service import Service, found_id, read_body
from tsg_api.resources import verification
from tsg_api.schema import parse, render, responses

BASE = "/v1/tsg/templates"


class Templates:
    """`/v1/tsg/templates`"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        page = paging.asked(req)
        listing = paging.stored(templates, self._service.db, req.context.account.id, page, responses.template)
        paging.answer(req, resp, page, listing, self._service.slots.lists)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        query = parse.query(parse.TemplateQuery, req.params)
        spec = read_body(req, parse.template_body(), self._service).spec()
        if query.verify and (problems := verification.problems(self._service, req.context.account, spec)):
            raise Invalid(problems)
        write.change(self._service.db, req, resp, lambda connection: templates.create(connection, req.context.account.id, spec), _created)


class Template:
    """`/v1/tsg/templates/<id>`"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, template_id: str) -> None:
        with self._service.db.read() as connection:
            found = templates.get(connection, req.context.account.id, found_id("template", template_id))
        etag.answer(req, resp, found, etag.of_template(found), responses.template)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, template_id: str) -> None:
        wanted, account = found_id("template", template_id), req.context.account.id
        expected = etag.asked(req)

        def work(connection: Connection) -> None:
            if expected:
                expected.check(etag.of_template(templates.get(connection, account, wanted)))
            templates.archive(connection, account, wanted)

        write.change(self._service.db, req, resp, work, lambda _none: Answer(204))


def _created(made: StoredTemplate) -> Answer:
    return Answer(201, render.to_json(responses.template(made)), f"{BASE}/{made.id}", etag.of_template(made))
