"""dev.deploy.prepare: what the stack of docker-compose.yml finds in its volumes."""

import shutil
import ssl
import stat
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography import x509

from dev.deploy import prepare
from shared.runtime import settings


def contents(volumes: Path) -> Mapping[str, str]:
    return {str(file.relative_to(volumes)): file.read_text() for file in volumes.rglob("*") if file.is_file()}


def chosen(volumes: Path) -> settings.Settings:
    return settings.load({}, file=volumes / "settings" / "tsg.toml")


def test_the_second_start_finds_what_the_first_one_made(tmp_path: Path) -> None:
    prepare.prepare(tmp_path, {})
    first = contents(tmp_path)
    prepare.prepare(tmp_path, {})
    assert contents(tmp_path) == first
    other = tmp_path / "other"
    other.mkdir()
    prepare.prepare(other, {})
    mine, theirs = chosen(tmp_path), chosen(other)
    assert mine.secret_keys != theirs.secret_keys
    assert mine.database_url.password == first["postgres/password"] != theirs.database_url.password
    assert first["redis/password"] in mine.redis_url
    assert f"requirepass {first['redis/password']}\n" in first["redis/redis.conf"]


def test_what_is_given_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.prepare(tmp_path, {})
    (made,) = chosen(tmp_path).secret_keys
    mine, hers = prepare.keys.make_secret_key(), prepare.keys.make_secret_key()
    given = {"TSG_DATABASE_URL": "postgresql://u:p@db/x", "TSG_REDIS_URL": "redis://elsewhere/0"}
    first = contents(tmp_path)["settings/tsg.toml"].split('"')[1]
    prepare.prepare(tmp_path, {**given, "TSG_SECRET_KEYS": f"{mine},{first}"})
    assert chosen(tmp_path).secret_keys[1] == made
    assert chosen(tmp_path).database_url.host == "db"
    assert chosen(tmp_path).redis_url == "redis://elsewhere/0"
    assert not capsys.readouterr().err
    # What sealed the private keys is not to be lost by a slip.
    prepare.prepare(tmp_path, {"TSG_SECRET_KEYS": hers})
    assert "opens nothing any more" in capsys.readouterr().err
    assert set(contents(tmp_path)["settings/secret-keys.before"].split()) == {mine, first}


def test_the_clock_finds_the_servers_and_no_secret_key(tmp_path: Path) -> None:
    prepare.prepare(tmp_path, {})
    assert "secret" not in contents(tmp_path)["clock/tsg.toml"]
    clock, others = settings.load({}, file=tmp_path / "clock" / "tsg.toml", needs_keys=False), chosen(tmp_path)
    assert (clock.database_url, clock.redis_url, clock.secret_keys) == (others.database_url, others.redis_url, ())


def test_all_services_find_the_authorities_of_cloudapi(tmp_path: Path) -> None:
    given = tmp_path / "ca.pem"
    given.write_text("-----BEGIN CERTIFICATE-----\n")
    for volume in ("settings", "clock"):
        prepare.prepare(tmp_path, {"TSG_TRITON_CACERT": str(given)})
        assert (tmp_path / volume / "authorities.pem").read_text() == given.read_text()
        assert tomllib.loads((tmp_path / volume / "tsg.toml").read_text())["triton-cacert"] == "/etc/tsg/authorities.pem"
        # docker-compose.yml hands over an empty file where none is given.
        prepare.prepare(tmp_path, {"TSG_TRITON_CACERT": "/dev/null"})
        assert "cacert" not in (tmp_path / volume / "tsg.toml").read_text()


def test_only_their_owner_reads_the_secrets(tmp_path: Path) -> None:
    prepare.prepare(tmp_path, {})
    for name in ("settings/tsg.toml", "clock/tsg.toml", "edge/edge.pem"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert "PRIVATE KEY" not in (tmp_path / "certificate" / "ca.pem").read_text()


def test_clients_believe_the_certificate(tmp_path: Path) -> None:
    prepare.prepare(tmp_path, {"TSG_EDGE_NAMES": "groups.example.com, 10.1.2.3"})
    pem, ca = tmp_path / "edge" / "edge.pem", tmp_path / "certificate" / "ca.pem"
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pem)
    names = prepare._names_of(x509.load_pem_x509_certificate(pem.read_bytes()))
    assert {str(name.value) for name in names} == {"localhost", "127.0.0.1", "::1", "edge", "groups.example.com", "10.1.2.3"}
    openssl = shutil.which("openssl")
    assert openssl, "openssl is needed, as by the curl function"
    check = [openssl, "verify", "-x509_strict", "-CAfile", ca, "-purpose", "sslserver", "-verify_hostname", "groups.example.com", pem]
    assert subprocess.run(check, capture_output=True, text=True, check=True).stdout.endswith("OK\n")


def test_a_certificate_is_made_anew_for_other_names_and_before_its_end_and_another_ones_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "edge" / "edge.pem"
    prepare.prepare(tmp_path, {})
    first = file.read_text()
    prepare.prepare(tmp_path, {"TSG_EDGE_NAMES": "groups.example.com"})
    second = file.read_text()
    assert first != second
    monkeypatch.setattr(prepare, "RENEWED", prepare.LASTS + 1)
    prepare.prepare(tmp_path, {"TSG_EDGE_NAMES": "groups.example.com"})
    third = file.read_text()
    assert third != second
    monkeypatch.setattr(prepare, "ISSUER", x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody here")]))
    prepare.prepare(tmp_path, {})
    assert file.read_text() == third
