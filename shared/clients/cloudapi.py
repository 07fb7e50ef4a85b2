"""Triton's CloudAPI: one method a call, results with names, errors by what the caller must do.

CloudAPIError
  Unavailable       it can't be reached, or failed: nothing came of the request that a new list would not show. Later
    Untrusted       its certificate is not trusted: the request was not sent. Once the settings name its authority
    AnswerLost      a request that makes something went out and no usable answer came back: it may yet take effect
    Broken          CloudAPI failed over a request that makes something (500): it may have been made before that
  Withheld          the request was not sent: the caller may not ask any more
  Throttled         too many requests. Slower
  Unauthorized      the signature is not accepted
  Rejected          the request is wrong as it stands (4xx); `code` and the text say why
    NotFound        no such thing
    Forbidden       the account may not do this
      QuotaExceeded   the account may not have more machines
    NoCapacity      no server has room for the machine now
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, NoReturn
from urllib.parse import quote, urlencode

import requests

from shared import log, metrics
from shared.clients import https
from shared.clients.access import PUBLIC, Timeouts, Trust
from shared.clients.budget import Budget
from shared.clients.https import Answer
from shared.clients.signature import Signer
from shared.rules import is_storable, is_uuid, storable

_log = log.get(__name__)

#: CloudAPI's largest page of machines.
PAGE = 1000
#: Of machines with their bodies, which may hold 100 kB each.
BODIES_A_PAGE = 100
#: Bytes of the largest request that CloudAPI takes (413 above).
MAX_BODY_BYTES = 100_000
#: The newest versions whose answers we know.
ACCEPT_VERSION = "~9||~8"
#: A gateway that gives up on CloudAPI says 503 too; it takes longer than this many seconds to do so.
GATEWAY_SECONDS = 10
#: Tries of a throttled request: a 429 means that nothing was done.
THROTTLED_TRIES = 5
#: Tries of a question (GET) that CloudAPI failed over (5xx), and seconds before the second; before the third it is twice as many.
FAILED_TRIES = 3
FAILED_PAUSE = 0.1
#: Keys tried for one request whose key is being replaced meanwhile: a 401 means that nothing was done.
REPLACED_KEYS = 4
#: Codes of an error that says nothing against the request: there is no room now. The last one, with 503, is in CloudAPI's documents alone.
NO_CAPACITY = ("NoAllocatableServers", "VolumeServerNoResources", "InsufficientCapacity")
#: Statuses of a throttle; the first is in CloudAPI's documents alone.
THROTTLES = frozenset({420, 429})
#: A gateway's word for a request that did not come to it whole.
REQUEST_TIMEOUT = 408
#: Seconds in which all of an answer comes: it must not trickle in for ever.
ANSWER_SECONDS = 60.0
#: Bytes of the largest answer. A page of a thousand machines, each as large as CloudAPI lets it be, is smaller.
MAX_ANSWER_BYTES = 128 << 20
#: Its word for the state of a machine that is gone, and for one of which it does not know how it is. And all words that it has.
DESTROYED, UNKNOWN = "deleted", "unknown"
STATES = frozenset({"provisioning", "ready", "running", "stopping", "stopped", "offline", "failed", DESTROYED, UNKNOWN})
#: VMAPI's words for states that CloudAPI has another word for (sdc-cloudapi: `translateState` in lib/machines.js).
_OF_VMAPI = {
    **dict.fromkeys(("configured", "incomplete", "unavailable"), "provisioning"),
    **dict.fromkeys(("halting", "shutting_down"), "stopping"),
    **dict.fromkeys(("off", "down", "installed"), "stopped"),
    "unreachable": "offline",
    "destroyed": DESTROYED,
}
#: Names that no tag or metadata key may have in a request that changes them: two replace the path's own, CloudAPI drops the others.
UNUSABLE_NAMES = frozenset({"account", "machine", "uuid", "owner_uuid", "context", "image"})
#: The metadata key that takes an instance out of DNS: CNS serves its services' names while it is absent or `up`.
CNS_STATUS = "triton.cns.status"
#: Connections kept open to CloudAPI by one process.
CONNECTIONS = 64


class CloudAPIError(Exception):
    """CloudAPI did not do what it was asked. `status` is 0 when it did not answer.

    `retry_after`: seconds for which it asks to be left alone; 0 where it does not say.
    """

    def __init__(self, message: str, *, status: int = 0, code: str = "", request_id: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after


class Unavailable(CloudAPIError):
    """CloudAPI can't be reached, or failed."""


class Untrusted(Unavailable):
    """CloudAPI's certificate is not trusted."""


class AnswerLost(Unavailable):
    """The request went out, and what became of it is not known."""


class Broken(Unavailable):
    """CloudAPI failed over a request that makes something (500): it may have been made before that."""


class Withheld(CloudAPIError):
    """The request was not sent, since the guard said no."""


class Throttled(CloudAPIError):
    """Too many requests."""


class Unauthorized(CloudAPIError):
    """The signature is not accepted."""


class Rejected(CloudAPIError):
    """The request is wrong as it stands."""


class NotFound(Rejected):
    """There is no such thing."""


class Forbidden(Rejected):
    """The account may not do this."""


class QuotaExceeded(Forbidden):
    """The account may not have more machines."""


class NoCapacity(Rejected):
    """No server has room."""


class Machine(NamedTuple):
    """A machine as CloudAPI describes it. `body` is the whole description, where it was asked for."""

    id: str
    state: str
    created: str
    protected: bool
    tags: Mapping[str, Any]
    body: Mapping[str, Any]
    name: str = ""
    #: The UUID of its server; empty where CloudAPI does not say.
    compute_node: str = ""
    #: Empty until the machine has a network interface.
    primary_ip: str = ""
    #: Its address on each of its networks, by the network's UUID. Where it has several on one, the first.
    addresses: Mapping[str, str] = MappingProxyType({})
    firewall_enabled: bool = False
    #: Its metadata `triton.cns.status`; None where nobody has set it.
    cns_status: str | None = None


def encode(body: Mapping[str, Any]) -> bytes:
    """JSON as it goes to CloudAPI, which counts bytes: UTF-8."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


class TritonAccount(NamedTuple):
    """An account as CloudAPI knows it."""

    id: str
    login: str


class Key(NamedTuple):
    """A public key: its fingerprint is MD5 without a prefix, its line is in OpenSSH's form."""

    name: str
    fingerprint: str
    line: str


Sign = Callable[[str, str], Mapping[str, str]]
Guard = Callable[[], bool]
#: Asked when CloudAPI refuses a key, with its fingerprint: the key to use instead, or None when there is no other.
Newer = Callable[[str], Signer | None]


def always() -> bool:
    """The guard of those who may always ask."""
    return True


def no_newer(_refused: str) -> None:
    """For those who have one key and no other."""


class CloudAPI:
    """The connections of one process to one CloudAPI. Thread-safe."""

    def __init__(self, url: str, timeouts: Timeouts, trust: Trust = PUBLIC) -> None:
        self._url = url.rstrip("/")
        self._timeouts = timeouts
        self._session = https.open_session(url, trust, connections=CONNECTIONS)
        self._session.headers.update({"Accept": "application/json", "Accept-Version": ACCEPT_VERSION, "User-Agent": "tsg"})

    def close(self) -> None:
        self._session.close()

    def as_account(
        self, account: str, signer: Signer, budget: Budget | None = None, guard: Guard = always, newer: Newer = no_newer
    ) -> "Client":
        """Calls signed by the account's management key, within a budget where one is given.

        `guard` is asked in the last moment before each request that changes something, and `newer` when the key is refused: it may
        have been replaced since.
        """
        return Client(self, account, signer, budget, guard, newer)

    def as_caller(self, account: str, date: str, authorization: str) -> "Client":
        """Calls under the very signature that a user sent us. It must cover the date alone."""
        return Client(self, account, _PassedOn(date, authorization))

    def call(self, method: str, path: str, sign: Sign, body: Mapping[str, Any] | None = None, guard: Guard = always) -> Answer:
        """One request, one answer; whatever is not 2xx is raised."""
        data, headers = (None, {}) if body is None else (encode(body), {"Content-Type": "application/json"})
        request = self._session.prepare_request(requests.Request(method, self._url + path, headers, data=data))
        request.headers.update(sign(method, request.path_url))
        if method != "GET" and not guard():
            raise Withheld("the request was not sent: the account's lease is not held any more")
        endpoint, status = endpoint_of(method, path), metrics.NO_ANSWER
        makes = endpoint.startswith("Create")
        started = time.monotonic()
        try:
            response = self._session.send(request, timeout=self._timeouts, allow_redirects=False, stream=True)
            answer = https.read(response, MAX_ANSWER_BYTES, seconds=ANSWER_SECONDS)
            status = str(answer.status)
        except requests.ConnectTimeout as error:
            raise Unavailable(f"CloudAPI can't be reached: {https.describe(error)}") from error
        except requests.RequestException as error:
            if why := https.distrust(error):
                raise Untrusted(f"CloudAPI's certificate is not trusted ({why}): see TSG_TRITON_CACERT.") from error
            # Refused connections came to nothing; a connection that broke later may have done its work.
            kind = AnswerLost if makes and not https.never_sent(error) else Unavailable
            raise kind(f"CloudAPI did not answer: {https.describe(error)}") from error
        except OSError as error:  # the file of authorities has gone since the start
            raise Unavailable(f"CloudAPI can't be asked: {error}") from error
        finally:
            metrics.cloudapi_requests.labels(endpoint, status).inc()
            metrics.cloudapi_seconds.labels(endpoint).observe(time.monotonic() - started)
        took = time.monotonic() - started
        _log.debug("cloudapi_call", method=method, path=path.partition("?")[0], status=answer.status, ms=round(took * 1000))
        if not 200 <= answer.status < 300:
            _fail(answer, makes=makes, took=took)
        return answer


_NOUNS = {"machines": "Machine", "keys": "Key", "packages": "Package", "images": "Image", "networks": "Network", "volumes": "Volume"}


def endpoint_of(method: str, path: str) -> str:
    """What CloudAPI's documents call an endpoint that `Client` asks: ListMachines, GetMachine, AddMachineTags, ...

    The actions on a machine are one, UpdateMachine.
    """
    parts = path.partition("?")[0].strip("/").split("/")[1:]
    owner = ""
    if parts[:1] == ["users"]:
        owner, parts = "User", parts[2:]
    if not parts:
        return "GetAccount"
    noun = _NOUNS.get(parts[0], "Other")
    if noun == "Machine" and len(parts) > 2:
        return _endpoint_below_machine(method, parts[2:])
    if noun == "Machine" and method == "POST" and len(parts) == 2:
        return "UpdateMachine"
    if method == "GET" and len(parts) == 1:
        return f"List{owner}{noun}s"
    verb = {"GET": "Get", "POST": "Create", "DELETE": "Delete"}.get(method, "Other")
    return f"{verb}{owner}{noun}"


def _endpoint_below_machine(method: str, parts: list[str]) -> str:
    noun = {"tags": "Tag", "metadata": "Metadata"}.get(parts[0], "Other")
    verb = {"GET": "Get", "POST": "Add", "DELETE": "Delete"}.get(method, "Other")
    return f"{verb}Machine{noun}{'s' if noun == 'Tag' and len(parts) == 1 else ''}"


class _PassedOn:
    """Somebody else's signature, as it came."""

    fingerprint = ""

    def __init__(self, date: str, authorization: str) -> None:
        self._headers = {"Date": date, "Authorization": authorization}

    def headers(self, _method: str, _path: str, _now: datetime) -> dict[str, str]:
        return self._headers


class Client:
    """CloudAPI for one account. Thread-safe."""

    def __init__(
        self,
        cloudapi: CloudAPI,
        account: str,
        signer: Signer | _PassedOn,
        budget: Budget | None = None,
        guard: Guard = always,
        newer: Newer = no_newer,
    ) -> None:
        self._cloudapi = cloudapi
        self._base = "/" + _segment(account)
        self._signer = signer
        self._budget = budget
        self._guard = guard
        self._newer = newer

    def turn(self, *, within: float) -> bool:
        """Wait for the next request's turn within the budget. False when it would not come within these seconds.

        For calls before which something is to be written down: it is written when the turn has come, not while waiting for it.
        """
        return self._budget is None or self._budget.take(within=within)

    def account(self) -> TritonAccount:
        """Who the signer is: a sub-user gets the parent account."""
        body = _object(self._call("GET", self._base))
        return TritonAccount(_text(body, "id"), _text(body, "login"))

    def key_fingerprint(self, name: str) -> str | None:
        """The MD5 fingerprint of the account's key of this name, or None when there is none."""
        try:
            return _text(_object(self._call("GET", f"{self._base}/keys/{_segment(name)}")), "fingerprint")
        except NotFound:
            return None

    def list_keys(self, *, user: str | None = None) -> list[Key]:
        """The public keys of the account, or of its sub-user. `NotFound` when there is no such sub-user."""
        owner = f"{self._base}/users/{_segment(user)}" if user else self._base
        listed = _json(self._call("GET", f"{owner}/keys"))
        if not isinstance(listed, list):
            raise Unavailable("CloudAPI answered a list of keys that is none")
        return [Key(*(str(key.get(name)) for name in ("name", "fingerprint", "key"))) for key in listed if isinstance(key, dict)]

    def add_key(self, name: str, public_line: str) -> None:
        """Add a public key. `Rejected` when one of its name or fingerprint is there already."""
        self._call("POST", f"{self._base}/keys", {"name": name, "key": public_line})

    def delete_key(self, fingerprint: str) -> None:
        """Remove a public key. One that is gone already is as good."""
        with suppress(NotFound):
            self._call("DELETE", f"{self._base}/keys/{_segment(fingerprint)}")

    def check_may_list_machines(self) -> None:
        """`Forbidden` when the signer may not list machines."""
        self._page({"limit": "1", "offset": "0"}).machines()

    def may_create_machines(self) -> bool:
        """May the signer create machines? CloudAPI is asked for one of no image, so none is made whatever the answer.

        It looks at policies and role tags before it misses the image (sdc-cloudapi: `authorize` in lib/app.js, `ensureDataset` in
        lib/machines.js).
        """
        try:
            self._call("POST", f"{self._base}/machines", {})
        except Forbidden:
            return False
        except Rejected as error:
            if error.status == 409:
                return True
            raise
        raise Unavailable("CloudAPI accepted a request for a machine of no image")

    def find(self, kind: Literal["packages", "images", "networks"], name: str) -> Mapping[str, Any] | None:
        """A package, by its id or name, or an image or network by its id; None when the account has none."""
        try:
            return _object(self._call("GET", f"{self._base}/{kind}/{_segment(name.lower() if is_uuid(name) else name)}"))
        except NotFound:
            return None

    def services(self) -> Mapping[str, str]:
        """The addresses of the datacenter's other services, by name."""
        return {str(name): str(url) for name, url in _object(self._call("GET", f"{self._base}/services")).items()}

    def volume(self, name: str) -> Mapping[str, Any] | None:
        """The account's volume of this name; None when it has none, or CloudAPI has no volumes at all."""
        try:
            listed = _json(self._call("GET", f"{self._base}/volumes?{urlencode({'name': name})}"))
        except NotFound:
            return None
        if not isinstance(listed, list):
            raise Unavailable("CloudAPI answered a list of volumes that is none")
        return next((volume for volume in listed if isinstance(volume, dict) and volume.get("name") == name), None)

    def machines(self, **filters: str) -> list[Machine]:
        """All machines that match, without their bodies; `Unavailable` when a page is not what CloudAPI says of it.

        CloudAPI leaves out the failed and the destroyed. A filter's value may hold `*`.
        """
        return list({machine.id: machine for page in self.pages(**filters) for machine in page.machines(with_bodies=False)}.values())

    def pages(self, **filters: str) -> Iterator["Page"]:
        """The same, as it came: for callers that may not have to read it."""
        return self._pages(filters, PAGE)

    def machine_bodies(self, **filters: str) -> Iterator[Machine]:
        """The same, one after the other, with their bodies. They may hold 100 kB of metadata each, so that pages are small.

        Machines of one template have the same long texts: each text is kept once, however many bodies hold it.
        """
        texts: dict[str, str] = {}
        for page in self._pages(filters, BODIES_A_PAGE):
            for machine in page.machines():
                metadata = machine.body.get("metadata")
                if isinstance(metadata, dict):
                    metadata.update({key: texts.setdefault(text, text) for key, text in metadata.items() if isinstance(text, str)})
                yield machine

    def _pages(self, filters: Mapping[str, str], size: int) -> Iterator["Page"]:
        offset, before = 0, None
        while True:
            page = self._page({**filters, "limit": str(size), "offset": str(offset)})
            if page.body == before:
                raise Unavailable("CloudAPI answered two pages of its list of machines with the same machines")
            yield page
            if page.is_last:
                return
            offset, before = offset + page.limit, page.body

    def find_machine(self, tag: str, value: str) -> Machine | None:
        """The machine with this tag, also if it failed or was destroyed; None when there is none. Call `turn` first.

        `Unavailable` when its description can't be used.
        """
        page = self._page({f"tag.{tag}": value, "tombstone": "true"}, paid=True)
        found = next((row for row in page.rows() if isinstance(row, dict) and part(row, "tags").get(tag) == value), None)
        return None if found is None else _machine(found)

    def destroyed_machines(self, tag: str, value: str, *, offset: int) -> list[Machine]:
        """`PAGE` of the destroyed machines with this tag, behind the first `offset`, without their bodies. Call `turn` first."""
        query = {f"tag.{tag}": value, "state": "destroyed", "limit": str(PAGE), "offset": str(offset)}
        return self._page(query, paid=True).machines(with_bodies=False, destroyed=True)

    def _page(self, query: Mapping[str, str], *, paid: bool = False) -> "Page":
        answer = self._call("GET", f"{self._base}/machines?{urlencode(query)}", paid=paid)
        return Page(answer, limit=int(query.get("limit", PAGE)), offset=int(query.get("offset", 0)))

    def machine(self, machine_id: str) -> Machine | None:
        """One machine in any state but destroyed; None when it is. `NotFound` when CloudAPI does not know it. Call `turn` first."""
        try:
            response = self._call("GET", f"{self._base}/machines/{_segment(machine_id)}", paid=True)
        except Rejected as error:
            if error.status == 410:  # Destroyed: the body is the machine, or a mere id
                return None
            raise
        found = _machine(_json(response))
        if found.id != machine_id.lower():
            raise Unavailable(f"CloudAPI was asked for machine {machine_id} and answered {found.id}")
        return found

    def create_machine(self, body: Mapping[str, Any]) -> Machine:
        """Create a machine. Call `turn` first.

        Tags are part of the body, so that a machine never exists without them. CloudAPI replaces the placeholder `{{shortId}}` in its name
        by the first 8 characters of the machine's id.
        """
        response = self._call("POST", f"{self._base}/machines", body, paid=True)
        try:
            return _machine(_json(response))
        except Unavailable as error:
            raise AnswerLost(str(error)) from error

    def delete_machine(self, machine_id: str) -> None:
        """Have a machine deleted. One that is gone already is as good. Call `turn` first."""
        try:
            self._call("DELETE", f"{self._base}/machines/{_segment(machine_id)}", paid=True)
        except NotFound:
            return
        except Rejected as error:
            if error.status != 410:
                raise

    # Changes of a machine. CloudAPI makes them later, in a job: until then it shows what was. Call `turn` first. `NotFound` when the
    # machine is gone. A change may be asked for twice.

    def add_metadata(self, machine_id: str, values: Mapping[str, Any]) -> None:
        """Set keys of a machine's metadata, and leave its others."""
        self._change(machine_id, "POST", "/metadata", _usable(values))

    def delete_metadata(self, machine_id: str, key: str) -> None:
        """Remove a key of a machine's metadata. One that is gone already is as good, and so is a machine."""
        with suppress(NotFound):
            self._change(machine_id, "DELETE", f"/metadata/{_segment(key)}")

    def add_tags(self, machine_id: str, tags: Mapping[str, Any]) -> None:
        """Set tags of a machine, and leave its others."""
        self._change(machine_id, "POST", "/tags", _usable(tags))

    def delete_tag(self, machine_id: str, tag: str) -> None:
        """Remove a tag of a machine. One that is gone already is as good, and so is a machine."""
        with suppress(NotFound):
            self._change(machine_id, "DELETE", f"/tags/{_segment(tag)}")

    def set_firewall(self, machine_id: str, *, enabled: bool) -> None:
        """Switch a machine's firewall. `Rejected` (`UnallocatedVM`) while the machine is provisioned.

        Only for a machine that was just seen: an action on a deleted one kills a process of the real CloudAPI.
        """
        self._change(machine_id, "POST", f"?action={'enable' if enabled else 'disable'}_firewall")

    def _change(self, machine_id: str, method: str, below: str, body: Mapping[str, Any] | None = None) -> None:
        try:
            self._call(method, f"{self._base}/machines/{_segment(machine_id)}{below}", body, paid=True)
        except Rejected as error:
            if error.status != 410:
                raise
            raise NotFound("the machine is gone", status=410, request_id=error.request_id) from error

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, paid: bool = False) -> Answer:
        for attempt in range(1, REPLACED_KEYS + 1):
            signer = self._signer
            try:
                return self._paced(signer, method, path, body, paid=paid and attempt == 1)
            except Unauthorized:
                newer = self._newer(signer.fingerprint)
                if newer is None or attempt == REPLACED_KEYS:
                    raise
                self._signer = newer
        raise AssertionError("unreachable")

    def _paced(self, signer: Signer | _PassedOn, method: str, path: str, body: Mapping[str, Any] | None, *, paid: bool) -> Answer:
        def sign(method: str, path: str) -> Mapping[str, str]:
            return signer.headers(method, path, datetime.now(UTC))

        if self._budget is None:
            return self._cloudapi.call(method, path, sign, body, self._guard)
        throttled = failed = 0
        while True:
            if throttled or failed or not paid:
                self._budget.take()
            try:
                return self._cloudapi.call(method, path, sign, body, self._guard)
            except Throttled as error:
                self._budget.drain()
                throttled += 1
                if throttled == THROTTLED_TRIES or error.retry_after:
                    raise
            except Unavailable as error:
                failed += 1
                # An answer that did not come has cost time enough.
                if method != "GET" or not error.status or error.retry_after or failed == FAILED_TRIES:
                    raise
                time.sleep(FAILED_PAUSE * failed)


def _segment(name: str) -> str:
    """A name as one segment of a path. `NotFound` for one that would be a step to another place: nothing is called so."""
    if name in {".", ".."}:
        raise NotFound(f"nothing is called {name}", status=404)
    return quote(name, safe="")


def _usable(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those whose names CloudAPI takes: `account` and `machine` would have another machine changed."""
    return {name: value for name, value in values.items() if name not in UNUSABLE_NAMES}


def _fail(response: Answer, *, makes: bool, took: float) -> NoReturn:
    status = response.status
    code, message = _error_body(response)
    request_id = response.headers.get("request-id") or response.headers.get("x-request-id", "")
    details: dict[str, Any] = {"status": status, "code": code, "request_id": request_id, "retry_after": _retry_after(response)}
    text = message or f"CloudAPI answered {status}"
    if status in THROTTLES:
        raise Throttled(text, **details)
    if status == 401:
        raise Unauthorized(text, **details)
    if code.startswith("QuotaExceeded") or (status == 403 and "quota" in text.lower()):
        raise QuotaExceeded(text, **details)
    if code.startswith(NO_CAPACITY):
        raise NoCapacity(text, **details)
    if status == 403:
        raise Forbidden(text, **details)
    if status == 404:
        raise NotFound(text, **details)
    if 400 <= status < 500 and status != REQUEST_TIMEOUT:
        raise Rejected(text, **details)
    if makes and status == 500:
        raise Broken(text, **details)
    by_gateway = status in {502, 504} or took > GATEWAY_SECONDS
    raise (AnswerLost if makes and by_gateway else Unavailable)(text, **details)


def _retry_after(response: Answer) -> float:
    """Its Retry-After in seconds: a number of them, or a date (RFC 9110, section 10.2.3)."""
    text = response.headers.get("retry-after", "")
    if _COUNT.fullmatch(text):
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _error_body(response: Answer) -> tuple[str, str]:
    """Code and message of an error, either of which may be missing."""
    try:
        body = response.json()
    except ValueError:
        return "", ""
    if not isinstance(body, dict):
        return "", ""
    message = str(body.get("message") or "")
    errors = body.get("errors")
    details = [_detail(error) for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    return storable(str(body.get("code") or "")), storable("; ".join(filter(None, [message, *details]))[:2000])


def _detail(error: Mapping[str, Any]) -> str:
    return " ".join(str(error[key]) for key in ("field", "code", "message") if error.get(key))


_COUNT = re.compile(r"[0-9]{1,9}")
#: CloudAPI's times: UTC, to the millisecond.
_OF_CLOUDAPI = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z", re.ASCII)
#: Machines that a list leaves out, and that the log names.
LEFT_OUT_NAMED = 10


class Page:
    """A page of CloudAPI's list of machines, unread. It takes longer to read than to fetch."""

    def __init__(self, answer: Answer, *, limit: int, offset: int) -> None:
        self._answer = answer
        self._offset = offset
        #: How many machines it may have at most: as many as it was asked for, or fewer where CloudAPI says so.
        self.limit = min(limit, self._number("x-query-limit") or limit)
        self._announced = self._number("x-resource-count")

    @property
    def body(self) -> bytearray:
        """As it came: the same while nothing of these machines has changed."""
        return self._answer.body

    @property
    def is_last(self) -> bool:
        """Does no page follow it, by its own account? A page that does not say is read for it."""
        said = self._announced
        if said is None:
            return len(self.rows()) < self.limit
        return self._offset + self.limit >= said if said > self.limit else said < self.limit or self.body == b"[]"

    def machines(self, *, with_bodies: bool = True, destroyed: bool = False) -> list[Machine]:
        """`Unavailable` when it is not what CloudAPI says of it. `destroyed`: those too, which only some lists should have.

        A machine whose description can't be used is left out, with a line in the log: it must not cost the others anything.
        """
        found, left_out = [], []
        for row in self.rows():
            try:
                found.append(_machine(row, with_body=with_bodies))
            except Unavailable as error:
                left_out.append(str(error))
        if left_out:
            _log.warning("machines_left_out", machines=len(left_out), why=left_out[:LEFT_OUT_NAMED])
        return [machine for machine in found if destroyed or machine.state != DESTROYED]

    def rows(self) -> list[Any]:
        """What it has, as JSON. `Unavailable` when it is not what CloudAPI says of it."""
        rows, said = _json(self._answer), self._announced
        if not isinstance(rows, list):
            raise Unavailable("CloudAPI answered a list of machines that is none")
        if said is not None and len(rows) != self._expected(said) and not (not rows and self._offset and said == self.limit):
            raise Unavailable(f"CloudAPI announced {said} machines and sent {len(rows)}")
        return rows

    def _expected(self, said: int) -> int:
        """CloudAPI says how many machines the page has. More than fit on one can only be those of all pages."""
        return said if said <= self.limit else min(self.limit, max(0, said - self._offset))

    def _number(self, header: str) -> int | None:
        text = self._answer.headers.get(header, "")
        return int(text) if _COUNT.fullmatch(text) else None


def _json(response: Answer) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise Unavailable("CloudAPI answered something that is not JSON", status=response.status) from error


def _object(response: Answer) -> Mapping[str, Any]:
    body = _json(response)
    if not isinstance(body, dict):
        raise Unavailable("CloudAPI answered something that is no object", status=response.status)
    return body


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value or not is_storable(value):
        raise Unavailable(f"CloudAPI answered an object without {key}")
    return value


def _machine(body: Any, *, with_body: bool = True) -> Machine:
    """`Unavailable` where nobody can say which machine it is. Anything else may be missing."""
    if not isinstance(body, dict):
        raise Unavailable(f"CloudAPI answered a machine that is no object: {storable(str(body))[:80]}")
    machine_id, cns_status = body.get("id"), part(body, "metadata").get(CNS_STATUS)
    if not isinstance(machine_id, str) or not is_uuid(machine_id):
        raise Unavailable(
            f'CloudAPI answered a machine whose id is no UUID: {storable(str(machine_id))[:80]} ("{_said(body, "name")[:80]}")'
        )
    return Machine(
        id=machine_id.lower(),
        state=_state(body.get("state")),
        created=_moment(body.get("created")),
        protected=body.get("deletion_protection") is True,
        tags=part(body, "tags"),
        body=body if with_body else {},
        name=_said(body, "name"),
        compute_node=_said(body, "compute_node"),
        primary_ip=_said(body, "primaryIp"),
        addresses=_addresses(body),
        firewall_enabled=body.get("firewall_enabled") is True,
        cns_status=None if cns_status is None else storable(str(cns_status)),
    )


def _state(word: Any) -> str:
    """A word of a later release, or none, is no reason to replace a machine at once."""
    known = _OF_VMAPI.get(word, word) if isinstance(word, str) else UNKNOWN
    return known if known in STATES else UNKNOWN


def _moment(text: Any) -> str:
    """A time in CloudAPI's own form, in which the order of texts is that of times; empty for what is none, or in no year from 1 to 9999."""
    if not isinstance(text, str) or _OF_CLOUDAPI.fullmatch(text):
        return text if isinstance(text, str) else ""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return ""
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def part(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object inside of what CloudAPI answered; an empty one where it has none."""
    value = body.get(key)
    return value if isinstance(value, dict) else {}


def _said(body: Mapping[str, Any], key: str) -> str:
    """A text that may be missing."""
    value = body.get(key)
    return storable(value) if isinstance(value, str) else ""


def _addresses(body: Mapping[str, Any]) -> Mapping[str, str]:
    nics = body.get("nics")
    found: dict[str, str] = {}
    for nic in nics if isinstance(nics, list) else ():
        if isinstance(nic, dict) and (network := _said(nic, "network")) and (ip := _said(nic, "ip")):
            found.setdefault(network, ip)
    return found
