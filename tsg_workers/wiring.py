"""What the settings make of a process that works: the kinds of work, their reconcilers, and the process's name."""

import os
import socket
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from shared.clients.access import Timeouts
from shared.clients.cloudapi import CloudAPI
from shared.clients.keys import Sealer
from shared.clients.nomad import Nomad
from shared.clients.queue import WakeUps, make_broker, waker
from shared.clients.webhooks import Sender
from shared.measures.sources import make_gatherer
from shared.plan.limits import Limits
from shared.runtime.settings import Settings
from shared.store import db
from tsg_workers.cloud.record import Audit, no_audit
from tsg_workers.probes.prober import Prober
from tsg_workers.reconcilers.deliveries import DeliveryReconciler
from tsg_workers.reconcilers.groups import GroupReconciler, Pace
from tsg_workers.reconcilers.jobspec import Shape
from tsg_workers.reconcilers.nomad_jobs import NomadJobReconciler
from tsg_workers.reconcilers.policies import PolicyReconciler
from tsg_workers.runner import Reconciler, Runner


def group_reconciler(chosen: Settings, database: db.Database, audit: Audit = no_audit) -> GroupReconciler:
    """The reconciler of groups, whose audit lines go to `audit`."""
    return GroupReconciler(
        database,
        CloudAPI(chosen.triton_url, Timeouts(chosen.cloudapi_connect_timeout, chosen.cloudapi_read_timeout), chosen.triton_trust),
        Sealer(chosen.secret_keys),
        Pace(
            rate=chosen.cloudapi_rate,
            burst=chosen.cloudapi_burst,
            lease_seconds=chosen.lease_seconds,
            limits=limits(chosen),
        ),
        owner=name(),
        audit=audit,
    )


def limits(chosen: Settings) -> Limits:
    """What the settings allow a plan."""
    return Limits(
        provision_timeout=chosen.provision_timeout,
        launch_grace=chosen.launch_grace,
        replace_percent=chosen.replace_percent,
        breaker=chosen.breaker_failures,
        # Nomad's cron decides when, where Nomad runs the scaling: an early check would only be late.
        spread=0.0 if chosen.scaler == "nomad" else 0.1,
        watched_factor=1.0 if chosen.scaler == "nomad" or chosen.feed == "off" else chosen.feed_interval,
    )


def nomad_job_reconciler(chosen: Settings, database: db.Database) -> NomadJobReconciler:
    """The reconciler of the Nomad jobs of groups."""
    return NomadJobReconciler(database, Nomad(chosen.nomad), shape(chosen), grace=chosen.nomad_grace, actor=name())


def policy_reconciler(chosen: Settings, database: db.Database) -> PolicyReconciler:
    """The reconciler of the policies of groups."""
    return PolicyReconciler(
        database,
        make_gatherer(chosen, database).measure,
        waker(WakeUps(make_broker(chosen.redis_url)), chosen.scaler),
        interval=chosen.policy_interval,
        max_capacity=chosen.max_capacity,
    )


def delivery_reconciler(chosen: Settings, database: db.Database) -> DeliveryReconciler:
    """The reconciler of notifications."""
    return DeliveryReconciler(database, Sealer(chosen.secret_keys), Sender(chosen.notify_rules))


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


def prober(chosen: Settings, database: db.Database) -> Prober:
    """The prober of instances with a health check."""
    return Prober(database, chosen.probe_networks, owner=name())


class Kind(NamedTuple):
    """A kind of work: the class of its reconciler, how to make one, and with which scaler there is such work (None: any)."""

    reconciler: type[Reconciler[Any]]
    make: Callable[[Settings, db.Database], Reconciler[Any]]
    scaler: str | None = None


#: All kinds of work: the scheduler sends their wake-ups, workers run their reconcilers.
KINDS = (
    Kind(GroupReconciler, group_reconciler),
    Kind(NomadJobReconciler, nomad_job_reconciler, scaler="nomad"),
    Kind(PolicyReconciler, policy_reconciler),
    Kind(DeliveryReconciler, delivery_reconciler),
)


def kinds(chosen: Settings) -> list[Kind]:
    """The kinds of work that there is with these settings."""
    return [kind for kind in KINDS if kind.scaler in {None, chosen.scaler}]


def runners(chosen: Settings, database: db.Database, stop: threading.Event) -> list[Runner[Any]]:
    """A runner for each kind. They begin nothing once `stop` is set."""
    return [Runner(database, kind.make(chosen, database), owner=name(), stop=stop) for kind in kinds(chosen)]
