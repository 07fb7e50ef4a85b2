"""Before the stack of docker-compose.yml starts: make what it must have and no file may hold. What is there already is kept.

    python -m dev.deploy.prepare DIR

Each folder of DIR is a volume of one service: the settings with the secret keys, the password of each server, the certificate of the
edge with its key, and the places that a service writes to as its own user. Runs as root, without a network, and ends.
"""

import ipaddress
import json
import os
import secrets
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.clients import keys

#: The users of the images, in the Dockerfile.
TSG, EDGE = 10001, 10002
#: Where the services find the certificate authorities of CloudAPI, if they were given.
AUTHORITIES = Path("/etc/tsg/authorities.pem")
#: Names that the certificate is always for; TSG_EDGE_NAMES has more.
NAMES = ("localhost", "127.0.0.1", "::1", "edge")
#: Days that a certificate lasts (macOS believes none that lasts longer), and days before its end when a new one is made.
LASTS, RENEWED = 825, 60
ISSUER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Triton Service Groups, made at the first start")])


def main() -> int:
    prepare(Path(sys.argv[1]), os.environ)
    return 0


def prepare(volumes: Path, environ: Mapping[str, str]) -> None:
    """Fill the volumes; what may be asked for is in `.env.example`."""
    for name in ("postgres", "redis", "settings", "edge", "certificate", "clock", "cloudapi", "nomad", "demo"):
        (volumes / name).mkdir(exist_ok=True)
    # A server's own user reads these, whichever it is; nobody else has the volume.
    postgres = _kept(volumes / "postgres" / "password")
    redis = _kept(volumes / "redis" / "password")
    _write(volumes / "redis" / "redis.conf", REDIS.format(password=redis), mode=0o644)
    _settings(volumes / "settings" / "tsg.toml", volumes / "clock" / "tsg.toml", postgres, redis, environ)
    _certificate(volumes / "edge" / "edge.pem", volumes / "certificate" / "ca.pem", environ.get("TSG_EDGE_NAMES", ""))
    for name, user in (("settings", TSG), ("clock", TSG), ("cloudapi", TSG), ("nomad", TSG), ("demo", TSG), ("edge", EDGE)):
        _give(volumes / name, user)


#: Every change is kept: appended to a file that reaches the disk each second.
REDIS = """\
requirepass {password}
dir /data
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


def _kept(file: Path) -> str:
    if not file.exists():
        _write(file, secrets.token_urlsafe(32), mode=0o644)
        print(f"prepare: made {file.parent.name}'s password")
    return file.read_text()


def _settings(file: Path, without_keys: Path, postgres: str, redis: str, environ: Mapping[str, str]) -> None:
    """The settings that hold secrets, and again without the secret keys. The others are in the environment of each service."""
    before = tomllib.loads(file.read_text())["secret-keys"] if file.exists() else ""
    given = environ.get("TSG_SECRET_KEYS", "")
    secret_keys = given or before or keys.make_secret_key()
    if gone := sorted(set(filter(None, before.split(","))) - {key.strip() for key in secret_keys.split(",")}):
        # Left out by design, or by a slip that would cost every private key.
        kept = file.with_name("secret-keys.before")
        _write(kept, "".join([kept.read_text() if kept.exists() else "", *(f"{key}\n" for key in gone)]), mode=0o600)
        print(f"prepare: {len(gone)} of the secret keys in use before opens nothing any more; it is kept in {kept.name}", file=sys.stderr)
    if not given and not before:
        print("prepare: made the key that private keys are sealed with")
    servers = {
        "database-url": environ.get("TSG_DATABASE_URL") or f"postgresql://tsg:{postgres}@database:5432/tsg",
        "redis-url": environ.get("TSG_REDIS_URL") or f"redis://:{redis}@redis:6379/0",
    }
    if authorities := _text(environ.get("TSG_TRITON_CACERT", "")):
        for written in (file, without_keys):
            _write(written.with_name(AUTHORITIES.name), authorities, mode=0o644)
        servers["triton-cacert"] = str(AUTHORITIES)
    for written, settings in ((file, {"secret-keys": secret_keys, **servers}), (without_keys, servers)):
        _write(written, "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()), mode=0o600)


def _text(file: str) -> str:
    return Path(file).read_text() if file else ""


def _certificate(file: Path, ca_file: Path, more: str) -> None:
    """The edge's certificate and key, and the certificate that vouches for it. One that is not from here is left alone."""
    names = sorted({*NAMES, *more.replace(",", " ").split()})
    if file.exists():
        old = x509.load_pem_x509_certificate(file.read_bytes())
        if old.issuer != ISSUER:
            return
        lasts = old.not_valid_after_utc - datetime.now(UTC) > timedelta(days=RENEWED)
        if lasts and ca_file.exists() and _names_of(old) == {_name(name) for name in names}:
            return
    # The key of the authority is thrown away: it vouches for this one certificate.
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = (
        _builder(ISSUER, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    made = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(file, made.public_bytes(serialization.Encoding.PEM).decode() + private.decode(), mode=0o600)
    _write(ca_file, ca.public_bytes(serialization.Encoding.PEM).decode(), mode=0o644)
    print(f"prepare: made a certificate for {', '.join(names)}")


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ISSUER)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=LASTS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(**used: bool) -> x509.KeyUsage:
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign")
    return x509.KeyUsage(crl_sign=False, encipher_only=False, decipher_only=False, **{name: used.get(name, False) for name in every})


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _names_of(certificate: x509.Certificate) -> set[x509.GeneralName]:
    return set(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def _write(file: Path, text: str, *, mode: int) -> None:
    """All of it or nothing, and never for a moment readable by more than `mode` says."""
    fresh = file.with_name(f"{file.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as stream:
        os.fchmod(descriptor, mode)
        stream.write(text)
    fresh.replace(file)


def _give(directory: Path, user: int) -> None:
    if os.geteuid() == 0:
        for path in (directory, *directory.iterdir()):
            os.chown(path, user, user)


if __name__ == "__main__":
    sys.exit(main())
