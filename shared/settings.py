"""Every setting of every process, read once, at the door it comes in by.

A value is looked for among the flags, then in the environment, then in the configuration file (TOML, the sections of the 2018
service), then here. What is wrong is gathered and told in one message, by variable name, and no secret is ever repeated in it.
"""

import argparse
import base64
import binascii
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from environs import Env, EnvValidationError
from marshmallow import ValidationError
from marshmallow.validate import Length, OneOf, Range, Regexp
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from shared.nomad import Access

#: Names in the 2018 file (or in the seed's example of it) that do not spell their variable.
FILE_NAMES = {"TSG_AGENT_LOG_FORMAT": "TSG_LOG_FORMAT", "TSG_HTTP_DC": "TSG_TRITON_DC"}
#: Sections and keys of the 2018 file that mean nothing any more.
FILE_IGNORED = {"TSG_TSGCLI_VERSION", "TSG_CRDB_MODE"}

#: Nomad's own conventional names.
NOMAD_VARIABLES = {
    f"NOMAD_{part}" for part in ("ADDR", "TOKEN", "NAMESPACE", "REGION", "CACERT", "CLIENT_CERT", "CLIENT_KEY", "SKIP_VERIFY")
}

LEVELS = ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL")

#: AES-256: bytes in a key of TSG_SECRET_KEYS.
SECRET_KEY_BYTES = 32

#: Processes of tsg-api where nobody says how many: each has a pool of connections, and PostgreSQL takes 100 where nobody says otherwise.
MOST_PROCESSES = 4

HOW_TO_MAKE_A_KEY = "make one with: tsg-admin keys generate"


class SettingsError(Exception):
    """One or more values are wrong. `problems` maps the variable (or file key) to what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        lines = [f"  {name}: {problem}" for name, problem in sorted(self.problems.items())]
        super().__init__("wrong settings, nothing was started:\n" + "\n".join(lines))


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process was told. Durations are seconds unless a name says otherwise."""

    log_level: str
    log_format: str

    database_url: URL = field(repr=False)
    redis_url: str = field(repr=False)

    http_bind: str
    http_port: int
    #: That serve one port, each with so many threads and, where `http_pin` says so, on a core of its own.
    http_processes: int
    http_threads: int
    http_pin: bool
    #: Bytes. CloudAPI itself takes no request over 100,000.
    http_max_body: int
    #: Whose X-Forwarded-For is believed: an address, * for everybody that reaches the port, or nobody's.
    http_trusted_proxy: str

    #: Requests a second by account and (before authentication) by address, 0 for no limit: to one tsg-api, each of whose processes
    #: allows its share.
    rate_per_account: float
    rate_per_address: float
    #: A caller's key is believed for so long after CloudAPI vouched for it.
    auth_cache_seconds: int

    triton_dc: str
    triton_url: str
    #: Where callers are authenticated; the CloudAPI above unless another is given.
    triton_auth_url: str
    triton_key_prefix: str
    triton_whitelist: bool
    #: CloudAPI's throttle: requests a second and in one burst, per account.
    cloudapi_rate: float
    cloudapi_burst: int
    cloudapi_connect_timeout: float
    cloudapi_read_timeout: float

    #: worker: workers converge. nomad: Nomad's jobs do, and workers where Nomad does not come to it in time.
    scaler: str
    nomad: Access
    #: Of the node that runs the jobs, and what they run there.
    nomad_role: str
    nomad_driver: str
    nomad_command: str
    nomad_image: str
    nomad_artifact: str
    nomad_config: str
    #: MHz and MiB.
    nomad_cpu: int
    nomad_memory: int
    #: A group that Nomad has not looked at for so long after it was due is a worker's.
    nomad_grace: int
    max_capacity: int
    health_check_interval: int
    #: A machine that has not come up in this time is replaced.
    provision_timeout: int
    #: How long a create whose answer was lost may still turn up in CloudAPI's list.
    launch_grace: int
    #: An account's lease ends this long after its holder was last heard of.
    lease_seconds: int
    worker_threads: int

    gops_enable: bool
    gops_bind: str
    gops_port: int
    pprof_enable: bool
    pprof_bind: str
    pprof_port: int

    dev_mode: bool
    #: AES-256 keys for what is sealed at rest: the first seals, all open.
    secret_keys: tuple[bytes, ...] = field(repr=False)

    @property
    def key_name(self) -> str:
        """The name of the management key in CloudAPI."""
        return f"{self.triton_key_prefix}_{self.triton_dc}"


class _Source(Env):
    """environs, reading from a mapping instead of from os.environ, and collecting what is wrong."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(eager=False)
        self._mapping = values

    def _get_value(self, env_key: str, default: Any) -> Any:
        return self._mapping.get(env_key, default)


def load_arguments(arguments: argparse.Namespace, environ: Mapping[str, str], **keywords: Any) -> Settings:
    """`load` with the flags of a parser that went through `flags.add`."""
    flags = {name: str(value) for name, value in vars(arguments).items() if name.startswith("TSG_") and value is not None}
    return load(environ, flags=flags, file=arguments.config, **keywords)


def load(
    environ: Mapping[str, str],
    *,
    flags: Mapping[str, str] | None = None,
    file: Path | None = None,
    needs_keys: bool = True,
) -> Settings:
    """Read all settings, or raise `SettingsError` with everything that is wrong.

    `needs_keys=False` is for the programs that have no use for `TSG_SECRET_KEYS`, the one that makes them among others.
    """
    problems: dict[str, str] = {}
    from_file: dict[str, str] = _read_file(file, problems) if file else {}
    values = from_file | {name: value for name, value in environ.items() if name.startswith(("TSG_", "NOMAD_"))} | dict(flags or {})
    env = _Source(values)
    port = Range(min=1, max=65535, error="must be a port, 1 to 65535")
    port_or_free = Range(min=0, max=65535, error="must be a port, 0 to 65535 (0: a free one)")
    level = env.str("TSG_LOG_LEVEL", "INFO").upper()
    if level not in LEVELS:
        problems["TSG_LOG_LEVEL"] = "must be one of: " + ", ".join(LEVELS)
    got: dict[str, Any] = {
        "log_level": level,
        "log_format": env.str("TSG_LOG_FORMAT", "auto", validate=OneOf(("auto", "json", "human", "zerolog"))),
        "database_url": _database_url(env, problems),
        "redis_url": env.str("TSG_REDIS_URL", "redis://127.0.0.1:6379/0", validate=_redis_url),
        "http_bind": env.str("TSG_HTTP_BIND", "127.0.0.1", validate=Length(min=1)),
        "http_port": env.int("TSG_HTTP_PORT", 3000, validate=port_or_free),
        "http_processes": env.int("TSG_HTTP_PROCESSES", _cores(), validate=Range(1, 256)),
        "http_pin": env.bool("TSG_HTTP_PIN", True),
        "http_threads": env.int("TSG_HTTP_THREADS", 8, validate=Range(1, 256)),
        "http_max_body": env.int("TSG_HTTP_MAX_BODY", 100_000, validate=Range(1_000, 10_000_000)),
        "http_trusted_proxy": env.str("TSG_HTTP_TRUSTED_PROXY", "", validate=_proxy),
        "rate_per_account": env.float("TSG_RATE_PER_ACCOUNT", 0.0, validate=Range(0, 1_000_000)),
        "rate_per_address": env.float("TSG_RATE_PER_ADDRESS", 0.0, validate=Range(0, 1_000_000)),
        "auth_cache_seconds": env.int("TSG_AUTH_CACHE_SECONDS", 300, validate=Range(1, 3_600)),
        "triton_dc": env.str("TSG_TRITON_DC", "us-east-1", validate=Regexp(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")),
        "triton_url": _url(env, "TSG_TRITON_URL", "https://us-east-1.api.joyent.com"),
        "triton_auth_url": _url(env, "TSG_TRITON_AUTH_URL", ""),
        "triton_key_prefix": env.str("TSG_TRITON_KEY_PREFIX", "TSG_Management", validate=Regexp(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")),
        "triton_whitelist": env.bool("TSG_TRITON_WHITELIST", True),
        "cloudapi_rate": env.float("TSG_CLOUDAPI_RATE", 10.0, validate=Range(0.1, 100_000)),
        "cloudapi_burst": env.int("TSG_CLOUDAPI_BURST", 30, validate=Range(1, 100_000)),
        "cloudapi_connect_timeout": env.float("TSG_CLOUDAPI_CONNECT_TIMEOUT", 3.05, validate=Range(0.1, 60)),
        "cloudapi_read_timeout": env.float("TSG_CLOUDAPI_READ_TIMEOUT", 30.0, validate=Range(0.1, 300)),
        "scaler": env.str("TSG_SCALER", "worker", validate=OneOf(("worker", "nomad"))),
        "nomad": _nomad(env, port),
        "nomad_role": env.str("TSG_NOMAD_ROLE", "automater", validate=Length(min=1)),
        "nomad_driver": env.str("TSG_NOMAD_DRIVER", "exec", validate=OneOf(("exec", "raw_exec", "docker"))),
        "nomad_command": env.str("TSG_NOMAD_COMMAND", "tsg-scale", validate=Length(min=1)),
        "nomad_image": env.str("TSG_NOMAD_IMAGE", "triton-service-groups"),
        "nomad_artifact": env.str("TSG_NOMAD_ARTIFACT", ""),
        "nomad_config": env.str("TSG_NOMAD_CONFIG", ""),
        "nomad_cpu": env.int("TSG_NOMAD_CPU", 100, validate=Range(20, 100_000)),
        "nomad_memory": env.int("TSG_NOMAD_MEMORY", 128, validate=Range(64, 100_000)),
        "nomad_grace": env.int("TSG_NOMAD_GRACE", 60, validate=Range(5, 3_600)),
        "max_capacity": env.int("TSG_MAX_CAPACITY", 100, validate=Range(1, 10_000)),
        "health_check_interval": env.int("TSG_HEALTH_CHECK_INTERVAL", 300, validate=Range(10, 86_400)),
        "provision_timeout": env.int("TSG_PROVISION_TIMEOUT", 300, validate=Range(10, 7_200)),
        "launch_grace": env.int("TSG_LAUNCH_GRACE", 60, validate=Range(5, 600)),
        "lease_seconds": env.int("TSG_LEASE_SECONDS", 10, validate=Range(3, 300)),
        "worker_threads": env.int("TSG_WORKER_THREADS", 8, validate=Range(1, 64)),
        "gops_enable": env.bool("TSG_GOPS_ENABLE", False),
        "gops_bind": env.str("TSG_GOPS_BIND", "127.0.0.1", validate=Length(min=1)),
        "gops_port": env.int("TSG_GOPS_PORT", 9090, validate=port_or_free),
        "pprof_enable": env.bool("TSG_PPROF_ENABLE", False),
        "pprof_bind": env.str("TSG_PPROF_BIND", "127.0.0.1", validate=Length(min=1)),
        "pprof_port": env.int("TSG_PPROF_PORT", 9191, validate=port_or_free),
        "dev_mode": env.bool("TSG_DEV_MODE", False),
        "secret_keys": _secret_keys(env.str("TSG_SECRET_KEYS", ""), problems),
    }
    try:
        env.seal()
    except EnvValidationError as error:
        told = error.error_messages if isinstance(error.error_messages, Mapping) else {"TSG": error.error_messages}
        problems.update({name: "; ".join(messages) for name, messages in told.items()})
    if needs_keys and not got["secret_keys"] and not got["dev_mode"] and "TSG_SECRET_KEYS" not in problems:
        problems["TSG_SECRET_KEYS"] = f"is needed, since private keys are sealed at rest; {HOW_TO_MAKE_A_KEY}"
    if problems:
        raise SettingsError(problems)
    got["triton_auth_url"] = got["triton_auth_url"] or got["triton_url"]
    return Settings(**got)


def variables() -> list[str]:
    """The names of all variables that `load` reads."""
    own = {f"TSG_{name.name.upper()}" for name in fields(Settings)} - {"TSG_NOMAD"}
    crdb = {f"TSG_CRDB_{part}" for part in ("DATABASE", "HOST", "PORT", "USER", "PASSWORD")}
    return sorted(own | crdb | {"TSG_NOMAD_URL", "TSG_NOMAD_PORT"} | NOMAD_VARIABLES)


def _cores() -> int:
    """The cores that this process may use, but no more than `MOST_PROCESSES`."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MOST_PROCESSES)


def _read_file(path: Path, problems: dict[str, str]) -> dict[str, str]:
    try:
        with path.open("rb") as stream:
            tree = tomllib.load(stream)
    except OSError as error:
        problems["--config"] = f"{path} cannot be read: {error.strerror}"
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems["--config"] = f"{path} is not TOML: {error}"
        return {}
    known = set(variables())
    values: dict[str, str] = {}
    aliased: dict[str, str] = {}
    for key, value in _leaves(tree):
        name = "TSG_" + "_".join(key).upper().replace("-", "_")
        where = f"{path.name}: {'.'.join(key)}"
        if name in FILE_IGNORED:
            continue
        if not isinstance(value, str | int | float):
            problems[where] = "must be a string, a number or a boolean"
        elif name in FILE_NAMES:
            aliased[FILE_NAMES[name]] = _as_variable(value)
        elif name in known:
            values[name] = _as_variable(value)
        else:
            problems[where] = f"is no setting (there is no {name})"
    return {**aliased, **values}


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for key, value in tree.items():
        found += _leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]
    return found


def _as_variable(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _nomad(env: _Source, port: Range) -> Access:
    """`TSG_NOMAD_URL` (a host, or a whole address) and `TSG_NOMAD_PORT`, or else the conventional `NOMAD_ADDR`."""
    host = env.str("TSG_NOMAD_URL", "", validate=_host_or_http_url) or ""
    number = env.int("TSG_NOMAD_PORT", 4646, validate=port)
    conventional = _url(env, "NOMAD_ADDR", "")
    whole = host.rstrip("/") if "://" in host else f"http://{_bracketed(host or '127.0.0.1')}:{number}"
    return Access(
        address=whole if host or not conventional else conventional,
        token=env.str("NOMAD_TOKEN", ""),
        namespace=env.str("NOMAD_NAMESPACE", ""),
        region=env.str("NOMAD_REGION", ""),
        ca_cert=env.path("NOMAD_CACERT", None),
        client_cert=env.path("NOMAD_CLIENT_CERT", None),
        client_key=env.path("NOMAD_CLIENT_KEY", None),
        skip_verify=env.bool("NOMAD_SKIP_VERIFY", False),
    )


def _url(env: _Source, name: str, default: str) -> str:
    # A value that is wrong has been noted, and comes back as None.
    return (env.str(name, default, validate=_http_url) or "").rstrip("/")


def _http_url(text: str) -> None:
    if not text:
        return
    try:
        parts = urlsplit(text)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment or parts.username:
        raise ValidationError("must be an http:// or https:// address")


def _proxy(text: str) -> None:
    if text in {"", "*"}:
        return
    try:
        ip_address(text)
    except ValueError:
        raise ValidationError("must be the IP address of a proxy, or *") from None


def _host_or_http_url(text: str) -> None:
    if "://" in text:
        _http_url(text)
    elif text and not re.fullmatch(r"[A-Za-z0-9_.-]+", text):
        try:
            ip_address(text.strip("[]"))
        except ValueError:
            raise ValidationError("must be a host (its port is TSG_NOMAD_PORT's), or a whole http:// or https:// address") from None


def _bracketed(host: str) -> str:
    """An IPv6 address as a URL has it; any other host as it is."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def _redis_url(text: str) -> None:
    if not text.startswith(("redis://", "rediss://", "unix://")):
        raise ValidationError("must begin with redis://, rediss:// or unix://")


def _database_url(env: _Source, problems: dict[str, str]) -> URL | None:
    """`TSG_DATABASE_URL`, or else one made of the `TSG_CRDB_*` parts."""
    crdb = URL.create(
        "cockroachdb+psycopg2",
        username=env.str("TSG_CRDB_USER", "root"),
        password=env.str("TSG_CRDB_PASSWORD", "") or None,
        host=env.str("TSG_CRDB_HOST", "127.0.0.1"),
        port=env.int("TSG_CRDB_PORT", 26257, validate=Range(min=1, max=65535, error="must be a port, 1 to 65535")) or 1,
        database=env.str("TSG_CRDB_DATABASE", "triton"),
    )
    text = env.str("TSG_DATABASE_URL", "")
    if not text:
        return crdb
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        problems["TSG_DATABASE_URL"] = "is not a database URL"
        return None
    drivers = {"postgres": "postgresql", "postgresql": "postgresql", "cockroachdb": "cockroachdb", "cockroach": "cockroachdb"}
    backend, _, driver = url.drivername.partition("+")
    if backend not in drivers or driver not in {"", "psycopg2"}:
        problems["TSG_DATABASE_URL"] = "must begin with postgresql:// or cockroachdb://"
        return None
    return url.set(drivername=f"{drivers[backend]}+psycopg2")


def _secret_keys(text: str, problems: dict[str, str]) -> tuple[bytes, ...]:
    keys = []
    for number, part in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
        try:
            key = base64.b64decode(part, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != SECRET_KEY_BYTES:
            problems["TSG_SECRET_KEYS"] = f"key {number} is not base64 of {SECRET_KEY_BYTES} bytes; {HOW_TO_MAKE_A_KEY}"
            return ()
        keys.append(key)
    return tuple(keys)
