"""The API's description of itself: OpenAPI 3.1, with the bodies and limits of `tsg_api.schema.parse`, and a page that shows it."""

import re
from typing import Any, NamedTuple

import falcon

from shared.rules import END
from shared.spec import fields
from shared.spec.group_settings import GroupSettings
from shared.spec.policy_settings import METRIC_NAME
from shared.spec.rollout_settings import RolloutSettings
from shared.spec.settings import Settings
from shared.state.idempotency import Answer
from tsg_api.http.hooks import HOOKS
from tsg_api.http.write import HEADER as KEY
from tsg_api.http.write import REPLAYED
from tsg_api.resources import docs, groups, notifications, status, templates
from tsg_api.schema import notifications as notification_schema
from tsg_api.schema import parse, render, responses
from tsg_api.schema import policies as policy_schema

BASE = "/v1/tsg"

Json = dict[str, Any]

_UUID: Json = {"type": "string", "format": "uuid"}
_WORDS: Json = {"type": "string"}

#: Parts of paths that are no ids.
_IN_PATHS: dict[str, Json] = {
    "name": {"type": "string", "pattern": f"^{METRIC_NAME.pattern.removesuffix(END)}$"},
    "token": {"type": "string", "minLength": 1},
}

_SHOWN = (
    policy_schema.Outcome,
    policy_schema.Preview,
    policy_schema.Called,
    notification_schema.Notification,
    notification_schema.Delivery,
    responses.Verification,
    responses.Group,
    responses.Health,
    responses.Member,
    responses.CapacityChange,
    responses.PlannedChange,
    responses.Wave,
    responses.Plan,
    responses.RolloutCounts,
    responses.Rollout,
    responses.NewestRollout,
    responses.Decision,
    responses.Status,
    responses.Activity,
    responses.Problem,
    responses.Error,
)
_MACHINE: Json = {"type": "object", "description": "A machine, as CloudAPI shows it."}

_BODIES: dict[str, type[parse.Body]] = {
    "NewGroup": parse.group_body(),
    "Increment": parse.IncrementBody,
    "Decrement": parse.DecrementBody,
    "NewProtection": parse.ProtectionBody,
    "NewHealth": parse.HealthBody,
    "Adoption": parse.AdoptionBody,
    "Detachment": parse.DetachmentBody,
    "Metric": policy_schema.MetricBody,
    "NewNotification": notification_schema.NotificationBody,
    "NewRollout": parse.rollout_body(),
}

_HEADERS: dict[str, tuple[str, Json]] = {
    "X-Request-Id": ("The request's id: yours, if it had 1 to 128 of A-Z a-z 0-9 . _ -", _WORDS),
    "ETag": ("Changes with every change of the object", _WORDS),
    "Location": ("The path of the new object", _WORDS),
    "X-Resource-Count": ("How many objects the whole list has", {"type": "integer", "minimum": 0}),
    "Link": ("The next page, if there is one: <PATH>; rel=next", _WORDS),
    REPLAYED: (f"true, if this is the answer that was given to the first request with this {KEY}", _WORDS),
    "Retry-After": ("Seconds", {"type": "integer", "minimum": 1}),
    "Warning": ("The body had no capacity, which means 0: the instances are deleted", _WORDS),
    "WWW-Authenticate": ("Signature", _WORDS),
    "Accept-Encoding": ("identity: a body that is compressed is refused", _WORDS),
}
#: Not on every answer that may have them.
_SOMETIMES = {"Link", REPLAYED, "Warning"}

_PAGED = parse.query_schema(parse.Page)
_OF_ACTIVITIES = parse.query_schema(parse.ActivitiesQuery)
_PARAMETERS: dict[str, tuple[str, str, Json]] = {
    "If-Match": ("header", "Entity tags, one of which the object must have, or *: otherwise 412", _WORDS),
    "If-None-Match": ("header", "Entity tags, none of which the object may have: otherwise 304 to a GET, and 412 to a write", _WORDS),
    KEY: (
        "header",
        "Names this write: the same write with the same key within 24 hours is answered as before, and not done again",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]*$"},
    ),
    "limit": ("query", "Objects to answer with", _PAGED["limit"]),
    "marker": ("query", "The id of the last object of the page before; it may be gone by now", _PAGED["marker"]),
    "before": ("query", "The id of the last activity of the page before", _OF_ACTIVITIES["before"]),
    "status": ("query", "Those alone that ended so", _OF_ACTIVITIES["status"]),
    "kind": ("query", "Those alone of this kind", _OF_ACTIVITIES["kind"]),
    "state": ("query", "Those alone in this state", parse.query_schema(parse.DeliveriesQuery)["state"]),
    "verify": (
        "query",
        "true: ask CloudAPI first whether it could make an instance from the template; 422 with each field that is in the way",
        {"type": "boolean"},
    ),
    "dry_run": (
        "query",
        "true: nothing is changed, and the answer is the plan of what workers would do",
        {"type": "boolean"},
    ),
    "decrement": (
        "query",
        "true: the capacity falls by one, and nothing replaces the member",
        {"type": "boolean"},
    ),
    "wait": (
        "query",
        "Seconds to wait until it settles, ends or needs a change; a status with If-None-Match: until it changes. None if too many wait",
        parse.query_schema(parse.StatusQuery)["wait"],
    ),
}

_ERRORS = {
    400: "What is stored contradicts the request",
    401: "The request does not prove who sent it",
    403: "The account is not enabled for this service",
    404: "The account has no such object",
    409: "Another object is in the way",
    412: "The object is not the one that the request means",
    413: "The body is too large",
    415: "The body has a Content-Encoding",
    422: "The request is wrong: `errors` says which fields, all at once",
    429: "Too many requests",
    500: "A fault of the service; its log has the X-Request-Id",
    503: "Something that the request needs is away",
}
_SUCCESSES = {201: "Made", 202: "Taken on", 304: "What you have is the newest", 503: "Not now"}
_WITH_HEADERS = {401: ["WWW-Authenticate"], 415: ["Accept-Encoding"], 429: ["Retry-After"], 503: ["Retry-After"]}


#: Successes by status: what is shown (a schema, a type that is not JSON, or nothing), and the headers with it.
Answers = dict[int, tuple[Json | str | None, list[str]]]


class Operation(NamedTuple):
    """One thing that can be asked for."""

    method: str
    path: str
    name: str
    summary: str
    answers: Answers
    errors: tuple[int, ...] = ()
    body: str | None = None
    parameters: tuple[str, ...] = ()
    public: bool = False


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _read(path: str, name: str, summary: str, shown: str, *, tagged: bool = True, parameters: tuple[str, ...] = ()) -> Operation:
    """A GET of one object, with its entity tag if it has one."""
    answers: Answers = {200: (_ref("schemas", shown), ["ETag"] if tagged else [])}
    if not tagged:
        return Operation("GET", path, name, summary, answers, (404, 422), parameters=parameters)
    return Operation("GET", path, name, summary, answers | {304: (None, ["ETag"])}, (404, 412, 422), parameters=(*_SEEN, *parameters))


def _list(path: str, name: str, summary: str, item: Json, *, parameters: tuple[str, ...] = ("limit", "marker")) -> Operation:
    """A GET of many objects. Those of a group are 404 without it."""
    headers = ["X-Resource-Count", "Link"] if "marker" in parameters else ["Link"]
    errors = (404, 422) if "{" in path else (422,)
    return Operation("GET", path, name, summary, {200: ({"type": "array", "items": item}, headers)}, errors, parameters=parameters)


def _create(path: str, name: str, summary: str, shown: str, body: str, *, parameters: tuple[str, ...] = ()) -> Operation:
    answers: Answers = {201: (_ref("schemas", shown), ["ETag", "Location", REPLAYED])}
    errors = (409, 413, 415, 422, *([404] if "{" in path else []))
    return Operation("POST", path, name, summary, answers, errors, body, (*parameters, KEY))


def _post(path: str, name: str, summary: str, shown: str, body: str | None = None) -> Operation:
    """A POST that makes no object."""
    headers = ["ETag", REPLAYED] if body is None else []
    errors = (404, 409, 413, 415, 422, 503) if body else (404, 409, 413, 422)
    return Operation("POST", path, name, summary, {200: (_ref("schemas", shown), headers)}, errors, body, (KEY,))


def _change(
    method: str, path: str, name: str, summary: str, status: int, refusal: int | None, body: str | None = None, **more: Any
) -> Operation:
    """A PUT, POST or DELETE of what is there. `refusal` is the status of its own by which it may be refused; `more` has the answer's
    schema (`shown`, a group's), and parameters."""
    headers = [*(["ETag"] if more.get("shown") in {"Group", "Member"} else []), REPLAYED, *more.get("headers", [])]
    shown = more.get("shown")
    answers: Answers = {status: (_ref("schemas", shown), headers) if shown else (None, [REPLAYED])}
    errors = (404, 412, 413, *([415] if body else []), 422, *([refusal] if refusal else []))
    return Operation(method, path, name, summary, answers, errors, body, (*more.get("parameters", ()), *_SEEN, KEY))


def _rehearsed(operation: Operation) -> Operation:
    """One that takes `dry_run`, and is answered with a plan then."""
    shown, headers = operation.answers.get(200, (None, ["ETag"]))
    plan = _ref("schemas", "Plan")
    both: Json = plan if shown is None else {"anyOf": [shown, plan]}
    return operation._replace(answers={**operation.answers, 200: (both, headers)}, parameters=("dry_run", *operation.parameters))


def _open(path: str, name: str, summary: str, *answers: int, shown: Json | str) -> Operation:
    """A GET by anybody."""
    return Operation("GET", path, name, summary, {status: (shown, []) for status in answers}, public=True)


_STATE: Json = {"type": "object", "required": ["status"], "properties": {"status": _WORDS}}
_READY: Json = {
    "type": "object",
    "required": ["status", "checks"],
    "properties": {"status": _WORDS, "checks": {"type": "object", "additionalProperties": _WORDS}},
}
_SEEN = ("If-Match", "If-None-Match")
_TEMPLATES, _GROUPS = templates.BASE, groups.BASE
_TEMPLATE, _GROUP = f"{_TEMPLATES}/{{template_id}}", f"{_GROUPS}/{{group_id}}"
_ROLLOUT = f"{_GROUP}/rollouts/{{rollout_id}}"
_MEMBER = f"{_GROUP}/members/{{machine_id}}"
_SHOWS_GROUP: Json = {"shown": "Group", "headers": ["Warning"]}
_SHOWS_MEMBER: Json = {"shown": "Member"}
_NOTIFICATIONS = notifications.BASE
_NOTIFICATION = f"{_NOTIFICATIONS}/{{notification_id}}"
_POLICIES, _POLICY = f"{_GROUP}/policies", f"{_GROUP}/policies/{{policy_id}}"
_SHOWS_ROLLOUT: Json = {"shown": "Rollout"}
_OF_DELETED = "; of a deleted group too"

OPERATIONS = (
    _list(_TEMPLATES, "listTemplates", "The account's templates, the oldest first", _ref("schemas", "Template")),
    _create(_TEMPLATES, "createTemplate", "Make a template", "Template", "NewTemplate", parameters=("verify",)),
    _read(_TEMPLATE, "getTemplate", "One template", "Template"),
    _read(f"{_TEMPLATE}/verification", "verifyTemplate", "Could CloudAPI make an instance from it now?", "Verification", tagged=False),
    _change("DELETE", _TEMPLATE, "deleteTemplate", "Delete a template that no group uses", 204, 409),
    _list(status.BASE, "listStatuses", "How far each of the account's groups is, the oldest first", _ref("schemas", "Status")),
    _list(_GROUPS, "listGroups", "The account's groups, the oldest first", _ref("schemas", "Group")),
    _create(_GROUPS, "createGroup", "Make a group", "Group", "NewGroup"),
    _rehearsed(_change("PUT", _GROUPS, "updateGroupByName", "Change the group of this name", 200, 400, "NewGroup", **_SHOWS_GROUP)),
    _read(_GROUP, "getGroup", "One group", "Group"),
    _rehearsed(
        _change("PUT", _GROUP, "updateGroup", "Change a group's template or capacity; its name stays", 200, 400, "NewGroup", **_SHOWS_GROUP)
    ),
    _rehearsed(_change("DELETE", _GROUP, "deleteGroup", "Delete a group, and in the background its instances", 204, None)),
    _rehearsed(_change("PUT", f"{_GROUP}/increment", "incrementGroup", "Raise the capacity, up to max_instance", 202, 400, "Increment")),
    _rehearsed(_change("PUT", f"{_GROUP}/decrement", "decrementGroup", "Lower the capacity, down to min_instance", 202, 400, "Decrement")),
    _list(
        f"{_GROUP}/members", "listMembers", "The group's machines as the service knows them, the oldest first", _ref("schemas", "Member")
    ),
    _change(
        "POST", f"{_GROUP}/members", "adoptMachine", "Make a running machine of the account a member", 201, None, "Adoption", shown="Member"
    ),
    _rehearsed(_change("DELETE", _MEMBER, "removeMember", "Have a member go", 202, 400, parameters=("decrement",))),
    _change(
        "PUT",
        f"{_MEMBER}/protection",
        "protectMember",
        "Have scale-in and rollouts spare a member",
        200,
        None,
        "NewProtection",
        shown="Member",
    ),
    _change("PUT", f"{_MEMBER}/health", "voteOnMember", "Say that a member is healthy or not", 200, None, "NewHealth", **_SHOWS_MEMBER),
    _change("POST", f"{_MEMBER}/detach", "detachMember", "Forget a member; its machine stays", 204, 400, "Detachment"),
    _list(f"{_GROUP}/rollouts", "listRollouts", "The group's rollouts, the newest first", _ref("schemas", "Rollout")),
    _rehearsed(
        _change(
            *("POST", f"{_GROUP}/rollouts", "startRollout", "Bring a template to the group's members; its own: make them anew"),
            *(201, None, "NewRollout"),
            shown="Rollout",
            headers=["Location"],
        )
    ),
    _read(_ROLLOUT, "getRollout", "One rollout", "Rollout", tagged=False, parameters=("wait",)),
    _change("PUT", f"{_ROLLOUT}/pause", "pauseRollout", "Have it launch and delete nothing more for now", 200, None, **_SHOWS_ROLLOUT),
    _change("PUT", f"{_ROLLOUT}/resume", "resumeRollout", "Have it go on, past the pause of a step too", 200, None, **_SHOWS_ROLLOUT),
    _change("PUT", f"{_ROLLOUT}/cancel", "cancelRollout", "End it, and leave the members as they are", 200, None, **_SHOWS_ROLLOUT),
    _change("PUT", f"{_ROLLOUT}/rollback", "rollBack", "Bring the template before it back to the members", 200, None, **_SHOWS_ROLLOUT),
    _list(f"{_GROUP}/instances", "listInstances", "The group's machines; in pages, by their ids", _MACHINE),
    _read(
        *(f"{_GROUP}/status", "getStatus", f"How far the group is, and what it waits for{_OF_DELETED}", "Status"),
        parameters=("wait",),
    ),
    _list(
        *(f"{_GROUP}/activities", "listActivities", f"What was done for the group, or refused, the newest first{_OF_DELETED}"),
        _ref("schemas", "Activity"),
        parameters=("limit", "before", "status", "kind"),
    ),
    _list(_POLICIES, "listPolicies", "The group's policies, the oldest first", _ref("schemas", "Policy"), parameters=()),
    _create(_POLICIES, "createPolicy", "Give the group a policy; the answer has the URL of a webhook, once", "Policy", "NewPolicy"),
    _post(f"{_POLICIES}/preview", "previewPolicy", "What a policy would decide now, and when it comes next", "Preview", "NewPolicy"),
    _read(_POLICY, "getPolicy", "One policy", "Policy"),
    _change("PUT", _POLICY, "updatePolicy", "Change a policy; its kind stays", 200, 409, "NewPolicy", shown="Policy"),
    _change("DELETE", _POLICY, "deletePolicy", "Delete a policy; its decisions stay", 204, None),
    _post(f"{_POLICY}/rotate", "rotateWebhook", "Give a webhook another URL: the old one is nobody's at once", "Policy"),
    _list(
        *(f"{_POLICY}/decisions", "listDecisionsOfPolicy", "What was decided about the policy, and why, the newest first"),
        _ref("schemas", "Decision"),
        parameters=("limit", "before"),
    ),
    _list(
        *(f"{_GROUP}/decisions", "listDecisions", f"What was decided by policies, and why, the newest first{_OF_DELETED}"),
        _ref("schemas", "Decision"),
        parameters=("limit", "before"),
    ),
    Operation(
        *("PUT", f"{_GROUP}/metrics/{{name}}", "pushMetric", "Push a value, which policies measure for an hour at most"),
        {204: (None, [])},
        (404, 409, 413, 415, 422, 503),
        "Metric",
    ),
    Operation(
        *("POST", f"{HOOKS}/{{token}}", "callWebhook", "Call a webhook; the answer is the same whatever comes of it"),
        {202: (_ref("schemas", "Called"), [])},
        (413, 503),
        public=True,
    ),
    _list(_NOTIFICATIONS, "listNotifications", "Where activities are told", _ref("schemas", "Notification"), parameters=()),
    _create(_NOTIFICATIONS, "createNotification", "Have activities told; the answer has the secret", "Notification", "NewNotification"),
    _read(_NOTIFICATION, "getNotification", "One notification", "Notification"),
    _change("PUT", _NOTIFICATION, "updateNotification", "Change a notification", 200, None, "NewNotification", shown="Notification"),
    _change("DELETE", _NOTIFICATION, "deleteNotification", "Delete a notification, and its deliveries", 204, None),
    _post(f"{_NOTIFICATION}/rotate", "rotateSecret", "Another secret; the one before signs for a day beside it", "Notification"),
    _list(
        *(f"{_NOTIFICATION}/deliveries", "listDeliveries", "What was sent, or is to be, the newest first"),
        _ref("schemas", "Delivery"),
        parameters=("limit", "before", "state"),
    ),
    Operation(
        *("POST", f"{_NOTIFICATION}/deliveries/{{delivery_id}}/replay", "replayDelivery", "Send it once more"),
        {202: (None, [REPLAYED])},
        (404, 409, 413, 422),
        parameters=(KEY,),
    ),
    _open("/healthz", "isAlive", "Does the process answer?", 200, shown=_STATE),
    _open("/readyz", "isReady", "Is all there that requests need? 503: send them elsewhere", 200, 503, shown=_READY),
    _open(f"{BASE}/openapi.json", "getDescription", "This description", 200, shown={"type": "object"}),
    _open(f"{BASE}/docs", "getPage", "This description as a page", 200, shown="text/html"),
)


def document(*, max_capacity: int, signed: bool) -> Json:
    """The whole description. `signed`: requests must be, which they need not in development mode."""
    new_template = parse.schema(parse.template_body(), max_capacity=max_capacity)
    schemas = {"Template": _template(new_template)} | {model.__name__: parse.shown_schema(model) for model in _SHOWN}
    schemas |= {"NewTemplate": new_template}
    schemas |= {name: parse.schema(model, max_capacity=max_capacity) for name, model in _BODIES.items()}
    schemas |= _policies(max_capacity)
    _add_settings(schemas["Group"], schemas["NewGroup"], GroupSettings)
    _add_settings(schemas["Rollout"], schemas["NewRollout"], RolloutSettings)
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, _path(operation.path))[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Triton Service Groups",
            "version": "1",
            "license": {"name": "MPL-2.0", "identifier": "MPL-2.0"},
            "description": "Keeps groups of Triton instances at the size their owner asked for. Fields that are not known are ignored;"
            " numbers are integers without a decimal point. HEAD is answered wherever GET is.",
        },
        "security": [{"signature": []}] if signed else [],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": {
                name: {"name": name, "in": where, "description": text, "schema": schema}
                for name, (where, text, schema) in _PARAMETERS.items()
            },
            "headers": {
                name: {"description": text, "schema": schema, "required": name not in _SOMETIMES}
                for name, (text, schema) in _HEADERS.items()
            },
            "responses": {str(status): _error(status, text) for status, text in _ERRORS.items()},
            "securitySchemes": {
                "signature": {
                    "type": "http",
                    "scheme": "signature",
                    "description": 'Authorization: Signature keyId="/ACCOUNT/keys/FINGERPRINT",algorithm="rsa-sha256",headers="date"'
                    " BASE64, where BASE64 is the signature of the Date header's value by a key of the account; or draft-cavage's form"
                    ' of it, with signature="BASE64" over lines of NAME: VALUE. The Date may be 300 seconds off.',
                }
            },
        },
    }


def _template(new: Json) -> Json:
    """A template as it is shown. Fields of 2018 may hold what a person wrote into the database; others are there where they were given."""
    given = {name: {key: part for key, part in one.items() if key != "default"} for name, one in new["properties"].items()}
    of_2018 = {
        field.name: {"type": given[field.name]["type"], "description": field.words} for field in fields.FIELDS if field.column is not None
    }
    for field in fields.FIELDS:
        if field.default is not None or field.column is None:
            _not_null((of_2018 if field.column else given)[field.name])
    always = {"id": _UUID, "template_name": _WORDS, **of_2018, "created_at": {"type": "string", "format": "date-time"}}
    more = {name: one for name, one in given.items() if name not in always}
    return {
        "type": "object",
        "description": "A template. Of the fields that 2018 did not know it has those that were given.",
        "required": list(always),
        "properties": {**always, **more},
    }


def _add_settings(shown: Json, new: Json, settings: type[Settings]) -> None:
    """They are there unless another release wrote them, and null is only what is the default of one."""
    for name, setting in settings.model_fields.items():
        field = {key: part for key, part in new["properties"][name].items() if key != "default"}
        if setting.default is not None or name == "max_capacity":
            _not_null(field)
        shown["properties"][name] = field


def _policies(max_capacity: int) -> Json:
    """A policy as it is sent, with the fields of all kinds; and as it is shown, with those of its own."""
    kinds = [parse.schema(model, max_capacity=max_capacity) for model in policy_schema.OF_KIND.values()]
    fields_of_all = {name: one for kind in kinds for name, one in kind["properties"].items()}
    words = " ".join(f"{name}: {kind['description']}" for name, kind in zip(policy_schema.OF_KIND, kinds, strict=True))
    common = ["policy_name", "kind", "mode", "cooldown"]
    moment = {"type": "string", "format": "date-time"}
    shown = {name: {key: part for key, part in one.items() if key != "default"} for name, one in fields_of_all.items()}
    for one in shown.values():
        if isinstance(one.get("type"), list):
            _not_null(one)
    state: Json = {"out_until": {**moment, "type": ["string", "null"]}, "in_until": {**moment, "type": ["string", "null"]}}
    state |= {"failures": {"type": "integer", "minimum": 0}, "created_at": moment, "updated_at": moment}
    return {
        "NewPolicy": {"type": "object", "description": words, "required": ["policy_name", "kind"], "properties": fields_of_all},
        "Policy": {
            "type": "object",
            "description": "A policy, with the fields of its kind. webhook_url is there once: when the URL is made.",
            "required": ["id", *common, *state],
            "properties": {"id": _UUID, **shown, **state, "webhook_url": _WORDS},
        },
    }


def _not_null(field: Json) -> None:
    kinds = [kind for kind in field["type"] if kind != "null"]
    field["type"] = kinds[0] if len(kinds) == 1 else kinds
    if "enum" in field:
        field["enum"] = [word for word in field["enum"] if word is not None]


def _path(path: str) -> Json:
    names = re.findall(r"{(\w+)}", path)
    told = [{"name": name, "in": "path", "required": True, "schema": _IN_PATHS.get(name, _UUID)} for name in names]
    return {"parameters": told} if told else {}


def _operation(operation: Operation) -> Json:
    errors = (429, 500) if operation.public else (*operation.errors, 401, 403, 409, 429, 500, 503)
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            **{
                str(status): _answer(shown, headers, _SUCCESSES.get(status, "Done"))
                for status, (shown, headers) in operation.answers.items()
            },
            **{str(status): _ref("responses", str(status)) for status in sorted(errors)},
        },
    }
    if operation.public:
        described["security"] = []
    if operation.parameters:
        described["parameters"] = [_ref("parameters", name) for name in operation.parameters]
    if operation.body:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref("schemas", operation.body)}}}
    return described


def _answer(shown: Json | str | None, headers: list[str], text: str) -> Json:
    described: Json = {"description": text, "headers": {name: _ref("headers", name) for name in ["X-Request-Id", *headers]}}
    if isinstance(shown, str):
        described["content"] = {shown: {"schema": {"type": "string"}}}
    elif shown is not None:
        described["content"] = {render.JSON: {"schema": shown}}
    return described


def _error(status: int, text: str) -> Json:
    headers = {name: _ref("headers", name) for name in ["X-Request-Id", *_WITH_HEADERS.get(status, [])]}
    return {"description": text, "headers": headers, "content": {render.JSON: {"schema": _ref("schemas", "Error")}}}


class Description:
    """`/v1/tsg/openapi.json`"""

    public = True

    def __init__(self, described: Json) -> None:
        self._answer = Answer(200, render.to_json(described))

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        render.send(resp, self._answer)


class Page:
    """`/v1/tsg/docs`: nothing in it comes from anywhere else, and nothing in it runs."""

    public = True

    def __init__(self, described: Json) -> None:
        self._page = docs.page(described)

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("Content-Security-Policy", docs.POLICY)
        resp.set_header("X-Content-Type-Options", "nosniff")
        resp.text = self._page
