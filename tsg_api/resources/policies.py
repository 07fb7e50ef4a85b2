"""Policies of a group over HTTP, their decisions, the metrics that its owner pushes, and the calls of webhooks."""

import hashlib
import math
import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice

import falcon
import redis
from sqlalchemy import Connection

from shared import metrics
from shared.clients.cloudapi import CloudAPIError
from shared.clients.pushed import TooManyNames
from shared.errors import Conflict, FieldError, Invalid
from shared.policies.decide import decide
from shared.policies.seen import Bounds, Call, Members, Seen
from shared.policies.verdict import Verdict
from shared.spec import times
from shared.spec.policy import Policy as PurePolicy
from shared.spec.policy import Progress
from shared.spec.policy_settings import METRIC_NAME, OFF, ScheduleSettings, Settings, StepSettings, TargetSettings
from shared.state import decisions, groups, policies, status, templates
from shared.state.accounts import Account
from shared.state.changes import Asker
from shared.state.decisions import BY
from shared.state.idempotency import Answer
from shared.state.policies import Scaled, Stored
from shared.store.paging import Entry
from tsg_api.http import etag, paging, write
from tsg_api.http.body import read_raw
from tsg_api.http.errors import TooMany, Unavailable
from tsg_api.http.hooks import HOOKS
from tsg_api.http.limits import Buckets
from tsg_api.http.service import Service, found_id, read_body, read_text
from tsg_api.resources.verification import makes_virtual_machines
from tsg_api.schema import parse, render, responses
from tsg_api.schema import policies as schema
from tsg_api.schema.parse import DecisionsQuery

#: Decisions in an answer whose request does not say.
PAGE = 100
#: Times of a schedule in a preview, and seconds for which it waits for a measure.
NEXT, PATIENCE = 10, 5.0
#: Why CMON is not asked for the memory of hardware virtual machines.
HIDDEN_MEMORY = (
    "metric.measure cannot be memory: the group's template makes hardware virtual machines, and CMON sees the hypervisor's memory;"
    " push a value from inside them, or query Prometheus"
)
#: Bytes of a webhook's token; of a call's body; and characters of the name of a delivery.
TOKEN_BYTES, CALL_BYTES, MAX_KEY = 32, 65_536, 255
#: Calls a second of one token that are noted, and some seconds' worth at once; others are answered alike, and lead to nothing.
CALL_RATE = 2.0
#: Seconds: no call is answered earlier, so that the time says nothing of whether there is such a token.
CALL_SECONDS = 0.02


class _Resource:
    def __init__(self, service: Service) -> None:
        self._service = service

    def _group(self, req: falcon.Request, group_id: str) -> groups.Group:
        with self._service.db.read() as connection:
            return groups.get(connection, req.context.account.id, found_id("group", group_id))

    def _settings(self, req: falcon.Request, group: groups.Group) -> Settings:
        """The policy in the body, of a source that there is, and that can measure this group."""
        settings = schema.body(read_text(req, self._service), max_capacity=self._service.max_capacity)
        if isinstance(settings, TargetSettings | StepSettings):
            account, source = req.context.account, settings.metric.source
            if refused := self._service.gatherer.refusal(source, account.name, account.triton_uuid):
                raise Invalid([FieldError("metric.source", f"metric.source {source} {refused}")])
            if (source, settings.metric.measure) == ("cmon", "memory") and self._has_hidden_memory(account, group):
                raise Invalid([FieldError("metric.measure", HIDDEN_MEMORY)])
        return settings

    def _has_hidden_memory(self, account: Account, group: groups.Group) -> bool:
        """Are its members hardware virtual machines? While CloudAPI can't say so, the measure is missing, and the decision says why."""
        with self._service.db.read() as connection:
            spec = templates.get(connection, account.id, group.template_id).spec
        with suppress(CloudAPIError, Unavailable):
            return makes_virtual_machines(self._service, account, spec)
        return False

    def _url(self, req: falcon.Request, token: str) -> str:
        return f"{self._service.public_url.rstrip('/') or req.forwarded_prefix}{HOOKS}/{token}"

    def _change(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        work: Callable[[Connection], Stored],
        answer: Callable[[Stored], Answer],
    ) -> Stored | None:
        """Make a change, and have it looked at. None when it was made before, under its Idempotency-Key."""
        made = write.change(self._service.db, req, resp, work, answer)
        if made is not None:
            self._service.wake_policies(made.group_id)
        return made

    def _show_url(self, req: falcon.Request, resp: falcon.Response, stored: Stored, token: str) -> None:
        """Once, and in no row: the answer that is kept for a repetition has no URL."""
        resp.text = render.to_json({**schema.shown(stored), "webhook_url": self._url(req, token)})


class Policies(_Resource):
    """`/v1/tsg/groups/<id>/policies`"""

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        group = self._group(req, group_id)
        with self._service.db.read() as connection:
            found = policies.list_of_group(connection, group.id)
        resp.set_header("X-Resource-Count", str(len(found)))
        render.answer(resp, [schema.shown(one) for one in found])

    def on_post(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        group = self._group(req, group_id)
        settings = self._settings(req, group)
        token = secrets.token_urlsafe(TOKEN_BYTES) if settings.kind == "webhook" else None
        token_hash = hash_of(token) if token else None

        def work(connection: Connection) -> Stored:
            return policies.insert_policy(connection, _asker(req, group), settings, token_hash=token_hash)

        def answer(stored: Stored) -> Answer:
            return _shown(stored, 201)._replace(location=f"{req.path}/{stored.id}")

        made = self._change(req, resp, work, answer)
        if made and token:
            self._show_url(req, resp, made, token)


class Policy(_Resource):
    """`/v1/tsg/groups/<id>/policies/<id>`"""

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str, policy_id: str) -> None:
        group = self._group(req, group_id)
        with self._service.db.read() as connection:
            found = policies.get(connection, group.id, found_id("policy", policy_id))
        etag.answer(req, resp, found, etag.of_policy(found), schema.shown)

    def on_put(self, req: falcon.Request, resp: falcon.Response, group_id: str, policy_id: str) -> None:
        group, wanted = self._group(req, group_id), found_id("policy", policy_id)
        settings, expected = self._settings(req, group), etag.asked(req)

        def work(connection: Connection) -> Stored:
            groups.get_locked(connection, req.context.account.id, group.id)
            current = policies.get(connection, group.id, wanted)
            if expected:
                expected.check(etag.of_policy(current))
            return policies.update_policy(connection, _asker(req, group), wanted, settings)

        self._change(req, resp, work, lambda stored: _shown(stored, 200))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, group_id: str, policy_id: str) -> None:
        group, wanted, expected = self._group(req, group_id), found_id("policy", policy_id), etag.asked(req)

        def work(connection: Connection) -> Stored:
            groups.get_locked(connection, req.context.account.id, group.id)
            current = policies.get(connection, group.id, wanted)
            if expected:
                expected.check(etag.of_policy(current))
            policies.delete_policy(connection, _asker(req, group), wanted)
            return current

        self._change(req, resp, work, lambda _stored: Answer(204))


class Rotate(_Resource):
    """`/v1/tsg/groups/<id>/policies/<id>/rotate`"""

    def on_post(self, req: falcon.Request, resp: falcon.Response, group_id: str, policy_id: str) -> None:
        group, wanted = self._group(req, group_id), found_id("policy", policy_id)
        token = secrets.token_urlsafe(TOKEN_BYTES)

        def work(connection: Connection) -> Stored:
            return policies.mark_rotated(connection, _asker(req, group), wanted, hash_of(token))

        made = self._change(req, resp, work, lambda stored: _shown(stored, 200))
        if made:
            self._show_url(req, resp, made, token)


class Preview(_Resource):
    """`/v1/tsg/groups/<id>/policies/preview`"""

    def on_post(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        group = self._group(req, group_id)
        settings = self._settings(req, group)
        with self._service.db.read() as connection:
            scaled = policies.find_scaled(connection, group.id)
        assert scaled is not None  # noqa: S101 - for the type checker
        policy = PurePolicy(str(uuid.uuid4()), settings, Progress(ran_until=scaled.now))
        outcomes = [_outcome(settings, verdict) for verdict in self._verdicts(req, scaled, policy)]
        coming = islice(times.upcoming(settings.schedule.when, scaled.now), NEXT) if isinstance(settings, ScheduleSettings) else ()
        render.answer(resp, schema.Preview.model_validate({"outcomes": outcomes, "next": list(coming)}))

    def _verdicts(self, req: falcon.Request, group: Scaled, policy: PurePolicy) -> Sequence[Verdict]:
        if policy.mode == OFF:
            return ()
        with self._service.slots.machines.of_cloudapi(req.context.account.id):
            measures = self._service.gatherer.measure(group, [policy], patience=PATIENCE)
        own = group.settings
        most = self._service.max_capacity if own.max_capacity is None else min(own.max_capacity, self._service.max_capacity)
        bounds = Bounds(group.capacity, min(own.min_capacity, most), most, group.is_suspended)
        members = Members(group.available, max(0, group.capacity - group.available))
        calls = (Call(policy.id, policy.id),) if policy.settings.kind == "webhook" else ()
        return decide([policy], Seen(bounds, members, measures or {}, calls), group.now).verdicts


class Decisions(_Resource):
    """`/v1/tsg/groups/<id>/decisions`, of all policies, the deleted ones too"""

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str) -> None:
        wanted = found_id("group", group_id)
        with self._service.db.read() as connection:
            status.get(connection, req.context.account.id, wanted)
        self._list(req, resp, wanted, None)

    def _list(self, req: falcon.Request, resp: falcon.Response, group_id: str, policy_id: str | None) -> None:
        asked = parse.query(DecisionsQuery, req.params)
        most = asked.limit or PAGE
        with self._service.db.read() as connection:
            found = decisions.list_newest(connection, group_id, limit=most + 1, before=asked.before, policy_id=policy_id)
        if len(found) > most:
            paging.link_next(req, resp, before=found[most - 1].id)
        by_id = {one.id: one for one in found[:most]}
        entries = [Entry(one, len(by_id[one].message)) for one in by_id]

        def read(ids: Sequence[str]) -> list[object]:
            return [responses.Decision.model_validate(by_id[one]) for one in ids]

        paging.send(req, resp, entries, read, self._service.slots.lists)


class PolicyDecisions(Decisions):
    """`/v1/tsg/groups/<id>/policies/<id>/decisions`"""

    def on_get(self, req: falcon.Request, resp: falcon.Response, group_id: str, policy_id: str) -> None:  # type: ignore[override]
        group, wanted = self._group(req, group_id), found_id("policy", policy_id)
        with self._service.db.read() as connection:
            policies.get(connection, group.id, wanted)
        self._list(req, resp, group.id, wanted)


class Metric(_Resource):
    """`/v1/tsg/groups/<id>/metrics/<name>`"""

    def on_put(self, req: falcon.Request, resp: falcon.Response, group_id: str, name: str) -> None:
        group = self._group(req, group_id)
        if not METRIC_NAME.match(name):
            raise Invalid([FieldError("name", "name must begin with a letter or '_', and hold up to 64 letters, digits and '_ . : -'")])
        body = read_body(req, schema.MetricBody, self._service)
        try:
            self._service.pushed.put(group.id, name, body.value, member=(body.member or "").lower())
        except TooManyNames as error:
            raise Conflict(f"{str(error).capitalize()}.") from None
        except redis.RedisError:
            raise Unavailable("Redis, which keeps metrics, is out of reach; try again.") from None
        resp.status = falcon.HTTP_204


class Hook(_Resource):
    """`/v1/tsg/hooks/<token>`: the token is all that a call needs. What comes of it is in the group's decisions."""

    public = True

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._buckets = Buckets(CALL_RATE)

    def on_post(self, req: falcon.Request, resp: falcon.Response, token: str) -> None:
        began = time.monotonic()
        read_raw(req, CALL_BYTES)
        call_id, token_hash = str(uuid.uuid4()), hash_of(token)
        key = req.get_header("Idempotency-Key") or req.get_header("webhook-id")
        metrics.hook_calls.labels(self._note(token_hash, call_id, key)).inc()
        render.answer(resp, schema.Called(decision_id=call_id), status=falcon.HTTP_202)
        time.sleep(max(0.0, math.ceil((time.monotonic() - began) / CALL_SECONDS) * CALL_SECONDS - (time.monotonic() - began)))

    def _note(self, token_hash: str, call_id: str, key: str | None) -> str:
        try:
            self._buckets.take(token_hash)
        except TooMany:
            return "too_many"
        key = key[:MAX_KEY] if key else None
        group_id = self._service.db.transact(lambda connection: policies.insert_call(connection, token_hash, call_id=call_id, key=key))
        if group_id is None:
            return "unknown"
        self._service.wake_policies(group_id)
        return "noted"


def hash_of(token: str) -> str:
    """How a token is stored: it has 256 bits of chance, so that nothing slower is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _asker(req: falcon.Request, group: groups.Group) -> Asker:
    return Asker(req.context.account.id, group.id, req.context.request_id)


def _shown(stored: Stored, status_code: int) -> Answer:
    return Answer(status_code, render.to_json(schema.shown(stored)), etag=etag.of_policy(stored))


def _outcome(settings: Settings, verdict: Verdict) -> dict[str, object]:
    return {
        "result": str(verdict.result),
        "by": BY[settings.kind],
        "message": verdict.message,
        "value": verdict.value.value if verdict.value else None,
        "target": verdict.target,
        "recommended": verdict.recommended,
        "capacity_before": verdict.before,
        "capacity_after": verdict.after,
        "next_at": verdict.next_at,
    }
