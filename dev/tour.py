"""The main job, where one can watch it: a group comes up, grows, loses machines, shrinks and goes. Each step is checked.

`dev/tour URL` takes it with a service that runs already, whose CloudAPI is the simulator.
"""

import argparse
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
from dotenv import dotenv_values
from urllib3.exceptions import InsecureRequestWarning

from dev.client import Account, Tsg, UnexpectedAnswer, make_key, send, shell
from dev.processes import TOP, stop_on_signals
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_NETWORK, DEFAULT_PACKAGE

#: Seconds that a step may take before the tour fails.
PATIENCE = 120.0
#: Seconds that a service which was just started may say "not now".
STARTING = 60.0
#: Seconds between looks while waiting.
LOOK = 0.5
#: Seconds that one request waits for a group to settle; it prints the state this often.
WAIT = 2

#: Of the account that docker-compose.yml lets in.
ACCOUNT, TRITON_UUID = "demo", "d82a1f04-b9f6-4075-998f-af20e3d49de6"
#: Where the tour's key stays, out of git.
KEY = TOP / ".data" / "tour" / "id_rsa"
#: Addresses of the edge that this machine reaches by the name localhost.
LOCAL = {"127.0.0.1", "0.0.0.0", "[::1]", "[::]"}

Machines = list[dict[str, Any]]


class TourFailed(Exception):
    """A step did not end as it should."""


def main() -> int:
    given = _parser(_addresses(TOP / ".env", os.environ)).parse_args()
    stop_on_signals()
    if given.insecure:
        warnings.simplefilter("ignore", InsecureRequestWarning)
    try:
        key_id = _enrol(given.cloudapi.rstrip("/"), given.account, given.key)
        tsg = Tsg(given.url, given.account, given.key, key_id, verify=given.ca or not given.insecure)
        _knock(tsg, given.account)
        tour(tsg, _simulator(given.cloudapi.rstrip("/")))
    except (TourFailed, UnexpectedAnswer, OSError) as error:  # those of requests among them
        print(f"dev/tour: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if given.key == KEY:
        file = KEY.with_name("tsg.sh")
        trust = ["--cacert", given.ca.resolve()] if given.ca else ["--insecure"] if given.insecure else []
        file.write_text(shell(tsg.url, Account(given.account, key_id, KEY), cloudapi=given.cloudapi.rstrip("/"), trust=trust) + "\n")
        print(f"To send requests yourself: . {file}; tsg template ls")
    return 0


def _addresses(dotenv: Path, environ: Mapping[str, str]) -> tuple[str, str]:
    """URLs of the service and of the CloudAPI simulator, where docker-compose.yml puts them: the environment goes before `.env`."""
    settings = {**dotenv_values(dotenv), **environ}
    address = settings.get("TSG_EDGE_ADDRESS") or "127.0.0.1"
    host = "localhost" if address in LOCAL else address
    return f"https://{host}:{settings.get('TSG_EDGE_PORT') or 8443}", f"http://127.0.0.1:{settings.get('CLOUDAPI_PORT') or 8081}"


def _parser(addresses: tuple[str, str]) -> argparse.ArgumentParser:
    url, cloudapi = addresses
    parser = argparse.ArgumentParser(
        prog="dev/tour",
        description="Have a running service do its main job, and check each step.",
        epilog="The defaults are those of docker-compose.yml with the ports of .env. Exit codes: 0 all as it should be, 1 not.",
    )
    parser.add_argument("url", nargs="?", default=url, metavar="URL", help="of the service (default %(default)s)")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--ca", type=Path, metavar="FILE", help="the certificate (PEM) that vouches for the service")
    trust.add_argument("--insecure", action="store_true", help="trust any certificate")
    parser.add_argument("--cloudapi", default=cloudapi, metavar="URL", help="of the service's CloudAPI simulator (default %(default)s)")
    parser.add_argument("--account", default=ACCOUNT, help="the account to do it with (default %(default)s)")
    parser.add_argument(
        "--key", type=Path, default=KEY, metavar="FILE", help="its private RSA key; made and registered with the simulator if necessary"
    )
    return parser


def _simulator(url: str) -> Callable[..., Any]:
    def ask(method: str, path: str, body: object = None) -> Any:
        response = send(method, f"{url}/--sim{path}", json=body, timeout=30)
        if response.status_code >= 400:
            raise TourFailed(f"the CloudAPI simulator answered {method} {path} with {response.status_code}: {response.text[:500]}")
        return response.json() if response.content else None

    return ask


def _enrol(cloudapi: str, name: str, file: Path) -> str:
    """The fingerprint of the account's key, which the simulator now knows."""
    ask = _simulator(cloudapi)
    try:
        found = [account for account in ask("GET", "/accounts") if account["login"] == name]
    except requests.ConnectionError as error:
        raise TourFailed(f"no CloudAPI simulator answers at {cloudapi}: is the stack up (docker compose up --detach)? {error}") from None
    fingerprint = make_key(file, name)
    line = file.with_suffix(".pub").read_text().strip()
    if not found:
        ask("POST", "/accounts", {"login": name, "keys": [line], **({"uuid": TRITON_UUID} if name == ACCOUNT else {})})
    elif not any(key["fingerprint"] == fingerprint for key in found[0]["keys"]):
        ask("POST", f"/accounts/{name}/keys", {"key": line, "name": f"tour {fingerprint}"})
    return fingerprint


def _knock(tsg: Tsg, account: str) -> None:
    """See whether the service lets us in, and say what to do when it does not."""
    try:
        answer = _when_up(lambda: tsg("GET", "/templates"))
    except requests.exceptions.SSLError as error:
        raise TourFailed(
            f"the certificate of {tsg.url} is not trusted. Fetch that of the stack:\n"
            "  docker compose exec -T edge cat /etc/edge/ca/ca.pem >ca.pem\n"
            f"and add --ca ca.pem, or do without it: --insecure. ({error})"
        ) from None
    except requests.ConnectionError as error:
        raise TourFailed(
            f"nothing answers at {tsg.url}: is the stack up (docker compose up --detach; docker compose ps)? {error}"
        ) from None
    if answer.status_code == 403:
        raise TourFailed(
            f"the account {account} is not enabled at {tsg.url}. Enable it with its UUID in Triton:\n"
            f"  tsg-admin accounts add {account} {TRITON_UUID if account == ACCOUNT else 'UUID'}\n"
            "(in the stack of containers: docker compose run --rm tsg-admin accounts add ...)"
        )
    if answer.status_code != 200:
        raise TourFailed(f"{tsg.url} answered {answer.status_code}: {answer.text[:500]}")


def _when_up(ask: Callable[[], requests.Response]) -> requests.Response:
    """The first answer that is not "not now", or the last of those that are."""
    deadline = time.monotonic() + STARTING
    while True:
        answer = ask()
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer
        time.sleep(LOOK)


def tour(tsg: Tsg, cloud: Callable[..., Any]) -> None:
    """Take the tour. `cloud(method, path, body)` asks the simulator of CloudAPI. Raises `TourFailed`."""
    started = time.monotonic()
    suffix = format(int(time.time()), "x")
    _say("POST /v1/tsg/templates")
    spec = {
        "template_name": f"tour-{suffix}",
        "package": DEFAULT_PACKAGE,
        "image_id": DEFAULT_IMAGE,
        "networks": [DEFAULT_NETWORK],
        "firewall_enabled": True,
        "userdata": "#!/bin/sh\necho hello from the tour\n",
        "metadata": {"purpose": "tour"},
        "tags": {"role": "web"},
    }
    template = tsg.ok("POST", "/templates", spec, status=201)
    _done(f"template {template['id']}")

    _say("POST /v1/tsg/groups with capacity 5")
    body = {"group_name": f"tour-{suffix}", "template_id": template["id"], "capacity": 5}
    group = tsg.ok("POST", "/groups", body, status=201)
    _done(f"group {group['id']}")
    path = f"/groups/{group['id']}"
    look = lambda: tsg.ok("GET", f"{path}/instances")  # noqa: E731
    _settles(tsg, path, "5 instances come up")
    first = look()
    _expect(_all_run(first, 5), "five instances run")
    _check_machine(first[0], group, spec)

    _say("PUT /v1/tsg/groups/<id>/increment by 3")
    tsg.ok("PUT", f"{path}/increment", {"instance_count": 3, "max_instance": 20}, status=202)
    _done("accepted")
    _settles(tsg, path, "3 more come up")
    eight = look()
    _expect(_all_run(eight, 8), "eight instances run")
    _expect({machine["id"] for machine in first} <= {machine["id"] for machine in eight}, "the first five are still there")

    _say("two machines die behind the service's back")
    killed = set(cloud("POST", "/machines/kill", {"count": 2, "tag": {"tsg.group": group["id"]}})["killed"])
    _done(", ".join(machine_id[:8] for machine_id in killed))
    healed = _watch(
        "they are replaced",
        look,
        lambda machines: _all_run(machines, 8) and not killed & {machine["id"] for machine in machines},
    )
    _expect(len({machine["id"] for machine in healed} - {machine["id"] for machine in eight}) == 2, "two of the eight are new")

    _say("PUT /v1/tsg/groups/<id> with capacity 2")
    tsg.ok("PUT", path, {**body, "capacity": 2})
    _done("accepted")
    _settles(tsg, path, "6 instances go")
    two = look()
    _expect(_all_run(two, 2), "two instances run")
    youngest = sorted(healed, key=lambda machine: machine["created"])[-2:]
    _expect({m["created"] for m in two} == {m["created"] for m in youngest}, "the oldest went first")

    _say("DELETE /v1/tsg/groups/<id>")
    tsg.ok("DELETE", path, status=204)
    _done("accepted; the name is free")
    _expect(tsg("GET", path).status_code == 404, "the group is not found any more")

    _settles(tsg, path, "its instances go, to the last one")
    machines = cloud("GET", "/state")["machines"]
    left = [machine["id"] for machine in machines if machine["tags"].get("tsg.group") == group["id"] and machine["state"] != "deleted"]
    _expect(not left, "no machine of it is left in CloudAPI")
    tsg.ok("DELETE", f"/templates/{template['id']}", status=204)
    _say("DELETE /v1/tsg/templates/<id>")
    _done("gone")
    print(f"tour: done in {time.monotonic() - started:.0f} s, everything as it should be", flush=True)


def _all_run(machines: Machines, count: int) -> bool:
    return len(machines) == count and all(machine["state"] == "running" for machine in machines)


def _check_machine(machine: dict[str, Any], group: dict[str, Any], spec: dict[str, Any]) -> None:
    tags = machine["tags"]
    _expect(tags["tsg.name"] == group["group_name"] and tags["tsg.group"] == group["id"], "machines carry their group's name and id")
    _expect(tags["role"] == "web" and tags["tsg.template"] == group["template_id"], "and the template's tags")
    _expect(machine["metadata"]["user-data"] == spec["userdata"] and machine["metadata"]["purpose"] == "tour", "and its metadata")
    _expect(machine["firewall_enabled"] is True, "and its firewall")
    _expect(machine["networks"] == spec["networks"], "and its networks")
    _expect(machine["name"] == f"tsg-{group['template_id'][:8]}-{machine['id'][:8]}", f"and are named like {machine['name']}")


def _settles(tsg: Tsg, path: str, what: str) -> None:
    """Wait until the group is settled, saying how far it is whenever that changes."""
    started = time.monotonic()
    said = ""
    while True:
        answer = tsg("GET", f"{path}/status?wait={WAIT}")
        if answer.status_code != 200:
            raise TourFailed(f"{what}: its status was answered with {answer.status_code}: {answer.text[:500]}")
        status = answer.json()
        counts = [f"{status[state]} {state}" for state in ("running", "provisioning", "failed", "deleting") if status[state]]
        seen = ", ".join(counts) or "none"
        if seen != said:
            print(f"  {time.monotonic() - started:5.1f} s  {what}: {seen}", flush=True)
            said = seen
        if status["settled"]:
            return
        if time.monotonic() - started > PATIENCE:
            raise TourFailed(f"{what}: still {seen} after {PATIENCE:.0f} s. {status['message']}")
        time.sleep(float(answer.headers.get("Retry-After", 0)))  # other requests wait already: this one came back at once


def _watch(what: str, look: Callable[[], Machines], done: Callable[[Machines], bool]) -> Machines:
    """Look until it is done, saying what is to be seen each time that changes: for what the service does not know of yet."""
    started = time.monotonic()
    said = ""
    while True:
        machines = look()
        counts = Counter(machine["state"] for machine in machines)
        seen = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"
        if seen != said:
            print(f"  {time.monotonic() - started:5.1f} s  {what}: {seen}", flush=True)
            said = seen
        if done(machines):
            return machines
        if time.monotonic() - started > PATIENCE:
            raise TourFailed(f"{what}: still {seen} after {PATIENCE:.0f} s")
        time.sleep(LOOK)


def _say(what: str) -> None:
    print(f"tour: {what}", flush=True)


def _done(what: str) -> None:
    print(f"           {what}", flush=True)


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise TourFailed(f"not so: {what}")
    print(f"       ok  {what}", file=sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
