"""The console's pages, in development mode: requests need no signature there, and so no proxy that makes one."""

import falcon

from shared.errors import NotFound
from tsg_api.schema import render
from tsg_client.console import pages


class Pages:
    """`/console` and the files that it loads; not by a foreign `Host`, as all in development mode"""

    quiet = True

    def on_get(self, req: falcon.Request, resp: falcon.Response, **_name: str) -> None:
        page = pages.find(req.path, req.get_header("Accept-Encoding", default=""))
        if page is None:
            raise NotFound("There is no such page.")
        for name, value in {**pages.HEADERS, **page.headers, "Content-Security-Policy": pages.POLICY}.items():
            resp.set_header(name, value)
        resp.data = page.body


class About:
    """`/console/about.json`: whose groups the pages show"""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        render.answer(resp, {"account": req.context.account.name, "service": ""})


def install(app: falcon.App[falcon.Request, falcon.Response]) -> None:
    """Add the routes of the pages."""
    shown = Pages()
    app.add_route(pages.BASE, shown)
    app.add_route(pages.BASE + "/{name}", shown)
    app.add_route(pages.BASE + "/about.json", About())
