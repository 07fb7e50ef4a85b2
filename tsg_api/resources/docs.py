"""An OpenAPI description as one page of HTML, for a browser that reaches nothing but this service."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff }
code, pre { font: 14px/1.45 ui-monospace, monospace; overflow-wrap: anywhere }
pre { background: #f4f4f2; padding: .8rem; overflow: auto }
details { border: 1px solid #ddd; border-radius: 4px; margin: .5rem 0; padding: .4rem .8rem }
summary { cursor: pointer }
table { border-collapse: collapse; margin: .5rem 0 }
th, td { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #eee }
.method { display: inline-block; width: 4.5rem; font-weight: 600 }
.GET { color: #06652b } .POST { color: #0b4f9e } .PUT { color: #8a5200 } .DELETE { color: #a11616 }
@media (prefers-color-scheme: dark) {
  body { color: #ddd; background: #181818 } pre { background: #242424 } details, th, td { border-color: #444 }
  .GET { color: #6fd08c } .POST { color: #7db8ff } .PUT { color: #f0b35a } .DELETE { color: #ff8b8b }
}
"""

_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
#: Content-Security-Policy of the page: its own style, and nothing else at all.
POLICY = f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

Json = Mapping[str, Any]


def page(described: Json) -> str:
    """The page."""
    info, parts = described["info"], described["components"]
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f"<title>{escape(info['title'])}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(info['title'])}</h1><p>{escape(info['description'])}</p>",
            '<p>The same for programs: <a href="openapi.json">openapi.json</a> (OpenAPI 3.1).</p>',
            "<h2>Who is calling</h2>",
            *(f"<p>{escape(scheme['description'])}</p>" for scheme in parts["securitySchemes"].values()),
            "" if described["security"] else "<p><strong>Development mode: requests need no signature here.</strong></p>",
            "<h2>Requests</h2>",
            *_operations(described),
            "<h2>Bodies</h2>",
            *(f'<h3 id="{escape(name)}">{escape(name)}</h3>{_schema(schema)}' for name, schema in parts["schemas"].items()),
            "</body></html>",
        ]
    )


def _operations(described: Json) -> Iterator[str]:
    for path, item in described["paths"].items():
        for method in ("get", "post", "put", "delete"):
            if method in item:
                yield _operation(described, path, method.upper(), item[method])


def _operation(described: Json, path: str, method: str, operation: Json) -> str:
    found = [_resolved(described, parameter) for parameter in operation.get("parameters", [])]
    parameters = [(one["name"], one["in"], one["description"] + _limits(one["schema"])) for one in found]
    answers = [
        (status, _resolved(described, answer)["description"] + _shown(answer), ", ".join(_resolved(described, answer).get("headers", {})))
        for status, answer in operation["responses"].items()
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    return "".join(
        [
            f'<details id="{escape(operation["operationId"])}"><summary><span class="method {method}">{method}</span> ',
            f"<code>{escape(path)}</code> {escape(operation['summary'])}</summary>",
            f"<p>Body: {_link(body)}</p>" if body else "",
            _table(("parameter", "in", ""), parameters) if parameters else "",
            _table(("status", "", "headers"), answers),
            "</details>",
        ]
    )


def _shown(answer: Json) -> str:
    for content in answer.get("content", {}).values():
        schema = content["schema"]
        name = schema.get("$ref", schema.get("items", {}).get("$ref", "")).rpartition("/")[2]
        if name:
            return f": array of {name}" if "items" in schema else f": {name}"
    return ""


def _schema(schema: Json) -> str:
    required = schema.get("required", ())
    rows = [
        (name, _kind(field), ("required" if name in required else _default(field)) + _limits(field))
        for name, field in schema["properties"].items()
    ]
    return (f"<p>{escape(schema['description'])}</p>" if "description" in schema else "") + _table(("field", "type", ""), rows)


def _kind(field: Json) -> str:
    kinds = field.get("type", "object")
    return " or ".join([kinds] if isinstance(kinds, str) else kinds)


def _default(field: Json) -> str:
    return f"default {json.dumps(field['default'])}" if "default" in field else "sometimes"


def _limits(field: Json) -> str:
    # A format says what its pattern says.
    names = ("format", "minimum", "maximum", "minLength", "maxLength", *([] if "format" in field else ["pattern"]))
    limits = [f"{name} {field[name]}" for name in names if name in field]
    return f" ({', '.join(limits)})" if limits else ""


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{head}</th>" for head in heads) + f"</tr>{cells}</table>"


def _resolved(described: Json, part: Json) -> Json:
    if "$ref" not in part:
        return part
    found: Any = described
    for step in part["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def _link(schema: Json) -> str:
    name = escape(schema["$ref"].rpartition("/")[2])
    return f'<a href="#{name}">{name}</a>'
