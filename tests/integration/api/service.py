"""The API over real HTTP, in a thread of the test, and the accounts that call it."""

import base64
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Self, TypeVar

import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from requests.adapters import HTTPAdapter

from dev.database import managed_account
from dev.sim.cloudapi import accounts as triton
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_PACKAGE
from dev.sim.cloudapi.simulator import Simulator
from dev.sim.common.server import Server
from shared.clients.access import Timeouts
from shared.clients.cloudapi import CloudAPI
from shared.clients.keys import KeyPair, Sealer
from shared.clients.pushed import Pushed
from shared.clients.queue import DECIDE, WakeUps, make_broker, waker
from shared.clients.webhooks import Rules
from shared.measures.gather import Gatherer
from shared.measures.pushed import PushedSource
from shared.measures.source import Source
from shared.measures.sources import list_members
from shared.runtime.health import Health
from shared.store.db import Database
from tests.conftest import new_pair, sql
from tsg_api.app import create_app
from tsg_api.auth.caller_keys import CallerKeys
from tsg_api.auth.development import DevelopmentMode
from tsg_api.auth.enrol import Enrolment
from tsg_api.auth.tenants import Tenants
from tsg_api.http.service import Service
from tsg_api.http.slots import PATIENCE, slots_of
from tsg_api.server import refusals
from tsg_api.wiring import cloud_of, signed

KEY_NAME = "TSG_Management_us-east-1"
#: The seed's way of enabling an account.
WHITELIST = "INSERT INTO tsg_accounts (account_name, triton_uuid, created_at, updated_at) VALUES (:login, :uuid, NOW(), NOW())"
#: The key pair of every caller. Accounts may share it: a key is known by the account that it is of.
PAIR = new_pair()

JSON = "application/json; charset=utf-8"
#: A UUID that is nobody's.
NOBODY = "00000000-0000-4000-8000-000000000000"
TIMESTAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"

_numbers = itertools.count(1)

T = TypeVar("T")


class Clock:
    """Seconds by the steady clock, which a test may put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Api:
    """The app, put together as `tsg-api` does it, and served by waitress until `close()`."""

    def __init__(
        self,
        database: Database,
        simulator: Simulator,
        redis_url: str,
        *,
        dev_mode: bool = False,
        whitelist: bool = True,
        max_capacity: int = 100,
        max_body: int = 100_000,
        rate_per_account: float = 0.0,
        rate_per_address: float = 0.0,
        threads: int = 8,
        patience: float = PATIENCE,
        parks: bool = True,
        health: Health | None = None,
        sources: Mapping[str, Source] | None = None,
        notify_anywhere: bool = False,
    ) -> None:
        self.db = database
        self.sim = simulator
        self.sealer = Sealer([b"k" * 32])
        self.clock = Clock()
        self._stopping = threading.Event()
        self._wake_ups = WakeUps(make_broker(redis_url))
        self._clouds = CloudAPI(simulator.url, Timeouts(connect=5, read=30))
        self.pushed = Pushed(redis_url)
        self.gatherer = Gatherer({"pushed": PushedSource(self.pushed), **(sources or {})}, list_members(database))
        self.slots = slots_of(threads, parks=parks, patience=patience)
        service = Service(
            db=database,
            wake=waker(self._wake_ups, "worker"),
            wake_policies=lambda group_id: self._wake_ups.enqueue(DECIDE, group_id),
            cloud=cloud_of(database, self._clouds, self.sealer),
            max_capacity=max_capacity,
            max_body=max_body,
            interval=300,
            has_jobs=False,
            stopping=self._stopping,
            slots=self.slots,
            parks=parks,
            pushed=self.pushed,
            gatherer=self.gatherer,
            sealer=self.sealer,
            notify_rules=Rules(private=True, http=True) if notify_anywhere else Rules(),
            rate_per_account=rate_per_account,
            rate_per_address=rate_per_address,
        )
        tenants = Tenants(database, Enrolment(database, self.sealer, key_name=KEY_NAME), whitelist=whitelist, now=self.clock)
        keys = CallerKeys(300, now=self.clock)
        authenticator = DevelopmentMode(database) if dev_mode else signed(service, self._clouds, tenants, self.slots.keys, keys)
        self.app = create_app(service, authenticator, health or Health({}, needed=()))
        self._server = Server(lambda: self.app, threads=8)
        refusals.install(self._server.sockets, max_body=max_body, signs=not dev_mode)
        self.url = self._server.url
        self.session = requests.Session()
        self.session.mount("http://", HTTPAdapter(pool_maxsize=64))

    def stop_waiting(self) -> None:
        """What the process does when it is told to stop."""
        self._stopping.set()

    def close(self) -> None:
        self.stop_waiting()
        self._server.close()
        self.session.close()
        self._clouds.close()
        self._wake_ups.close()
        self.gatherer.close()
        self.pushed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self.close()

    def request(self, method: str, path: str, **more: Any) -> requests.Response:
        """One request as it stands, signed or not. `path` is what follows the host."""
        return self.session.request(method, self.url + path, timeout=30, allow_redirects=False, **more)

    # Accounts

    def new_triton(self, login: str | None = None, **more: Any) -> triton.Account:
        """An account of Triton whose key is `PAIR`, and of which this service knows nothing."""
        name = login or f"account-{next(_numbers)}"
        return self.sim.cloud.add_account(name, [f"{PAIR.public_line} own"], uuid=str(uuid.uuid4()), **more)

    def enable(self, account: triton.Account, *, login: str | None = None) -> None:
        """Put an account on the whitelist, as an operator does."""
        self.sql(WHITELIST, login=login or account.login, uuid=account.id)

    def new_account(self) -> "Caller":
        """An account that was here before: enabled, and its management key (`PAIR` too, which saves making one) is registered."""
        account = self.new_triton()
        self.db.transact(lambda made: managed_account(made, account.login, account.id, PAIR, self.sealer, key_name=KEY_NAME))
        return Caller(self, account)

    # What is to be seen

    def sql(self, statement: str, **parameters: Any) -> list[Any]:
        return sql(self.db, statement, **parameters)

    def asked(self, endpoint: str) -> int:
        """How often an endpoint of CloudAPI was asked."""
        return self.sim.cloud.counters.asked(endpoint)


class Caller:
    """Somebody with an account, who signs as the seed's curl function does."""

    def __init__(self, api: Api, account: triton.Account, *, user: str | None = None, pair: KeyPair = PAIR) -> None:
        self.api = api
        self.triton = account
        self.login = account.login
        self.pair = pair
        self.key_id = f"/{account.login}" + (f"/users/{user}" if user else "") + f"/keys/{pair.fingerprint}"
        self._names = itertools.count(1)

    @property
    def id(self) -> str:
        """The account's id here."""
        ((found,),) = self.api.sql("SELECT id::text FROM tsg_accounts WHERE triton_uuid = :uuid AND NOT archived", uuid=self.triton.id)
        return str(found)

    def __call__(
        self, method: str, path: str, body: object = None, *, data: object = None, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        """One signed request; `body` goes as JSON, `data` as it is. `path` is what follows /v1/tsg."""
        sent = {**self.signed(), **(headers or {})}
        return self.api.request(method, f"/v1/tsg{path}", json=body, data=data, headers=sent)

    def ok(self, method: str, path: str, body: object = None) -> Any:
        """One request that must succeed; the body of the answer."""
        answer = self(method, path, body)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def signed(self, date: str | None = None, *, key_id: str | None = None) -> dict[str, str]:
        """The headers of the curl function: the signature after a space, over the value of Date alone."""
        return legacy(key_id or self.key_id, date or now(), pair=self.pair)

    # What is there

    def make_template(self, **fields: Any) -> str:
        return str(self.ok("POST", "/templates", template_body(template_name=f"template-{next(self._names)}", **fields))["id"])

    def make_group(self, capacity: int = 0, **fields: Any) -> dict[str, Any]:
        template_id = fields.pop("template_id", None) or self.make_template()
        body = {"group_name": f"group-{next(self._names)}", "template_id": template_id, "capacity": capacity, **fields}
        made: dict[str, Any] = self.ok("POST", "/groups", body)
        return made

    def capacity(self, group: Mapping[str, Any]) -> int:
        return int(self.ok("GET", f"/groups/{group['id']}")["capacity"])


def template_body(**fields: Any) -> dict[str, Any]:
    return {"template_name": "template", "package": DEFAULT_PACKAGE, "image_id": DEFAULT_IMAGE, **fields}


def now(ahead: float = 0) -> str:
    """The Date of now, or of so many seconds later."""
    return format_datetime(datetime.fromtimestamp(time.time() + ahead, UTC), usegmt=True)


def sign(signed: str, *, pair: KeyPair = PAIR, digest: hashes.HashAlgorithm | None = None) -> str:
    return base64.b64encode(_private(pair).sign(signed.encode(), padding.PKCS1v15(), digest or hashes.SHA256())).decode()


@lru_cache
def _private(pair: KeyPair) -> rsa.RSAPrivateKey:
    """Reading a key takes 40 times as long as signing with it."""
    private = serialization.load_pem_private_key(pair.private_pem.encode(), password=None)
    assert isinstance(private, rsa.RSAPrivateKey)
    return private


def legacy(key_id: str, date: str, *, pair: KeyPair = PAIR) -> dict[str, str]:
    return {"Date": date, "Authorization": f'Signature keyId="{key_id}",algorithm="rsa-sha256",headers="date" {sign(date, pair=pair)}'}


def modern(key_id: str, date: str, *, pair: KeyPair = PAIR) -> dict[str, str]:
    signature = sign(f"date: {date}", pair=pair)
    return {"Date": date, "Authorization": f'Signature keyId="{key_id}",algorithm="rsa-sha256",headers="date",signature="{signature}"'}


def together(count: int, deed: Callable[[int], T]) -> list[T]:
    """The same so many times at once: all begin when the last is ready."""
    ready = threading.Barrier(count)

    def run(number: int) -> T:
        ready.wait(timeout=30)
        return deed(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def error(answer: requests.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an answer that must be this error, in the contract's form."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    assert answer.headers["Content-Type"] == JSON
    body: dict[str, Any] = answer.json()
    assert body["code"] == code
    assert body["message"]
    assert set(body) <= {"code", "message", "errors"}
    return body


def field_errors(answer: requests.Response) -> dict[str, str]:
    """The field errors of a 422, by field; the message must tell each of them too."""
    body = error(answer, 422, "InvalidArgument")
    assert all(one["message"] in body["message"] for one in body["errors"])
    return {one["field"]: one["message"] for one in body["errors"]}


def make_member(caller: Caller, group: Mapping[str, Any], *, machine_id: str = "", **columns: Any) -> str:
    """A member as a worker's pass leaves it in the rows, running for a minute; its machine's id. `columns` are further ones of its row."""
    values = {"machine_id": machine_id or str(uuid.uuid4()), "state": "running", "template_id": group["template_id"], **columns}
    names, times = ", ".join(values), ", ".join(["clock_timestamp() - interval '60 seconds'"] * 4)
    caller.api.sql(
        f"INSERT INTO tsg_instances (account_id, group_id, {names}, launched_at, state_since, ran_at, running_since)"
        f" VALUES (:owner, :group, {', '.join(f':{name}' for name in values)}, {times})",
        owner=caller.id,
        group=group["id"],
        **values,
    )
    return str(values["machine_id"])
