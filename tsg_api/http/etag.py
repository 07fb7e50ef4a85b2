"""`ETag`, `If-Match` and `If-None-Match` (RFC 9110, section 13): a change of what the caller has seen, and of nothing newer."""

import hashlib
import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import falcon

from shared.errors import FieldError, Invalid
from shared.state.groups import Group
from shared.state.notifications import Notification
from shared.state.policies import Stored as Policy
from shared.state.templates import Template
from tsg_api.http.errors import PreconditionFailed
from tsg_api.schema import render, responses

_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
#: One way only to read each character: a header may be 16 kB long, and must not take for ever.
_LIST = re.compile(rf"[\s,]*{_TAG}(?:\s*,[\s,]*{_TAG})*[\s,]*\Z")
_TAGS = re.compile(_TAG)

T = TypeVar("T")


class Preconditions(NamedTuple):
    """What a request says must be so."""

    match: str | None
    none_match: str | None

    def check(self, etag: str) -> None:
        """`PreconditionFailed` when the object with this tag is not the one that the caller means."""
        if self.match is not None and not _holds(self.match, etag, weakly=False):
            raise PreconditionFailed(f"If-Match is {self.match[:100]}, and the ETag is {etag}: the object was changed since it was read.")
        if self.none_match is not None and _holds(self.none_match, etag, weakly=True):
            raise PreconditionFailed(f"If-None-Match is {self.none_match[:100]}, and the ETag is {etag}.")


def asked(req: falcon.Request) -> Preconditions | None:
    """The request's preconditions, None when it has none. `Invalid` when they can't be read."""
    given = Preconditions(req.get_header("If-Match"), req.get_header("If-None-Match"))
    if given == (None, None):
        return None
    wrong = [name for name, value in zip(("If-Match", "If-None-Match"), given, strict=True) if value is not None and _tags(value) == set()]
    if wrong:
        raise Invalid([FieldError(name, f'{name} must be * or entity tags: "one", "another"') for name in wrong])
    return given


def answer(req: falcon.Request, resp: falcon.Response, found: T, etag: str, show: Callable[[T], object]) -> None:
    """Answer a GET of one object: 304 where the caller has it already. `PreconditionFailed` when it asks for another."""
    resp.set_header("ETag", etag)
    if is_fresh(req, etag):
        resp.status = falcon.HTTP_304
    else:
        render.answer(resp, show(found))


def is_fresh(req: falcon.Request, etag: str) -> bool:
    """Does the caller of a GET have this already? `PreconditionFailed` when it asks for another."""
    given = asked(req)
    if given is None:
        return False
    given._replace(none_match=None).check(etag)
    return given.none_match is not None and _holds(given.none_match, etag, weakly=True)


def of_group(group: Group) -> str:
    """The entity tag of a group: every change that was asked for makes a new one."""
    return f'"{group.id}.{group.generation}"'


def of_policy(policy: Policy) -> str:
    """The entity tag of a policy: every change that was asked for makes a new one; decisions do not."""
    return f'"{policy.id}.{policy.version}"'


def of_notification(notification: Notification) -> str:
    """The entity tag of a notification; deliveries make no new one, but for the last, which turns it off."""
    return f'"{notification.id}.{notification.version}"'


def of_template(template: Template) -> str:
    """The entity tag of a template, which never changes."""
    return f'"{template.id}"'


def of_status(status: responses.Status) -> str:
    """The entity tag of a group's status: weak, since the times of checks don't count, nor the same decision once more."""
    text = status.model_dump_json(exclude={"checked_at": True, "next_attempt_at": True, "decisions": {"__all__": {"times", "last_at"}}})
    return f'W/"{hashlib.sha256(text.encode()).hexdigest()[:32]}"'


def _tags(header: str) -> set[str] | None:
    """The tags of a header, none when it can't be read; None for `*`."""
    if header.strip() == "*":
        return None
    return set(_TAGS.findall(header)) if _LIST.match(header) else set()


def _holds(header: str, etag: str, *, weakly: bool) -> bool:
    tags = _tags(header)
    return tags is None or etag in tags or (weakly and f"W/{etag}" in tags)
