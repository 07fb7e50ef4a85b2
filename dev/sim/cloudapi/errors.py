"""CloudAPI's errors: `{"code", "message"}`, with `errors` for refused fields.

CloudAPI: InvalidArgument and MissingParameter are 409, not 400 or 422.
"""

import json
from typing import Any


class ApiError(Exception):
    """An answer other than the wanted one. `code` is None where CloudAPI sends a message alone."""

    def __init__(
        self,
        status: int,
        code: str | None,
        message: str,
        errors: list[dict[str, Any]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.errors = errors
        self.headers = headers or {}

    def body(self) -> bytes:
        fields: dict[str, Any] = {"code": self.code} if self.code else {}
        fields["message"] = self.message
        if self.errors:
            fields["errors"] = self.errors
        return json.dumps(fields, separators=(",", ":")).encode()


class GoneError(ApiError):
    """CloudAPI: a 410 has no code; its body is the machine object, or its id as a JSON string."""

    def __init__(self, body: bytes) -> None:
        super().__init__(410, None, "gone")
        self._body = body

    def body(self) -> bytes:
        return self._body


def invalid_argument(message: str) -> ApiError:
    return ApiError(409, "InvalidArgument", message)


def missing_parameter(message: str) -> ApiError:
    return ApiError(409, "MissingParameter", message)


def validation_failed(message: str, field: str, code: str, detail: str | None = None) -> ApiError:
    error = {"field": field, "code": code}
    if detail is not None:
        error["message"] = detail
    return ApiError(409, "ValidationFailed", message, errors=[error])


def not_found(message: str) -> ApiError:
    return ApiError(404, "ResourceNotFound", message)


def invalid_credentials(message: str = "Invalid authorization credentials supplied") -> ApiError:
    return ApiError(401, "InvalidCredentials", message)


def not_authorized(message: str) -> ApiError:
    return ApiError(403, "NotAuthorized", message)
