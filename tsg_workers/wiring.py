"""What the settings make of a process that works: its reconciler of groups, the form of its jobs, and its name."""

import os
import socket
import threading

from shared.clients.access import Timeouts
from shared.clients.cloudapi import CloudAPI
from shared.clients.keys import Sealer
from shared.clients.nomad import Nomad
from shared.runtime.settings import Settings
from shared.store import db
from tsg_workers.cloud.record import Audit, no_audit
from tsg_workers.plan.limits import Limits
from tsg_workers.reconcilers.groups import GroupReconciler, Pace
from tsg_workers.reconcilers.jobspec import Shape
from tsg_workers.reconcilers.nomad_jobs import Submitter


def group_reconciler(chosen: Settings, database: db.Database, audit: Audit = no_audit, *, stop: threading.Event) -> GroupReconciler:
    """A reconciler with this process's name on its leases, until `stop` is set."""
    return GroupReconciler(
        database,
        CloudAPI(chosen.triton_url, Timeouts(chosen.cloudapi_connect_timeout, chosen.cloudapi_read_timeout), chosen.triton_trust),
        Sealer(chosen.secret_keys),
        Pace(
            rate=chosen.cloudapi_rate,
            burst=chosen.cloudapi_burst,
            lease_seconds=chosen.lease_seconds,
            limits=Limits(chosen.provision_timeout, chosen.launch_grace, chosen.replace_percent, chosen.breaker_failures),
            # Nomad's cron decides when, where Nomad runs the scaling: an early check would only be late.
            spread=0.0 if chosen.scaler == "nomad" else 0.1,
        ),
        owner=name(),
        audit=audit,
        stop=stop,
    )


def submitter(chosen: Settings, database: db.Database) -> Submitter:
    """What looks after the Nomad jobs of groups."""
    return Submitter(database, Nomad(chosen.nomad), shape(chosen), grace=chosen.nomad_grace, actor=name())


def shape(chosen: Settings) -> Shape:
    """What the settings say of Nomad jobs."""
    return Shape(
        datacenter=chosen.triton_dc,
        role=chosen.nomad_role,
        driver=chosen.nomad_driver,
        command=chosen.nomad_command,
        image=chosen.nomad_image,
        artifact=chosen.nomad_artifact,
        config=chosen.nomad_config,
        cpu=chosen.nomad_cpu,
        memory=chosen.nomad_memory,
        namespace=chosen.nomad.namespace,
        region=chosen.nomad.region,
    )


def name() -> str:
    """This process, as leases and activities name it."""
    return f"{socket.gethostname()}:{os.getpid()}"
