"""The proxy: a WSGI application that serves the pages, signs their requests and forwards them to the service, `/v1/tsg/` alone."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import requests

from tsg_client.console import pages
from tsg_client.console.guard import Guard, Refused
from tsg_client.errors import TsgError
from tsg_client.sessions import open_session

#: Bytes of a request's body, as the server refuses more with 413. The service's own bound is lower as a rule.
MAX_BODY = 1 << 20
#: Bytes of an answer's body.
MAX_ANSWER = 64 << 20
#: Requests at once: a page holds one that waits, and a wait whose page is gone lasts until its seconds are over.
THREADS = 48
#: Seconds to connect to the service, and between two bytes of an answer: a `wait` may be 60.
TIMEOUTS = (10.0, 75.0)
#: Bytes that are passed on at once.
CHUNK = 1 << 16

API = "/v1/tsg/"
ABOUT = f"{pages.BASE}/about.json"
#: A path of the API once it is decoded: nothing that a server on the way could read as another path.
_PATH = re.compile(r"/v1/tsg(?:/[A-Za-z0-9_~-][A-Za-z0-9_.~-]*)+\Z")
_QUERY = re.compile(r"[A-Za-z0-9_.~%=&+*,:-]{0,4096}\Z")
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})

#: What is forwarded of a request's headers, and passed on of an answer's. Cookies are neither.
_ASKED = ("content-type", "if-match", "if-none-match", "idempotency-key", "x-request-id")
_ANSWERED = (
    *("Content-Type", "Content-Length", "ETag", "Location", "Link", "Retry-After", "Warning"),
    *("X-Request-Id", "X-Resource-Count", "Idempotency-Replayed"),
)
#: On forwarded answers: a browser that shows one as a page runs nothing of it.
_INERT = "default-src 'none'; frame-ancestors 'none'; sandbox"

Environ = Mapping[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Upstream(NamedTuple):
    """The service, and for whom requests are signed."""

    url: str
    account: str
    #: Signs a prepared request: sets its Date and Authorization, or raises `TsgError`. Called by several threads.
    sign: Callable[[requests.PreparedRequest], requests.PreparedRequest]
    #: Whether a certificate that this machine trusts must vouch for the service.
    verify: bool = True


class Proxy:
    """The application. Thread-safe."""

    def __init__(self, upstream: Upstream, guard: Guard) -> None:
        self._upstream = upstream
        self._guard = guard
        self._session = open_session(connections=THREADS)

    def close(self) -> None:
        self._session.close()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path, headers = environ["PATH_INFO"], _headers(environ)
        try:
            self._guard.check_host(headers)
            if path.startswith(API):
                return self._forward(environ, headers, start_response)
            return self._show(environ, headers, start_response)
        except Refused as refused:
            return _error(start_response, "403 Forbidden", "NotAuthorized", str(refused))

    def _show(self, environ: Environ, headers: Mapping[str, str], start_response: StartResponse) -> Iterable[bytes]:
        """A page. It holds nothing of anybody's, so that the cookie is not needed for it; what it asks for is."""
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] != "GET":
            return _error(start_response, "405 Method Not Allowed", "MethodNotAllowed", "Pages are only read.")
        if path == "/" or "token=" in environ["QUERY_STRING"]:
            return self._enter(environ, start_response)
        if path == ABOUT:
            self._guard.check_page("GET", headers)
            self._guard.check_session(headers)
            about = {"account": self._upstream.account, "service": self._upstream.url}
            return _answer(start_response, "200 OK", json.dumps(about).encode(), {"Content-Type": "application/json"})
        page = pages.find(path, headers.get("accept-encoding", ""))
        if page is None:
            return _error(start_response, "404 Not Found", "ResourceNotFound", "There is no such page.")
        return _answer(start_response, "200 OK", page.body, {**page.headers, "Content-Security-Policy": pages.POLICY})

    def _enter(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """From the address with the token to the one without it, which may stand in a browser's history."""
        moved = {"Location": pages.BASE, "Content-Type": "text/plain"}
        for given in parse_qs(environ["QUERY_STRING"]).get("token", []):
            if not self._guard.is_token(given):
                raise Refused("The token is not that of this console: open the address that tsg console printed last.")
            moved["Set-Cookie"] = self._guard.cookie
        return _answer(start_response, "303 See Other", b"", moved)

    def _forward(self, environ: Environ, headers: Mapping[str, str], start_response: StartResponse) -> Iterable[bytes]:
        method, path, query = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]
        self._guard.check_page(method, headers)
        self._guard.check_session(headers)
        if method not in _METHODS:
            return _error(start_response, "405 Method Not Allowed", "MethodNotAllowed", f"{method[:20]} is not forwarded.")
        if not _PATH.match(path) or not _QUERY.match(query):
            return _error(start_response, "404 Not Found", "ResourceNotFound", "This path is not one of the service's.")
        try:
            answer = self._session.request(
                method,
                f"{self._upstream.url}{path}" + (f"?{query}" if query else ""),
                data=environ["wsgi.input"].read(MAX_BODY),
                headers={"Accept-Encoding": "identity", **{name: headers[name] for name in _ASKED if name in headers}},
                auth=self._upstream.sign,
                verify=self._upstream.verify,
                timeout=TIMEOUTS,
                allow_redirects=False,
                stream=True,
            )
        except requests.RequestException as error:
            message = f"The service at {self._upstream.url} can't be reached ({type(error).__name__})."
            return _error(start_response, "502 Bad Gateway", "Unreachable", message)
        except TsgError as error:
            return _error(start_response, "502 Bad Gateway", error.code, str(error))
        passed = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers}
        if int(passed.get("Content-Length", "0")) > MAX_ANSWER:
            answer.close()
            return _error(start_response, "502 Bad Gateway", "TooLarge", "The service's answer is larger than a console takes.")
        start_response(f"{answer.status_code} {answer.reason}", _with_headers({**passed, "Content-Security-Policy": _INERT}))
        return _passed_on(answer)


def _passed_on(answer: requests.Response) -> Iterator[bytes]:
    """The body piece by piece; the connection is cut at `MAX_ANSWER`, or where the service's own is."""
    left = MAX_ANSWER
    with closing(answer):
        for chunk in answer.iter_content(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise requests.exceptions.ContentDecodingError("the answer is larger than a console takes")
            yield chunk


def _headers(environ: Environ) -> dict[str, str]:
    """The request's headers by their names in lower case."""
    named = {key[5:].replace("_", "-").lower(): value for key, value in environ.items() if key.startswith("HTTP_")}
    return named | ({"content-type": environ["CONTENT_TYPE"]} if environ.get("CONTENT_TYPE") else {})


def _with_headers(more: Mapping[str, str]) -> list[tuple[str, str]]:
    return [*pages.HEADERS.items(), *more.items()]


def _answer(start_response: StartResponse, status: str, body: bytes, headers: Mapping[str, str]) -> Iterable[bytes]:
    start_response(status, _with_headers({"Content-Length": str(len(body)), "Content-Security-Policy": _INERT, **headers}))
    return [body]


def _error(start_response: StartResponse, status: str, code: str, message: str) -> Iterable[bytes]:
    """In the form of the service's own errors."""
    return _answer(start_response, status, json.dumps({"code": code, "message": message}).encode(), {"Content-Type": "application/json"})
