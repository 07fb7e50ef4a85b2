"""`tsg console`: the proxy on this machine's own address, and a browser that is given its token. Ends with Ctrl-C."""

import argparse
import base64
import logging
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import requests
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from waitress import wasyncore
from waitress.server import create_server

from tsg_client.console import pages
from tsg_client.console.guard import Guard
from tsg_client.console.proxy import MAX_BODY, THREADS, Proxy, Upstream

HOST = "127.0.0.1"


class DateSigner:
    """Signs the Date of a request with an RSA key, as the curl function does."""

    def __init__(self, account: str, fingerprint: str, private_pem: bytes) -> None:
        private = serialization.load_pem_private_key(private_pem, password=None)
        if not isinstance(private, rsa.RSAPrivateKey):
            raise TypeError("the key is not an RSA key")
        self._private = private
        self._key_id = f"/{account}/keys/{fingerprint}"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        date = format_datetime(datetime.now(UTC), usegmt=True)
        signed = base64.b64encode(self._private.sign(date.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()
        request.headers["Date"] = date
        request.headers["Authorization"] = f'Signature keyId="{self._key_id}",algorithm="rsa-sha256",headers="date" {signed}'
        return request


@contextmanager
def serving(upstream: Upstream, *, port: int = 0) -> Iterator[str]:
    """Serve the console in a thread; the address with the token, to be opened in a browser. OSError when the port is taken."""
    # Neither a full queue nor a page that still waits at the end is news.
    logging.getLogger("waitress").setLevel(logging.ERROR)
    listener = socket.create_server((HOST, port))
    guard = Guard.of_port(listener.getsockname()[1])
    proxy = Proxy(upstream, guard)
    sockets: dict[int, Any] = {}
    server = create_server(
        proxy,
        map=sockets,
        sockets=[listener],
        threads=THREADS,
        ident=None,
        max_request_header_size=16_384,
        max_request_body_size=MAX_BODY,
        clear_untrusted_proxy_headers=True,
    )
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            wasyncore.loop(map=sockets, use_poll=True, count=1)

    thread = threading.Thread(target=serve, name="console", daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{guard.port}{pages.BASE}?token={guard.token}"
    finally:
        stopping.set()
        server.pull_trigger()
        thread.join()
        wasyncore.close_all(sockets)
        server.task_dispatcher.shutdown(cancel_pending=True, timeout=1)
        proxy.close()


def run(upstream: Upstream, *, port: int, opens_browser: bool) -> int:
    """Serve until Ctrl-C."""
    try:
        with serving(upstream, port=port) as address:
            print(f"The console of {upstream.account} is at {address}", flush=True)
            print("Anybody with this address acts with your key: don't pass it on. Ctrl-C ends it.", flush=True)
            if opens_browser:
                webbrowser.open(address)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    except OSError as error:
        print(f"tsg console: cannot listen on {HOST}:{port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    environ = os.environ
    parser = argparse.ArgumentParser(prog="tsg console", description="Show the service in a browser, signed with your key.")
    parser.add_argument("--url", default=environ.get("TSG_URL"), help="address of the service (TSG_URL)")
    parser.add_argument("--account", default=environ.get("TRITON_ACCOUNT"), help="your account (TRITON_ACCOUNT)")
    parser.add_argument("--key-id", default=environ.get("TRITON_KEY_ID"), help="fingerprint of your key (TRITON_KEY_ID)")
    parser.add_argument("--key-file", type=Path, default=environ.get("TRITON_KEY_FILE"), help="your private key (TRITON_KEY_FILE)")
    parser.add_argument("--port", type=int, default=0, help="port on this machine (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")
    given = parser.parse_args(arguments)
    if not (given.url and given.account and given.key_id and given.key_file):
        parser.error("the service's address, the account, the key's fingerprint and its file are needed")
    sign = DateSigner(given.account, given.key_id, Path(given.key_file).read_bytes())
    upstream = Upstream(given.url.rstrip("/"), given.account, sign)
    return run(upstream, port=given.port, opens_browser=not given.no_browser)


if __name__ == "__main__":
    sys.exit(main())
