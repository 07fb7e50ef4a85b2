"""A database that is full, killed, cut off, or strict about order; and clocks that are wrong."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg2
import pytest

from dev.faults import skewed
from tests.e2e.conftest import Service, workers_asleep

pytestmark = pytest.mark.stack("workers")

#: What a disk that is full keeps from growing.
TABLES = ("tsg_groups", "tsg_instances", "tsg_activities")


def cut(service: Service) -> None:
    """End every connection to the database but our own."""
    service.stack.sql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'tsg' AND pid <> pg_backend_pid()")


def test_a_database_cut_off_and_killed_while_a_group_grows_costs_no_machine(calm: Service) -> None:
    group = calm.make_group(40)
    calm.wait("five machines are there", lambda: len(calm.machines(group)) >= 5)
    cut(calm)
    calm.wait("ten more are there", lambda: len(calm.machines(group)) >= 15)
    calm.stack.postgres.kill()
    calm.stack.postgres.start()
    calm.settles(group, 40)
    assert calm.counters()["creates_accepted"] == 40


@contextmanager
def strict_order(service: Service) -> Iterator[None]:
    """Every transaction is serializable, as on CockroachDB, and some are refused with SQLSTATE 40001."""
    service.stack.sql("ALTER DATABASE tsg SET default_transaction_isolation TO serializable")
    cut(service)
    try:
        yield
    finally:
        service.stack.sql("ALTER DATABASE tsg RESET default_transaction_isolation")
        cut(service)


def refused_for_order(service: Service) -> int:
    ((rollbacks,),) = service.stack.sql("SELECT xact_rollback FROM pg_stat_database WHERE datname = 'tsg'")
    return rollbacks


def test_transactions_that_the_database_cannot_order_are_done_again(calm: Service) -> None:
    with strict_order(calm):
        group = calm.make_group(0)
        before = refused_for_order(calm)
        body = {"instance_count": 1, "max_instance": 100}
        path = f"/groups/{group['id']}/increment"
        statuses = calm.together(16, lambda tsg, _number: tsg("PUT", path, body).status_code)
        assert set(statuses) <= {202, 503}
        capacity = statuses.count(202)
        assert calm.tsg.ok("GET", f"/groups/{group['id']}")["capacity"] == capacity
        calm.settles(group, capacity)
        calm.wait("the database refused some", lambda: refused_for_order(calm) > before)
    assert calm.counters()["creates_accepted"] == capacity


@contextmanager
def tables_on(service: Service, disk: Path) -> Iterator[None]:
    """The service's tables lie on another disk."""
    tables = disk / "tables"
    tables.mkdir(mode=0o700)
    shutil.chown(tables, (service.stack.postgres.data_dir / "data").stat().st_uid)
    run_alone(service, f"CREATE TABLESPACE small LOCATION '{tables}'")
    move_tables(service, "small")
    try:
        yield
    finally:
        move_tables(service, "pg_default")
        run_alone(service, "DROP TABLESPACE small")


def move_tables(service: Service, to: str) -> None:
    for table in TABLES:
        service.stack.sql(f"ALTER TABLE {table} SET TABLESPACE {to}")


def run_alone(service: Service, statement: str) -> None:
    """What can't be run in a transaction."""
    connection = psycopg2.connect(service.stack.postgres.url("tsg").replace("postgresql+psycopg2", "postgresql"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


@contextmanager
def refusing_to_grow(service: Service) -> Iterator[None]:
    """For those who may not mount a disk: the database says what it says when one is full."""
    service.stack.sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$"
    )
    for table in TABLES:
        service.stack.sql(f"CREATE TRIGGER full_disk BEFORE INSERT ON {table} EXECUTE FUNCTION full_disk()")
    try:
        yield
    finally:
        service.stack.sql("DROP FUNCTION full_disk CASCADE")


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """A disk has no room left."""
    filler = disk / "filler"
    try:
        with filler.open("wb", buffering=0) as stream, suppress(OSError):
            while True:
                stream.write(b"x" * 4096)
        yield
    finally:
        filler.unlink()


@contextmanager
def full_disk(service: Service) -> Iterator[None]:
    """The disk under the service's tables has no room left."""
    with tempfile.TemporaryDirectory(prefix="tsg-") as name:
        mounting = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "tmpfs", name]
        if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True, check=False).returncode:
            with refusing_to_grow(service):
                yield
            return
        try:
            with tables_on(service, Path(name)), filled(Path(name)):
                yield
        finally:
            subprocess.run(["umount", name], check=True, capture_output=True)


def test_a_full_disk_is_told_and_nothing_is_half_done(calm: Service) -> None:
    group = calm.make_group(2)
    calm.settles(group, 2)
    made, refused = [], []
    with full_disk(calm):
        body = {"template_id": group["template_id"], "capacity": 1}
        while len(refused) < 5:
            assert len(made) < 100, "the disk is not full"
            name = f"on-a-full-disk-{len(made) + len(refused)}"
            answer = calm.tsg("POST", "/groups", {"group_name": name, **body})
            assert answer.status_code in {201, 503}, answer.text
            (made if answer.status_code == 201 else refused).append(name)
        assert {row["group_name"] for row in calm.tsg.ok("GET", "/groups")} == {group["group_name"], *made}
    calm.tsg.ok("POST", "/groups", {"group_name": refused[0], **body}, status=201)
    for row in calm.tsg.ok("GET", "/groups"):
        calm.settles(row, row["capacity"])
    assert calm.counters()["creates_accepted"] == 2 + len(made) + 1


def test_a_worker_and_a_second_clock_that_go_wrong_make_no_difference(calm: Service) -> None:
    with workers_asleep(calm):
        wrong = [
            calm.stack.start_process("worker-9", "tsg-worker", environment=skewed(240)),
            calm.stack.start_process("clock-9", "tsg-clock", environment=skewed(-240)),
        ]
        group = calm.make_group(4)
        calm.settles(group, 4)
        calm.resize(group, 2)
        calm.settles(group, 2)
        assert (calm.counters()["creates_accepted"], calm.counters()["deletes_accepted"]) == (4, 2)
        for child in wrong:
            child.stop()
    for name in ("worker-9", "clock-9"):
        del calm.stack.processes[name]
    assert {child.status for child in wrong} == {0}
