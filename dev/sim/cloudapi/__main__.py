"""python -m dev.sim.cloudapi --port 8080 --account demo:UUID:key.pub"""

import argparse
import json
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dev.sim.cloudapi.cloud import Cloud
from dev.sim.cloudapi.errors import ApiError
from dev.sim.cloudapi.simulator import Simulator
from dev.sim.cmon.simulator import Simulator as Cmon
from dev.sim.common.server import THREADS
from dev.sim.common.wanted import is_uuid
from shared.runtime.signals import on_signal

#: Seconds between looks at what there is to keep.
KEEP_SECONDS = 1.0


def main() -> int:
    args = _parser().parse_args()
    stop = threading.Event()
    on_signal(stop.set)
    kept = _Kept(args.state)
    simulated = Simulator(
        args.bind,
        args.port,
        datacenter=args.datacenter,
        seed=args.seed,
        threads=args.threads,
        provision_seconds=args.provision_seconds,
        rows=kept.load(),
    )
    with simulated as simulator, ExitStack() as beside:
        for account in args.account:
            _add_account(simulator.cloud, account)
        if args.cmon:
            beside.enter_context(_cmon(simulator, args.cmon))
        print(f"cloudapi simulator listening on {simulator.url}", flush=True)
        while not stop.wait(KEEP_SECONDS):
            kept.save(simulator.cloud)
        kept.save(simulator.cloud)
    return 0


def _cmon(simulator: Simulator, directory: Path) -> Cmon:
    """CMON for the same machines, among CloudAPI's services."""
    directory.mkdir(parents=True, exist_ok=True)
    cmon = Cmon(simulator.cloud, directory)
    cmon.load.cpu = lambda _machine: float(simulator.knobs.cmon_cpu)
    simulator.cloud.services["cmon"] = cmon.url
    return cmon


class _Kept:
    """The file that a cloud is kept in: read at the start, and written again when something has changed."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._written = ""

    def load(self) -> dict[str, Any] | None:
        if self._file is None or not self._file.exists():
            return None
        try:
            rows: dict[str, Any] = json.loads(self._file.read_text())
        except (OSError, ValueError) as error:
            raise SystemExit(f"--state {self._file}: {error}") from None
        return rows

    def save(self, cloud: Cloud) -> None:
        if self._file is None:
            return
        text = json.dumps(cloud.rows())
        if text != self._written:
            fresh = self._file.with_name(f"{self._file.name}.new")
            fresh.write_text(text)
            fresh.replace(self._file)
            self._written = text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m dev.sim.cloudapi", description="A simulator of Triton's CloudAPI.")
    parser.add_argument("--bind", default="127.0.0.1", help="address; the admin routes have no password (default %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--datacenter", default="us-east-1")
    parser.add_argument("--provision-seconds", type=float, default=5.0, help="how long a machine boots (default %(default)s)")
    parser.add_argument("--seed", type=int, help="makes chances and ids the same in every run")
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument(
        "--account",
        action="append",
        default=[],
        metavar="NAME:UUID:PUBKEYFILE",
        help="an account with the OpenSSH public keys of a file; UUID may be empty, then it is made of the name",
    )
    parser.add_argument("--state", type=Path, metavar="FILE", help="keeps accounts, keys and machines over a restart, as of a second ago")
    parser.add_argument("--cmon", type=Path, metavar="DIRECTORY", help="runs CMON beside it, whose certificate authority is written there")
    return parser


def _add_account(cloud: Cloud, text: str) -> None:
    name, uuid, path = [*text.split(":", 2), "", ""][:3]
    if not name or not path or (uuid and not is_uuid(uuid)):
        raise SystemExit(f"--account {text}: NAME:UUID:PUBKEYFILE is wanted, with a lower-case UUID or none")
    if cloud.find_account(name):
        return  # kept from before
    try:
        lines = [line for line in Path(path).read_text().splitlines() if line.strip()]
        cloud.add_account(name, keys=lines, uuid=uuid or None)
    except (OSError, ValueError, ApiError) as error:
        raise SystemExit(f"--account {text}: {error}") from None


if __name__ == "__main__":
    raise SystemExit(main())
