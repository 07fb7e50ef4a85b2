"""The service on many machines of this one: each is killed in turn under load, and the time until all works again is measured.

Two APIs behind the edge, three workers, two schedulers, two feeds, three PostgreSQL, two Valkeys and three Sentinels, each in a network
namespace with an address of its own. Accounts change the size of a group each all the time. A fault's time is that from the kill until
every account has had a change carried out that it asked for after the kill; what was killed is away until then.
"""

import argparse
import math
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from dev.machines.cluster import NAMES, Cluster
from dev.machines.faults import FAULTS
from dev.machines.hosts import isolate, make_hosts
from dev.machines.owners import Owner
from dev.percentile import percentile
from dev.processes import ChildError, stop_on_signals, wait_for
from dev.services import ServiceError, scratch

#: Seconds within which all must work again, and of quiet between two faults.
PATIENCE, QUIET = 180, 2.0
#: Lines of a log with which a program logs a fault of its own.
FAULTS_OF_OURS = ('"pass_failed"', '"request_failed"', '"process_failed"', '"thread_failed"')


class Row(NamedTuple):
    """What came of one fault: seconds for each account; the longest wait for a change to be accepted; what was refused."""

    recovered: list[float]
    accepted: float
    refused: Counter[str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev/many", description=__doc__)
    parser.add_argument("--times", type=int, default=3, help="how often each is killed (default %(default)s)")
    parser.add_argument("--accounts", type=int, default=6, help="accounts that change a group each (default %(default)s)")
    parser.add_argument("--only", default="", help="only faults with this text in their name")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of the choice among several of a kind")
    given = parser.parse_args()
    isolate()
    stop_on_signals()
    random.seed(given.seed)
    print(f"seed {given.seed}", flush=True)
    try:
        with scratch() as directory, Cluster(directory, make_hosts(NAMES), {"TSG_LOG_FORMAT": "json"}) as cluster:
            return _play(cluster, given)
    except (ServiceError, ChildError) as error:
        print(f"dev/many: {error}", file=sys.stderr)
        return 1


def _play(cluster: Cluster, given: argparse.Namespace) -> int:
    owners = _owners(cluster, given.accounts)
    rows: dict[str, list[Row]] = {name: [] for name in FAULTS if given.only in name}
    with ThreadPoolExecutor(len(owners)) as pool:
        running = [pool.submit(owner.run) for owner in owners]
        try:
            _since(owners, 0.0)
            for _ in range(given.times):
                for name, row in rows.items():
                    row.append(_fault(cluster, owners, name))
                    print(f"{name}: {max(row[-1].recovered):.1f} s", flush=True)
        finally:
            for owner in owners:
                owner.stop.set()
        for one in running:
            one.result()
    print(_table(rows))
    problems = _problems(cluster, owners)
    changes = sum(len(owner.changes) for owner in owners)
    print("\n".join(problems) or f"nothing was lost and nothing doubled: {changes} changes of {len(owners)} groups")
    return 1 if problems else 0


def _owners(cluster: Cluster, count: int) -> list[Owner]:
    owners = []
    for number in range(count):
        name = f"owner-{number}"
        cluster.add_account(name)
        owners.append(Owner(cluster, name, cluster.client(name).make_template(), threading.Event()))
    return owners


def _fault(cluster: Cluster, owners: Sequence[Owner], name: str) -> Row:
    before = Counter[str]()
    for owner in owners:
        before += owner.refused
    began = time.monotonic()
    mend = FAULTS[name](cluster)
    recovered = _since(owners, began)
    # A change may have been sent before the kill and accepted after it.
    accepted = max(change.accepted - change.sent for owner in owners for change in list(owner.changes) if change.accepted >= began)
    mend()
    cluster.wait_until_whole()
    refused = Counter[str]()
    for owner in owners:
        refused += owner.refused
    time.sleep(QUIET)
    return Row(recovered, accepted, refused - before)


def _since(owners: Sequence[Owner], moment: float) -> list[float]:
    """Seconds from `moment` until each account had a change done that was asked for later."""
    if not wait_for(lambda: all(owner.is_done_since(moment) for owner in owners), seconds=PATIENCE):
        late = [owner.account for owner in owners if not owner.is_done_since(moment)]
        raise ChildError(f"no change of {late} was carried out within {PATIENCE} s")
    return [(owner.is_done_since(moment) or math.inf) - moment for owner in owners]


def _table(rows: dict[str, list[Row]]) -> str:
    lines = [
        "| killed | times | refused | accepted after | done: p50 | p95 | longest |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        seconds = [second for one in row for second in one.recovered]
        refused = sum((one.refused for one in row), Counter[str]())
        said = ", ".join(f"{count} x {status}" for status, count in sorted(refused.items())) or "none"
        figures = (max(one.accepted for one in row), percentile(seconds, 0.5), percentile(seconds, 0.95), max(seconds))
        lines.append(f"| {name.strip()} | {len(row)} | {said} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    return "\n".join(lines)


def _problems(cluster: Cluster, owners: Sequence[Owner]) -> list[str]:
    """What was lost, doubled, or answered as nothing should be."""
    running = Counter(
        machine["tags"].get("tsg.group") for machine in cluster.cloud("GET", "/machines?live=true") if not machine["destroying"]
    )
    found = [problem for owner in owners for problem in owner.wrong]
    found += [f"{owner.account}'s group has not {owner.size} machines" for owner in owners if running.pop(owner.group, 0) != owner.size]
    found += [f"machines of no group: {dict(running)}"] if running else []
    made, needed = cluster.cloud("GET", "/counters")["creates_accepted"], sum(owner.needed for owner in owners)
    if made != needed:
        found.append(f"CloudAPI made {made} machines, and {needed} were needed")
    for file in sorted((cluster.directory / "log").glob("*.log")):
        for line in file.read_text(errors="replace").splitlines():
            if any(word in line for word in FAULTS_OF_OURS):
                found.append(f"{file.name}: {line[:2000]}")
    return found


if __name__ == "__main__":
    sys.exit(main())
