"""What each endpoint answers: Nomad's JSON with its keys in order, or a plain text about what is wrong."""

from __future__ import annotations

import base64
import json
from typing import Any, ClassVar

import falcon

from dev.sim.common.wanted import is_uuid
from dev.sim.nomad.cluster import Cluster
from dev.sim.nomad.errors import bad_request, error_list, failed, no_leader, not_found
from dev.sim.nomad.shape import go_name, read_job

ERROR_TYPE = "text/plain; charset=utf-8"

_TRUE = frozenset(["1", "t", "T", "TRUE", "true", "True"])
_FALSE = frozenset(["0", "f", "F", "FALSE", "false", "False"])

Req = falcon.Request
Resp = falcon.Response


class Endpoint:
    """A Falcon resource that the knobs and the token concern: `class Leader(Endpoint, name="Leader")`."""

    name = ""
    open = False  #: wants no token, and sees for itself whether there is a leader

    def __init_subclass__(cls, name: str = "") -> None:
        cls.name = name

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def endpoint(self, _req: Req, _path: dict[str, str]) -> str:
        """What knobs and counters call it."""
        return self.name

    def answer_read(self, resp: Resp, body: Any) -> None:
        resp.set_headers({"X-Nomad-Index": str(self.cluster.index), "X-Nomad-KnownLeader": "true", "X-Nomad-LastContact": "0"})
        answer(resp, body)

    def answer_write(self, resp: Resp, body: dict[str, Any]) -> None:
        resp.set_header("X-Nomad-Index", str(body["Index"]))
        answer(resp, body)


class Validate(Endpoint, name="ValidateJob"):
    """Nomad: 200 for an invalid job too."""

    def on_put(self, req: Req, resp: Resp) -> None:
        spec = _read_spec(req, "JobValidateRequest")[1]
        errors = self.cluster.validate(spec)
        answer(
            resp,
            {
                "DriverConfigValidated": True,
                "Error": error_list(errors) if errors else "",
                "ValidationErrors": errors or None,
                "Warnings": "",
            },
        )

    on_post = on_put


class Jobs(Endpoint):
    def endpoint(self, req: Req, _path: dict[str, str]) -> str:
        return "ListJobs" if req.method == "GET" else "RegisterJob"

    def on_get(self, req: Req, resp: Resp) -> None:
        _check_region(req)
        known = req.get_param("namespace") in (None, "", "default", "*")
        self.answer_read(resp, self.cluster.list_jobs(req.get_param("prefix") or "") if known else [])

    def on_put(self, req: Req, resp: Resp) -> None:
        self.answer_write(resp, _register(self.cluster, req, None))

    on_post = on_put


class JobResource(Endpoint):
    """`/v1/job/ID`, and what hangs below it. An id may hold slashes, encoded or not: the end of the path decides, as in Nomad."""

    BELOW = (
        ("/periodic/force", "ForceJob", ("PUT", "POST")),
        ("/allocations", "ListAllocations", ("GET",)),
        ("/evaluations", "ListEvaluations", ("GET",)),
        ("/plan", "PlanJob", ("PUT", "POST")),
    )
    OWN: ClassVar[dict[str, str]] = {"GET": "ReadJob", "PUT": "RegisterJob", "POST": "RegisterJob", "DELETE": "DeregisterJob"}

    def endpoint(self, req: Req, path: dict[str, str]) -> str:
        """Raises HTTPMethodNotAllowed."""
        for suffix, name, methods in self.BELOW:
            if path["path"].endswith(suffix):
                if req.method not in methods:
                    raise falcon.HTTPMethodNotAllowed(methods)
                return name
        return self.OWN.get(req.method, "ReadJob")

    def _job_id(self, path: str) -> str:
        return next((path.removesuffix(suffix) for suffix, _, _ in self.BELOW if path.endswith(suffix)), path)

    def on_get(self, req: Req, resp: Resp, path: str) -> None:
        _check_region(req)
        job_id = self._job_id(path)
        known = req.get_param("namespace") in (None, "", "default")
        if req.context.endpoint == "ListAllocations":
            self.answer_read(resp, self.cluster.list_allocations(job_id) if known else [])
        elif req.context.endpoint == "ListEvaluations":
            self.answer_read(resp, self.cluster.list_evals(job_id) if known else [])
        else:
            self.answer_read(resp, None)
            job = self.cluster.read_job(job_id) if known else None
            if job is None:
                raise not_found("job not found")
            answer(resp, job)

    def on_put(self, req: Req, resp: Resp, path: str) -> None:
        job_id = self._job_id(path)
        if req.context.endpoint == "ForceJob":
            self.answer_write(resp, self.cluster.force(job_id))
        elif req.context.endpoint == "PlanJob":
            request, spec = _read_spec(req, "JobPlanRequest", needs_id="Job must have a valid ID")
            if spec["ID"] != job_id:
                raise bad_request("Job ID does not match")
            self.answer_write(resp, self.cluster.plan(spec, with_diff=request.get("Diff") is True))
        else:
            self.answer_write(resp, _register(self.cluster, req, job_id))

    on_post = on_put

    def on_delete(self, req: Req, resp: Resp, path: str) -> None:
        purge = _read_flag(req, "purge", failed)
        self.answer_write(resp, self.cluster.deregister(path, purge=purge))


class AllocationResource(Endpoint, name="ReadAllocation"):
    def on_get(self, _req: Req, resp: Resp, allocation: str) -> None:
        _check_uuid(allocation)
        found = self.cluster.allocations.get(allocation)
        self.answer_read(resp, None)
        if found is None:
            raise not_found("alloc not found")
        answer(resp, found.to_json() | {"Job": found.job})


class Logs(Endpoint, name="ReadLogs"):
    """Nomad: `plain` sends the text itself, else it comes in base64 frames. `follow` is not simulated."""

    def on_get(self, req: Req, resp: Resp, allocation: str) -> None:
        task, kind = req.get_param("task"), req.get_param("type")
        if not task:
            raise bad_request("must provide task name")
        plain = _read_flag(req, "plain", bad_request)
        if kind not in ("stdout", "stderr"):
            raise bad_request("must provide log type (stdout/stderr)")
        offset = _read_offset(req)
        _check_uuid(allocation)
        found = self.cluster.allocations.get(allocation)
        if found is None:
            raise not_found(f'Unknown allocation "{allocation}"')
        if task not in found.tasks:
            raise bad_request(f'unknown task name "{task}"')
        path = found.log(task, kind)
        if found.tasks[task].started_at is None or not path.exists():
            raise not_found(f'task "{task}" not started yet. No logs available')
        text = path.read_bytes()
        start = max(len(text) - offset, 0) if req.get_param("origin") == "end" else offset
        if plain:
            resp.data, resp.content_type = text[start:], "text/plain"
        else:
            frame = {"Data": base64.b64encode(text[start:]).decode(), "File": f"alloc/logs/{path.name}", "Offset": len(text)}
            answer(resp, frame if text[start:] else {})


class Leader(Endpoint, name="Leader"):
    open = True

    def on_get(self, _req: Req, resp: Resp) -> None:
        if self.cluster.knobs.no_leader:
            raise no_leader()
        answer(resp, "127.0.0.1:4647")


class Health(Endpoint, name="Health"):
    open = True

    def on_get(self, _req: Req, resp: Resp) -> None:
        leaderless = self.cluster.knobs.no_leader
        server = {"message": no_leader().message if leaderless else "ok", "ok": not leaderless}
        health = {"client": {"message": "ok", "ok": True}, "server": server}
        if leaderless:
            raise failed(_dump(health))
        answer(resp, health)


def answer(resp: Resp, body: Any) -> None:
    resp.data = _dump(body).encode()
    resp.content_type = falcon.MEDIA_JSON


def _dump(body: Any) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _register(cluster: Cluster, req: Req, job_id: str | None) -> dict[str, Any]:
    request, spec = _read_spec(req, "JobRegisterRequest", needs_id="Job ID hasn't been provided")
    if job_id is not None and spec["ID"] != job_id:
        raise bad_request("Job ID does not match name")
    return cluster.register(spec, request.get("JobModifyIndex") or 0 if request.get("EnforceIndex") else None)


# Reading a request

_GO_WORDS = {
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after array element or object key:value pair",
}


def _read_spec(req: Req, wanted: str, needs_id: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The whole request and its job, with every default filled in. Raises Refusal."""
    request = _read_json(req)
    if not isinstance(request, dict):
        raise bad_request(f"json: cannot unmarshal {go_name(request)} into Go value of type api.{wanted}")
    job = request.get("Job")
    if job is None:
        raise bad_request("Job must be specified")
    if not isinstance(job, dict):
        raise bad_request(f"json: cannot unmarshal {go_name(job)} into Go struct field {wanted}.Job of type api.Job")
    spec = read_job(job)
    if needs_id and job.get("ID") is None:
        raise bad_request(needs_id)
    return request, spec


def _read_json(req: Req) -> Any:
    text = req.bounded_stream.read().decode("utf-8", "replace").lstrip()
    if not text:
        raise bad_request("EOF" if req.content_length else "Request body is empty")
    try:
        return json.JSONDecoder().raw_decode(text)[0]  # Nomad: what follows the first value is not looked at
    except json.JSONDecodeError as error:
        if error.pos >= len(text):
            raise bad_request("unexpected EOF") from None
        words = _GO_WORDS.get(error.msg, "looking for beginning of value")
        raise bad_request(f"invalid character '{text[error.pos]}' {words}") from None


def _read_flag(req: Req, name: str, refusal: Any) -> bool:
    text = req.get_param(name) or "false"
    if text not in _TRUE | _FALSE:
        why = f'strconv.ParseBool: parsing "{text}": invalid syntax'
        raise refusal(
            f'Failed to parse value of "{name}" ({text}) as a bool: {why}'
            if name == "purge"
            else f"failed to parse {name} field to boolean: {why}"
        )
    return text in _TRUE


def _read_offset(req: Req) -> int:
    text = req.get_param("offset") or "0"
    if not text.isdigit():
        raise bad_request(f'error parsing offset: strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _check_region(req: Req) -> None:
    if req.get_param("region") not in (None, "", "global"):
        raise failed("No path to region")


def _check_uuid(text: str) -> None:
    if not is_uuid(text):
        raise failed("alloc lookup failed: index error: UUID must be 36 characters")
