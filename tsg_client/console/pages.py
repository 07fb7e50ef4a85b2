"""The pages as files: what a browser may load, and the headers that keep anything else away from it."""

import gzip
from importlib.resources import files
from typing import NamedTuple

#: Where the pages are, on every server of them.
BASE = "/console"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_INDEX = "index.html"
_STATIC = files(__package__).joinpath("static")
_NAMES = frozenset(file.name for file in _STATIC.iterdir())

#: Scripts, styles and requests of this server alone; no inline script, no frame, and no text that becomes HTML (Trusted Types).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
#: On every answer, whatever it is.
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Page(NamedTuple):
    """One file, as it is sent."""

    headers: dict[str, str]
    body: bytes


def find(path: str, accepted: str = "") -> Page | None:
    """The file of a path below the host, None when there is none. `accepted` is the request's Accept-Encoding."""
    if path in {BASE, f"{BASE}/"}:
        return _read(_INDEX, accepted)
    folder, _, name = path.rpartition("/")
    return _read(name, accepted) if folder == BASE and name in _NAMES else None


def _read(name: str, accepted: str) -> Page:
    headers, body = {"Content-Type": _TYPES[name[name.rindex(".") :]]}, _STATIC.joinpath(name).read_bytes()
    # For those who reach the proxy by `ssh -L`.
    if "gzip" in {coding.strip() for coding in accepted.split(",")}:
        return Page({**headers, "Content-Encoding": "gzip"}, gzip.compress(body, mtime=0))
    return Page(headers, body)
