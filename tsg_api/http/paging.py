"""Lists in pages: `limit` and `marker`, answered with `X-Resource-Count` and a `Link` to the next page.

A list without `limit` is whole, as clients of 2018 expect it, however large it is: it is read and sent in batches.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar
from urllib.parse import urlencode

import falcon
from sqlalchemy import Connection

from shared.store.db import Database
from shared.store.paging import Entry
from tsg_api.http import streaming
from tsg_api.http.slots import Slots
from tsg_api.schema import parse, render
from tsg_api.schema.parse import Page

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

#: Objects in a list without `limit`.
MOST = 10_000
#: What is read and rendered at once: bytes of long columns (one object at least), and objects.
BATCH_BYTES, BATCH = 262_144, 400


class Listing(NamedTuple):
    """A list that is yet to be read."""

    #: The page's objects, and if there is more the one after it.
    entries: Sequence[Entry]
    #: What is shown of the objects with these ids, in this order. Called once for each batch.
    read: Callable[[Sequence[str]], list[object]]
    #: How many objects there are in all pages.
    total: Callable[[], int]


class Kind(Protocol[T_co]):
    """The module of `shared.state` whose objects are listed."""

    def list_entries(self, connection: Connection, account_id: str, *, limit: int, marker: str | None) -> list[Entry]: ...
    def get_by_ids(self, connection: Connection, ids: Collection[str], /) -> Mapping[str, T_co]: ...
    def count(self, connection: Connection, account_id: str) -> int: ...


def asked(req: falcon.Request) -> Page:
    """The page that is asked for: `Invalid` with all that is wrong."""
    return parse.query(Page, req.params)


def stored(kind: Kind[T], db: Database, account_id: str, page: Page, show: Callable[[T], object]) -> Listing:
    """The account's objects of a kind, behind the page's marker. `Invalid` for a marker that never was.

    What is deleted while the list is read is shown as it was: to the caller the list is of the moment at which it was asked for.
    """
    with db.read() as connection:
        entries = kind.list_entries(connection, account_id, limit=(page.limit or MOST) + 1, marker=page.marker)

    def read(ids: Sequence[str]) -> list[object]:
        with db.read() as connection:
            found = kind.get_by_ids(connection, ids)
        return [show(found[one]) for one in ids if one in found]

    def count() -> int:
        with db.read() as connection:
            return kind.count(connection, account_id)

    return Listing(entries, read, count)


def answer(req: falcon.Request, resp: falcon.Response, page: Page, listing: Listing, slots: Slots) -> None:
    """Answer with a page."""
    entries = listing.entries[: page.limit or MOST]
    has_more = len(listing.entries) > len(entries)
    resp.set_header("X-Resource-Count", str(listing.total() if has_more or page.marker is not None else len(entries)))
    if has_more:
        link_next(req, resp, marker=entries[-1].id)
    send(req, resp, entries, listing.read, slots)


def send(
    req: falcon.Request, resp: falcon.Response, entries: Sequence[Entry], read: Callable[[Sequence[str]], list[object]], slots: Slots
) -> None:
    """Answer with these objects. A list that takes more than a batch is sent in pieces, and needs one of the slots."""
    batches = list(_batches(entries))
    if len(batches) > 1:
        streaming.answer(req, resp, _pieces(batches, read), slots, req.context.account.id)
    else:
        render.answer(resp, read(batches[0]) if batches else [])


def link_next(req: falcon.Request, resp: falcon.Response, **place: str) -> None:
    """Say where the next page is: at the same query from `place` on."""
    query = urlencode({**req.params, **place}, doseq=True)
    resp.set_header("Link", f'<{req.path}?{query}>; rel="next"')


def _batches(entries: Sequence[Entry]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for entry in entries:
        if batch and (size + entry.size > BATCH_BYTES or len(batch) == BATCH):
            yield batch
            batch, size = [], 0
        batch.append(entry.id)
        size += entry.size
    if batch:
        yield batch


def _pieces(batches: Sequence[Sequence[str]], read: Callable[[Sequence[str]], list[object]]) -> Iterator[bytes]:
    """A JSON array, a batch at a time. Objects that are gone when their batch is read are left out."""
    separator = "["
    for ids in batches:
        found = read(ids)
        if found:
            yield (separator + render.to_json(found)[1:-1]).encode()
            separator = ","
    yield b"]" if separator == "," else b"[]"
