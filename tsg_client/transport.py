"""One request, signed, repeated while the service asks to wait, and answered or raised as one of `errors`."""

import random
import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import requests

from tsg_client import errors
from tsg_client.errors import FieldProblem, TsgError
from tsg_client.sessions import open_session
from tsg_client.signer import ByDate, Signer

#: Seconds to connect, and for an answer: a status may wait for 60 seconds.
CONNECT, READ = 10.0, 90.0
#: Seconds between tries where the service says nothing of it: at first, and at most.
PAUSE, LONGEST_PAUSE = 0.5, 10.0

WRITES = frozenset({"POST", "PUT", "DELETE"})
#: The service, or what it needs, is away for the moment, or asks to wait. What was asked for is not done.
_LATER = frozenset({429, 502, 503, 504})

_KINDS: dict[int, type[TsgError]] = {
    400: errors.Conflict,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    412: errors.Changed,
    413: errors.Invalid,
    415: errors.Invalid,
    422: errors.Invalid,
    **dict.fromkeys(_LATER, errors.TryLater),
}


class Transport:
    """Sends requests to one service. Not for several threads at once: a connection is kept for each host.

    `patience` is how many seconds a request may be repeated; `verify` is as requests has it.
    """

    def __init__(self, url: str, signer: Signer | None, *, patience: float = 60.0, verify: bool | str = True) -> None:
        self.url = url.rstrip("/")
        self._signer = signer
        self._patience = patience
        self._session = open_session()
        self._session.verify = verify
        self._session.headers.update({"Accept": "application/json", "Accept-Version": "~9||~8", "User-Agent": "tsg"})
        self._only_date = False

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        if_match: str | None = None,
        if_none_match: str | None = None,
    ) -> requests.Response:
        """The answer to a request. Raises what `errors` has for its status, once repeating it is of no use."""
        given = {name: _word(value) for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        given_tags = {"If-Match": if_match, "If-None-Match": if_none_match}
        headers = {name: tag for name, tag in given_tags.items() if tag}
        if method in WRITES:
            # The same one for all tries: the service does it once.
            headers["Idempotency-Key"] = str(uuid.uuid4())
        until = time.monotonic() + self._patience
        pause = PAUSE
        while True:
            try:
                return _answered(self._try(method, target, body, headers))
            except errors.TryLater as problem:
                wait = problem.retry_after or random.uniform(pause / 2, pause)
                if time.monotonic() + wait > until:
                    raise
            time.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _try(self, method: str, target: str, body: object, headers: Mapping[str, str]) -> requests.Response:
        auth = ByDate(self._signer) if self._signer and self._only_date else self._signer
        options: dict[str, Any] = {"json": body, "headers": headers, "auth": auth, "timeout": (CONNECT, READ), "allow_redirects": False}
        try:
            answer = self._session.request(method, self.url + target, **options)
        except requests.exceptions.SSLError as error:
            raise errors.Misconfigured(f"the certificate of {self.url} is not trusted: {_reason(error)} (-i trusts any)") from None
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise errors.TryLater(f"{self.url} can't be reached: {_reason(error)}") from None
        except (requests.RequestException, ValueError) as error:
            raise errors.Misconfigured(f"no request can be sent to {self.url}: {error}") from None
        if answer.status_code in {401, 403} and self._signer and not self._only_date:
            # A key that is new to the service, or not seen for minutes: it shows CloudAPI a signature, which must cover the date alone.
            self._only_date = True
            return self._try(method, target, body, headers)
        return answer


def _answered(answer: requests.Response) -> requests.Response:
    """The answer, if it is a success, or that nothing has changed (304)."""
    if 200 <= answer.status_code < 300 or answer.status_code == 304:
        return answer
    raise _error(answer)


def _error(answer: requests.Response) -> TsgError:
    kind = _KINDS.get(answer.status_code, errors.ServiceFailed)
    request_id = answer.headers.get("X-Request-Id")
    try:
        body = answer.json()
        code, message = body["code"], body["message"]
    except (ValueError, KeyError, TypeError):
        words = answer.text[:200].strip()
        message = f"{answer.url} answered {answer.status_code} {answer.reason}{f': {words}' if words else ''}"
        return kind(message, request_id=request_id)
    if kind is errors.Invalid:
        fields = [FieldProblem(one.get("field", ""), one.get("code", ""), one.get("message", "")) for one in body.get("errors", [])]
        return errors.Invalid(message, fields=fields, code=code, request_id=request_id)
    if kind is errors.TryLater:
        return errors.TryLater(message, retry_after=_seconds(answer), code=code, request_id=request_id)
    return kind(message, code=code, request_id=request_id)


def _seconds(answer: requests.Response) -> float | None:
    """What Retry-After says. It may be a date, which no answer of this service has."""
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def _reason(given: BaseException) -> str:
    """The innermost words of an error of requests, which wraps others."""
    error = given
    while (inner := error.__cause__ or error.__context__ or _wrapped(error)) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error)


def _wrapped(error: BaseException) -> BaseException | None:
    reason = getattr(error, "reason", None) or (error.args[0] if error.args else None)
    return reason if isinstance(reason, Exception) else None


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
