"""Templates over HTTP: parse, transact, render."""

import falcon

from shared import templates
from tsg_api import parse, render
from tsg_api.service import LIST_MOST, Service, found_id, read_body

BASE = "/v1/tsg/templates"


class Templates:
    """`/v1/tsg/templates`"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        with self._service.db.read() as connection:
            found = templates.listed(connection, req.context.account.id, limit=LIST_MOST)
        render.answer(resp, [render.template(template) for template in found])

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        spec = read_body(req, parse.TemplateBody, self._service).spec()
        made = self._service.db.transact(lambda connection: templates.create(connection, req.context.account.id, spec))
        render.answer(resp, render.template(made), status=falcon.HTTP_201, location=f"{BASE}/{made.id}")


class Template:
    """`/v1/tsg/templates/<id>`"""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: falcon.Request, resp: falcon.Response, template_id: str) -> None:
        with self._service.db.read() as connection:
            found = templates.get(connection, req.context.account.id, found_id("template", template_id))
        render.answer(resp, render.template(found))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, template_id: str) -> None:
        wanted = found_id("template", template_id)
        self._service.db.transact(lambda connection: templates.archive(connection, req.context.account.id, wanted))
        render.nothing(resp, falcon.HTTP_204)
