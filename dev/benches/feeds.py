"""What many accounts cost one `tsg-feed`, and how it comes back when CloudAPI ends all its connections at once."""

import time
import uuid
from collections.abc import Iterator

import requests
from sqlalchemy import Connection, make_url, text

from dev.benches.report import Figure
from dev.benches.scaling import running_stack
from dev.database import managed_account
from dev.processes import wait_for, wait_or_fail
from dev.stack import DATABASE, Stack
from dev.used import cpu_of, resident_mb
from shared.clients import keys
from shared.clients.keys import KeyPair, Sealer
from shared.runtime.values import SECRET_KEYS
from shared.store import db
from tsg_workers.feed.gate import ALL_WITHIN

ACCOUNTS, QUICK = 2_000, 200
#: Seconds over which the idle process is measured.
IDLE = 60.0

FILL = """
WITH template AS (INSERT INTO tsg_templates (template_name, account_id, package, image_id, created_at)
                  VALUES ('t', :account, gen_random_uuid()::text, gen_random_uuid()::text, now()) RETURNING id)
INSERT INTO tsg_groups (name, template_id, account_id, capacity, created_at, updated_at, by_name)
SELECT 'g', id, :account, 0, now(), now(), false FROM template
"""
PUT_OFF = "UPDATE tsg_group_state SET check_at = now() + interval '1 day'"


def bench(*, quick: bool) -> Iterator[Figure]:
    """Memory, CPU, and the seconds that a restart takes, beside the limits of the contract."""
    count = QUICK if quick else ACCOUNTS
    with running_stack({"TSG_FEED": "auto", "TSG_LOG_LEVEL": "INFO"}, workers=0) as stack:
        stack.knobs(throttle=False)
        stack.processes["clock"].stop()
        _fill(stack, count)
        stack.sql(PUT_OFF)
        began = time.monotonic()
        feed = stack.start_process("feed-1", "tsg-feed")
        _wait_for(stack, count)
        yield Figure(f"{count:,} accounts connected, from nothing", time.monotonic() - began, "s", 60.0)
        used, since = cpu_of([feed.pid]), time.monotonic()
        time.sleep(IDLE if not quick else 15)
        share = (cpu_of([feed.pid]) - used) / (time.monotonic() - since) * 100
        yield Figure(f"{count:,} accounts at rest, CPU of a core", share, "%", 5.0)
        yield Figure(f"{count:,} accounts at rest, memory", resident_mb(feed.pid), "MB", 300.0)
        stack.sql(PUT_OFF)
        stack.cloud("POST", "/changefeed/cut")
        yield from _come_back(stack, count)
        yield Figure(f"{count:,} accounts after it, memory", resident_mb(feed.pid), "MB", 300.0)
        yield from _taken_over(stack, count)


def _come_back(stack: Stack, count: int) -> Iterator[Figure]:
    began, opened, most = time.monotonic(), _opened(stack), 0
    seconds = [opened]
    while _opened(stack) - opened < count and time.monotonic() - began < 180:
        time.sleep(1)
        seconds.append(_opened(stack))
        most = max(most, seconds[-1] - seconds[-2])
    took = time.monotonic() - began
    due = "SELECT count(*) FROM tsg_group_state WHERE check_at <= now()"
    wait_for(lambda: stack.sql(due)[0][0] == count, seconds=30, longest_pause=0.5)
    missed = count - stack.sql(due)[0][0]
    yield Figure(f"{count:,} connections cut, seconds until all are back", took, "s", 60.0, {"most a second": float(most)})
    yield Figure(f"{count:,} connections cut, groups that were not made due", float(missed), "groups", 0.0)


def _taken_over(stack: Stack, count: int) -> Iterator[Figure]:
    """A second `tsg-feed` takes half of the accounts, and all when the first is killed, at the pace of a restart."""
    opened = _opened(stack)
    stack.start_process("feed-2", "tsg-feed")
    # Rendezvous hashing gives it half of them, more or less.
    wait_for(lambda: _opened(stack) - opened > count * 0.4, seconds=120, longest_pause=0.5)
    _wait_for(stack, count)
    moved, killed = _opened(stack), time.monotonic()
    stack.processes["feed-1"].kill()
    wait_for(lambda: _opened(stack) > moved, seconds=60, longest_pause=0.1)
    yield Figure(
        "one of two tsg-feed killed, seconds until the other opens its accounts' connections", time.monotonic() - killed, "s", 15.0
    )
    _wait_for(stack, count)
    took = time.monotonic() - killed
    yield Figure(f"seconds until it has all {count - (moved - opened):,} of them", took, "s", 15.0 + ALL_WITHIN)


def _fill(stack: Stack, count: int) -> None:
    pair, sealer = keys.generate(), Sealer(SECRET_KEYS.read(stack.environment["TSG_SECRET_KEYS"]))
    database = db.connect(make_url(stack.postgres.url(DATABASE)), pool_size=2)
    session = requests.Session()
    for number in range(count):
        name, triton = f"tenant-{number}", str(uuid.uuid4())
        session.post(
            f"{stack.cloud_url}/--sim/accounts", json={"login": name, "uuid": triton, "keys": [f"{pair.public_line} tsg"]}, timeout=30
        )
        database.transact(lambda connection, name=name, triton=triton: _tenant(connection, sealer, pair, name, triton))  # type: ignore[misc]
    # Groups that were written without a state are taken in when they are due.
    stack.sql(
        "INSERT INTO tsg_group_state (group_id, account_id, reason, checked_at)"
        " SELECT id, account_id, 'Settled', now() FROM tsg_groups ON CONFLICT DO NOTHING"
    )
    stack.sql("UPDATE tsg_groups SET check_at = NULL")
    database.close()


def _tenant(connection: Connection, sealer: Sealer, pair: KeyPair, name: str, triton: str) -> None:
    connection.execute(text(FILL), {"account": managed_account(connection, name, triton, pair, sealer).id})


def _wait_for(stack: Stack, count: int) -> None:
    def are_connected() -> bool:
        return bool(stack.cloud("GET", "/changefeed")["connections"] == count)

    wait_or_fail(f"{count} accounts are connected", are_connected, seconds=300, longest_pause=0.5)


def _opened(stack: Stack) -> int:
    return int(stack.cloud("GET", "/changefeed")["opened"])
