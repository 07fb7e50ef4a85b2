"""Settings: where each value comes from, and what is said of a wrong one."""

import argparse
import base64
import json
from ipaddress import ip_network
from operator import attrgetter
from pathlib import Path
from typing import Any

import certifi
import pytest
from redis.connection import SSLConnection
from redis.sentinel import SentinelConnectionPool
from sqlalchemy.engine import make_url

from shared.clients import redis_client
from shared.runtime import flags
from shared.runtime.settings import NOT_USED, Settings, SettingsError, declared, load, load_arguments, variables

KEY = bytes(range(32))
OTHER_KEY = bytes(range(32, 64))
#: What is never to be seen in a message or a repr.
PASSWORD = "hunter2-is-secret"


#: A file of certificates.
CERTIFICATES = certifi.where()


def encoded(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode()


#: Without it nothing starts.
NEEDED = {"TSG_SECRET_KEYS": encoded(KEY)}

NEEDED_ELSE = {"TSG_SECRET_KEYS": encoded(b"e" * 32)}

#: Every variable: a value of it that is not the default, and what becomes of it.
VALUES: dict[str, tuple[str, str, Any]] = {
    "TSG_LOG_LEVEL": ("debug", "log_level", "DEBUG"),
    "TSG_LOG_FORMAT": ("human", "log_format", "human"),
    "TSG_DATABASE_URL": ("postgresql://u:p@db:5433/tsg", "database_url", make_url("postgresql+psycopg2://u:p@db:5433/tsg")),
    "TSG_CRDB_DATABASE": ("groups", "database_url", make_url("cockroachdb+psycopg2://root@127.0.0.1:26257/groups")),
    "TSG_CRDB_HOST": ("roach", "database_url", make_url("cockroachdb+psycopg2://root@roach:26257/triton")),
    "TSG_CRDB_PORT": ("26258", "database_url", make_url("cockroachdb+psycopg2://root@127.0.0.1:26258/triton")),
    "TSG_CRDB_USER": ("tsg", "database_url", make_url("cockroachdb+psycopg2://tsg@127.0.0.1:26257/triton")),
    "TSG_CRDB_PASSWORD": ("p@ss", "database_url", make_url("cockroachdb+psycopg2://root:p%40ss@127.0.0.1:26257/triton")),
    "TSG_REDIS_URL": ("rediss://r:6380/1", "redis_url", "rediss://r:6380/1"),
    "TSG_HTTP_BIND": ("0.0.0.0", "http_bind", "0.0.0.0"),
    "TSG_HTTP_PORT": ("0", "http_port", 0),
    "TSG_HTTP_REUSE_PORT": ("true", "http_reuse_port", True),
    "TSG_HTTP_PIN": ("false", "http_pin", False),
    "TSG_HTTP_THREADS": ("16", "http_threads", 16),
    "TSG_HTTP_MAX_BODY": ("200000", "http_max_body", 200_000),
    "TSG_HTTP_TRUSTED_PROXY": ("10.1.2.3", "http_trusted_proxy", "10.1.2.3"),
    "TSG_TRITON_DC": ("eu-ams-1", "triton_dc", "eu-ams-1"),
    "TSG_TRITON_URL": ("https://cloud.example.com/", "triton_url", "https://cloud.example.com"),
    "TSG_TRITON_AUTH_URL": ("http://auth.example.com:8080", "triton_auth_url", "http://auth.example.com:8080"),
    "TSG_TRITON_KEY_PREFIX": ("Groups", "triton_key_prefix", "Groups"),
    "TSG_TRITON_WHITELIST": ("false", "triton_whitelist", False),
    "TSG_HTTP_PUBLIC_URL": ("https://tsg.example.com", "http_public_url", "https://tsg.example.com"),
    "TSG_POLICY_INTERVAL": ("30", "policy_interval", 30.0),
    "TSG_NOTIFY_HTTP": ("true", "notify_http", True),
    "TSG_NOTIFY_PRIVATE": ("true", "notify_private", True),
    "TSG_CMON_URL": ("https://cmon.example.com:9163", "cmon_url", "https://cmon.example.com:9163"),
    "TSG_PROMETHEUS_URL": ("http://prometheus:9090", "prometheus_url", "http://prometheus:9090"),
    "TSG_PROMETHEUS_ACCOUNTS": ("acme,ops", "prometheus_accounts", "acme,ops"),
    "TSG_PROMETHEUS_TENANTS": ("true", "prometheus_tenants", True),
    "TSG_RATE_PER_ACCOUNT": ("50", "rate_per_account", 50.0),
    "TSG_RATE_PER_ADDRESS": ("2.5", "rate_per_address", 2.5),
    "TSG_AUTH_CACHE_SECONDS": ("60", "auth_cache_seconds", 60),
    "TSG_TRITON_CACERT": (CERTIFICATES, "triton_trust.authorities", Path(CERTIFICATES)),
    "TSG_TRITON_SKIP_VERIFY": ("true", "triton_trust.skip_verify", True),
    "TRITON_SKIP_TLS_VERIFY": ("1", "triton_trust.skip_verify", True),
    "REQUESTS_CA_BUNDLE": (CERTIFICATES, "triton_trust.authorities", Path(CERTIFICATES)),
    "CURL_CA_BUNDLE": (CERTIFICATES, "nomad.ca_cert", Path(CERTIFICATES)),
    "SSL_CERT_FILE": (CERTIFICATES, "triton_trust.authorities", Path(CERTIFICATES)),
    "SSL_CERT_DIR": (str(Path(CERTIFICATES).parent), "triton_trust.authorities", Path(CERTIFICATES).parent),
    "TSG_CLOUDAPI_RATE": ("2.5", "cloudapi_rate", 2.5),
    "TSG_CLOUDAPI_BURST": ("5", "cloudapi_burst", 5),
    "TSG_CLOUDAPI_CONNECT_TIMEOUT": ("1.5", "cloudapi_connect_timeout", 1.5),
    "TSG_CLOUDAPI_READ_TIMEOUT": ("60", "cloudapi_read_timeout", 60.0),
    "TSG_FEED": ("on", "feed", "on"),
    "TSG_FEED_INTERVAL": ("2.5", "feed_interval", 2.5),
    "TSG_SCALER": ("nomad", "scaler", "nomad"),
    "TSG_NOMAD_URL": ("nomad.example.com", "nomad.address", "http://nomad.example.com:4646"),
    "TSG_NOMAD_PORT": ("4647", "nomad.address", "http://127.0.0.1:4647"),
    "TSG_NOMAD_ROLE": ("scaler", "nomad_role", "scaler"),
    "TSG_NOMAD_DRIVER": ("docker", "nomad_driver", "docker"),
    "TSG_NOMAD_COMMAND": ("/opt/tsg/bin/tsg-scale", "nomad_command", "/opt/tsg/bin/tsg-scale"),
    "TSG_NOMAD_IMAGE": ("example.com/tsg:1", "nomad_image", "example.com/tsg:1"),
    "TSG_NOMAD_ARTIFACT": ("https://example.com/tsg.tar.gz", "nomad_artifact", "https://example.com/tsg.tar.gz"),
    "TSG_NOMAD_CONFIG": ("/etc/tsg.toml", "nomad_config", "/etc/tsg.toml"),
    "TSG_NOMAD_CPU": ("200", "nomad_cpu", 200),
    "TSG_NOMAD_MEMORY": ("256", "nomad_memory", 256),
    "TSG_NOMAD_GRACE": ("30", "nomad_grace", 30),
    "NOMAD_ADDR": ("https://nomad.example.com:4646/", "nomad.address", "https://nomad.example.com:4646"),
    "NOMAD_TOKEN": ("t0ken", "nomad.token", "t0ken"),
    "NOMAD_NAMESPACE": ("groups", "nomad.namespace", "groups"),
    "NOMAD_REGION": ("eu", "nomad.region", "eu"),
    "NOMAD_CACERT": (CERTIFICATES, "nomad.ca_cert", Path(CERTIFICATES)),
    "NOMAD_CLIENT_CERT": (__file__, "nomad.client_cert", Path(__file__)),
    "NOMAD_CLIENT_KEY": (__file__, "nomad.client_key", Path(__file__)),
    "NOMAD_SKIP_VERIFY": ("true", "nomad.skip_verify", True),
    "TSG_MAX_CAPACITY": ("1000", "max_capacity", 1000),
    "TSG_HEALTH_CHECK_INTERVAL": ("60", "health_check_interval", 60),
    "TSG_ACTIVITY_DAYS": ("90", "activity_days", 90),
    "TSG_PROVISION_TIMEOUT": ("600", "provision_timeout", 600),
    "TSG_LAUNCH_GRACE": ("30", "launch_grace", 30),
    "TSG_REPLACE_PERCENT": ("50", "replace_percent", 50),
    "TSG_BREAKER_FAILURES": ("3", "breaker_failures", 3),
    "TSG_LEASE_SECONDS": ("20", "lease_seconds", 20),
    "TSG_WORKER_THREADS": ("4", "worker_threads", 4),
    "TSG_PROBE_NETWORKS": ("10.0.0.0/8, fd00::/8", "probe_networks", (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))),
    "TSG_METRICS_ENABLE": ("false", "metrics_enable", False),
    "TSG_METRICS_BIND": ("0.0.0.0", "metrics_bind", "0.0.0.0"),
    "TSG_METRICS_PORT": ("9100", "metrics_port", 9100),
    "TSG_DRAIN_SECONDS": ("2.5", "drain_seconds", 2.5),
    "TSG_STOP_SECONDS": ("60", "stop_seconds", 60.0),
    "TSG_GOPS_ENABLE": ("true", "gops_enable", True),
    "TSG_GOPS_BIND": ("0.0.0.0", "gops_bind", "0.0.0.0"),
    "TSG_GOPS_PORT": ("9091", "gops_port", 9091),
    "TSG_PPROF_ENABLE": ("1", "pprof_enable", True),
    "TSG_PPROF_BIND": ("0.0.0.0", "pprof_bind", "0.0.0.0"),
    "TSG_PPROF_PORT": ("9192", "pprof_port", 9192),
    "TSG_DEV_MODE": ("1", "dev_mode", True),
    "TSG_DEV_MODE_ANYWHERE": ("1", "dev_mode_anywhere", True),
    "TSG_SECRET_KEYS": (f"{encoded(OTHER_KEY)}, {encoded(KEY)}", "secret_keys", (OTHER_KEY, KEY)),
}

#: Wrong values; any text is right for the others.
WRONG = {
    "TSG_LOG_LEVEL": "LOUD",
    "TSG_LOG_FORMAT": "xml",
    "TSG_DATABASE_URL": f"mysql://root:{PASSWORD}@db/tsg",
    "TSG_CRDB_PORT": "65536",
    "TSG_REDIS_URL": f"http://:{PASSWORD}@redis",
    "TSG_HTTP_BIND": "",
    "TSG_HTTP_PORT": "65536",
    "TSG_HTTP_REUSE_PORT": "2",
    "TSG_HTTP_PIN": "hard",
    "TSG_HTTP_THREADS": "0",
    "TSG_HTTP_MAX_BODY": "999",
    "TSG_PROBE_NETWORKS": "10.0.0.1/8",
    "TSG_HTTP_TRUSTED_PROXY": "edge",
    "TSG_TRITON_DC": "us east",
    "TSG_TRITON_URL": f"https://me:{PASSWORD}@cloud.example.com",
    "TSG_TRITON_AUTH_URL": "cloud.example.com",
    "TSG_TRITON_KEY_PREFIX": "my/key",
    "TSG_TRITON_WHITELIST": "maybe",
    "TSG_HTTP_PUBLIC_URL": "tsg.example.com",
    "TSG_POLICY_INTERVAL": "0",
    "TSG_NOTIFY_HTTP": "maybe",
    "TSG_NOTIFY_PRIVATE": "some",
    "TSG_CMON_URL": "cmon.example.com",
    "TSG_PROMETHEUS_URL": "prometheus:9090",
    "TSG_PROMETHEUS_TENANTS": "some",
    "TSG_RATE_PER_ACCOUNT": "-1",
    "TSG_RATE_PER_ADDRESS": "often",
    "TSG_AUTH_CACHE_SECONDS": "0",
    "TSG_TRITON_CACERT": "/nowhere/ca.pem",
    "TSG_TRITON_SKIP_VERIFY": "maybe",
    "TRITON_SKIP_TLS_VERIFY": "maybe",
    "REQUESTS_CA_BUNDLE": __file__,
    "CURL_CA_BUNDLE": "/nowhere/ca.pem",
    "SSL_CERT_FILE": "/nowhere/ca.pem",
    "SSL_CERT_DIR": "/nowhere",
    "NOMAD_CACERT": __file__,
    "NOMAD_CLIENT_CERT": "/nowhere/cert.pem",
    "NOMAD_CLIENT_KEY": "/nowhere/key.pem",
    "TSG_CLOUDAPI_RATE": "nan",
    "TSG_CLOUDAPI_BURST": "1.5",
    "TSG_CLOUDAPI_CONNECT_TIMEOUT": "0",
    "TSG_CLOUDAPI_READ_TIMEOUT": "soon",
    "TSG_FEED": "perhaps",
    "TSG_FEED_INTERVAL": "0.5",
    "TSG_SCALER": "cron",
    "TSG_NOMAD_PORT": "0",
    "TSG_NOMAD_ROLE": "",
    "TSG_NOMAD_DRIVER": "java",
    "TSG_NOMAD_COMMAND": "",
    "TSG_NOMAD_CPU": "19",
    "TSG_NOMAD_MEMORY": "63",
    "TSG_NOMAD_GRACE": "4",
    "NOMAD_ADDR": f"https://me:{PASSWORD}@nomad.example.com",
    "NOMAD_SKIP_VERIFY": "maybe",
    "TSG_MAX_CAPACITY": "0",
    "TSG_HEALTH_CHECK_INTERVAL": "9",
    "TSG_ACTIVITY_DAYS": "0",
    "TSG_PROVISION_TIMEOUT": "9",
    "TSG_LAUNCH_GRACE": "4",
    "TSG_REPLACE_PERCENT": "0",
    "TSG_BREAKER_FAILURES": "0",
    "TSG_LEASE_SECONDS": "2",
    "TSG_WORKER_THREADS": "-1",
    "TSG_METRICS_ENABLE": "perhaps",
    "TSG_METRICS_BIND": "",
    "TSG_METRICS_PORT": "65536",
    "TSG_DRAIN_SECONDS": "-1",
    "TSG_STOP_SECONDS": "0",
    "TSG_GOPS_ENABLE": "perhaps",
    "TSG_GOPS_PORT": "port",
    "TSG_PPROF_ENABLE": "2",
    "TSG_PPROF_PORT": "70000",
    "TSG_DEV_MODE": "yess",
    "TSG_DEV_MODE_ANYWHERE": "yess",
    "TSG_SECRET_KEYS": encoded(KEY) + f",{PASSWORD}",
}

#: What the 2018 service was given, in its own words.
FILE_OF_2018 = """
[log]
level = "WARN"

[crdb]
database = "triton"
host = "10.0.0.1"
port = 26257
password = "hunter2-is-secret"
user = "tsg"

[agent]
log-format = "zerolog"

[http]
bind = "10.0.0.2"
port = 3001
dc = "us-west-1"

[gops]
enable = true
bind = "10.0.0.3"
port = 9092

[pprof]
enable = false
bind = "10.0.0.4"
port = 9193

[nomad]
url = "10.0.0.5"
port = 4648

[triton]
dc = "us-sw-1"
url = "https://us-sw-1.api.example.com"
auth-url = "https://us-east-1.api.example.com"
key-prefix = "TSG_2018"
whitelist = false
"""


@pytest.fixture
def file_of_2018(tmp_path: Path) -> Path:
    return written(tmp_path, FILE_OF_2018)


def written(directory: Path, text: str) -> Path:
    file = directory / "config.toml"
    file.write_text(text)
    return file


def problems_of(environ: dict[str, str], **keywords: Any) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        load(environ, **keywords)
    return caught.value.problems


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    flags.add(parser)
    return parser.parse_args(arguments)


# Each variable


@pytest.mark.parametrize("variable", variables())
def test_a_variable_is_read(variable: str) -> None:
    text, attribute, value = VALUES[variable]
    of = attrgetter(attribute)
    assert of(load(NEEDED | {variable: text})) == value
    assert of(load(NEEDED_ELSE)) != value, "the value is the default: this would show nothing"


def test_no_variable_is_left_out_above() -> None:
    assert set(VALUES) == set(variables())


@pytest.mark.parametrize("variable", WRONG)
def test_a_wrong_value_is_told_by_name(variable: str) -> None:
    assert list(problems_of(NEEDED | {variable: WRONG[variable]})) == [variable]


def test_all_wrong_values_are_told_in_one_message() -> None:
    with pytest.raises(SettingsError) as caught:
        load(NEEDED | WRONG)
    lines = str(caught.value).splitlines()
    assert lines[0] == "wrong settings, nothing was started:"
    assert [line.partition(":")[0].strip() for line in lines[1:]] == sorted(WRONG)
    assert all(line.partition(":")[2].strip() for line in lines[1:])


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://redis-1",
        f"sentinel://:{PASSWORD}@redis-1:0/main",
        f"sentinel://:{PASSWORD}@redis-1,,redis-2/main",
        f"sentinel://:{PASSWORD}@redis-1/main?db=first",
        f"sentinel://redis-1:{PASSWORD}/main",
        f"redis://redis-1:{PASSWORD}/0",
        f"redis://:slash/{PASSWORD}@redis-1",
    ],
)
def test_a_url_of_redis_that_is_none_is_told_without_its_password(url: str) -> None:
    problems = problems_of(NEEDED | {"TSG_REDIS_URL": url})
    assert list(problems) == ["TSG_REDIS_URL"]
    assert PASSWORD not in str(problems)


def test_a_url_of_sentinel_names_all_of_them_and_what_they_watch() -> None:
    url = f"sentinels://tsg:{PASSWORD}@redis-1,redis-2:1234,[fd00::3]:5/main?db=3&sentinel_password=x&socket_keepalive=true"
    client = redis_client.connect(load(NEEDED | {"TSG_REDIS_URL": url}).redis_url, patience=1.0)
    pool = client.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert issubclass(pool.connection_class, SSLConnection)
    assert pool.service_name == "main"
    of_server, of_sentinels = pool.connection_kwargs, [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert (of_server["username"], of_server["password"], of_server["db"]) == ("tsg", PASSWORD, 3)
    assert [(one["host"], one["port"]) for one in of_sentinels] == [("redis-1", 26379), ("redis-2", 1234), ("fd00::3", 5)]
    assert {(one["username"], one["password"], one["socket_timeout"], one["socket_keepalive"]) for one in of_sentinels} == {
        (None, "x", 1.0, True)
    }
    assert PASSWORD not in f"{client!r} {pool.sentinel_manager!r}"


def test_a_wrong_value_of_a_default_that_is_not_used_is_wrong_all_the_same() -> None:
    assert list(problems_of(NEEDED | {"TSG_CRDB_PORT": "0", "TSG_DATABASE_URL": "postgresql:///tsg"})) == ["TSG_CRDB_PORT"]


@pytest.mark.parametrize("name", ["HTTP", "METRICS", "GOPS", "PPROF"])
@pytest.mark.parametrize(
    ("given", "bind"),
    [
        ("[::1]", "::1"),
        ("[::]", "::"),
        ("0::0", "::"),
        ("FD00::01", "fd00::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
    ],
)
def test_an_address_to_listen_on_has_one_spelling(name: str, given: str, bind: str) -> None:
    assert getattr(load(NEEDED | {f"TSG_{name}_BIND": given}), f"{name.lower()}_bind") == bind


def test_the_address_of_nomad_may_be_told_in_one_or_in_the_parts_of_2018(tmp_path: Path) -> None:
    assert load(NEEDED | {"TSG_NOMAD_URL": "https://nomad.example.com:4700"}).nomad.address == "https://nomad.example.com:4700"
    file = written(tmp_path, '[nomad]\nurl = "10.0.0.5"\nport = 4648\n')
    assert load(NEEDED, file=file).nomad.address == "http://10.0.0.5:4648"
    for spelt in ("fd00::5", "[fd00::5]"):
        assert load(NEEDED | {"TSG_NOMAD_URL": spelt}).nomad.address == "http://[fd00::5]:4646"


@pytest.mark.parametrize(
    "address",
    ["nomad.example.com:4646", "nomad/v1", "no mad", "ftp://nomad", "https://", "https://nomad:port", "http://a:b@nomad", "http://h/?x=y"],
)
def test_an_address_of_nomad_that_is_none_is_told_before_anything_starts(address: str) -> None:
    (problem,) = problems_of(NEEDED | {"TSG_NOMAD_URL": address}).items()
    assert problem[0] == "TSG_NOMAD_URL"
    assert "http:// or https:// address" in problem[1]


def test_variables_of_other_programs_mean_nothing() -> None:
    assert load(NEEDED | {"HTTP_PORT": "nonsense", "LOG_LEVEL": "nonsense"}) == load(NEEDED)


def test_what_is_said_of_a_file_of_certificates_that_is_none() -> None:
    assert problems_of(NEEDED | {"TSG_TRITON_CACERT": "/nowhere/ca.pem"}) == {
        "TSG_TRITON_CACERT": "/nowhere/ca.pem cannot be read: No such file or directory"
    }
    assert problems_of(NEEDED | {"TSG_TRITON_CACERT": __file__}) == {"TSG_TRITON_CACERT": f"{__file__} holds no certificates in PEM"}


def test_the_nearest_word_about_certificates_counts(tmp_path: Path) -> None:
    own, nomads, others = (tmp_path / name for name in ("own.pem", "nomads.pem", "others.pem"))
    for file in (own, nomads, others):
        file.write_bytes(Path(CERTIFICATES).read_bytes())
    environ = NEEDED | {"TSG_TRITON_CACERT": str(own), "REQUESTS_CA_BUNDLE": str(others), "SSL_CERT_FILE": CERTIFICATES}
    got = load(environ)
    assert (got.triton_trust.authorities, got.nomad.ca_cert) == (own, others)
    assert load(environ | {"NOMAD_CACERT": str(nomads)}).nomad.ca_cert == nomads
    assert load(environ | {"TSG_TRITON_CACERT": "", "REQUESTS_CA_BUNDLE": ""}).triton_trust.authorities == Path(CERTIFICATES)
    said_no = {"TSG_TRITON_SKIP_VERIFY": "false", "TRITON_SKIP_TLS_VERIFY": "true"}
    assert not load(NEEDED | said_no).triton_trust.skip_verify


@pytest.mark.parametrize("variable", [name for name in variables() if not name.startswith("TSG_")])
def test_another_programs_variable_that_is_empty_is_not_set(variable: str) -> None:
    assert load(NEEDED | {variable: ""}) == load(NEEDED)


# Defaults


def test_the_default_database_is_the_cockroachdb_of_2018() -> None:
    assert load(NEEDED).database_url == make_url("cockroachdb+psycopg2://root@127.0.0.1:26257/triton")


def test_callers_are_authenticated_by_the_cloudapi_unless_another_is_named() -> None:
    assert load(NEEDED | {"TSG_TRITON_URL": "http://cloud.example.com/"}).triton_auth_url == "http://cloud.example.com"


def test_the_management_key_is_named_after_prefix_and_datacenter() -> None:
    assert load(NEEDED).key_name == "TSG_Management_us-east-1"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_a_postgresql_url_goes_to_psycopg2_however_it_is_spelt(scheme: str) -> None:
    assert load(NEEDED | {"TSG_DATABASE_URL": f"{scheme}:///tsg"}).database_url.drivername == "postgresql+psycopg2"


def test_a_cockroachdb_url_is_one() -> None:
    assert load(NEEDED | {"TSG_DATABASE_URL": "cockroachdb://r:1/d"}).database_url.drivername == "cockroachdb+psycopg2"


def test_another_driver_than_the_one_that_is_installed_is_refused() -> None:
    assert list(problems_of(NEEDED | {"TSG_DATABASE_URL": "postgresql+asyncpg:///tsg"})) == ["TSG_DATABASE_URL"]


# Settings of earlier versions


def test_a_setting_that_is_not_used_any_more_is_noted_wherever_it_stands_and_is_no_error(tmp_path: Path) -> None:
    assert load(NEEDED).not_used == ()
    assert load(NEEDED | {"TSG_HTTP_PROCESSES": "many"}).not_used == ("TSG_HTTP_PROCESSES",)
    assert load(NEEDED, file=written(tmp_path, "[http]\nprocesses = 4\n")).not_used == ("TSG_HTTP_PROCESSES",)
    assert load(NEEDED, flags={"TSG_HTTP_PROCESSES": "4"}).not_used == ("TSG_HTTP_PROCESSES",)
    assert not set(NOT_USED) & set(variables())


# Precedence


@pytest.mark.parametrize(
    ("text", "hosts", "ports"),
    [
        ("postgresql://u:p%40@a:5433,b:5434/tsg?sslmode=require", "a,b", "5433,5434"),
        ("postgresql://a,b/tsg", "a,b", ","),
        ("postgres://u@[::1]:5433,[fe80::2],c:5434/tsg", "::1,fe80::2,c", "5433,,5434"),
        ("postgresql:///tsg?host=a,b&port=5433,5434", "a,b", "5433,5434"),
        ("postgresql:///tsg?host=a:5433&host=b:5434", "a,b", "5433,5434"),
        ("cockroachdb://u@a:26257,b:26257/tsg", "a,b", "26257,26257"),
        ("postgresql://a:5433,b:5434/tsg?application_name=x@y,z", "a,b", "5433,5434"),
    ],
)
def test_a_database_may_have_several_hosts_in_each_way_that_libpq_takes_them(text: str, hosts: str, ports: str) -> None:
    url = load(NEEDED | {"TSG_DATABASE_URL": text}).database_url
    given = url.get_dialect()().create_connect_args(url)[1]
    assert (given["host"], given["port"], given["dbname"]) == (hosts, ports, "tsg")
    assert given.get("user") in {"u", None}
    assert given.get("password") in {"p@", None}


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://a:x,b/tsg",
        "postgresql://a:0,b/tsg",
        "postgresql://a,b:65536/tsg",
        "postgresql://a,b/tsg?host=c",
        "postgresql:///tsg?hots=a",
    ],
)
def test_hosts_that_are_none_are_told(text: str) -> None:
    assert list(problems_of(NEEDED | {"TSG_DATABASE_URL": text})) == ["TSG_DATABASE_URL"]


def test_a_flag_goes_before_the_environment_and_that_before_the_file_and_that_before_the_default(tmp_path: Path) -> None:
    file = written(tmp_path, '[log]\nlevel = "ERROR"\nformat = "json"\n[http]\nport = 4000\n')
    environ = NEEDED | {"TSG_LOG_LEVEL": "WARN", "TSG_LOG_FORMAT": "human"}
    got = load_arguments(parsed("--config", str(file), "--log-level", "DEBUG"), environ)
    assert (got.log_level, got.log_format, got.http_port, got.http_threads) == ("DEBUG", "human", 4000, 8)


def test_a_flag_that_is_not_given_hides_nothing() -> None:
    assert load_arguments(parsed(), NEEDED | {"TSG_LOG_LEVEL": "WARN"}).log_level == "WARN"


def test_a_wrong_flag_is_told_by_the_name_of_its_variable() -> None:
    with pytest.raises(SettingsError) as caught:
        load_arguments(parsed("--log-format", "xml"), NEEDED)
    assert list(caught.value.problems) == ["TSG_LOG_FORMAT"]


# The file


def test_the_file_of_2018_is_read(file_of_2018: Path) -> None:
    got = load(NEEDED, file=file_of_2018)
    assert got.database_url == make_url(f"cockroachdb+psycopg2://tsg:{PASSWORD}@10.0.0.1:26257/triton")
    expected = {
        "log_level": "WARN",
        "log_format": "zerolog",
        "http_bind": "10.0.0.2",
        "http_port": 3001,
        "gops_enable": True,
        "gops_bind": "10.0.0.3",
        "gops_port": 9092,
        "pprof_enable": False,
        "pprof_bind": "10.0.0.4",
        "pprof_port": 9193,
        "nomad.address": "http://10.0.0.5:4648",
        "triton_dc": "us-sw-1",
        "triton_url": "https://us-sw-1.api.example.com",
        "triton_auth_url": "https://us-east-1.api.example.com",
        "triton_key_prefix": "TSG_2018",
        "triton_whitelist": False,
    }
    assert {name: attrgetter(name)(got) for name in expected} == expected


def test_the_datacenter_may_stand_under_http_alone_as_it_did(tmp_path: Path) -> None:
    assert load(NEEDED, file=written(tmp_path, '[http]\ndc = "us-west-1"\n')).triton_dc == "us-west-1"


def test_a_key_that_nobody_knows_is_told_with_its_place(tmp_path: Path) -> None:
    file = written(tmp_path, '[htpp]\nport = 1\n[http]\nport = 70000\nbind = ["a", "b"]\n')
    assert sorted(problems_of(NEEDED, file=file)) == ["TSG_HTTP_PORT", "config.toml: htpp.port", "config.toml: http.bind"]


def test_a_setting_has_the_key_that_the_documentation_says_and_that_of_its_variable_but_one_of_them_at_a_time(tmp_path: Path) -> None:
    for one in declared():
        if one.file_key and one.variable not in {"TSG_SECRET_KEYS", "TSG_DATABASE_URL"}:
            text, attribute, value = VALUES[one.variable]
            section, _, key = one.variable.removeprefix("TSG_").lower().partition("_")
            for place, name in {tuple(one.file_key.split(".")), (section, key)} if key else {("", one.file_key)}:
                file = written(tmp_path, (f"[{place}]\n" if place else "") + f"{name} = {json.dumps(text)}\n")
                assert attrgetter(attribute)(load(NEEDED, file=file)) == value, f"{place}.{name}"
    twice = written(tmp_path, "[groups]\nmax-capacity = 4\n[max]\ncapacity = 5\n")
    assert problems_of(NEEDED, file=twice) == {
        "config.toml: max.capacity": "is TSG_MAX_CAPACITY, which the file sets under another key too"
    }


def test_what_meant_something_in_2018_and_does_not_now_is_passed_over(tmp_path: Path) -> None:
    assert load(NEEDED, file=written(tmp_path, '[tsgcli]\nversion = "0.1"\n[crdb]\nmode = "insecure"\n')) == load(NEEDED)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "No such file" in problems_of(NEEDED, file=tmp_path / "none.toml")["--config"]


@pytest.mark.parametrize("content", [b"[log\nlevel = 1", b'level = "\xff\xfe"'])
def test_a_file_that_is_not_toml_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    assert "is not TOML" in problems_of(NEEDED, file=file)["--config"]


# Secrets


def test_no_key_to_seal_with_is_told_with_the_way_to_one() -> None:
    assert "tsg-admin keys generate" in problems_of({})["TSG_SECRET_KEYS"]


def test_programs_that_seal_nothing_and_development_need_no_key() -> None:
    assert load({}, needs_keys=False).secret_keys == ()
    assert load({"TSG_DEV_MODE": "true"}).secret_keys == ()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST", "::ffff:127.0.0.1"])
def test_development_mode_is_for_loopback_addresses(address: str) -> None:
    assert load({"TSG_DEV_MODE": "1", "TSG_HTTP_BIND": address}).dev_mode


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "10.0.0.2", "192.0.2.1", "::ffff:10.0.0.2", "*", "tsg.example.com", "localhost.example.com"]
)
def test_development_mode_on_another_address_must_be_meant(address: str) -> None:
    reached = {"TSG_DEV_MODE": "1", "TSG_HTTP_BIND": address}
    assert "TSG_DEV_MODE_ANYWHERE=1" in problems_of(reached)["TSG_DEV_MODE"]
    assert load(reached | {"TSG_DEV_MODE_ANYWHERE": "1"}).dev_mode
    assert not load({**NEEDED, "TSG_HTTP_BIND": address}).dev_mode
    assert not load({**NEEDED, "TSG_DEV_MODE_ANYWHERE": "1"}).dev_mode


@pytest.mark.parametrize("key", [encoded(KEY[:31]), encoded(KEY + b"x"), "not base64!", encoded(KEY).rstrip("=")])
def test_a_key_of_the_wrong_length_is_refused_by_its_number(key: str) -> None:
    problem = problems_of({"TSG_SECRET_KEYS": f"{encoded(KEY)},{key}"})["TSG_SECRET_KEYS"]
    assert problem.startswith("key 2 ")
    assert key not in problem


def test_a_key_in_the_other_alphabet_of_base64_is_a_key_too() -> None:
    key = b"\xfb\xff" * 16
    urlsafe, standard = encoded(key), base64.b64encode(key).decode()
    assert urlsafe != standard
    assert load({"TSG_SECRET_KEYS": f"{urlsafe},{standard}"}).secret_keys == (key, key)


def test_no_secret_is_repeated_in_a_message() -> None:
    with pytest.raises(SettingsError) as caught:
        load(NEEDED | WRONG | {"TSG_CRDB_PASSWORD": PASSWORD})
    assert PASSWORD not in str(caught.value) + repr(caught.value)
    assert encoded(KEY) not in str(caught.value) + repr(caught.value)


def test_no_secret_is_repeated_when_the_file_is_wrong(file_of_2018: Path) -> None:
    file_of_2018.write_text(FILE_OF_2018 + '[crdb2]\npassword = "hunter2-is-secret"\n')
    with pytest.raises(SettingsError) as caught:
        load(NEEDED, file=file_of_2018)
    assert "crdb2.password" in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_no_secret_is_shown_by_a_repr() -> None:
    got: Settings = load(
        {
            "TSG_SECRET_KEYS": encoded(KEY),
            "TSG_DATABASE_URL": f"postgresql://u:{PASSWORD}@db/tsg",
            "TSG_REDIS_URL": f"redis://:{PASSWORD}@redis",
            "NOMAD_TOKEN": PASSWORD,
        }
    )
    shown = f"{got} {got!r} {got.database_url!r} {got.database_url}"
    assert "http_port=3000" in shown
    assert PASSWORD not in shown
    assert repr(KEY) not in shown
