"""tsg-feed as real processes: a machine that dies is replaced without a check, and one tsg-feed goes on for another that is killed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import SETTINGS, Service, started

#: Seconds between checks: longer than any test, so that nothing but a message brings about a replacement.
INTERVAL = "3600"


@pytest.fixture(scope="module")
def watched(cluster: Path) -> Iterator[Service]:
    with started("worker", {**SETTINGS, "TSG_FEED": "auto", "TSG_HEALTH_CHECK_INTERVAL": INTERVAL}, cluster, feeds=2) as stack:
        yield Service(stack)


def states(service: Service) -> list[tuple[str, ...]]:
    return service.stack.sql("SELECT state, watcher::text FROM tsg_feeds")


def kill_one(service: Service, group: dict[str, Any]) -> str:
    victim = next(machine["id"] for machine in service.machines(group) if machine["state"] == "running")
    service.stack.cloud("POST", f"/machines/{victim}/kill")
    return str(victim)


def replaced(service: Service, group: dict[str, Any], dead: str) -> None:
    def is_whole() -> bool:
        running = [machine["id"] for machine in service.machines(group) if machine["state"] == "running"]
        return len(running) == 2 and dead not in running

    service.wait("the dead machine is replaced", is_whole)


def settled(service: Service) -> dict[str, Any]:
    """A group that was made while the account was watched."""
    service.make_group(0)
    service.wait("the account is watched", lambda: [state for state, _ in states(service)] in (["watched"], ["trusted"]))
    group = service.make_group(2)
    service.settles(group, 2)
    service.wait("the account is trusted", lambda: [state for state, _ in states(service)] == ["trusted"])
    return group


def test_a_dead_machine_is_replaced_long_before_the_next_check(watched: Service) -> None:
    group = settled(watched)
    assert watched.tsg.ok("GET", f"/groups/{group['id']}/status")["watched"] is True
    replaced(watched, group, kill_one(watched, group))


def test_another_takes_the_accounts_of_a_tsg_feed_that_is_killed(watched: Service) -> None:
    group = settled(watched)
    ((_, watcher),) = states(watched)
    ((owner,),) = watched.stack.sql("SELECT owner FROM tsg_work WHERE kind = 'feed' AND subject = %s", watcher)
    (name,) = [name for name, child in watched.stack.processes.items() if child.pid == int(owner.rpartition(":")[2])]
    watched.stack.processes[name].kill()
    dead = kill_one(watched, group)

    def is_taken() -> bool:
        return [(state in {"watched", "trusted"}, by != watcher) for state, by in states(watched)] == [(True, True)]

    watched.wait("the other has the account", is_taken, seconds=30)
    replaced(watched, group, dead)
    watched.stack.restart_the_dead()


def test_nobody_watching_is_told_and_costs_speed_alone(watched: Service) -> None:
    group = settled(watched)
    for name in ("feed-1", "feed-2"):
        watched.stack.processes[name].stop()
    watched.wait("the scheduler has noted it", lambda: [state for state, _ in states(watched)] == ["unreachable"])
    status = watched.tsg.ok("GET", f"/groups/{group['id']}/status")
    assert (status["watched"], status["watch_error"]) == (False, "The tsg-feed that watched the account is not there any more.")
    dead = kill_one(watched, group)
    watched.stack.sql("UPDATE tsg_group_state SET check_at = now()")
    replaced(watched, group, dead)
    watched.stack.restart_the_dead()
