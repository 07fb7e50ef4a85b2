"""What happens to a request, in CloudAPI's order: the order decides which error wins.

    1 route and version   2 Accept   3 Authorization syntax and clock   4 Date   5 query and body
    6 signature, key, account   7 the path's account   8 image, package, machine   9 permission
    10 read-only   11 throttle   12 the endpoint itself

Errors of 1-5 carry none of CloudAPI's own headers, later ones carry them all.
"""

import base64
import gzip
import hashlib
import json
import re
import time
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import falcon

from dev.sim.cloudapi import signature, versions
from dev.sim.cloudapi.accounts import Account, Keyring
from dev.sim.cloudapi.catalog import Image, Package
from dev.sim.cloudapi.cloud import Caller, Cloud
from dev.sim.cloudapi.errors import ApiError, invalid_credentials, not_authorized, not_found
from dev.sim.cloudapi.machine import Machine
from dev.sim.common.admin import PREFIX as ADMIN_PREFIX
from dev.sim.common.server import cut_connection

MAX_BODY_BYTES = 100_000

_READABLE = ("application/json", "text/plain", "application/octet-stream", "application/javascript")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PRE_SIGNED = frozenset(["algorithm", "expires", "keyId", "signature"])
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Accept, Accept-Version, Content-Length, Content-MD5, Content-Type, Date, Api-Version, Response-Time",
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, DELETE",
    "Access-Control-Expose-Headers": "Api-Version, Request-Id, Response-Time",
}


@dataclass
class Call:
    """One request on its way through the pipeline."""

    endpoint: str
    version_range: str = "*"
    params: dict[str, Any] = field(default_factory=dict)  #: the one namespace: body over path over query
    fields: dict[str, Any] = field(default_factory=dict)  #: query and body, without the path
    identified: bool = False  #: step 6 is reached: answers carry CloudAPI's headers
    account: Account = field(init=False)
    caller: Caller = field(default_factory=dict)
    machine: Machine | None = None
    image: Image | None = None
    package: Package | None = None
    outcome: str = ""  #: what the counters call the answer, where it isn't a status of the simulator's

    @property
    def version(self) -> versions.Version:
        return versions.best(self.version_range) or versions.OFFERED[-1]


class Endpoint:
    """A Falcon resource that goes through the pipeline: `class Keys(Endpoint, group="keys", GET="ListKeys")`.

    The keywords name the endpoint of each method; HEAD is GET.
    """

    names: Mapping[str, str]
    group = "machines"  #: endpoints of one group share a throttle bucket
    open = False  #: no authentication
    body_types: tuple[str, ...] | None = None  #: content types a POST may have; None means any

    def __init_subclass__(cls, group: str | None = None, **names: str) -> None:
        cls.group = group or cls.group
        cls.names = names
        if "GET" in names:
            cls.names = names | {"HEAD": names["GET"]}
            cls.on_head = cls.on_get  # type: ignore[attr-defined]

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def preload(self, call: Call) -> None:
        """Step 8: find what the call is about, before permission and throttle are asked. Raises ApiError."""


class Pipeline:
    """Falcon middleware: steps 1 to 11, the knobs that disturb, and the headers of every answer."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        if req.path.startswith(ADMIN_PREFIX):
            return
        req.context.started = time.monotonic()
        self.cloud.counters.began()
        if _BAD_ESCAPE.search(_target(req).partition("?")[0]):
            raise ApiError(400, "BadRequestError", "URI malformed")

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, resource: object, path: dict[str, str]) -> None:
        if not isinstance(resource, Endpoint) or req.method not in resource.names:
            return  # an admin route, or Falcon's 405
        call = req.context.call = Call(resource.names[req.method])
        self._delay(call)
        if self.cloud.knobs.down:
            raise ApiError(503, "ServiceUnavailable", "No server is available to handle this request")
        call.version_range = _read_version(req)
        _check_body_type(req, resource)
        if resource.open:
            return
        _check_accept(req)
        claim = _read_claim(req)
        _check_date(req)
        _read_params(req, path, call)
        call.identified = True
        owner, authorized = self._identify(req, claim, call)
        call.account = self._path_account(call, owner)
        resource.preload(call)
        if call.account is not owner or not authorized:
            raise not_authorized(f"You do not have permission to access {req.path}")
        self._check_knobs(req, resource, call)

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, req_succeeded: bool) -> None:
        started = getattr(req.context, "started", None)
        if started is None:
            return
        call: Call = getattr(req.context, "call", None) or Call("(no endpoint)")
        if req_succeeded:
            self._spoil_answer(call, resp)
        if call.identified:
            _add_headers(req, resp, started)
        self.cloud.counters.ended(call.endpoint, call.outcome or ("cut" if resp.stream else str(resp.status_code)))

    # Steps 6 to 11

    def _identify(self, req: falcon.Request, claim: signature.Claim | None, call: Call) -> tuple[Account, bool]:
        """Whose key signed, and whether that user may do anything. Raises ApiError."""
        names = call.fields.keys() & _PRE_SIGNED
        if (names and names != _PRE_SIGNED) or "method" in req.params:
            raise ApiError(500, None, "pre-signed URL parameters are incomplete")
        if claim is None:
            raise invalid_credentials("You must make authenticated requests to use CloudAPI")
        parts = claim.key_id.split("/")
        if len(parts) not in (4, 6) or parts[0] or parts[-2] != "keys" or (len(parts) == 6 and parts[2] != "users"):
            raise invalid_credentials(f"Invalid KeyId {claim.key_id} in authorization header")
        account = self.cloud.find_account(parts[1])
        if account is None:
            raise invalid_credentials()
        user = account.find_user(parts[3]) if len(parts) == 6 else None
        if len(parts) == 6 and (user is None or not _users_known(call.version_range)):
            raise invalid_credentials()
        keys: Keyring = user.keys if user else account.keys
        key = keys.find(parts[-1])
        if key is None or not signature.holds(claim, key.public):
            raise invalid_credentials()
        if account.disabled or (user and user.disabled):
            raise not_authorized("Account or user is disabled")
        call.caller = {"type": "signature", "ip": req.remote_addr, "keyId": claim.key_id}
        return account, user is None or user.may(call.endpoint)

    def _path_account(self, call: Call, owner: Account) -> Account:
        name = call.params["account"]
        account = owner if name == "my" else self.cloud.find_account(name) if isinstance(name, str) else None
        if account is None:
            raise not_found(f"{name} does not exist")
        return account

    def _check_knobs(self, req: falcon.Request, resource: Endpoint, call: Call) -> None:
        knobs = self.cloud.knobs
        if knobs.read_only and req.method not in ("GET", "HEAD"):
            raise ApiError(503, "ServiceUnavailableError", "This Triton data center is being upgraded")
        if knobs.throttle and not self.cloud.take_token(call.account.login, resource.group):
            # CloudAPI: no Retry-After.
            raise ApiError(429, "TooManyRequestsError", f"You have exceeded your request rate of {knobs.throttle_rate:g} r/s.")
        if _concerns(knobs.error_endpoints, call) and self.cloud.is_to_fail(call.endpoint):
            self.cloud.counters.count("errors_injected")
            headers = {} if knobs.error_retry_after is None else {"Retry-After": str(knobs.error_retry_after)}
            raise ApiError(knobs.error_status, knobs.error_code, knobs.error_message, headers=headers)

    # What the knobs do to an answer

    def _delay(self, call: Call) -> None:
        seconds = self.cloud.knobs.latency_seconds + self.cloud.knobs.latency_by_endpoint.get(call.endpoint, 0.0)
        if seconds:
            self.cloud.closing.wait(seconds)

    def _spoil_answer(self, call: Call, resp: falcon.Response) -> None:
        """The deed is done; its answer is late, lost or unreadable."""
        knobs = self.cloud.knobs
        if knobs.hang_seconds and _concerns(knobs.hang_endpoints, call):
            self.cloud.closing.wait(knobs.hang_seconds)
        if _concerns(knobs.lost_answer_endpoints, call) and (
            self.cloud.use_up("lost_answers_next") or self.cloud.chance(knobs.lost_answer_share)
        ):
            self.cloud.counters.count("answers_lost")
            if knobs.lost_answer_status is None:
                # 200: Falcon looks at no body of a 204, and would let the answer through.
                resp.status, resp.data, resp.stream = 200, None, cut_connection()
            else:
                answer(resp, ApiError(knobs.lost_answer_status, "InternalError", "the simulator lost the answer"))
        elif knobs.bad_json and resp.data:
            resp.data = b"<html><body>This is not JSON</body></html>"


def answer(resp: falcon.Response, error: ApiError) -> None:
    resp.status = error.status
    resp.data = error.body()
    resp.content_type = falcon.MEDIA_JSON
    for name, value in error.headers.items():
        resp.set_header(name, value)


def _target(req: falcon.Request) -> str:
    """The path with its query, exactly as sent."""
    target: str = req.env["REQUEST_URI"]
    return target


def _concerns(endpoints: list[str], call: Call) -> bool:
    return not endpoints or call.endpoint in endpoints


def _users_known(version_range: str) -> bool:
    """CloudAPI: sub-user keys need a version range that admits 7.2 or later."""
    best = versions.best(version_range)
    return best is not None and best >= (7, 2, 0)


# Steps 1 to 5


def _read_version(req: falcon.Request) -> str:
    """CloudAPI: Accept-Version, else X-Api-Version; Api-Version is ignored."""
    wanted = req.get_header("Accept-Version") or req.get_header("X-Api-Version") or "*"
    if versions.best(wanted) is None:
        raise ApiError(400, "InvalidVersion", f"{wanted} is not supported by {req.method} {req.path}")
    return wanted


def _check_body_type(req: falcon.Request, resource: Endpoint) -> None:
    kind = _content_type(req)
    if req.method == "POST" and kind and resource.body_types and kind not in resource.body_types:
        raise ApiError(415, "UnsupportedMediaTypeError", kind)


def _check_accept(req: falcon.Request) -> None:
    accept = req.accept
    if accept == "*/*" or any(req.client_accepts(kind) for kind in _READABLE):
        return
    raise ApiError(406, "NotAcceptableError", f"Server accepts: {','.join(_READABLE)}")


def _read_claim(req: falcon.Request) -> signature.Claim | None:
    """None without an Authorization header, or with a scheme that CloudAPI reads and doesn't honour. Raises ApiError."""
    authorization = req.get_header("Authorization")
    if authorization is None:
        return None
    scheme, _, content = authorization.partition(" ")
    if not content:
        raise ApiError(400, "InvalidHeader", "BasicAuth content is invalid.")
    if scheme.lower() != "signature":
        return None
    headers = {name.lower(): value for name, value in req.headers.items()}
    try:
        return signature.read(authorization, signature.Request(req.method, _target(req), headers, time.time()))
    except signature.HeaderError as error:
        raise ApiError(400, "InvalidHeader", f"Authorization header invalid: {error}") from None


def _check_date(req: falcon.Request) -> None:
    date = req.get_header("Date")
    sent = signature.read_date(date) if date else None
    if sent is not None and time.time() - sent > signature.MAX_SKEW_SECONDS:
        raise ApiError(400, "RequestExpired", f"Date header {date} is too old")


def _read_params(req: falcon.Request, path: dict[str, str], call: Call) -> None:
    """CloudAPI: one namespace, in which a body field `account` or `machine` replaces the URL's segment."""
    body = _read_body(req)
    call.params = {**req.params, **path, **body}
    call.fields = {**req.params, **body}


def _read_body(req: falcon.Request) -> dict[str, Any]:
    """The fields of a JSON or form body; a body without a Content-Type is ignored. Raises ApiError."""
    if req.method not in ("POST", "PUT"):
        return {}
    raw = req.bounded_stream.read(MAX_BODY_BYTES + 1)
    if len(raw) > MAX_BODY_BYTES:
        raise ApiError(413, "PayloadTooLargeError", f"Request body size exceeds {MAX_BODY_BYTES}")
    if not raw:
        return {}
    claimed = req.get_header("Content-MD5")
    if claimed and claimed != _md5(raw):
        raise ApiError(400, "BadDigest", f"Content-MD5 '{claimed}' didn't match '{_md5(raw)}'")
    if req.get_header("Content-Encoding") == "gzip":
        raw = _gunzip(raw)
    kind = _content_type(req)
    if kind == falcon.MEDIA_URLENCODED:
        return dict(parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True))
    return _read_json(raw) if kind == falcon.MEDIA_JSON else {}


def _read_json(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise ApiError(400, "InvalidContent", f"Invalid JSON: {error}") from None
    return value if isinstance(value, dict) else {}


def _gunzip(raw: bytes) -> bytes:
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error):
        raise ApiError(400, "InvalidContent", "the body is not gzip") from None


def _content_type(req: falcon.Request) -> str:
    return (req.content_type or "").partition(";")[0].strip().lower()


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _add_headers(req: falcon.Request, resp: falcon.Response, started: float) -> None:
    headers = {
        "Server": "cloudapi/9.20.0",
        "Api-Version": versions.text(versions.OFFERED[-1]),  # CloudAPI: always the newest, not the matched one
        "Request-Id": req.get_header("Request-Id") or req.get_header("X-Request-Id") or str(uuid.uuid4()),
        "Response-Time": str(int((time.monotonic() - started) * 1000)),
    }
    if resp.data:
        headers["Content-MD5"] = _md5(resp.data)
    resp.set_headers(headers | _CORS)
