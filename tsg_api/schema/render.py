"""Answers onto the wire: JSON, with the fields of `responses`."""

import json
from collections.abc import Sequence

import falcon
from pydantic_core import PydanticSerializationError
from pydantic_core import to_json as dumped

from shared.errors import FieldError
from shared.state.idempotency import Answer
from tsg_api.schema.responses import Error, Problem

JSON = "application/json; charset=utf-8"


def answer(response: falcon.Response, body: object, *, status: str = falcon.HTTP_200) -> None:
    """Answer with a JSON body."""
    response.status = status
    response.content_type = JSON
    response.data = _dumped(body)


def to_json(body: object) -> str:
    """The text of a JSON body: of a model, several, or what came as JSON itself."""
    return _dumped(body).decode()


def _dumped(body: object) -> bytes:
    try:
        return dumped(body)
    except PydanticSerializationError:
        # Half a character, which a machine's tag may hold: only an escape can say it.
        return json.dumps(body, separators=(",", ":")).encode()


def send(response: falcon.Response, given: Answer) -> None:
    """Answer to a change."""
    response.status = falcon.code_to_http_status(given.status)
    if given.body is not None:
        response.content_type = JSON
        response.text = given.body
    if given.location is not None:
        response.location = given.location
    if given.etag is not None:
        response.set_header("ETag", given.etag)


def error(response: falcon.Response, status: str, code: str, message: str, fields: Sequence[FieldError] = ()) -> None:
    """Answer with an error in CloudAPI's form."""
    answer(response, error_body(code, message, fields), status=status)


def error_body(code: str, message: str, fields: Sequence[FieldError] = ()) -> Error:
    """The body of an error."""
    return Error(code=code, message=message, errors=[Problem.model_validate(field) for field in fields])
