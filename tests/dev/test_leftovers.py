"""A stack that used somebody else's Nomad leaves no job in it."""

from pathlib import Path
from typing import Any

from dev.leftovers import remove_jobs
from dev.sim.nomad.simulator import Simulator
from shared.clients.access import NomadAccess
from shared.clients.nomad import Nomad
from tsg_workers.reconcilers.jobspec import Shape, job

SHAPE = Shape(
    datacenter="us-east-1",
    role="nobody's",
    driver="raw_exec",
    command="/x/tsg-scale",
    image="",
    artifact="",
    config="",
    cpu=100,
    memory=128,
)


def test_only_the_jobs_of_the_stack_go_and_their_runs_with_them(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.toml", tmp_path / "theirs.toml"
    with Simulator() as simulator:
        nomad = Nomad(NomadAccess(simulator.url))

        def submit(job_id: str, **changes: Any) -> None:
            nomad.register(job(job_id, group_id="g", account_id="a", interval=86_400, shape=SHAPE._replace(**changes)))
            nomad.force(job_id)

        submit("ours", config=str(ours))
        submit("theirs", config=str(theirs))
        submit("another's", config=str(ours), command="/bin/true")
        submit("without", config="")
        assert remove_jobs(simulator.url, lambda _job_id, config: config == ours) == ["ours"]
        assert nomad.children("ours") == []
        assert len(nomad.children("theirs")) == 1
        assert remove_jobs(simulator.url, lambda job_id, config: job_id == "theirs" and not config.exists()) == ["theirs"]
        assert {stub["ParentID"] or stub["ID"] for stub in simulator.cluster.list_jobs("")} == {"another's", "without"}
