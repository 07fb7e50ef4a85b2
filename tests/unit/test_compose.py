"""docker-compose.yml, its CockroachDB companion, the Dockerfile and `.env.example`: what can be said of them without docker."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev import tour
from shared.runtime import settings

TOP = Path(__file__).parent.parent.parent
FILES = ("docker-compose.yml", "docker-compose.cockroachdb.yml")

#: Services that do their work and end, or are run by hand.
ONE_SHOTS = {"prepare", "migrate", "demo", "tour", "tsg-admin", "cockroach-init"}
#: A tag that names a version, or one of ours.
PINNED = re.compile(r".+:(v?\d[\w.-]*|\$\{TSG_TAG:-local\})\Z")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    """Those of both files; the second one's `database` on top of the first one's."""
    read: dict[str, dict[str, Any]] = {}
    for name in FILES:
        for service, said in yaml.safe_load((TOP / name).read_text())["services"].items():
            read[service] = read.get(service, {}) | said
    return read


def each(*names: str) -> Any:
    found: dict[str, None] = {}
    for file in FILES:
        found |= dict.fromkeys(yaml.safe_load((TOP / file).read_text())["services"])
    return pytest.mark.parametrize("name", [name for name in found if not names or name in names])


@each()
def test_a_service_is_started_again_or_ends_by_itself(services: dict[str, dict[str, Any]], name: str) -> None:
    assert services[name]["restart"] == ("no" if name in ONE_SHOTS else "unless-stopped")
    if name not in ONE_SHOTS:
        assert services[name]["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}


@each()
def test_a_service_has_no_more_rights_than_it_needs(services: dict[str, dict[str, Any]], name: str) -> None:
    service = services[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service.get("cap_add", [])) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
    assert not service.keys() & {"privileged", "pid", "ipc", "devices"}
    # Only what makes the others' places is root, and it has no network.
    assert service.get("user") in ({"0:0"} if name == "prepare" else {None})
    assert (service.get("network_mode") == "none") == (name == "prepare")
    if "triton-service-groups" in service["image"]:
        assert service["read_only"] is True
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))


@each()
def test_an_image_is_of_one_version(services: dict[str, dict[str, Any]], name: str) -> None:
    assert PINNED.match(services[name]["image"])
    assert "container_name" not in services[name]  # there may be several


@pytest.mark.parametrize("path", ["/v1/tsg/hooks/T0KEN", "//v1/tsg/hooks/T0KEN", "/v1/tsg/%68ooks/T0KEN", "/v1/./tsg/hooks/T0KEN?x"])
def test_the_edge_logs_no_token_of_a_webhook(path: str) -> None:
    (rules,) = re.findall(r"map \$request_uri \$path \{(.*?)\}", (TOP / "dev/deploy/edge/nginx.conf").read_text(), re.DOTALL)
    shown = [to for pattern, to in re.findall(r'"~(\S+)" (.+);', rules) if re.search(pattern.replace("(?<", "(?P<"), path)]
    assert shown[0].startswith('"'), "a text, and not a part of the path"


def test_only_the_edge_is_for_others_and_on_loopback_until_somebody_says_otherwise(services: dict[str, dict[str, Any]]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {
        "edge": ["${TSG_EDGE_ADDRESS:-127.0.0.1}:${TSG_EDGE_PORT:-8443}:8443"],
        "cloudapi": ["127.0.0.1:${CLOUDAPI_PORT:-8081}:8080"],
    }
    assert services["edge"]["networks"] == ["front"]
    assert {name for name, service in services.items() if "front" in service.get("networks", [])} == {"edge", "tsg-api", "tour"}
    assert services["database"]["networks"] == services["redis"]["networks"] == ["data"]


@pytest.mark.parametrize("name", [*FILES, ".env.example", "Dockerfile", "dev/deploy/edge/nginx.conf", "dev/deploy/nomad/agent.hcl"])
def test_no_file_holds_a_secret(name: str) -> None:
    text = (TOP / name).read_text()
    assert "PRIVATE KEY" not in text
    assert not re.search(r"(password|secret|token|key)\w*\s*[:=]\s*[\"']?[A-Za-z0-9+_-][A-Za-z0-9+/_-]{7,}", text, re.IGNORECASE)
    assert not re.search(r"(ARG|ENV)\s+\w*(PASSWORD|SECRET|TOKEN)", text)


def test_every_variable_of_a_service_is_a_setting(services: dict[str, dict[str, Any]]) -> None:
    known = set(settings.variables())
    for name in ("tsg-api", "tsg-worker", "tsg-clock", "tsg-feed", "nomad", "migrate", "tsg-admin"):
        assert set(services[name]["environment"]) <= known, name


def test_the_settings_of_a_service_are_right_as_they_stand(services: dict[str, dict[str, Any]]) -> None:
    for name in ("tsg-api", "tsg-worker", "tsg-clock", "tsg-feed"):
        said = {key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for key, value in services[name]["environment"].items()}
        chosen = settings.load(said, needs_keys=False)
        assert chosen.scaler == "nomad"
        assert chosen.nomad_config == "/etc/tsg/tsg.toml"
    assert settings.load({"TSG_DEV_MODE": "1", **services["prepare"]["environment"]}).database_url.query["host"] == (
        "database:26257",
        "cockroach-2:26257",
        "cockroach-3:26257",
    )


def test_the_job_of_nomad_has_settings_that_there_are_and_checks_for_each_program() -> None:
    job = (TOP / "dev/deploy/nomad/tsg.nomad.hcl").read_text()
    assert re.findall(r"^    (\w+) = {$", job, re.MULTILINE) == ["api", "worker", "clock", "feed"]
    assert {"TSG_DRAIN_SECONDS", "TSG_METRICS_PORT"} < set(re.findall(r"\b(TSG_\w+) =", job)) <= set(settings.variables())
    assert re.findall(r'path += "(.+)"', job) == ["/readyz", "/healthz"]
    assert job.count("check_restart {") == 1, "of /healthz alone: without the database all would be restarted in vain"
    assert re.findall(r'settings = "(.+?)", mount = "(.+?)"', job).count(("/etc/tsg/tsg-clock.toml", "/etc/tsg/tsg-clock.toml")) == 1


def test_two_clocks_run_and_only_what_opens_private_keys_has_the_secret_keys(services: dict[str, dict[str, Any]]) -> None:
    assert services["tsg-clock"]["scale"] == "${TSG_CLOCKS:-2}"
    assert services["tsg-feed"]["scale"] == "${TSG_FEEDS:-2}"
    with_keys = {
        name for name, service in services.items() if any(volume.startswith("settings:/etc") for volume in service.get("volumes", []))
    }
    assert with_keys == {"nomad", "tsg-admin", "tsg-api", "tsg-feed", "tsg-worker"}


def test_what_the_example_offers_is_what_the_stack_reads() -> None:
    offered = re.findall(r"^#([A-Z_]+)=", (TOP / ".env.example").read_text(), re.MULTILINE)
    read = set(re.findall(r"\$\{([A-Z_]+):-", (TOP / FILES[0]).read_text()))
    assert len(offered) == len(set(offered))
    assert set(offered) <= read
    assert not re.search(r"^[^#\n]", (TOP / ".env.example").read_text(), re.MULTILINE)  # it can be used as it is


def test_the_account_of_the_tour_is_the_one_that_is_let_in(services: dict[str, dict[str, Any]]) -> None:
    assert services["demo"]["command"][-2:] == [tour.ACCOUNT, tour.TRITON_UUID]
    assert f"--account={tour.ACCOUNT}:{tour.TRITON_UUID}:/dev/null" in services["cloudapi"]["command"]


def test_images_run_as_nobody_in_particular() -> None:
    stages = re.split(r"^FROM ", (TOP / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    users = {stage.split()[2]: re.findall(r"^USER (\S+)", stage, re.MULTILINE) for stage in stages}
    # The others are of `service`, or leave but files.
    assert users == {"build": [], "service": ["10001:10001"], "dev": [], "edge": ["10002:10002"], "nomad-program": [], "nomad": []}
    assert all(re.match(r"(service|\S+:\d[\w.-]*) AS ", stage) for stage in stages)


def context() -> Callable[[str], bool]:
    """Whether `.dockerignore` lets a path into a build. The last pattern that fits a path decides."""
    rules = [line for line in (TOP / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    def fits(rule: str, path: str) -> bool:
        pattern = re.escape(rule).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        return re.fullmatch(f"{pattern}(/.*)?", path) is not None

    def lets_in(path: str) -> bool:
        deciding = [rule for rule in rules if fits(rule.removeprefix("!"), path)]
        return bool(deciding) and deciding[-1].startswith("!")

    return lets_in


def test_a_build_gets_what_the_images_need() -> None:
    lets_in = context()
    command = ["git", "ls-files", "shared", "tsg_api", "tsg_client", "tsg_workers"]
    tracked = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True)
    assert [path for path in tracked.stdout.split() if not lets_in(path)] == []
    # docker-compose 1.29 finds nothing in a folder that is left out, whatever a later pattern says of its files.
    assert {folder for path in tracked.stdout.split() if not lets_in(folder := str(Path(path).parent))} == set()
    named = re.findall(r"^COPY (?!--)(.+) \S+$", (TOP / "Dockerfile").read_text(), re.MULTILINE)
    files = [path for names in named for path in names.split() if (TOP / path).is_file()]
    assert len(files) > 5
    assert [path for path in files if not lets_in(path)] == []
    assert all(lets_in(f"dev/{path}") for path in ("tour.py", "deploy/prepare.py", "sim/cloudapi/__main__.py"))


@pytest.mark.parametrize("folder", ["", ".data/", "dev/", "dev/data/", "shared/data/", "tsg_api/", "dev/deploy/", "dev/sim/x/y/"])
def test_a_build_gets_nothing_secret_wherever_it_lies(folder: str) -> None:
    """`dev/run --data dev/data`, say, puts keys and passwords there."""
    lets_in = context()
    secret = ("id_rsa", "id_rsa.pub", "secret_key", "settings.sh", "settings.toml", "tsg.sh", ".env", "ca.pem", "tsg.dump", "tsg.toml")
    data = ("postgres/data/PG_VERSION", "valkey/appendonly.aof", "log/api.log", "nomad/node.env", "nomad/state.json", ".git/config")
    assert [name for name in (*secret, *data) if lets_in(folder + name)] == []


def test_the_tour_says_what_is_wrong_where_nothing_runs(tmp_path: Path) -> None:
    key, away = tmp_path / "id_rsa", "http://127.0.0.1:9"
    command = [sys.executable, "-m", "dev.tour", "https://127.0.0.1:9", "--cloudapi", away, "--key", key]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOP)
    assert done.returncode == 1
    assert f"no CloudAPI simulator answers at {away}: is the stack up" in done.stderr
    assert not key.exists()
