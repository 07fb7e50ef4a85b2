"""Lists in pages: `limit` and `marker`, answered with `X-Resource-Count` and a `Link` to the next page."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar
from urllib.parse import urlencode

import falcon

from tsg_api.schema import parse, render
from tsg_api.schema.parse import Page

#: Objects in a list without `limit`.
MOST = 10_000


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_HasId)


def asked(req: falcon.Request) -> Page:
    """The page that is asked for: `Invalid` with all that is wrong."""
    return parse.query(Page, req.params)


def answer(
    req: falcon.Request, resp: falcon.Response, page: Page, found: Sequence[T], show: Callable[[T], object], total: Callable[[], int]
) -> None:
    """Answer with a page. `found` is the page and, if there is more, the object after it; `total` counts all there are."""
    most = page.limit or MOST
    shown = found[:most]
    is_all = page.marker is None and len(found) == len(shown)
    resp.set_header("X-Resource-Count", str(len(shown) if is_all else total()))
    if len(found) > len(shown):
        link_next(req, resp, marker=shown[-1].id)
    render.answer(resp, [show(one) for one in shown])


def link_next(req: falcon.Request, resp: falcon.Response, **place: str) -> None:
    """Say where the next page is: at the same query from `place` on."""
    query = urlencode({**req.params, **place}, doseq=True)
    resp.set_header("Link", f'<{req.path}?{query}>; rel="next"')
