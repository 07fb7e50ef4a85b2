"""`dev/bench`: what the service can do on this machine, beside the limits measured in the same run."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dev.benches import api, feeds, healing, large, policies, probes, reload, scaling, steady
from dev.benches.report import Figure, table
from dev.processes import stop_on_signals

BENCHES: dict[str, tuple[Callable[..., Iterator[Figure]], str]] = {
    "api": (api.bench, "requests a second: the API beside the bare route, and the bare route with one SELECT"),
    "capacity": (scaling.capacity, "seconds from POST to the last of N running, beside provisioning + N / budget"),
    "cloud": (large.bench, "what a whole cloud costs, up to 10,000 accounts and a million machines, and how it comes back from a stop"),
    "heal": (healing.heal, "seconds from a machine's death to the request for its replacement, with and without the changefeed"),
    "quiet": (healing.quiet, "CloudAPI's lists in an hour of settled groups, with and without the changefeed"),
    "settle": (healing.settle, "seconds from the last machine's running to the answer that says so, with and without the changefeed"),
    "feed": (feeds.bench, "what 2,000 accounts cost one tsg-feed, and how it comes back from a restart of CloudAPI"),
    "policies": (policies.bench, "policies evaluated a second by one worker, beside those that are due, and what they cost"),
    "probes": (probes.bench, "health probes a second of one process, beside those that are due, and what they cost"),
    "queue": (scaling.queue, "milliseconds from a wake-up to a worker's turn, beside what is asked for"),
    "reload": (reload.bench, "seconds for a rollout to all members, beside its waves of booting, and the least and most there meanwhile"),
    "steady": (steady.bench, "what a round of checks of settled groups costs, beside one page of the list per 1,000 machines and account"),
}

#: Not part of `all`: it takes half an hour and more.
LONG = ("cloud",)


def main() -> int:
    benches = "\n".join(f"  {name:<10}{what}" for name, (_bench, what) in BENCHES.items())
    parser = argparse.ArgumentParser(
        prog="dev/bench",
        description="Measure the service on this machine. docs/performance.md says what the figures mean.",
        epilog=f"benches:\n{benches}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bench", choices=(*BENCHES, "all"), help="which one, or all of them but cloud: twenty minutes")
    parser.add_argument("--quick", action="store_true", help="less than a minute each, and less sure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    given = parser.parse_args()
    stop_on_signals()
    chosen = (
        {name: one for name, one in BENCHES.items() if name not in LONG} if given.bench == "all" else {given.bench: BENCHES[given.bench]}
    )
    found = {}
    for name, (bench, what) in chosen.items():
        print(f"{name}: {what}", flush=True)
        began = time.monotonic()
        figures = []
        for figure in bench(quick=given.quick):
            figures.append(figure)
            print(f"  {time.monotonic() - began:3.0f} s  {figure}", file=sys.stderr, flush=True)
        print(f"{table(figures)}\n({time.monotonic() - began:.0f} s)\n", flush=True)
        found[name] = [figure.to_json() for figure in figures]
        if given.json:
            machine = {"cores": os.cpu_count(), "python": platform.python_version(), "system": platform.platform(), "load": os.getloadavg()}
            given.json.write_text(json.dumps({"machine": machine, "quick": given.quick, "benches": found}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
