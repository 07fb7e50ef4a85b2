"""`dev/soak`: see the package."""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import requests

from dev.processes import ChildError, stop_on_signals
from dev.services import ServiceError
from dev.soaking.day import LONGEST, Day
from dev.soaking.outside import Outside
from dev.soaking.rounds import FAULT_NAMES, Soak
from dev.soaking.trial import Trial
from dev.soaking.world import Findings, World
from dev.stack import Stack


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="dev/soak",
        description="Run the whole service under random requests and random faults, and check that it keeps what it promises.",
        epilog="Exit codes: 0 everything held, 1 something did not. The same seed is the same sequence of requests and faults.",
    )
    parser.add_argument(
        "--minutes", type=float, default=5.0, metavar="N", help="begin no new round after so long; or a day's length (default 5)"
    )
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="what the dice are made of (default: any, and printed)")
    parser.add_argument("--scaler", choices=("worker", "nomad"), default="worker", help="who converges the groups (default worker)")
    parser.add_argument("--day", action="store_true", help="instead of rounds: a day of many groups, compressed into these minutes")
    parser.add_argument("--groups", type=int, default=1000, metavar="N", help="groups of the day (default 1000)")
    parser.add_argument("--accounts", type=int, metavar="N", help="accounts (default 3 with up to five groups each, 40 for a day)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="worker processes (default 2)")
    parser.add_argument("--only", metavar="FAULT,...", help="break nothing else; the names are those in the report")
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output, the progress on standard error")
    given = parser.parse_args()
    only = set(filter(None, (given.only or "").split(",")))
    unknown = only - FAULT_NAMES
    if unknown:
        parser.error(f"there is no fault {', '.join(sorted(unknown))}; there are: {', '.join(sorted(FAULT_NAMES))}")
    if given.day and (given.minutes > LONGEST or given.scaler == "nomad" or only):
        parser.error(f"a day has at most {LONGEST} minutes, workers that scale, and its own faults")
    seed = given.seed if given.seed is not None else random.randrange(1_000_000)
    stop_on_signals()
    out = sys.stderr if given.json else sys.stdout
    findings = Findings()
    accounts, kind = given.accounts or (40 if given.day else 3), Day if given.day else Soak
    print(f"soak: seed {seed}, {given.minutes:g} minutes, {accounts} accounts, scaler {given.scaler}", file=out, flush=True)
    trial: Trial | None = None
    with _kept_on_failure(findings, out) as directory:
        try:
            options: dict[str, Any] = {"durable": False, "scaler": given.scaler, "real_nomad": False, "cmon": True}
            with (
                closing(Outside()) as outside,
                Stack(directory, api=2, workers=given.workers, feeds=2, settings={**kind.settings, **outside.settings}, **options) as stack,
            ):
                names = [f"account-{number}" for number in range(1, accounts + 1)]
                world = World(stack, outside, names, findings)
                trial = Day(world, seed, out, given.groups) if given.day else Soak(world, seed, out, only)
                trial.run(given.minutes)
        except KeyboardInterrupt:
            print("\nstopped", file=out)
            return 130
        except (ServiceError, ChildError, OSError, requests.RequestException, psycopg2.Error) as error:
            findings.violated(f"the soak can't go on: {type(error).__name__}: {error}")
    report = trial.report() if trial else {"seed": seed, "violations": findings.violations}
    print(json.dumps(report, indent=2) if given.json else _in_words(report), flush=True)
    return 1 if findings.violations else 0


def _in_words(report: dict[str, Any]) -> str:
    lines = [f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in report.items() if name != "violations"]
    return "\n".join(["", *lines, "everything held" if not report["violations"] else f"{len(report['violations'])} VIOLATIONS"])


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in sorted(value.items(), key=lambda item: str(item[0])))
    return str(value)


@contextmanager
def _kept_on_failure(findings: Findings, out: Any) -> Iterator[Path]:
    """A directory for data and logs that stays, with the last that was done, when something did not hold."""
    directory = Path(tempfile.mkdtemp(prefix="tsg-soak-"))
    if os.geteuid() == 0:
        directory.chmod(0o711)
    yield directory
    if not findings.violations:
        shutil.rmtree(directory, ignore_errors=True)
        return
    print("\nthe last that was done:", *findings.last, sep="\n  ", file=out)
    print("\nwhat did not hold:", *findings.violations, sep="\n  ", file=out)
    print(f"\ndata and logs are kept in {directory}", file=out, flush=True)


if __name__ == "__main__":
    threading.current_thread().name = "soak"
    sys.exit(main())
