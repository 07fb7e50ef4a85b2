"""The pages that Go's net/http/pprof has, under the same paths: `go tool pprof http://127.0.0.1:9191/debug/pprof/profile`."""

import html
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from shared import log
from shared.runtime.diagnostics import heap, sampler, stacks
from shared.runtime.diagnostics.profile import Profile

_log = log.get(__name__)

#: Seconds that one request may go on for, and that a profile is taken for where none are said (as in Go).
MOST_SECONDS, SECONDS = 300, 30
#: Seconds for a client to send its request.
TIMEOUT = 10

PREFIX = "/debug/pprof/"

TEXT, BINARY, HTML = "text/plain; charset=utf-8", "application/octet-stream", "text/html; charset=utf-8"

PAGES = {
    "profile": "where time goes. ?seconds=N (default 30, at most 300); for go tool pprof",
    "heap": "what holds memory. ?seconds=N for the places that ask for it; for go tool pprof, or ?debug=1 as text",
    "goroutine": "all threads and where they are. For go tool pprof, ?debug=1 (like ones together) or ?debug=2 (one by one)",
    "cmdline": "the command that started this process",
}

#: A password in an address, and the value of an argument that is called a secret.
_SECRET = re.compile(r"(://)[^/@\s]+(?=@)|(--\S*(?:key|token|password|secret)\S*=).*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    kind: str
    body: bytes
    file: str = ""


class Refused(Exception):
    """A request that is not answered as asked: status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def handler(program: str) -> type[BaseHTTPRequestHandler]:
    """What answers the requests of one process, called `program` in its profiles."""

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT
        server_version = "tsg"
        sys_version = ""

        def do_GET(self) -> None:
            started = time.monotonic()
            try:
                answer = _answer(program, self.path)
            except Refused as refusal:
                answer = Answer(refusal.status, TEXT, f"{refusal}\n".encode())
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            if answer.file:
                self.send_header("Content-Disposition", f'attachment; filename="{answer.file}"')
            self.end_headers()
            self.wfile.write(answer.body)
            _log.info(
                "diagnostics_read",
                page=urlsplit(self.path).path[:80],
                status=answer.status,
                client=self.client_address[0],
                seconds=round(time.monotonic() - started, 3),
            )

        def log_message(self, *_arguments: Any) -> None:
            """The line above is the one."""

    return Handler


def _answer(program: str, target: str) -> Answer:
    parts = urlsplit(target)
    if not parts.path.startswith(PREFIX.rstrip("/")):
        raise Refused(404, f"there is only {PREFIX} here")
    name = parts.path[len(PREFIX) :]
    query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
    pages: dict[str, Callable[[str, dict[str, str]], Answer]] = {
        "": _index,
        "profile": _profile,
        "heap": _heap,
        "goroutine": _goroutine,
        "cmdline": _cmdline,
    }
    if name == "symbol":
        raise Refused(501, f"profiles have their names in them; see {PREFIX} for what there is")
    if name not in pages:
        raise Refused(404, f"there is no {name!r} here; see {PREFIX} for what there is")
    return pages[name](program, query)


def _index(program: str, _query: dict[str, str]) -> Answer:
    rows = "".join(f'<tr><td><a href="{PREFIX}{name}">{name}</a></td><td>{html.escape(what)}</td></tr>\n' for name, what in PAGES.items())
    more = "".join(
        f'<li><a href="{PREFIX}{target}">{html.escape(what)}</a></li>\n'
        for target, what in (
            ("goroutine?debug=2", "all stacks"),
            ("heap?debug=1", "memory as text"),
        )
    )
    title = html.escape(f"{program}, process {os.getpid()}")
    page = (
        f"<!doctype html><html><head><title>{title}</title></head><body><h1>{title}</h1>\n"
        f"<table>\n{rows}</table><ul>\n{more}</ul></body></html>\n"
    )
    return Answer(200, HTML, page.encode())


def _profile(program: str, query: dict[str, str]) -> Answer:
    _one_of(query, "format", ("pprof",))
    try:
        samples = sampler.sample(_seconds(query, SECONDS))
    except sampler.Busy:
        raise Refused(409, "a profile is being taken already; try again when it is done") from None
    return _pprof("profile", samples.profile(program))


def _heap(program: str, query: dict[str, str]) -> Answer:
    as_text = _one_of(query, "debug", ("0", "1", "2")) != "0"
    try:
        profile = heap.between(program, _seconds(query, 0)) if "seconds" in query else heap.now(program)
    except heap.Busy:
        raise Refused(409, "the memory is being looked at already; try again when that is done") from None
    return Answer(200, TEXT, heap.text(profile).encode()) if as_text else _pprof("heap", profile)


def _goroutine(program: str, query: dict[str, str]) -> Answer:
    debug = _one_of(query, "debug", ("0", "1", "2"))
    found = stacks.threads()
    if debug != "0":
        return Answer(200, TEXT, (stacks.one_by_one(found) if debug == "2" else stacks.together(found)).encode())
    profile = Profile([("threads", "count")], "threads", program)
    for thread in found:
        profile.add(thread.stack, (1,), thread=thread.name)
    return _pprof("goroutine", profile)


def _cmdline(_program: str, _query: dict[str, str]) -> Answer:
    """Arguments, ended by zero bytes as in Go. No flag of this service takes a secret; should one ever, it is not shown."""
    return Answer(200, TEXT, "\0".join(map(_without_secrets, sys.orig_argv)).encode())


def _without_secrets(word: str) -> str:
    return _SECRET.sub(lambda found: f"{found[1] or found[2]}***", word)


def _pprof(name: str, profile: Profile) -> Answer:
    return Answer(200, BINARY, profile.encode(), file=f"{name}.pb.gz")


def _seconds(query: dict[str, str], default: float) -> float:
    try:
        seconds = float(query.get("seconds", default))
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= MOST_SECONDS:
        raise Refused(400, f"seconds must be a number over 0, at most {MOST_SECONDS}")
    return seconds


def _one_of(query: dict[str, str], name: str, words: tuple[str, ...]) -> str:
    word = query.get(name, words[0])
    if word not in words:
        raise Refused(400, f"{name} must be one of: {', '.join(words)}")
    return word
