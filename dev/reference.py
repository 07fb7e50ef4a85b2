"""What the pages in docs/ have from the code. A test holds the two together.

docs/configuration.md is made of the settings (shared/runtime/settings.py), the table in docs/templates.md of the fields of a template
(shared/spec/fields.py), that in docs/autoscaling.md of the fields of policies (shared/spec/policy_settings.py), and those in
docs/rollouts.md of the settings of groups and rollouts (shared/spec/group_settings.py, shared/spec/rollout_settings.py).
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from dev.processes import TOP
from shared.runtime import settings
from shared.runtime.settings import Declared
from shared.spec import policy_settings
from shared.spec.fields import FIELDS
from shared.spec.group_settings import GroupSettings, Update
from shared.spec.rollout_settings import Amount, RolloutSettings
from shared.spec.settings import Settings as ObjectSettings

PAGE = TOP / "docs" / "configuration.md"
TEMPLATES = TOP / "docs" / "templates.md"
#: The lines around the table in that page.
BEGIN, END = "<!-- Made by dev/docs of shared/spec/fields.py: change it there. -->", "<!-- The end of what is made. -->"

AUTOSCALING = TOP / "docs" / "autoscaling.md"
BEGIN_POLICIES = "<!-- Made by dev/docs of shared/spec/policy_settings.py: change it there. -->"

ROLLOUTS = TOP / "docs" / "rollouts.md"
BEGIN_ROLLOUTS = "<!-- Made by dev/docs of shared/spec/group_settings.py and rollout_settings.py: change it there. -->"

INTRODUCTION = """\
# Configuration

<!-- Made by dev/docs of shared/runtime/settings.py: change it there. -->

All programs of the service read the same settings. A program looks for a value among its flags, then in the environment, then in the file
that `--config FILE` names, then among the defaults. It names all wrong values at once, by variable, and does not start (exit code 2).

The file is TOML; a file of the 2018 service works unchanged. The tables below have the keys. The variable's name without `TSG_` works too,
with its first word as the section: `TSG_MAX_CAPACITY` is also `[max] capacity`.

```toml
scaler = "worker"

[log]
level = "INFO"

[database]
url = "postgresql://tsg@db.example.com/tsg"

[http]
port = 3000
max-body = 100000
```

An unknown key is an error; an unknown variable is ignored. `agent.log-format` and `http.dc` of 2018 mean `log.format` and `triton.dc`;
`crdb.mode` and the section `tsgcli` are ignored. Durations are in seconds. Nomad's own programs read the variables `NOMAD_*` too. Variables
that do not begin with `TSG_` cannot be set in the file.

Requests to CloudAPI and Nomad go through the proxy in `HTTPS_PROXY` (for `http://` addresses `HTTP_PROXY`) or else `ALL_PROXY`, except to
loopback and to what `NO_PROXY` lists. The programs read no `.netrc`.
"""

COLUMNS = ("variable", "value", "default", "key in the file", "flag", "what it is")


def page() -> str:
    """The whole file."""
    flags = _flags()
    lines = [INTRODUCTION.rstrip()]
    for one in settings.declared():
        if one.heading:
            lines += ["", f"## {one.heading}", "", _row(COLUMNS), "|---" * len(COLUMNS) + "|"]
        cells = (_code(one.variable), one.form.words, _default(one), _code(one.file_key), _code(flags.get(one.variable, "")), one.words)
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def templates_page(text: str) -> str:
    """The page about templates, with the table as the fields are now."""
    lines = ["", _row(("field", "value", "sent to CloudAPI as", "what it is for")), "|---" * 4 + "|"]
    for field in FIELDS:
        need = " (required)" if field.is_required else ""
        lines.append(_row((f"`{field.name}`{need}", field.rule, field.sent, field.words)))
    return _made_anew(text, BEGIN, lines)


def autoscaling_page(text: str) -> str:
    """The page about policies, with the table as the fields are now."""
    lines = ["", _row(("kind", "field", "value", "default")), "|---" * 4 + "|"]
    common = policy_settings.Settings.model_fields
    lines += [_row(row) for row in rows_of(policy_settings.Settings, "all")]
    for kind, model in policy_settings.OF_KIND.items():
        lines += [_row(row) for row in rows_of(model, kind) if row[1].strip("`").partition(".")[0] not in common]
    return _made_anew(text, BEGIN_POLICIES, lines)


def rollouts_page(text: str) -> str:
    """The page about members and rollouts, with the tables as the settings are now."""
    lines: list[str] = []
    for heading, model in (("A group", GroupSettings), ("A rollout", RolloutSettings)):
        lines += ["", f"### {heading}", "", _row(("field", "default", "what it is for")), "|---" * 3 + "|"]
        lines += [_row(row) for row in _settings_rows(model)]
    return _made_anew(text, BEGIN_ROLLOUTS, lines)


def _made_anew(text: str, begin: str, lines: Sequence[str]) -> str:
    """The page with these lines between `begin` and the end of what is made."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(END)
    return "\n".join([before.rstrip(), "", begin, *lines, "", END]) + after


def _settings_rows(model: type[ObjectSettings], before: str = "") -> Iterator[tuple[str, str, str]]:
    """A row for each setting, and behind it those of the objects that it holds."""
    for name, field in model.model_fields.items():
        value = field.default.shown() if isinstance(field.default, Amount) else field.default
        default = "required" if field.is_required() else _code(json.dumps(to_jsonable_python(value)))
        yield _code(before + name), default, field.description or ""
        for held in _held(field.annotation):
            if held is not Update:
                yield from _settings_rows(held, f"{before}{name}.")


def _held(kind: Any) -> Iterator[type[ObjectSettings]]:
    if isinstance(kind, type) and issubclass(kind, ObjectSettings):
        yield kind
    for part in get_args(kind):
        yield from _held(part)


def rows_of(model: type[BaseModel], kind: str) -> list[tuple[str, str, str, str]]:
    """A row for each field of a model, and of the objects in it."""
    drawn = model.model_json_schema()
    rows: list[tuple[str, str, str, str]] = []

    def add(schema: dict[str, Any], before: str) -> None:
        for name, field in schema["properties"].items():
            told = _plain(field, drawn.get("$defs", {}))
            default = _code(json.dumps(field["default"])) if field.get("default") is not None else ""
            default = default or ("required" if name in schema.get("required", ()) else "none")
            if "properties" in told:
                rows.append((kind, _code(before + name), "object", "as below" if name not in schema.get("required", ()) else "required"))
                add(told, f"{before}{name}.")
            else:
                rows.append((kind, _code(before + name), _words(told), default))

    add(drawn, "")
    return rows


def _plain(field: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """What a field is when it is not null, without references."""
    for one in field.get("anyOf", [field]):
        if one.get("type") != "null":
            found = parts[one["$ref"].rpartition("/")[2]] if "$ref" in one else one
            return {**field, **found}
    return field


def _words(told: dict[str, Any]) -> str:
    if "enum" in told:
        return ", ".join(_code(word) for word in told["enum"])
    if told.get("type") == "array":
        return f"{told['minItems']} to {told['maxItems']} objects with `from`, `to` and `change`"
    kind = told.get("type", "")
    kinds = " or ".join(kind) if isinstance(kind, list) else kind
    low, high = told.get("minimum", told.get("exclusiveMinimum")), told.get("maximum")
    if high is not None:
        return f"{kinds}, {'over ' if 'exclusiveMinimum' in told else ''}{low:,.0f} to {high:,.0f}"
    return f"{kinds} ({told['format']})" if "format" in told else kinds


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _default(one: Declared) -> str:
    default = str(one.default).lower() if isinstance(one.default, bool) else str(one.default)
    return one.otherwise or _code(default) or "none"


def _flags() -> dict[str, str]:
    """Variable to flag, from the parsers of the programs."""
    found = {}
    for file in [*sorted(TOP.glob("shared/**/*.py")), *sorted(TOP.glob("tsg_*/**/*.py"))]:
        for flag, variable in re.findall(r'add_argument\(\s*"(--[\w-]+)"[^)]*?dest="(TSG_\w+)"', file.read_text()):
            program = re.search(r'prog="([\w-]+)"', file.read_text())
            found[variable] = f"{program[1]} {flag}" if program else flag
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
    TEMPLATES.write_text(templates_page(TEMPLATES.read_text()))
    AUTOSCALING.write_text(autoscaling_page(AUTOSCALING.read_text()))
    ROLLOUTS.write_text(rollouts_page(ROLLOUTS.read_text()))
    tables = ", ".join(str(page.relative_to(TOP)) for page in (TEMPLATES, AUTOSCALING, ROLLOUTS))
    print(f"wrote {PAGE.relative_to(TOP)}, and the tables in {tables}", file=sys.stderr)
