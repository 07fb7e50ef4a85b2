"""Every setting of every process, read once, at the door it comes in by.

A value is looked for among the flags, then in the environment, then in the configuration file (TOML, the sections of the 2018
service), then here. What is wrong is gathered and told in one message, by variable name, and no secret is ever repeated in it.
"""

import argparse
import base64
import binascii
import re
import ssl
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg2
from environs import Env, EnvValidationError
from marshmallow import ValidationError
from marshmallow.validate import Length, OneOf, Range, Regexp
from psycopg2.extensions import make_dsn
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from shared.clients.https import Trust
from shared.clients.nomad import Access

#: Names in the 2018 file (or in the seed's example of it) that do not spell their variable.
FILE_NAMES = {"TSG_AGENT_LOG_FORMAT": "TSG_LOG_FORMAT", "TSG_HTTP_DC": "TSG_TRITON_DC"}
#: Sections and keys of the 2018 file that mean nothing any more.
FILE_IGNORED = {"TSG_TSGCLI_VERSION", "TSG_CRDB_MODE"}

#: Settings of earlier versions that are not used any more, and what to do instead. They are no error: the log tells of them.
NOT_USED = {
    "TSG_HTTP_PROCESSES": "one tsg-api is one process: start several behind a load balancer, or on one port with TSG_HTTP_REUSE_PORT=true",
}

#: Nomad's own conventional names.
NOMAD_VARIABLES = {
    f"NOMAD_{part}" for part in ("ADDR", "TOKEN", "NAMESPACE", "REGION", "CACERT", "CLIENT_CERT", "CLIENT_KEY", "SKIP_VERIFY")
}

#: Read by triton-go and Terraform too.
SKIP_VERIFY = "TRITON_SKIP_TLS_VERIFY"
#: The certificate authorities of all that a program trusts, the first that is set; read by curl, requests and OpenSSL too.
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
CONVENTIONAL = {*NOMAD_VARIABLES, *CA_VARIABLES, SKIP_VERIFY}

LEVELS = ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL")

#: AES-256: bytes in a key of TSG_SECRET_KEYS.
SECRET_KEY_BYTES = 32

#: How to have development mode where others than this machine reach the API.
MEANT = "listen on a loopback address, or set TSG_DEV_MODE_ANYWHERE=1 if that is meant"

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

    #: Events below this level are not logged.
    log_level: str
    #: auto: columns on a terminal, else JSON lines (zerolog, of 2018, is JSON too).
    log_format: str

    #: postgresql://USER:PASSWORD@HOST:PORT/NAME (or HOST:PORT,HOST:PORT) or cockroachdb://...; else one is made of the TSG_CRDB variables.
    database_url: URL = field(repr=False)
    #: A Redis or Valkey that keeps its data: redis://, rediss:// or unix://.
    redis_url: str = field(repr=False)

    #: The address, or a name of one, that tsg-api listens on. `::` takes IPv4 too.
    http_bind: str
    #: The port that tsg-api listens on; 0: a free one, told in the log.
    http_port: int
    #: Whether several tsg-api may listen on the port (SO_REUSEPORT): the system deals connections out among them.
    http_reuse_port: bool
    #: Requests that one tsg-api answers at once, and its connections to the database.
    http_threads: int
    #: Whether each process stays on one core, where the system can do that.
    http_pin: bool
    #: Bytes of a request's body. CloudAPI itself takes no request over 100,000.
    http_max_body: int
    #: Whose X-Forwarded-For is believed: an address, * for everybody that reaches the port, or nobody's.
    http_trusted_proxy: str

    #: Requests a second of one account to one tsg-api, 0 for no limit.
    rate_per_account: float
    #: Requests a second from one address (of IPv6: one /64) to one tsg-api, before it is known whose they are; 0 for no limit.
    rate_per_address: float
    #: Seconds for which a caller's key is believed after CloudAPI vouched for it.
    auth_cache_seconds: int

    #: The name of the datacenter: Nomad's for the jobs, and the end of the management keys' name.
    triton_dc: str
    #: The CloudAPI in which instances are launched.
    triton_url: str
    #: Where callers are authenticated; the CloudAPI above unless another is given.
    triton_auth_url: str
    #: The management key of an account is called PREFIX_DATACENTER in CloudAPI.
    triton_key_prefix: str
    #: Whether only the accounts of `tsg_accounts` may call (`tsg-admin accounts add`), or all that CloudAPI knows.
    triton_whitelist: bool
    #: The certificate authorities of CloudAPI's certificate, in PEM; without it, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE,
    #: SSL_CERT_DIR, or the public ones.
    triton_cacert: Path | None
    #: Whether CloudAPI's certificate is taken unseen. Whoever is in between can then act for all accounts.
    triton_skip_verify: bool
    #: CloudAPI's throttle: requests a second, per account.
    cloudapi_rate: float
    #: CloudAPI's throttle: requests in one burst, per account.
    cloudapi_burst: int
    #: Seconds to wait for a connection to CloudAPI.
    cloudapi_connect_timeout: float
    #: Seconds to wait for CloudAPI to go on with an answer.
    cloudapi_read_timeout: float

    #: worker: workers converge. nomad: Nomad's jobs do, and workers where Nomad does not come to it in time.
    scaler: str
    nomad: Access
    #: The `meta.role` of the nodes that run the jobs.
    nomad_role: str
    #: Nomad's driver for the jobs.
    nomad_driver: str
    #: What the jobs run on a node.
    nomad_command: str
    #: The image that the driver docker runs it in.
    nomad_image: str
    #: An archive that the jobs fetch first, as Nomad's `artifact` takes it; none when empty.
    nomad_artifact: str
    #: A file on the nodes that the jobs hand to `--config`; none when empty.
    nomad_config: str
    #: MHz that a job asks for.
    nomad_cpu: int
    #: MiB that a job asks for.
    nomad_memory: int
    #: Seconds after it was due at which a group that Nomad has not looked at is a worker's.
    nomad_grace: int
    #: The most instances that a group may ask for.
    max_capacity: int
    #: Seconds between looks at a group that is as it should be, unless it has an interval of its own.
    health_check_interval: int
    #: Days for which it is kept what was done for a group, or refused.
    activity_days: int
    #: Seconds after which a machine that has not come up is replaced.
    provision_timeout: int
    #: Seconds for which a create whose answer was lost may still turn up in CloudAPI's list.
    launch_grace: int
    #: Per cent of a group's capacity that may be replaced at once of the machines that ran and look unhealthy now; at least one machine.
    replace_percent: int
    #: Attempts to launch that fail in a row before a group's launches are tried one at a time, once a minute at most.
    breaker_failures: int
    #: Seconds after its holder was last heard of at which an account's lease ends.
    lease_seconds: int
    #: Accounts that one tsg-worker works on at once.
    worker_threads: int

    #: Whether each process has a port for those who look after it: /metrics, /healthz and /readyz.
    metrics_enable: bool
    #: The address of that port. It asks for no password: leave it on loopback, or on a network of your own.
    metrics_bind: str
    #: The port; 0: a free one, which the log tells.
    metrics_port: int

    #: Seconds after SIGTERM for which the API goes on taking requests while /readyz says that it is going, for a load balancer to see.
    drain_seconds: float
    #: Seconds that requests and passes under way at SIGTERM have to finish. Whoever kills what does not stop should wait longer.
    stop_seconds: float

    #: Whether each process runs the agent that `gops` talks to.
    gops_enable: bool
    #: The address that the agent listens on. It asks for no password: leave it on loopback.
    gops_bind: str
    #: The agent's port; 0: a free one. Where it is taken a free one is used. The log tells it.
    gops_port: int
    #: Whether each process serves /debug/pprof/ for `go tool pprof` and browsers.
    pprof_enable: bool
    #: The address that these pages are served on. They ask for no password: leave it on loopback.
    pprof_bind: str
    #: The port of these pages; 0: a free one. Where it is taken a free one is used. The log tells it.
    pprof_port: int

    #: Whether every request is the seeded account's, whoever sends it. For development alone, and on a loopback address.
    dev_mode: bool
    #: Whether development mode is meant although others than this machine reach the API.
    dev_mode_anywhere: bool
    #: AES-256 keys for what is sealed at rest, base64 with commas between: the first seals, all open. `tsg-admin keys generate`.
    secret_keys: tuple[bytes, ...] = field(repr=False)

    #: Which of `NOT_USED` were given.
    not_used: tuple[str, ...] = ()

    @property
    def triton_trust(self) -> Trust:
        """Whose certificates are taken of CloudAPI."""
        return Trust(self.triton_cacert, self.triton_skip_verify)

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
    # To other programs that read them, a variable that is empty is one that is not set.
    values = from_file | {name: value for name, value in environ.items() if name.startswith("TSG_") or (value and name in CONVENTIONAL)}
    values |= dict(flags or {})
    env = _Source(values)
    got = _values(env, problems) | {"not_used": tuple(name for name in NOT_USED if name in values)}
    try:
        env.seal()
    except EnvValidationError as error:
        told = error.error_messages if isinstance(error.error_messages, Mapping) else {"TSG": error.error_messages}
        problems.update({name: "; ".join(messages) for name, messages in told.items()})
    if needs_keys and not got["secret_keys"] and not got["dev_mode"] and "TSG_SECRET_KEYS" not in problems:
        problems["TSG_SECRET_KEYS"] = f"is needed, since private keys are sealed at rest; {HOW_TO_MAKE_A_KEY}"
    if got["dev_mode"] and not got["dev_mode_anywhere"] and not is_loopback(got["http_bind"] or ""):
        problems["TSG_DEV_MODE"] = f"lets in whoever reaches {got['http_bind']}; {MEANT}"
    if problems:
        raise SettingsError(problems)
    got["triton_auth_url"] = got["triton_auth_url"] or got["triton_url"]
    return Settings(**got)


def _values(env: _Source, problems: dict[str, str]) -> dict[str, Any]:
    """Each field of `Settings` with its variable, default and range. `docs/configuration.md` is made of what is declared here."""
    port = Range(min=1, max=65535, error="must be a port, 1 to 65535")
    port_or_free = Range(min=0, max=65535, error="must be a port, 0 to 65535 (0: a free one)")
    level = env.str("TSG_LOG_LEVEL", "INFO").upper()
    if level not in LEVELS:
        problems["TSG_LOG_LEVEL"] = "must be one of: " + ", ".join(LEVELS)
    authorities = next(filter(None, [_file(env, name, _authorities) for name in CA_VARIABLES]), None)
    return {
        "log_level": level,
        "log_format": env.str("TSG_LOG_FORMAT", "auto", validate=OneOf(("auto", "json", "human", "zerolog"))),
        "database_url": _database_url(env, problems),
        "redis_url": env.str("TSG_REDIS_URL", "redis://127.0.0.1:6379/0", validate=_redis_url),
        "http_bind": _address(env.str("TSG_HTTP_BIND", "127.0.0.1", validate=Length(min=1))),
        "http_port": env.int("TSG_HTTP_PORT", 3000, validate=port_or_free),
        "http_reuse_port": env.bool("TSG_HTTP_REUSE_PORT", False),
        "http_pin": env.bool("TSG_HTTP_PIN", True),
        "http_threads": env.int("TSG_HTTP_THREADS", 8, validate=Range(1, 256)),
        "http_max_body": env.int("TSG_HTTP_MAX_BODY", 100_000, validate=Range(1_000, 10_000_000)),
        "http_trusted_proxy": _address(env.str("TSG_HTTP_TRUSTED_PROXY", "", validate=_proxy)),
        "rate_per_account": env.float("TSG_RATE_PER_ACCOUNT", 0.0, validate=Range(0, 1_000_000)),
        "rate_per_address": env.float("TSG_RATE_PER_ADDRESS", 0.0, validate=Range(0, 1_000_000)),
        "auth_cache_seconds": env.int("TSG_AUTH_CACHE_SECONDS", 300, validate=Range(1, 3_600)),
        "triton_dc": env.str("TSG_TRITON_DC", "us-east-1", validate=Regexp(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")),
        "triton_url": _url(env, "TSG_TRITON_URL", "https://us-east-1.api.joyent.com"),
        "triton_auth_url": _url(env, "TSG_TRITON_AUTH_URL", ""),
        "triton_key_prefix": env.str("TSG_TRITON_KEY_PREFIX", "TSG_Management", validate=Regexp(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")),
        "triton_whitelist": env.bool("TSG_TRITON_WHITELIST", True),
        "triton_cacert": _file(env, "TSG_TRITON_CACERT", _authorities) or authorities,
        "triton_skip_verify": env.bool("TSG_TRITON_SKIP_VERIFY", env.bool(SKIP_VERIFY, False)),
        "cloudapi_rate": env.float("TSG_CLOUDAPI_RATE", 10.0, validate=Range(0.1, 100_000)),
        "cloudapi_burst": env.int("TSG_CLOUDAPI_BURST", 30, validate=Range(1, 100_000)),
        "cloudapi_connect_timeout": env.float("TSG_CLOUDAPI_CONNECT_TIMEOUT", 3.05, validate=Range(0.1, 60)),
        "cloudapi_read_timeout": env.float("TSG_CLOUDAPI_READ_TIMEOUT", 30.0, validate=Range(0.1, 300)),
        "scaler": env.str("TSG_SCALER", "worker", validate=OneOf(("worker", "nomad"))),
        "nomad": _nomad(env, port, authorities),
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
        "activity_days": env.int("TSG_ACTIVITY_DAYS", 42, validate=Range(1, 3_650)),
        "provision_timeout": env.int("TSG_PROVISION_TIMEOUT", 300, validate=Range(10, 7_200)),
        "launch_grace": env.int("TSG_LAUNCH_GRACE", 60, validate=Range(5, 600)),
        "replace_percent": env.int("TSG_REPLACE_PERCENT", 20, validate=Range(1, 100)),
        "breaker_failures": env.int("TSG_BREAKER_FAILURES", 5, validate=Range(1, 100)),
        "lease_seconds": env.int("TSG_LEASE_SECONDS", 10, validate=Range(3, 300)),
        "worker_threads": env.int("TSG_WORKER_THREADS", 8, validate=Range(1, 64)),
        "metrics_enable": env.bool("TSG_METRICS_ENABLE", True),
        "metrics_bind": _address(env.str("TSG_METRICS_BIND", "127.0.0.1", validate=Length(min=1))),
        "metrics_port": env.int("TSG_METRICS_PORT", 0, validate=port_or_free),
        "drain_seconds": env.float("TSG_DRAIN_SECONDS", 0.0, validate=Range(0, 300)),
        "stop_seconds": env.float("TSG_STOP_SECONDS", 20.0, validate=Range(1, 300)),
        "gops_enable": env.bool("TSG_GOPS_ENABLE", False),
        "gops_bind": _address(env.str("TSG_GOPS_BIND", "127.0.0.1", validate=Length(min=1))),
        "gops_port": env.int("TSG_GOPS_PORT", 9090, validate=port_or_free),
        "pprof_enable": env.bool("TSG_PPROF_ENABLE", False),
        "pprof_bind": _address(env.str("TSG_PPROF_BIND", "127.0.0.1", validate=Length(min=1))),
        "pprof_port": env.int("TSG_PPROF_PORT", 9191, validate=port_or_free),
        "dev_mode": env.bool("TSG_DEV_MODE", False),
        "dev_mode_anywhere": env.bool("TSG_DEV_MODE_ANYWHERE", False),
        "secret_keys": _secret_keys(env.str("TSG_SECRET_KEYS", ""), problems),
    }


def is_loopback(address: str) -> bool:
    """Does nobody but this machine reach this address? A name other than localhost may be anybody's."""
    if address.lower() == "localhost":
        return True
    try:
        parsed = ip_address(address.strip("[]"))
    except ValueError:
        return False
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def variables() -> list[str]:
    """The names of all variables that `load` reads."""
    own = {f"TSG_{name.name.upper()}" for name in fields(Settings)} - {"TSG_NOMAD", "TSG_NOT_USED"}
    crdb = {f"TSG_CRDB_{part}" for part in ("DATABASE", "HOST", "PORT", "USER", "PASSWORD")}
    return sorted(own | crdb | {"TSG_NOMAD_URL", "TSG_NOMAD_PORT"} | CONVENTIONAL)


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
    known = {*variables(), *NOT_USED}
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


def _nomad(env: _Source, port: Range, authorities: Path | None) -> Access:
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
        ca_cert=_file(env, "NOMAD_CACERT", _authorities) or authorities,
        client_cert=_file(env, "NOMAD_CLIENT_CERT", _readable),
        client_key=_file(env, "NOMAD_CLIENT_KEY", _readable),
        skip_verify=env.bool("NOMAD_SKIP_VERIFY", False),
    )


def _file(env: _Source, name: str, check: Callable[[str], None]) -> Path | None:
    text = env.str(name, "", validate=check)
    return Path(text) if text else None


def _readable(text: str) -> None:
    try:
        if text:
            Path(text).open("rb").close()
    except OSError as error:
        raise ValidationError(f"{text} cannot be read: {error.strerror}") from None


def _authorities(text: str) -> None:
    if not text or Path(text).is_dir():
        return
    _readable(text)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(text)
    except ssl.SSLError:
        raise ValidationError(f"{text} holds no certificates in PEM") from None


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
        ip_address(_address(text))
    except ValueError:
        raise ValidationError("must be the IP address of a proxy, or *") from None


def _address(text: str | None) -> str:
    """A host as it is; an IP address without the brackets that it has in URLs, in its one spelling."""
    given = text or ""
    bare = given[1:-1] if given.startswith("[") and given.endswith("]") else given
    try:
        found = ip_address(bare)
    except ValueError:
        return given
    return str((found.ipv4_mapped if isinstance(found, IPv6Address) else None) or found)


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
        url = _with_hosts_in_query(text)
    except (ArgumentError, ValueError):
        problems["TSG_DATABASE_URL"] = "is not a database URL"
        return None
    drivers = {"postgres": "postgresql", "postgresql": "postgresql", "cockroachdb": "cockroachdb", "cockroach": "cockroachdb"}
    backend, _, driver = url.drivername.partition("+")
    if backend not in drivers or driver not in {"", "psycopg2"}:
        problems["TSG_DATABASE_URL"] = "must begin with postgresql:// or cockroachdb://"
        return None
    url = url.set(drivername=f"{drivers[backend]}+psycopg2")
    try:
        make_dsn(**url.get_dialect()().create_connect_args(url)[1])
    except (ArgumentError, ValueError):
        problems["TSG_DATABASE_URL"] = "is not a database URL: its hosts and ports do not fit together"
    except psycopg2.ProgrammingError as error:
        problems["TSG_DATABASE_URL"] = f"is not a database URL: {str(error).strip()}"
    return url


#: The beginning of a URL, several hosts as libpq takes them, and the rest.
_SEVERAL_HOSTS = re.compile(r"([\w+]+://(?:[^@?]*@)?)([^/?@]*,[^/?@]*)(.*)", re.DOTALL)


def _with_hosts_in_query(text: str) -> URL:
    """A URL that may name several hosts as libpq's do (`HOST:PORT,HOST:PORT`), which SQLAlchemy takes in the query alone."""
    found = _SEVERAL_HOSTS.fullmatch(text)
    if not found:
        return make_url(text)
    hosts, ports = [], []
    for one in found[2].split(","):
        parts = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]*))(?::(\d*))?", one)
        if not parts or int(parts[3] or 1) not in range(1, 65_536):
            raise ArgumentError(f"{one} is not HOST:PORT")
        hosts.append(unquote(parts[1] or parts[2]))
        ports.append(parts[3] or "")
    url = make_url(found[1] + found[3])
    if "host" in url.query or "port" in url.query:
        raise ArgumentError("hosts are named twice")
    return url.update_query_dict({"host": ",".join(hosts), "port": ",".join(ports)})


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
