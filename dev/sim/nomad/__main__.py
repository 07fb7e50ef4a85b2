"""python -m dev.sim.nomad --bind 127.0.0.1 --port 0 --node-env worker.env"""

import argparse
import threading
from pathlib import Path

from dev.sim.nomad.simulator import Simulator
from shared.runtime.signals import on_signal, wait


def main() -> int:
    args = _parser().parse_args()
    stop = threading.Event()
    on_signal(stop.set)
    with Simulator(
        args.bind,
        args.port,
        datacenter=args.datacenter,
        role=args.role or None,
        node_env=_read_env(args.node_env) if args.node_env else None,
        token=args.token,
        state=args.state,
    ) as simulator:
        print(f"nomad simulator listening on {simulator.url}", flush=True)
        wait(stop)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m dev.sim.nomad", description="A simulator of HashiCorp Nomad: one server with one client node."
    )
    parser.add_argument("--bind", default="127.0.0.1", help="address; everybody who reaches it can run programs here (default %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--datacenter", default="us-east-1", help="the node's (default %(default)s)")
    parser.add_argument("--role", default="automater", help="the node's meta.role (default %(default)s)")
    parser.add_argument("--node-env", type=Path, metavar="FILE", help="lines NAME=value: what every task finds in its environment")
    parser.add_argument("--token", help="what X-Nomad-Token must be; without it everybody may do everything")
    parser.add_argument("--state", type=Path, metavar="FILE", help="keeps jobs and what became of them over a restart")
    return parser


def _read_env(path: Path) -> dict[str, str]:
    """Blank lines and lines of # are skipped; a value is everything after the first =."""
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    except OSError as error:
        raise SystemExit(f"--node-env {path}: {error}") from None
    if wrong := [line for line in lines if "=" not in line.lstrip("=")]:
        raise SystemExit(f"--node-env {path}: NAME=value is wanted, not {wrong[0]!r}")
    return {name.strip(): value for name, _, value in (line.partition("=") for line in lines)}


if __name__ == "__main__":
    raise SystemExit(main())
