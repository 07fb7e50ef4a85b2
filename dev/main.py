"""`dev/run`: the whole service on this machine, and the main job done on it where one can watch."""

import argparse
import os
import socket
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import requests

from dev.client import UnexpectedAnswer, write_private
from dev.processes import ChildError, free_port, stop_on_signals
from dev.services import ServiceError, scratch
from dev.stack import Stack
from dev.tour import TourFailed, tour
from shared.runtime.settings import SettingsError, load, variables
from tsg_client.console import pages
from tsg_client.console.proxy import Upstream
from tsg_client.console.serve import serving
from tsg_client.keys import key
from tsg_client.signer import ByDate, Signer

#: The port of the 2018 service, if it is free.
PORT = 3000
#: Seconds between looks at whether a process has died.
LOOK = 0.5

#: Settings that dev/run makes itself: where its own servers are, its data's key, and logs that it can read.
ITS_OWN = {
    *(
        "TSG_DATABASE_URL",
        "TSG_REDIS_URL",
        "TSG_SECRET_KEYS",
        "TSG_TRITON_URL",
        "TSG_TRITON_AUTH_URL",
        "TSG_LOG_FORMAT",
        "TSG_METRICS_PORT",
    ),
    *(name for name in variables() if name.startswith(("TSG_CRDB_", "TSG_NOMAD_URL", "TSG_NOMAD_PORT", "NOMAD_"))),
}
#: Variables of the environment that are no settings of the service: those of `tsg.sh`, of tests, and of docker-compose.yml.
NOT_OURS = ("TSG_URL", "TSG_TEST_", "TSG_EDGE_", "TSG_TAG", "TSG_SETUP_")
ENVIRONMENT = """\
Settings (TSG_*) of the environment hold for the processes that are started, except for those that dev/run makes itself: the addresses
of its servers, TSG_SECRET_KEYS, TSG_LOG_FORMAT, TSG_METRICS_PORT, and a TSG_LOG_LEVEL above INFO. It lists those that it ignores."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="dev/run",
        description="Run Triton Service Groups with embedded PostgreSQL, Valkey and a simulated CloudAPI, and watch it do its job.",
        epilog=ENVIRONMENT,
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--once", action="store_true", help="take the tour and stop: exit 0 if every step was as it should be")
    mode.add_argument("--serve", action="store_true", help="skip the tour, and stay up")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the data here (default: a temporary directory, removed at the end)")
    parser.add_argument("--port", type=int, help=f"port of the API (default: TSG_HTTP_PORT, else {PORT}, or a free one when that is taken)")
    parser.add_argument("--api", type=int, default=1, metavar="N", help="processes of the API, which share its port (default 1)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="worker processes (default 2)")
    parser.add_argument("--feeds", type=int, default=1, metavar="N", help="processes that watch CloudAPI's changefeed (default 1)")
    parser.add_argument("--provision-seconds", type=float, default=5.0, metavar="S", help="how long a simulated machine boots (default 5)")
    parser.add_argument(
        "--scaler",
        choices=("worker", "nomad"),
        help="who scales the groups: workers (default), or jobs of Nomad (a simulator of it, unless a nomad program is on the PATH)",
    )
    given = parser.parse_args()
    stop_on_signals()
    try:
        settings = _settings(os.environ)
        if load(settings, needs_keys=False).dev_mode and not given.serve:
            parser.error("TSG_DEV_MODE makes every request the development account's, which CloudAPI does not know: add --serve")
        with _directory(given.data) as directory:
            return _run(given, settings, directory)
    except KeyboardInterrupt:
        print("\nstopped", flush=True)
        return 0 if not given.once else 130
    except SettingsError as error:
        print(f"dev/run: {error}", file=sys.stderr)
        return 2
    except (ServiceError, ChildError, TourFailed, UnexpectedAnswer, OSError, requests.RequestException) as error:
        print(f"dev/run: {error}", file=sys.stderr)
        return 1


def _settings(environ: MutableMapping[str, str]) -> dict[str, str]:
    """The settings of the environment that hold here. The others are named and removed from it."""
    given = {name: value for name, value in environ.items() if name.startswith(("TSG_", "NOMAD_")) and not name.startswith(NOT_OURS)}
    ignored = given.keys() & ITS_OWN
    if given.get("TSG_LOG_LEVEL", "INFO").upper() not in {"DEBUG", "INFO"}:
        ignored.add("TSG_LOG_LEVEL")
    if ignored:
        print(f"ignored, since dev/run has its own: {', '.join(sorted(ignored))}", flush=True)
    if unknown := given.keys() - set(variables()):
        print(f"ignored, since there is no such setting: {', '.join(sorted(unknown))}", flush=True)
    for name in ignored | unknown:
        del environ[name]
    return {name: value for name, value in given.items() if name in environ}


def _run(given: argparse.Namespace, settings: dict[str, str], directory: Path) -> int:
    scaler = given.scaler or settings.get("TSG_SCALER", "worker")
    nomad = "Nomad, " if scaler == "nomad" else ""
    print(f"starting PostgreSQL, Valkey, the CloudAPI simulator, {nomad}the API, the workers, the scheduler and tsg-feed ...", flush=True)
    started = time.monotonic()
    chosen = settings.pop("TSG_HTTP_PORT", None)
    port = given.port if given.port is not None else int(chosen) if chosen else _port()
    stack = Stack(
        directory,
        port=port,
        api=given.api,
        workers=given.workers,
        feeds=given.feeds,
        provision_seconds=given.provision_seconds,
        scaler=scaler,
        settings={**settings, "TSG_SCALER": scaler},
    )
    with stack:
        print(f"up in {time.monotonic() - started:.1f} s: {stack.url}; logs in {directory / 'log'}", flush=True)
        if nomad:
            print(f"Nomad is {stack.nomad_program or 'the simulator (no program nomad is on the PATH)'}, at {stack.nomad_url}", flush=True)
        print(flush=True)
        if not given.serve:
            tour(stack.client(), stack.cloud)
        if given.once:
            return 0
        with _console(stack, in_development=load(settings, needs_keys=False).dev_mode) as address:
            _show(stack, directory, address)
            while True:
                for line in stack.restart_the_dead():
                    print(line, flush=True)
                time.sleep(LOOK)


@contextmanager
def _console(stack: Stack, *, in_development: bool) -> Iterator[str]:
    """The address of the console: the API's own in development mode, else that of a proxy that signs."""
    if in_development:
        yield f"{stack.url}{pages.BASE}"
        return
    signer = Signer(stack.account, key.read(stack.key_file.read_text()))
    with serving(Upstream(stack.url, stack.account, ByDate(signer))) as address:
        yield address


def _show(stack: Stack, directory: Path, console: str) -> None:
    """How to talk to what runs."""
    shell = directory / "tsg.sh"
    shell.write_text(stack.shell() + "\n")
    settings = directory / "settings.sh"
    write_private(settings, stack.exports())
    print(f"\nThe API is at {stack.url}, the CloudAPI simulator at {stack.cloud_url} (docs/simulators.md).")
    print(f"The console is at {console}\n\nIn another shell:\n")
    print(f"    . {shell}\n    tsg doctor\n    tsg template create web-1 base-64-lts sim-small")
    print("    tsg group create web web-1 --capacity 3 --wait\n")
    print("docs/cli.md has more of tsg. tsg_curl PATH, from the same file, is curl with a signature: tsg_curl /v1/tsg/groups")
    print(f"For tsg-admin and the other programs, in a shell of their own: . {settings}; tsg-admin groups list")
    print("Ctrl-C stops everything that was started here.", flush=True)


def _directory(given: Path | None) -> AbstractContextManager[Path]:
    if given is None:
        return scratch()
    given.mkdir(parents=True, exist_ok=True)
    return nullcontext(given.resolve())


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
