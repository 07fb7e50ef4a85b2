"""`with Simulator(cloud, directory) as cmon:` answers for the machines of a simulated cloud on `cmon.url`.

As triton-cmon: the machine is known by the name in Host; a client proves itself by a certificate with the purpose joyentCmon, signed by a
key of the account that its subject names, which its issuer names by its MD5 fingerprint; expiry is checked.
"""

import ipaddress
import json
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

from dev.sim.cloudapi.accounts import Account
from dev.sim.cloudapi.cloud import Cloud
from dev.sim.cloudapi.machine import Machine
from dev.sim.cmon.metrics import Load

PURPOSE = ObjectIdentifier("1.3.6.1.4.1.38678.1.4.2")


class Simulator(ThreadingHTTPServer):
    """`hang` keeps answers back until it is cleared; `down` refuses with 503; `asked` counts requests by machine."""

    daemon_threads = True

    def __init__(self, cloud: Cloud, directory: Path) -> None:
        """The authority of its certificate is written to the directory."""
        self.cloud = cloud
        self.load = Load()
        self.hang = threading.Event()
        self.down = False
        self.asked: Counter[str] = Counter()
        self._closing = threading.Event()
        self._certificate = directory / "cmon.pem"
        self.authorities = directory / "cmon-ca.pem"
        _write_certificate(self._certificate, self.authorities)
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"https://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: the handshake takes whatever time the client takes."""
        request.settimeout(10)
        with self._context().wrap_socket(request, server_side=True) as wrapped:
            super().finish_request(wrapped, client_address)  # type: ignore[arg-type]

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """A client that ends the connection, or whose certificate is nobody's."""

    def wait(self) -> None:
        """Keep an answer back while `hang` is set."""
        while (self.hang.is_set() or self.cloud.knobs.cmon_hang) and not self._closing.wait(0.02):
            pass

    def close(self) -> None:
        self._closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _context(self) -> ssl.SSLContext:
        """OpenSSL asks who has signed: each key of an account is an authority of the name that is its fingerprint."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate)
        context.set_ciphers("DEFAULT@SECLEVEL=0")  # the keys of tests are short
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        anchors = "".join(_anchor(key.openssh, key.fingerprint) for account in self.cloud.accounts.values() for key in account.keys)
        if anchors:
            context.load_verify_locations(cadata=anchors)
        return context


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Simulator

    def do_GET(self) -> None:
        self.server.wait()
        if self.server.down or self.server.cloud.knobs.cmon_down:
            self._answer(503, {"code": "ServiceUnavailable", "message": "down"})
            return
        account = self._account()
        if account is None:
            self._answer(401, {"code": "UnauthorizedError", "message": "unauthorized"})
            return
        name = self.headers.get("Host", "").lower().partition(".")[0]
        if self.path == "/v1/discover" and name == "cmon":
            self._answer(200, {"containers": [_container(one) for one in account.live.values() if one.state == "running"]})
        elif self.path == "/metrics" and (machine := account.live.get(name)) is not None and machine.state == "running":
            self.server.asked[machine.id] += 1
            self._send(200, self.server.load.text(machine, self.server.cloud.now()).encode(), "text/plain")
        else:
            self._answer(404, {"code": "NotFound", "message": "not found"})

    def _account(self) -> Account | None:
        raw = self.connection.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        if raw is None:
            return None
        certificate = x509.load_der_x509_certificate(raw)
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        account = self.server.cloud.accounts.get(_common_name(certificate.subject))
        is_known = account is not None and account.keys.find(_common_name(certificate.issuer)) is not None
        return account if is_known and PURPOSE in purposes and certificate.not_valid_after_utc > datetime.now(UTC) else None

    def _answer(self, status: int, body: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(body).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """It says nothing."""


def _container(machine: Machine) -> dict[str, Any]:
    brand = machine.package.brand or machine.image.brand
    return {"vm_uuid": machine.id, "vm_alias": machine.name, "vm_brand": brand or "joyent", "vm_state": "running", "groups": []}


def _common_name(name: x509.Name) -> str:
    return str(name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


_SIGNER = ec.generate_private_key(ec.SECP256R1())
_anchors: dict[str, str] = {}


def _anchor(line: str, fingerprint: str) -> str:
    """A certificate that makes a public key the authority of this name. OpenSSL checks no signature of one that it trusts."""
    if fingerprint not in _anchors:
        name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, fingerprint)]), datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "simulator")]))
            .public_key(serialization.load_ssh_public_key(line.encode()))  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(_SIGNER, hashes.SHA256())
        )
        _anchors[fingerprint] = made.public_bytes(serialization.Encoding.PEM).decode()
    return _anchors[fingerprint]


def _write_certificate(file: Path, authorities: Path) -> None:
    key, name, now = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cmon")]),
        datetime.now(UTC),
    )
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.touch(mode=0o600)
    file.write_bytes(pem + private)
    authorities.write_bytes(pem)
