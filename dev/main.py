"""`dev/run`: the whole service on this machine, and the main job done on it where one can watch."""

import argparse
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from dev.client import Tsg, UnexpectedAnswer
from dev.processes import ChildError, free_port
from dev.services import ServiceError, scratch
from dev.stack import Stack
from dev.tour import TourFailed, tour

#: The port of the 2018 service, if it is free.
PORT = 3000
#: Seconds between looks at whether a process has died.
LOOK = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="dev/run",
        description="Run Triton Service Groups with embedded PostgreSQL, Valkey and a simulated CloudAPI, and watch it do its job.",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--once", action="store_true", help="take the tour and stop: exit 0 if every step was as it should be")
    mode.add_argument("--serve", action="store_true", help="skip the tour, and stay up")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the data here (default: a temporary directory, removed at the end)")
    parser.add_argument("--port", type=int, help=f"port of the API (default: {PORT}, or a free one when that is taken)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="worker processes (default 2)")
    parser.add_argument("--provision-seconds", type=float, default=5.0, metavar="S", help="how long a simulated machine boots (default 5)")
    parser.add_argument(
        "--scaler",
        choices=("worker", "nomad"),
        default="worker",
        help="who converges the groups: workers (default), or jobs of Nomad (a simulator of it, unless a nomad program is on the PATH)",
    )
    given = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        with _directory(given.data) as directory:
            return _run(given, directory)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        return 0 if not given.once else 130
    except (ServiceError, ChildError, TourFailed, UnexpectedAnswer, OSError, requests.RequestException) as error:
        print(f"dev/run: {error}", file=sys.stderr)
        return 1


def _run(given: argparse.Namespace, directory: Path) -> int:
    nomad = "Nomad, " if given.scaler == "nomad" else ""
    print(f"starting PostgreSQL, Valkey, the CloudAPI simulator, {nomad}the API, the workers and the clock ...", flush=True)
    started = time.monotonic()
    port = _port() if given.port is None else given.port
    with Stack(directory, port=port, workers=given.workers, provision_seconds=given.provision_seconds, scaler=given.scaler) as stack:
        print(f"up in {time.monotonic() - started:.1f} s: {stack.url}; logs in {directory / 'log'}\n", flush=True)
        if not given.serve:
            tour(Tsg(stack.url, stack.account, stack.key_file, stack.key_id), stack.cloud)
        if given.once:
            return 0
        _tell(stack, directory)
        while True:
            for told in stack.restart_the_dead():
                print(told, flush=True)
            time.sleep(LOOK)


def _tell(stack: Stack, directory: Path) -> None:
    shell = directory / "tsg.sh"
    shell.write_text(stack.shell() + "\n")
    settings = directory / "settings.sh"
    settings.touch(mode=0o600)
    settings.write_text(stack.exports())
    print(f"\nThe API is at {stack.url}, CloudAPI's simulator at {stack.cloud_url} (its knobs: {stack.cloud_url}/--sim/knobs).")
    print("To talk to it, paste this into a shell (it is in", shell, "too):\n")
    print(stack.shell())
    print("\ntsg /v1/tsg/templates\n")
    print(f"For the programs (tsg-worker, tsg-admin, ...): . {settings}")
    print("Ctrl-C stops everything that was started here.", flush=True)


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with scratch() as directory:
        yield directory


def _port() -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return free_port()
    return PORT


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
