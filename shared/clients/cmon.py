"""CMON, Triton's container monitor: the metrics of a machine, under a certificate made from the account's management key.

It knows no signatures: a client proves itself by a TLS certificate whose issuer is named by the MD5 fingerprint of a key of the account,
which has signed it (triton-cmon, lib/common.js). It answers 100 requests a second of one account, 1000 in a burst.
"""

import json
import re
import ssl
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from shared.clients.access import PUBLIC, Timeouts, Trust
from shared.clients.adapter import TlsPool
from shared.clients.keys import KeyPair

PORT = 9163
#: The purpose of a certificate for CMON (joyent/oid-docs).
PURPOSE = ObjectIdentifier("1.3.6.1.4.1.38678.1.4.2")
#: How long a certificate lasts, and before its end is made anew.
LASTS, RENEWED = timedelta(days=1), timedelta(hours=12)
#: Bytes of the metrics of one machine, and of the list of an account's.
MAX_ANSWER_BYTES = 4 << 20
#: Seconds in which all of an answer comes.
ANSWER_SECONDS = 10.0
CONNECTIONS = 8

_LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})? (\S+)", re.MULTILINE)


class NoMetrics(Exception):
    """CMON has no metrics of this machine, or cannot be asked. The text says why."""


class Certificate(NamedTuple):
    """A certificate and its key, as PEM."""

    pem: str
    ends_at: datetime

    def __repr__(self) -> str:
        return f"Certificate({self.ends_at})"


def make_certificate(login: str, pair: KeyPair) -> Certificate:
    """A certificate for CMON by which an account's key vouches for a key of its own. CMON finds the account by its login."""
    signer = serialization.load_pem_private_key(pair.private_pem.encode(), password=None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(signer, rsa.RSAPrivateKey):
        raise NoMetrics("the management key is not an RSA key")
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, login)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, pair.fingerprint)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + LASTS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, PURPOSE]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Certificate(made.public_bytes(serialization.Encoding.PEM).decode() + private.decode(), now + LASTS)


class Cmon:
    """One CMON as one account sees it. Thread-safe. `url` is `https://cmon.DATACENTER.ZONE`, its port 9163 unless it says another."""

    def __init__(self, url: str, certificate: Certificate, timeouts: Timeouts, trust: Trust = PUBLIC) -> None:
        place = urlsplit(url)
        self._host, port = place.hostname or "", place.port or PORT
        self._ends_at = certificate.ends_at
        self._pool = TlsPool(
            self._host,
            port,
            maxsize=CONNECTIONS,
            ssl_context=_context(certificate, trust),
            assert_hostname=False if trust.skip_verify else None,
            timeout=urllib3.Timeout(connect=timeouts.connect, read=timeouts.read),
            retries=False,
        )

    @property
    def is_stale(self) -> bool:
        """Is it time for another certificate?"""
        return datetime.now(UTC) > self._ends_at - RENEWED

    def close(self) -> None:
        self._pool.close()

    def metrics(self, machine_id: str) -> dict[str, float]:
        """The metrics of a machine by name; of several network interfaces the sum. `NoMetrics`."""
        found: dict[str, float] = {}
        for name, text in _LINE.findall(self._get("/metrics", f"{machine_id}.{self._host}").decode("utf-8", "replace")):
            try:
                found[name] = found.get(name, 0.0) + float(text)
            except ValueError:
                continue
        return found

    def brands(self) -> dict[str, str]:
        """The brand of each of the account's running machines. `NoMetrics`."""
        try:
            listed: Mapping[str, Any] = json.loads(self._get("/v1/discover", f"cmon.{self._host}"))
            return {str(one["vm_uuid"]): str(one.get("vm_brand")) for one in listed["containers"]}
        except (ValueError, KeyError, TypeError):
            raise NoMetrics("CMON answered a list of machines that is none") from None

    def _get(self, path: str, host: str) -> bytes:
        """The machine is known by the name in Host alone: all connections go to CMON's own."""
        until = time.monotonic() + ANSWER_SECONDS
        try:
            response = self._pool.request("GET", path, headers={"Host": host, "Accept-Encoding": "gzip"}, preload_content=False)
            try:
                body = b""
                while piece := response.read1(1 << 16, decode_content=True):
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES or time.monotonic() > until:
                        raise NoMetrics("CMON's answer has no end")
            finally:
                response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise NoMetrics(f"CMON did not answer: {type(error).__name__}") from None
        if response.status != 200:
            raise NoMetrics(_WHY.get(response.status, f"CMON answered {response.status}"))
        return body


_WHY = {
    401: "CMON does not know the management key (401)",
    404: "CMON does not know the machine (404)",
    429: "CMON takes no more requests of the account now (429)",
}


def _context(certificate: Certificate, trust: Trust) -> ssl.SSLContext:
    authorities = trust.authorities
    is_directory = authorities is not None and authorities.is_dir()
    context = ssl.create_default_context(
        cafile=None if authorities is None or is_directory else str(authorities), capath=str(authorities) if is_directory else None
    )
    if trust.skip_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with _as_file(certificate.pem) as name:
        context.load_cert_chain(name)
    return context


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """ssl reads files alone: one that nobody else can read, for a moment."""
    with tempfile.NamedTemporaryFile("w", prefix="tsg-", suffix=".pem") as file:
        file.write(text)
        file.flush()
        yield file.name
