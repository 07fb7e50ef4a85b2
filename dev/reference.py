"""docs/configuration.md, made of what shared/runtime/settings.py says: of the settings as `settings.load` reads them
and of the comments over its fields. A test holds the two together."""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from marshmallow import fields as kinds
from marshmallow.validate import OneOf, Range, Regexp

from shared.runtime import settings
from shared.runtime.settings import Settings

TOP = Path(__file__).parent.parent
PAGE = TOP / "docs" / "configuration.md"

INTRODUCTION = """\
# Configuration

<!-- Made by dev/docs of shared/runtime/settings.py: change it there. -->

Every program reads every setting. A value is looked for among the flags, then in the environment, then in the file that `--config FILE`
names, and then here among the defaults. All that is wrong is told at once, by variable name, and then nothing is started (exit code 2).

The file is TOML. The 2018 service's is read as it is; a key is the variable's name without `TSG_`, the first word being the section:

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

An unknown key is an error; an unknown variable is not. `agent.log-format` and `http.dc` of 2018 mean `log.format` and `triton.dc`;
`crdb.mode` and the section `tsgcli` mean nothing any more. Durations are seconds. The variables `NOMAD_*` are those that Nomad's own
program reads; they, and others that do not begin with `TSG_`, can't be set in the file.

Requests to CloudAPI and Nomad go through the proxy that `HTTPS_PROXY` (or `HTTP_PROXY`, for an `http://` address; or `ALL_PROXY`) names,
except to what `NO_PROXY` lists, and to loopback. Nothing else of the environment has a say in them: no `.netrc`.
"""

#: The heading over the settings from this one on.
HEADINGS = {
    "TSG_LOG_LEVEL": "Logs",
    "TSG_DATABASE_URL": "Database and queue",
    "TSG_HTTP_BIND": "The HTTP API",
    "TSG_RATE_PER_ACCOUNT": "Limits and authentication",
    "TSG_TRITON_DC": "Triton",
    "TSG_SCALER": "Nomad",
    "TSG_MAX_CAPACITY": "Groups and workers",
    "TSG_METRICS_ENABLE": "Health, metrics and the end",
    "TSG_GOPS_ENABLE": "Diagnostics",
    "TSG_DEV_MODE": "Development and secrets",
}

#: What is no field of Settings of its own.
PARTS = {
    "TSG_CRDB_USER": "The database's user, where there is no TSG_DATABASE_URL, as in 2018.",
    "TSG_CRDB_PASSWORD": "The same: its password.",
    "TSG_CRDB_HOST": "The same: its host.",
    "TSG_CRDB_PORT": "The same: its port.",
    "TSG_CRDB_DATABASE": "The same: its name.",
    "TSG_NOMAD_URL": "Nomad's host, as in 2018, or its whole address. Without it, NOMAD_ADDR.",
    "TSG_NOMAD_PORT": "Nomad's port, where TSG_NOMAD_URL is a host.",
    "NOMAD_ADDR": "Nomad's whole address, where there is no TSG_NOMAD_URL.",
    "NOMAD_TOKEN": "The ACL token for Nomad.",
    "NOMAD_NAMESPACE": "The namespace of the jobs.",
    "NOMAD_REGION": "The region of the jobs.",
    "NOMAD_CACERT": "The certificate authority of Nomad's certificate.",
    "NOMAD_CLIENT_CERT": "The certificate that Nomad knows us by.",
    "NOMAD_CLIENT_KEY": "Its private key.",
    "NOMAD_SKIP_VERIFY": "Whether Nomad's certificate is taken unseen.",
    "TRITON_SKIP_TLS_VERIFY": "The same as TSG_TRITON_SKIP_VERIFY, where that is not set, as triton-go and Terraform read it.",
    "REQUESTS_CA_BUNDLE": "The certificate authorities of CloudAPI and Nomad, where nothing of their own is set.",
    "CURL_CA_BUNDLE": "The same, where REQUESTS_CA_BUNDLE is not set.",
    "SSL_CERT_FILE": "The same, where CURL_CA_BUNDLE is not set.",
    "SSL_CERT_DIR": "The same, where SSL_CERT_FILE is not set: a directory of certificates, by hash.",
}

#: What is not checked by a range or a choice.
FORMS = {
    "_redis_url": "URL",
    "_http_url": "http(s) URL",
    "_proxy": "IP address or *",
    "_host_or_http_url": "host or http(s) URL",
    "_authorities": "file, or directory",
    "_readable": "file",
    "TSG_LOG_LEVEL": ", ".join(settings.LEVELS),
    "TSG_DATABASE_URL": "URL",
    "TSG_SECRET_KEYS": "base64 of 32 bytes, ...",
}

#: Defaults that depend on the machine or follow from another setting.
DEFAULTS = {
    "TSG_TRITON_AUTH_URL": "TSG_TRITON_URL",
    "TSG_SECRET_KEYS": "none: is needed",
}

TYPES = {kinds.String: "text", kinds.Integer: "whole number", kinds.Float: "number", kinds.Boolean: "true or false"}


def page() -> str:
    """The whole file. Raises LookupError for a setting that nobody has explained."""
    declared = _declared()
    meanings = _meanings() | PARTS
    flags = _flags()
    lines = [INTRODUCTION.rstrip()]
    for variable in _in_order(declared):
        if variable in HEADINGS:
            lines += [
                "",
                f"## {HEADINGS[variable]}",
                "",
                "| variable | value | default | key in the file | flag | what it is |",
                "|---" * 6 + "|",
            ]
        if variable not in meanings:
            raise LookupError(f"{variable} has no comment (#:) over its field in shared/runtime/settings.py that says what it is")
        field = declared[variable]
        key = f"`{_key(variable)}`" if variable.startswith("TSG_") else ""
        flag = f"`{flags[variable]}`" if variable in flags else ""
        cells = (f"`{variable}`", _form(variable, field), _default(variable, field), key, flag, meanings[variable])
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _declared() -> dict[str, Any]:
    """Variable to field, as environs has them."""
    source = settings._Source({})  # noqa: SLF001 - what is declared is nobody else's business
    settings._values(source, {})  # noqa: SLF001
    return dict(source._fields)


def _in_order(declared: dict[str, Any]) -> list[str]:
    """As the fields of Settings stand; what has none of its own stands where its place is."""
    order: list[str] = []
    for name in Settings.__dataclass_fields__:
        if name == "not_used":
            continue
        if name == "nomad":
            order += [part for part in PARTS if "NOMAD" in part]
            continue
        order.append(f"TSG_{name.upper()}")
        if name == "triton_skip_verify":
            order += [settings.SKIP_VERIFY, *settings.CA_VARIABLES]
        if name == "database_url":
            order += [part for part in PARTS if "CRDB" in part]
    missing = set(declared) ^ set(order)
    if missing:
        raise LookupError(f"dev/reference.py does not know where these stand: {', '.join(sorted(missing))}")
    return order


def _meanings() -> dict[str, str]:
    """The `#:` comment over each field."""
    found: dict[str, str] = {}
    comment: list[str] = []
    for line in inspect.getsource(Settings).splitlines():
        text = line.strip()
        if text.startswith("#:"):
            comment.append(text.removeprefix("#:").strip())
            continue
        if (match := re.match(r"(\w+): ", text)) and comment:
            found[f"TSG_{match[1].upper()}"] = " ".join(comment)
        comment = []
    return found


def _flags() -> dict[str, str]:
    """Variable to flag, from the parsers of the programs."""
    found = {}
    for file in [*sorted(TOP.glob("shared/**/*.py")), *sorted(TOP.glob("tsg_*/**/*.py"))]:
        for flag, variable in re.findall(r'add_argument\(\s*"(--[\w-]+)"[^)]*?dest="(TSG_\w+)"', file.read_text()):
            program = re.search(r'prog="([\w-]+)"', file.read_text())
            found[variable] = f"{program[1]} {flag}" if program else flag
    return found


def _key(variable: str) -> str:
    section, _, key = variable.removeprefix("TSG_").lower().partition("_")
    return f"{section}.{key.replace('_', '-')}" if key else section


def _form(variable: str, field: Any) -> str:
    if variable in FORMS:
        return FORMS[variable]
    kind = next((word for kind, word in TYPES.items() if isinstance(field, kind)), "file")
    return next((_of_check(check, kind) for check in field.validators), kind)


def _of_check(check: Any, kind: str) -> str:
    match check:
        case OneOf(choices=choices):
            return ", ".join(choices)
        case Range(min=least, max=most):
            return f"{kind}, {least:,} to {most:,}"
        case Regexp(regex=pattern):
            return f"text like `{pattern.pattern.removesuffix(chr(92) + 'Z')}`"
        case _:
            return FORMS.get(getattr(check, "__name__", ""), kind)


def _default(variable: str, field: Any) -> str:
    if variable in DEFAULTS:
        return DEFAULTS[variable]
    default = field.load_default
    if default is None or default == "":
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(TOP)}", file=sys.stderr)
