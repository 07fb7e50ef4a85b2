"""`${...}` in a task. Nomad has two ways: an unknown name is left alone in Env, but fails the task in Config."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_IN_ENV = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")
_IN_CONFIG = re.compile(r"\$\$\{|%%\{|%\{|\$\{([^}]*)\}?")
_INDEXED = re.compile(r'env\["([^"]+)"\]|env\.([A-Za-z0-9_]+)')


class TemplateError(ValueError):
    """The message is Nomad's."""


def fill_env(text: str, names: Mapping[str, str]) -> str:
    return _IN_ENV.sub(lambda match: names.get(match[1], match[0]), text)


def fill_config(value: Any, names: Mapping[str, str]) -> Any:
    """Every text of a Config, filled in. `$${` and `%%{` stand for `${` and `%{`. Raises TemplateError."""
    if isinstance(value, str):
        return _IN_CONFIG.sub(lambda match: _replacement(match, names), value)
    if isinstance(value, list):
        return [fill_config(item, names) for item in value]
    return value


def _replacement(match: re.Match[str], names: Mapping[str, str]) -> str:
    if match[0] in ("$${", "%%{"):
        return match[0][1:]
    if match[0] == "%{":
        raise TemplateError("Invalid template control keyword: a template control keyword is not valid here.")
    expression = match[1].strip()
    indexed = _INDEXED.fullmatch(expression)
    name = (indexed[1] or indexed[2]) if indexed else expression
    if name in names:
        return names[name]
    if re.fullmatch(r"[A-Za-z0-9_.\-]+", name):
        raise TemplateError(f'Unknown variable: There is no variable named "{name}".')
    raise TemplateError(
        "Extra characters after interpolation expression: Expected a closing brace to end the interpolation expression, "
        "but found extra characters."
    )
