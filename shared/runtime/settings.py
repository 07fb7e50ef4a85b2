"""Every setting of every process: declared here once, and read, checked and documented from that.

A value is looked for among the flags, then in the environment, then in the configuration file (TOML, the sections of the 2018
service), then among the defaults. All that is wrong is in one message, by variable name, and no secret is ever repeated in it.
"""

import argparse
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, NamedTuple

from environs import Env, EnvValidationError
from sqlalchemy.engine import URL

from shared.clients.access import NomadAccess, Trust
from shared.clients.webhooks import Rules
from shared.runtime import values
from shared.runtime.values import (
    AUTHORITIES,
    BIND,
    DATABASE_URL,
    FILE,
    HOST_OR_HTTP_URL,
    HOW_TO_MAKE_A_KEY,
    HTTP_URL,
    LEVEL,
    NAME,
    NETWORKS,
    PORT,
    PORT_OR_FREE,
    PROXY,
    REDIS_URL,
    SECRET_KEYS,
    TEXT,
    YES_NO,
    Form,
    choice,
    is_loopback,
    like,
    number,
    whole,
)

#: Names in the 2018 file (or in the seed's example of it) that do not spell their variable.
FILE_NAMES = {"TSG_AGENT_LOG_FORMAT": "TSG_LOG_FORMAT", "TSG_HTTP_DC": "TSG_TRITON_DC"}
#: Sections and keys of the 2018 file that mean nothing any more.
FILE_IGNORED = {"TSG_TSGCLI_VERSION", "TSG_CRDB_MODE"}

#: Settings of earlier versions that are not used any more, and what to do instead. They are no error: the log names them.
NOT_USED = {
    "TSG_HTTP_PROCESSES": "one tsg-api is one process: start several behind a load balancer, or on one port with TSG_HTTP_REUSE_PORT=true",
}

#: How to have development mode where others than this machine reach the API.
MEANT = "listen on a loopback address, or set TSG_DEV_MODE_ANYWHERE=1 if that is meant"

_DECLARED = "declared"


class SettingsError(Exception):
    """One or more values are wrong. `problems` maps the variable (or file key) to what is wrong with it."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self.problems = dict(problems)
        lines = [f"  {name}: {problem}" for name, problem in sorted(self.problems.items())]
        super().__init__("wrong settings, nothing was started:\n" + "\n".join(lines))


class Declared(NamedTuple):
    """One setting, as it is declared."""

    field: str
    variable: str
    form: Form
    default: Any
    #: What it is, for the documentation.
    words: str
    #: The section of the documentation that begins with it.
    heading: str
    #: Where the default follows from something else: what is said of it.
    otherwise: str
    #: Its section and key in the file, where they do not follow from the variable.
    file: str

    @property
    def file_key(self) -> str:
        """Its section and key in the file; the variables of other programs have none."""
        if self.file or not self.variable.startswith("TSG_"):
            return self.file
        section, _, key = self.variable.removeprefix("TSG_").lower().partition("_")
        return f"{section}.{key.replace('_', '-')}" if key else section


def _setting(
    form: Form,
    default: Any,
    words: str,
    *,
    heading: str = "",
    variable: str = "",
    otherwise: str = "",
    file: str = "",
    secret: bool = False,
) -> Any:
    """A field of `Settings`. Its variable is TSG_ and the field's name, unless it is that of another program."""
    said = {"form": form, "default": default, "words": words, "heading": heading, "variable": variable, "otherwise": otherwise}
    return field(repr=not secret, metadata={_DECLARED: {**said, "file": file}})


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a process. Durations are seconds unless a name says otherwise."""

    log_level: str = _setting(LEVEL, "INFO", "Events below this level are not logged.", heading="Logs")
    log_format: str = _setting(
        choice("auto", "json", "human", "zerolog"), "auto", "auto: columns on a terminal, else JSON lines (zerolog, of 2018, is JSON too)."
    )

    database_url: URL = _setting(
        DATABASE_URL,
        "",
        "postgresql://USER:PASSWORD@HOST:PORT/NAME (or HOST:PORT,HOST:PORT) or cockroachdb://...; without it, "
        "the TSG_CRDB variables apply.",
        heading="Database and queue",
        secret=True,
    )
    crdb_user: str = _setting(TEXT, "root", "The database's user, if TSG_DATABASE_URL is not set, as in 2018.")
    crdb_password: str = _setting(TEXT, "", "Likewise: its password.", secret=True)
    crdb_host: str = _setting(TEXT, "127.0.0.1", "Likewise: its host.")
    crdb_port: int = _setting(PORT, 26257, "Likewise: its port.")
    crdb_database: str = _setting(TEXT, "triton", "Likewise: its name.")
    redis_url: str = _setting(
        REDIS_URL,
        "redis://127.0.0.1:6379/0",
        "A Redis or Valkey that keeps its data: redis://, rediss:// or unix://; or sentinel://HOST:PORT,HOST:PORT/NAME.",
        secret=True,
    )

    http_bind: str = _setting(
        BIND, "127.0.0.1", "The address or host name that tsg-api listens on. `::` accepts IPv4 too.", heading="The HTTP API"
    )
    http_port: int = _setting(PORT_OR_FREE, 3000, "The port that tsg-api listens on; 0: any free port, which the log names.")
    http_reuse_port: bool = _setting(
        YES_NO, False, "Whether several tsg-api may share the port (SO_REUSEPORT): the system distributes connections among them."
    )
    http_threads: int = _setting(
        whole(1, 256),
        8,
        "Requests that one tsg-api answers at once. It opens up to one and a half times as many connections to the database.",
    )
    http_pin: bool = _setting(YES_NO, True, "Whether each tsg-api is bound to one core, if the system can do that.")
    http_max_body: int = _setting(
        whole(1_000, 10_000_000), 100_000, "The largest body of a request, in bytes. CloudAPI itself accepts at most 100,000."
    )
    http_trusted_proxy: str = _setting(
        PROXY, "", "The proxy whose X-Forwarded-For is trusted: its address, or * for any. Without it, none is."
    )
    http_public_url: str = _setting(
        HTTP_URL,
        "",
        "The base URL of the API for callers, in the URLs of webhooks. Without it, that of the request that makes the webhook.",
        otherwise="none",
    )

    rate_per_account: float = _setting(
        number(0, 1_000_000), 0.0, "Requests a second of one account to one tsg-api; 0: no limit.", heading="Limits and authentication"
    )
    rate_per_address: float = _setting(
        number(0, 1_000_000),
        0.0,
        "Requests a second from one address (IPv6: one /64) to one tsg-api that prove no caller; 0: no limit.",
    )
    auth_cache_seconds: int = _setting(whole(1, 3_600), 300, "Seconds for which a caller's key is trusted after CloudAPI confirmed it.")

    triton_dc: str = _setting(
        like(r"[A-Za-z0-9][A-Za-z0-9_.-]*"),
        "us-east-1",
        "The name of the datacenter: the jobs' datacenter in Nomad, and the end of the management keys' names.",
        heading="Triton",
    )
    triton_url: str = _setting(HTTP_URL, "https://us-east-1.api.joyent.com", "The CloudAPI in which instances are launched.")
    triton_auth_url: str = _setting(HTTP_URL, "", "The CloudAPI that confirms callers' keys.", otherwise="TSG_TRITON_URL")
    triton_key_prefix: str = _setting(
        like(r"[A-Za-z0-9][A-Za-z0-9_.-]*"), "TSG_Management", "The management key of an account is named PREFIX_DATACENTER in CloudAPI."
    )
    triton_whitelist: bool = _setting(
        YES_NO,
        True,
        "true: only accounts that an operator added may call (`tsg-admin accounts add`). false: all accounts that CloudAPI knows.",
    )
    triton_cacert: Path | None = _setting(
        AUTHORITIES,
        "",
        "The certificate authorities for CloudAPI's certificate, in PEM; without it, REQUESTS_CA_BUNDLE, "
        "CURL_CA_BUNDLE, SSL_CERT_FILE, SSL_CERT_DIR, or the public ones.",
    )
    triton_skip_verify: bool = _setting(
        YES_NO, False, "Whether CloudAPI's certificate is accepted unverified. Anybody in between can then act for all accounts."
    )
    skip_tls_verify: bool = _setting(
        YES_NO,
        False,
        "Used if TSG_TRITON_SKIP_VERIFY is not set; triton-go and Terraform read it too.",
        variable="TRITON_SKIP_TLS_VERIFY",
    )
    requests_ca_bundle: Path | None = _setting(
        AUTHORITIES,
        "",
        "The certificate authorities for CloudAPI and Nomad, if TSG_TRITON_CACERT or NOMAD_CACERT is not set.",
        variable="REQUESTS_CA_BUNDLE",
    )
    curl_ca_bundle: Path | None = _setting(AUTHORITIES, "", "The same, if REQUESTS_CA_BUNDLE is not set.", variable="CURL_CA_BUNDLE")
    ssl_cert_file: Path | None = _setting(AUTHORITIES, "", "The same, if CURL_CA_BUNDLE is not set.", variable="SSL_CERT_FILE")
    ssl_cert_dir: Path | None = _setting(
        AUTHORITIES, "", "The same, if SSL_CERT_FILE is not set: a directory of certificates, by hash.", variable="SSL_CERT_DIR"
    )
    cloudapi_rate: float = _setting(number(0.1, 100_000), 10.0, "CloudAPI's throttle: requests a second of one account.")
    cloudapi_burst: int = _setting(whole(1, 100_000), 30, "CloudAPI's throttle: requests of one account in a burst.")
    cloudapi_connect_timeout: float = _setting(number(0.1, 60), 3.05, "Seconds to wait for a connection to CloudAPI.")
    cloudapi_read_timeout: float = _setting(number(0.1, 300), 30.0, "Seconds to wait for the next bytes of CloudAPI's answer.")

    feed: str = _setting(
        choice("auto", "on", "off"),
        "auto",
        "Whether tsg-feed watches machines by CloudAPI's changefeed. auto: if CloudAPI has one. on: a CloudAPI without one is a fault, "
        "which /readyz and the log report.",
        heading="The changefeed",
        file="triton.feed",
    )
    feed_interval: float = _setting(
        number(1, 100),
        1.0,
        "By this factor settled groups are checked less often while the changefeed is trusted, but at least once an hour. "
        "A death that it does not report is found as much later. 1: no less often. Nomad's jobs run at their intervals.",
        file="triton.feed-interval",
    )

    scaler: str = _setting(
        choice("worker", "nomad"),
        "worker",
        "worker: workers reconcile groups. nomad: Nomad's jobs do, and workers where a job is late (TSG_NOMAD_GRACE).",
        heading="Nomad",
    )
    nomad_url: str = _setting(HOST_OR_HTTP_URL, "", "Nomad's host, as in 2018, or its whole address. Without it, NOMAD_ADDR.")
    nomad_port: int = _setting(PORT, 4646, "Nomad's port, if TSG_NOMAD_URL is a host.")
    nomad_addr: str = _setting(HTTP_URL, "", "Nomad's whole address, if TSG_NOMAD_URL is not set.", variable="NOMAD_ADDR")
    nomad_token: str = _setting(TEXT, "", "The ACL token for Nomad.", variable="NOMAD_TOKEN", secret=True)
    nomad_namespace: str = _setting(TEXT, "", "The namespace of the jobs.", variable="NOMAD_NAMESPACE")
    nomad_region: str = _setting(TEXT, "", "The region of the jobs.", variable="NOMAD_REGION")
    nomad_cacert: Path | None = _setting(AUTHORITIES, "", "The certificate authority for Nomad's certificate.", variable="NOMAD_CACERT")
    nomad_client_cert: Path | None = _setting(FILE, "", "The client certificate for Nomad.", variable="NOMAD_CLIENT_CERT")
    nomad_client_key: Path | None = _setting(FILE, "", "Its private key.", variable="NOMAD_CLIENT_KEY")
    nomad_skip_verify: bool = _setting(YES_NO, False, "Whether Nomad's certificate is accepted unverified.", variable="NOMAD_SKIP_VERIFY")
    nomad_role: str = _setting(NAME, "automater", "The `meta.role` of the nodes that run the jobs.")
    nomad_driver: str = _setting(choice("exec", "raw_exec", "docker"), "exec", "Nomad's driver for the jobs.")
    nomad_command: str = _setting(NAME, "tsg-scale", "The command that the jobs run on a node.")
    nomad_image: str = _setting(TEXT, "triton-service-groups", "The image in which the docker driver runs the command.")
    nomad_artifact: str = _setting(TEXT, "", "The source of an archive that the jobs fetch first (Nomad's `artifact`).")
    nomad_config: str = _setting(TEXT, "", "A file on the nodes that the jobs pass to `--config`.")
    nomad_cpu: int = _setting(whole(20, 100_000), 100, "MHz that a job reserves.")
    nomad_memory: int = _setting(whole(64, 100_000), 128, "MiB that a job reserves.")
    nomad_grace: int = _setting(whole(5, 3_600), 60, "Seconds for which a due group waits for its Nomad job before a worker reconciles it.")
    max_capacity: int = _setting(
        whole(1, 10_000), 100, "The highest capacity that a group may have.", heading="Groups and workers", file="groups.max-capacity"
    )
    health_check_interval: int = _setting(
        whole(10, 86_400),
        300,
        "Seconds between the checks of a settled group without a `health_check_interval`.",
        file="groups.health-check-interval",
    )
    activity_days: int = _setting(whole(1, 3_650), 42, "Days for which activities are kept.", file="groups.activity-days")
    provision_timeout: int = _setting(
        whole(10, 7_200), 300, "Seconds after which a machine that still boots is replaced.", file="workers.provision-timeout"
    )
    launch_grace: int = _setting(
        whole(5, 600),
        60,
        "Seconds for which a launch whose answer was lost counts: its machine may still appear in CloudAPI's list.",
        file="workers.launch-grace",
    )
    replace_percent: int = _setting(
        whole(1, 100),
        20,
        "The most machines that ran and are unhealthy which are replaced at a time, in per cent of the group's capacity; at least one.",
        file="workers.replace-percent",
    )
    breaker_failures: int = _setting(
        whole(1, 100),
        5,
        "Failed launches in a row after which a group's launches are tried one at a time, once a minute at most.",
        file="workers.breaker-failures",
    )
    lease_seconds: int = _setting(
        whole(3, 300), 10, "Seconds after which an account's lease ends unless its holder renews it.", file="workers.lease-seconds"
    )
    worker_threads: int = _setting(
        whole(1, 64),
        8,
        "Accounts, policies and Nomad jobs that one tsg-worker works on at once. Deliveries have threads of their own.",
        file="workers.threads",
    )
    probe_networks: tuple[IPv4Network | IPv6Network, ...] = _setting(
        NETWORKS,
        "",
        "Networks that health checks may probe besides public addresses: those in which workers reach the instances.",
        file="workers.probe-networks",
    )

    policy_interval: float = _setting(
        number(1, 3_600), 15.0, "Seconds between evaluations of the policies that measure something.", heading="Policies"
    )

    cmon_url: str = _setting(
        HTTP_URL, "", "The URL of CMON, with its port. Without it, the one in CloudAPI's list of services.", otherwise="CloudAPI's services"
    )
    prometheus_url: str = _setting(
        HTTP_URL, "", "The Prometheus that policies may query. Without it, the source `prometheus` is refused.", otherwise="none"
    )
    prometheus_accounts: str = _setting(
        TEXT, "", "The accounts that may query it: logins or UUIDs, separated by commas. PromQL can read the series of all accounts."
    )
    prometheus_tenants: bool = _setting(
        YES_NO,
        False,
        "Whether it separates tenants by X-Scope-OrgID, for which the service sends the account's UUID. Then all accounts may query it.",
    )

    notify_http: bool = _setting(YES_NO, False, "Whether notifications may go to http:// addresses.")
    notify_private: bool = _setting(
        YES_NO, False, "Whether notifications may go to addresses that are not public. Users can then reach your own network."
    )

    metrics_enable: bool = _setting(
        YES_NO,
        True,
        "Whether each process serves /metrics, /healthz and /readyz on a port of its own.",
        heading="Health, metrics and shutdown",
    )
    metrics_bind: str = _setting(
        BIND, "127.0.0.1", "The address of that port. It asks for no password: leave it on loopback, or on a private network."
    )
    metrics_port: int = _setting(PORT_OR_FREE, 0, "The port; 0: any free port, which the log names.")

    drain_seconds: float = _setting(
        number(0, 300),
        0.0,
        "Seconds after SIGTERM for which tsg-api still answers requests while /readyz says 503, so that a load balancer notices.",
    )
    stop_seconds: float = _setting(
        number(1, 300),
        20.0,
        "Seconds that requests and checks under way at SIGTERM have to finish. A supervisor should wait longer before it kills.",
    )

    gops_enable: bool = _setting(YES_NO, False, "Whether each process runs the agent that `gops` talks to.", heading="Diagnostics")
    gops_bind: str = _setting(BIND, "127.0.0.1", "The address that the agent listens on. It asks for no password: leave it on loopback.")
    gops_port: int = _setting(PORT_OR_FREE, 9090, "The agent's port; 0, or if it is taken: any free port. The log names it.")
    pprof_enable: bool = _setting(YES_NO, False, "Whether each process serves /debug/pprof/ for `go tool pprof` and browsers.")
    pprof_bind: str = _setting(
        BIND, "127.0.0.1", "The address that these pages are served on. They ask for no password: leave it on loopback."
    )
    pprof_port: int = _setting(PORT_OR_FREE, 9191, "The port of these pages; 0, or if it is taken: any free port. The log names it.")

    dev_mode: bool = _setting(
        YES_NO,
        False,
        "Whether every request counts as the seeded account's, without a signature. For development only, on a loopback address.",
        heading="Development and secrets",
    )
    dev_mode_anywhere: bool = _setting(YES_NO, False, "Whether development mode is allowed where other machines reach the API.")
    secret_keys: tuple[bytes, ...] = _setting(
        SECRET_KEYS,
        "",
        "AES-256 keys for secrets in the database, base64, comma-separated. The first encrypts, all decrypt. `tsg-admin keys generate`.",
        otherwise="none: required",
        secret=True,
    )

    #: Which of `NOT_USED` were given.
    not_used: tuple[str, ...] = ()

    @property
    def notify_rules(self) -> Rules:
        """What the URLs of notifications may lead to."""
        return Rules(self.notify_private, self.notify_http)

    @property
    def triton_trust(self) -> Trust:
        """Whose certificates are taken of CloudAPI."""
        return Trust(self.triton_cacert or self._authorities, self.triton_skip_verify)

    @property
    def nomad(self) -> NomadAccess:
        """Where Nomad is: TSG_NOMAD_URL (a host, or a whole address) and TSG_NOMAD_PORT, or else the conventional NOMAD_ADDR."""
        parts = f"http://{values.bracketed(self.nomad_url or '127.0.0.1')}:{self.nomad_port}"
        return NomadAccess(
            address=self.nomad_url.rstrip("/") if "://" in self.nomad_url else (not self.nomad_url and self.nomad_addr) or parts,
            token=self.nomad_token,
            namespace=self.nomad_namespace,
            region=self.nomad_region,
            ca_cert=self.nomad_cacert or self._authorities,
            client_cert=self.nomad_client_cert,
            client_key=self.nomad_client_key,
            skip_verify=self.nomad_skip_verify,
        )

    @property
    def _authorities(self) -> Path | None:
        """Those of all that a program trusts: the first that is set."""
        return self.requests_ca_bundle or self.curl_ca_bundle or self.ssl_cert_file or self.ssl_cert_dir

    @property
    def key_name(self) -> str:
        """The name of the management key in CloudAPI."""
        return f"{self.triton_key_prefix}_{self.triton_dc}"


def declared() -> list[Declared]:
    """All settings, in the order of their declaration."""
    found = [(one.name, one.metadata[_DECLARED]) for one in fields(Settings) if _DECLARED in one.metadata]
    return [Declared(name, **{**one, "variable": one["variable"] or f"TSG_{name.upper()}"}) for name, one in found]


def variables() -> list[str]:
    """The names of all variables that `load` reads."""
    return sorted(one.variable for one in declared())


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
    # To other programs that read them, a variable that is empty is one that is not set.
    of_others = {name for name in variables() if not name.startswith("TSG_") and environ.get(name)}
    given = _read_file(file, problems) if file else {}
    given |= {name: value for name, value in environ.items() if name.startswith("TSG_") or name in of_others}
    given |= dict(flags or {})
    env = _Source(given)
    got: dict[str, Any] = {one.field: _value(env, one) for one in declared()}
    got["not_used"] = tuple(name for name in NOT_USED if name in given)
    try:
        env.seal()
    except EnvValidationError as error:
        messages_of = error.error_messages if isinstance(error.error_messages, Mapping) else {"TSG": error.error_messages}
        problems.update({name: "; ".join(messages) for name, messages in messages_of.items()})
    if needs_keys and not got["secret_keys"] and not got["dev_mode"] and "TSG_SECRET_KEYS" not in problems:
        problems["TSG_SECRET_KEYS"] = f"is needed, since private keys are sealed at rest; {HOW_TO_MAKE_A_KEY}"
    if got["dev_mode"] and not got["dev_mode_anywhere"] and got["http_bind"] and not is_loopback(got["http_bind"]):
        problems["TSG_DEV_MODE"] = f"lets in everybody who reaches {got['http_bind']}; {MEANT}"
    if problems:
        raise SettingsError(problems)
    return Settings(**got | _following(got, given))


def _value(env: _Source, one: Declared) -> Any:
    """The value of a setting; None if it is wrong, which `env` then tells."""

    def check(value: Any) -> None:
        one.form.read(value)

    value = getattr(env, one.form.method)(one.variable, one.default, validate=check)
    return None if value is None else one.form.read(value)


def _following(got: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, Any]:
    """What is not given and follows from other settings."""
    crdb = URL.create(
        "cockroachdb+psycopg2",
        username=got["crdb_user"],
        password=got["crdb_password"] or None,
        host=got["crdb_host"],
        port=got["crdb_port"],
        database=got["crdb_database"],
    )
    return {
        "database_url": got["database_url"] or crdb,
        "triton_auth_url": got["triton_auth_url"] or got["triton_url"],
        "triton_skip_verify": got["triton_skip_verify" if "TSG_TRITON_SKIP_VERIFY" in given else "skip_tls_verify"],
    }


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
    known, by_key = {*variables(), *NOT_USED}, {one.file_key: one.variable for one in declared()}
    found: dict[str, str] = {}
    aliased: dict[str, str] = {}
    for key, value in _leaves(tree):
        name = by_key.get(".".join(key).replace("_", "-"), "TSG_" + "_".join(key).upper().replace("-", "_"))
        where = f"{path.name}: {'.'.join(key)}"
        if name in FILE_IGNORED:
            continue
        if not isinstance(value, str | int | float):
            problems[where] = "must be a string, a number or a boolean"
        elif name in FILE_NAMES:
            aliased[FILE_NAMES[name]] = _as_variable(value)
        elif name in found:
            problems[where] = f"is {name}, which the file sets under another key too"
        elif name in known:
            found[name] = _as_variable(value)
        else:
            problems[where] = f"is no setting (there is no {name})"
    return {**aliased, **found}


def _leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = []
    for key, value in tree.items():
        found += _leaves(value, (*path, key)) if isinstance(value, dict) else [((*path, key), value)]
    return found


def _as_variable(value: str | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
