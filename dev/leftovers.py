"""The jobs that a stack submitted to a Nomad that is not its own. They would run a program every few seconds for ever, in vain."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests


def remove_jobs(nomad_url: str, is_leftover: Callable[[str, Path], bool]) -> list[str]:
    """Remove from Nomad the jobs that are leftovers by their id and their `--config` file, and their runs; the ids of the jobs."""
    removed = [job_id for job_id, config in _jobs(nomad_url) if is_leftover(job_id, config)]
    for job_id in removed:
        # The job first, so that it starts no more runs.
        runs = [stub["ID"] for stub in _get(f"{nomad_url}/v1/jobs", {"prefix": f"{job_id}/periodic-"})]
        for one in [job_id, *runs]:
            requests.delete(_address(nomad_url, one), params={"purge": "true"}, timeout=10).raise_for_status()
    return removed


def _jobs(nomad_url: str) -> Iterator[tuple[str, Path]]:
    """Periodic jobs that run tsg-scale, with their configuration file."""
    for stub in _get(f"{nomad_url}/v1/jobs", {}):
        if not stub["Periodic"]:
            continue
        for group in _get(_address(nomad_url, stub["ID"]), {})["TaskGroups"]:
            for config in (task["Config"] for task in group["Tasks"]):
                args = config.get("args") or []
                if str(config.get("command", "")).endswith("tsg-scale") and "--config" in args[:-1]:
                    yield stub["ID"], Path(args[args.index("--config") + 1])


def _get(address: str, query: dict[str, str]) -> Any:
    answer = requests.get(address, params=query, timeout=10)
    answer.raise_for_status()
    return answer.json()


def _address(nomad_url: str, job_id: str) -> str:
    return f"{nomad_url}/v1/job/{quote(job_id, safe='')}"
