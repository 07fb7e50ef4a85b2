"""The API under load, beside the bare Falcon route and the bare route with one SELECT, served alike."""

import json
import os
import statistics
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from dev.benches.load import Load, Senders
from dev.benches.report import Figure
from dev.client import PROGRAMS
from dev.processes import Child
from dev.services import scratch
from dev.stack import LISTENS, Stack
from dev.used import cpu_of
from shared.cli import seed

#: Processes of the service and of the limit alike, and threads of each.
PROCESSES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = 8
#: Groups and templates that the lists show.
GROUPS, TEMPLATES = 100, 10
#: Signatures made beforehand, each of another second.
SIGNATURES = 50


class Served(NamedTuple):
    """A server: its processes, and the ports at which they answer."""

    processes: Sequence[Child]
    ports: Sequence[int]


class Target(NamedTuple):
    """Something to send to: a server, and what is sent."""

    what: str
    served: Served
    requests: Sequence[bytes]
    once: bool = False


class Run(NamedTuple):
    """One target in one round, or what several rounds were like."""

    #: Requests a second.
    rate: float
    #: Milliseconds.
    p50: float
    p99: float
    #: Microseconds of the server's processes for each request.
    cpu: float


def bench(*, quick: bool) -> Iterator[Figure]:
    """All of it; some three minutes, or one when `quick`."""
    rounds, seconds = (3, 0.5) if quick else (5, 1.0)
    with scratch() as directory, _Service(directory) as service:
        senders = Senders()
        try:
            measured = _Bench(senders, rounds, seconds, service)
            yield from measured.get_one()
            yield from measured.with_a_slow_cloudapi()
            yield from measured.lists()
            yield from measured.writes()
        finally:
            senders.close()


class _Service:
    """A stack with the API twice, signed and in development mode, and the limits beside it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._settings = {
            "TSG_HTTP_THREADS": str(THREADS),
            "TSG_LOG_FORMAT": "json",
            "TSG_DRAIN_SECONDS": "0",
        }
        # The writes of this bench are the API's alone: no worker takes its share of the cores.
        self.stack = Stack(directory, workers=0, settings=self._settings)

    def __enter__(self) -> Self:
        self.stack.start()
        try:
            self._fill()
            others = self._start("api-more", [PROGRAMS / "tsg-api", "--port=0"], {}, processes=PROCESSES - 1)
            first = Served([self.stack.processes["api"]], [urlsplit(self.stack.url).port or 80])
            self.signed = Served([*first.processes, *others.processes], [*first.ports, *others.ports])
            self.dev = self._start("api-dev", [PROGRAMS / "tsg-api", "--port=0"], {"TSG_DEV_MODE": "1"})
            answer = self._directory / "answer"
            answer.write_bytes(self.tsg("GET", f"/groups/{self.group}").content)
            bare = [sys.executable, "-m", "dev.benches.bare", "--account-id", self.account_id, "--answer", str(answer)]
            self.bare = self._start("bare", bare, {})
        except BaseException:
            self.stack.stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.stack.stop()

    def _fill(self) -> None:
        stack = self.stack
        stack.run("tsg-admin", "db", "seed")
        self.tsg = stack.client()
        made = [self.tsg.make_template(f"t-{number}") for number in range(TEMPLATES)]
        self.template = made[0]
        ((self.account_id,),) = stack.sql("SELECT id::text FROM tsg_accounts WHERE account_name = %s", stack.account)
        stack.sql("UPDATE tsg_groups SET archived = true")  # those of the seed: both accounts have as many
        for account, template in ((self.account_id, self.template), (seed.ACCOUNT_ID, seed.TEMPLATES[0])):
            # Settled, as far as the clock is concerned: nobody works on them.
            stack.sql(
                "INSERT INTO tsg_groups (name, template_id, account_id, capacity, created_at, updated_at, check_at, by_name)"
                " SELECT 'group-' || n, %s, %s, 3, now(), now(), now() + interval '1 day', false FROM generate_series(1, %s) n",
                template,
                account,
                GROUPS,
            )
        stack.sql(
            "INSERT INTO tsg_group_state (group_id, account_id, check_at) SELECT id, account_id, now() + interval '1 day' FROM tsg_groups"
            " ON CONFLICT (group_id) DO UPDATE SET check_at = excluded.check_at"
        )
        stack.sql("UPDATE tsg_groups SET check_at = NULL")
        stack.sql("ANALYZE")
        ((self.group,),) = stack.sql("SELECT id::text FROM tsg_groups WHERE account_id = %s AND name = 'group-50'", self.account_id)
        ((self.dev_group,),) = stack.sql("SELECT id::text FROM tsg_groups WHERE account_id = %s AND name = 'group-50'", seed.ACCOUNT_ID)

    def _start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str], *, processes: int = PROCESSES) -> Served:
        together = {**os.environ, **self.stack.environment, **environment}
        children, ports = [], []
        for number in range(processes):
            called = f"{name}-{number}"
            child = Child(command, log=self._directory / "log" / f"{called}.log", env=together)
            self.stack.processes[called] = child
            children.append(child)
            # One after the other: each binds itself to a core that the others have left free.
            ports.append(urlsplit(child.wait_for_line(LISTENS)).port or 80)
        return Served(children, ports)

    def signatures(self) -> list[dict[str, str]]:
        """Headers of requests sent in the last seconds: no two alike."""
        now = datetime.now(UTC)
        return [self.tsg.headers(now - timedelta(seconds=number)) for number in range(SIGNATURES)]


class _Bench:
    def __init__(self, senders: Senders, rounds: int, seconds: float, service: _Service) -> None:
        self._senders = senders
        self._rounds = rounds
        self._seconds = seconds
        self._service = service
        self._names = 0

    def get_one(self) -> Iterator[Figure]:
        service = self._service
        for connections in (32, 8, 1):
            targets = [
                self._bare("bare route", "/bytes"),
                self._bare("bare route with one SELECT", f"/select/{service.group}"),
                self._dev("dev-mode GET one", f"/groups/{service.dev_group}"),
                self._signed("signed GET one", f"/groups/{service.group}"),
            ]
            bare, select, dev, signed = (self._median(runs) for runs in self._alternate(targets, connections))
            under = f", {connections} connections"
            yield _figure("bare route" + under, bare)
            yield _figure("bare route with one SELECT" + under, select, bare)
            yield _figure("dev-mode GET one / SELECT" + under, dev, select)
            yield _figure("signed GET one / dev mode" + under, signed, dev)

    def with_a_slow_cloudapi(self) -> Iterator[Figure]:
        service = self._service
        for latency in (0.0, 0.02, 0.1):
            service.stack.knobs(latency_seconds=latency)
            targets = [
                self._dev("", f"/groups/{service.dev_group}"),
                self._signed("", f"/groups/{service.group}"),
            ]
            dev, signed = (self._median(runs) for runs in self._alternate(targets, 32))
            yield _figure(f"signed GET one / dev mode, CloudAPI takes {latency * 1000:.0f} ms", signed, dev)

    def lists(self) -> Iterator[Figure]:
        for what, path in ((f"list of {TEMPLATES}", "/templates"), (f"list of {GROUPS}", "/groups")):
            dev, signed = (self._median(runs) for runs in self._alternate([self._dev("", path), self._signed("", path)], 32))
            yield _figure(f"dev-mode GET {what}", dev)
            yield _figure(f"signed GET {what} / dev mode", signed, dev)

    def writes(self) -> Iterator[Figure]:
        service = self._service
        service.stack.knobs(latency_seconds=0.0)
        for connections in (32, 8, 1):
            yield self._posted(f"signed POST group / one INSERT, {connections} connections", connections)
        for connections in (32, 8):
            runs = [self._run(self._puts(), connections) for _ in range(self._rounds)]
            yield _figure(f"signed PUT capacity of {GROUPS} groups, {connections} connections", self._median(runs))
        service.stack.knobs(down=True)
        yield self._posted("signed POST group / one INSERT, 32 connections, CloudAPI down", 32)
        service.stack.knobs(down=False)

    def _posted(self, what: str, connections: int) -> Figure:
        runs = [(self._run(self._inserts(), connections), self._run(self._posts(), connections)) for _ in range(self._rounds)]
        insert, post = (self._median(of_one) for of_one in zip(*runs, strict=True))
        return _figure(what, post, insert)

    # Targets

    def _bare(self, what: str, path: str) -> Target:
        return Target(what, self._service.bare, [_request("GET", path)])

    def _dev(self, what: str, path: str) -> Target:
        return Target(what, self._service.dev, [_request("GET", f"/v1/tsg{path}")])

    def _signed(self, what: str, path: str) -> Target:
        requests = [_request("GET", f"/v1/tsg{path}", headers) for headers in self._service.signatures()]
        return Target(what, self._service.signed, requests)

    def _posts(self) -> Target:
        """Groups of no capacity, each of another name."""
        signatures = self._service.signatures()
        requests = [_request("POST", "/v1/tsg/groups", signatures[n % SIGNATURES], body) for n, body in enumerate(self._new_groups())]
        return Target("", self._service.signed, requests, once=True)

    def _inserts(self) -> Target:
        requests = [_request("POST", "/insert", None, body) for body in self._new_groups()]
        return Target("one INSERT", self._service.bare, requests, once=True)

    def _new_groups(self) -> list[dict[str, object]]:
        """More than can be made in a run."""
        run = uuid.uuid4().hex[:12]
        template = self._service.template
        return [
            {"group_name": f"web-{run}-{number:06}", "template_id": template, "capacity": 0} for number in range(int(6_000 * self._seconds))
        ]

    def _puts(self) -> Target:
        signatures = self._service.signatures()
        rows = self._service.stack.sql(
            "SELECT id::text, name, template_id::text FROM tsg_groups WHERE account_id = %s AND name LIKE 'group-%%'",
            self._service.account_id,
        )
        requests = [
            _request(
                "PUT",
                f"/v1/tsg/groups/{group_id}",
                signatures[number % SIGNATURES],
                {"group_name": name, "template_id": template, "capacity": number % 7},
            )
            for number, (group_id, name, template) in enumerate(rows)
        ]
        return Target("", self._service.signed, requests)

    # Measuring

    def _alternate(self, targets: Sequence[Target], connections: int) -> list[list[Run]]:
        """Each target in each round, so that what else the machine does is shared by all; the first round warms up."""
        found: list[list[Run]] = [[] for _ in targets]
        for target in targets:
            self._run(target, connections, seconds=0.3)
        for _ in range(self._rounds):
            for number, target in enumerate(targets):
                found[number].append(self._run(target, connections))
        return found

    def _run(self, target: Target, connections: int, seconds: float | None = None) -> Run:
        load = Load("127.0.0.1", target.served.ports, target.requests, connections, seconds or self._seconds, target.once)
        pids = [child.pid for child in target.served.processes]
        before = cpu_of(pids)
        answers = self._senders.send(load)
        after = cpu_of(pids)
        if answers.wrong:
            raise RuntimeError(f"{target.what or target.served.ports}: {answers.wrong} of {len(answers.latencies)} answers were no success")
        cpu = (after - before) / len(answers.latencies) * 1e6
        return Run(answers.rate, answers.percentile(0.5), answers.percentile(0.99), cpu)

    def _median(self, runs: Sequence[Run]) -> Run:
        """Of each column its own median: a round in which one was bad need not be bad in another."""
        return Run(*map(statistics.median, zip(*runs, strict=True)))


def _figure(what: str, run: Run, limit: Run | None = None) -> Figure:
    more = {"p50 ms": run.p50, "p99 ms": run.p99, "CPU us": run.cpu}
    if limit is not None:
        more["limit's CPU us"] = limit.cpu
    return Figure(what, run.rate, "/s", limit.rate if limit else None, more)


def _request(method: str, path: str, headers: Mapping[str, str] | None = None, body: object = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    if data:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([*lines, "", ""]).encode() + data
