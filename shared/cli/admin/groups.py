"""tsg-admin groups, tsg-admin jobs: how groups are, why, and a push where one is needed."""

import argparse
import json
from collections.abc import Callable

import redis
from sqlalchemy import Connection

from shared.cli.admin.named import connected, count, one_account
from shared.cli.admin.report import Report, facts, table
from shared.clients.queue import CONVERGE, SUBMIT_JOB, make_broker, send
from shared.errors import Conflict, NotFound
from shared.reasons import Reason
from shared.runtime.settings import Settings
from shared.spec.rollout import Rollout
from shared.state import activities, group_state, jobs, overview, rollouts, status
from shared.state.overview import Named
from shared.state.status import Status

#: Lines of a list, unless another number is asked for.
MOST = 1000
#: Activities that an explanation tells.
SHOWN = 20
#: The newest rollouts of a group that are shown.
ROLLOUTS = 5

Verb = Callable[..., argparse.ArgumentParser]


def add_groups(verb: Verb) -> None:
    """The verbs of `groups`."""
    lister = verb("list", "list the groups of all accounts, and what they wait for", _list)
    lister.add_argument("--account", metavar="ACCOUNT", help="only groups of this account: its login or UUID in Triton, or its id here")
    lister.add_argument("--reason", choices=[str(reason) for reason in Reason], help="only groups with this reason")
    lister.add_argument("--limit", type=count, default=MOST, metavar="N", help=f"at most N (default {MOST})")
    for word, what, run in (
        ("show", "show the state of a group", _show),
        ("explain", "show what a group waits for, and its last activities", _explain),
        ("converge", "make a worker check a group now", _converge),
    ):
        _group(verb(word, what, run))


def add_jobs(verb: Verb) -> None:
    """The verbs of `jobs`."""
    lister = verb("list", "list the Nomad jobs of groups, those with failures first", _jobs)
    lister.add_argument("--limit", type=count, default=MOST, metavar="N", help=f"at most N (default {MOST})")
    _group(verb("resubmit", "submit a group's Nomad job and run it again", _resubmit))


def _group(of_verb: argparse.ArgumentParser) -> None:
    of_verb.add_argument("group", metavar="GROUP", help="the group's name or id")


def _list(given: argparse.Namespace, chosen: Settings) -> Report:
    with connected(chosen).read() as connection:
        account = one_account(connection, given.account, enabled=True) if given.account else None
        found = overview.list_groups(connection, account_id=account.id if account else None, reason=given.reason, limit=given.limit)
    rows = [(line.account, line.name, line.id, f"{line.running}/{line.desired}", line.reason, line.since, line.failures) for line in found]
    text = table(("ACCOUNT", "NAME", "ID", "RUNNING", "REASON", "SINCE", "FAILURES"), rows)
    return Report(text, [line._asdict() for line in found])


def _show(given: argparse.Namespace, chosen: Settings) -> Report:
    with connected(chosen).read() as connection:
        found = _status(connection, given.group)
        done = rollouts.list_of_group(connection, found.group_id, limit=ROLLOUTS)
    rows = [(one.created_at, one.id, one.template_id, one.state, f"{one.percent_complete} %", one.message) for one in done]
    lines = "\n\n" + table(("STARTED", "ROLLOUT", "TEMPLATE", "STATE", "COMPLETE", "MESSAGE"), rows) if rows else ""
    return Report(_sheet(found) + lines, {**_data(found), "rollouts": [_rollout(one) for one in done]})


def _explain(given: argparse.Namespace, chosen: Settings) -> Report:
    with connected(chosen).read() as connection:
        found = _status(connection, given.group)
        done = activities.list_of_group(connection, found.group_id, limit=SHOWN)
    rows = [(one.at, one.kind, one.status, one.description, one.request_id) for one in done]
    lines = table(("AT", "WHAT", "STATUS", "DESCRIPTION", "REQUEST"), rows) if rows else "no activities yet"
    return Report(f"{_sheet(found)}\n\n{lines}", {**_data(found), "activities": [one._asdict() for one in done]})


def _converge(given: argparse.Namespace, chosen: Settings) -> Report:
    with connected(chosen).read() as connection:
        group = _one(connection, given.group)
        group_state.mark_due(connection, group.id)
    woken = _wake(chosen, CONVERGE, group.account_id)
    return Report(f"group {group.name} ({group.id}) is due now; {_sent(woken)}", {"id": group.id, "woken": woken})


def _jobs(given: argparse.Namespace, chosen: Settings) -> Report:
    with connected(chosen).read() as connection:
        found = overview.list_jobs(connection, limit=given.limit)
    rows = [
        (job.account, job.group, job.group_id, job.job_id, f"{job.job_generation}/{job.generation}", job.ran_at, job.failures, job.error)
        for job in found
    ]
    text = table(("ACCOUNT", "GROUP", "GROUP ID", "JOB", "RAN FOR", "LAST RUN", "FAILURES", "ERROR"), rows)
    return Report(text, [job._asdict() for job in found])


def _resubmit(given: argparse.Namespace, chosen: Settings) -> Report:
    if chosen.scaler != "nomad":
        raise Conflict("groups have no Nomad jobs here: TSG_SCALER is worker")
    with connected(chosen).read() as connection:
        group = _one(connection, given.group)
        if not jobs.mark_unsubmitted(connection, group.id):
            raise Conflict(f"group {group.name} ({group.id}) is deleted and empty: it no longer has a job")
    woken = _wake(chosen, SUBMIT_JOB, group.id)
    return Report(f"the job of group {group.name} ({group.id}) will be submitted; {_sent(woken)}", {"id": group.id, "woken": woken})


def _one(connection: Connection, name_or_id: str) -> Named:
    found = overview.find_groups(connection, name_or_id)
    if not found:
        raise NotFound(f"there is no group {name_or_id}")
    if len(found) > 1:
        raise Conflict(
            f"there are several groups {name_or_id}; say which by its id: " + ", ".join(f"{one.id} ({one.account})" for one in found)
        )
    return found[0]


def _status(connection: Connection, name_or_id: str) -> Status:
    found = status.find(connection, _one(connection, name_or_id).id)
    if found is None:
        raise NotFound(f"there is no group {name_or_id}")
    return found


def _data(found: Status) -> dict[str, object]:
    decided = [one._asdict() for one in found.decisions]
    newest = found.rollout and {**found.rollout._asdict(), "counts": found.rollout.counts._asdict()}
    return {**found._asdict(), "settled": found.settled, "stuck": found.stuck, "rollout": newest, "decisions": decided}


def _rollout(found: Rollout) -> dict[str, object]:
    told = {name: value for name, value in found._asdict().items() if name != "document"}
    return {**told, "settings": json.loads(found.document)["fields"], "counts": found.counts._asdict()}


def _sheet(found: Status) -> str:
    return facts(
        [
            ("group", f"{found.name} ({found.group_id})"),
            ("account", f"{found.account_name} ({found.account_id})"),
            ("instances", f"{found.running} of {found.desired} run"),
            ("others", f"{found.provisioning} provisioning, {found.failed} failed, {found.deleting} deleting"),
            ("waits for", f"{found.reason}, since {found.since:%Y-%m-%d %H:%M:%SZ}"),
            ("meaning", found.message),
            ("last error", found.last_error),
            *(("policy", f"{one.message} ({one.result}, {one.last_at:%Y-%m-%d %H:%M:%SZ})") for one in found.decisions),
            ("rollout", found.rollout and f"{found.rollout.id}: {found.rollout.state}"),
            ("generation", f"{found.generation}; workers have handled {found.observed_generation}"),
            ("last check", found.checked_at),
            ("next check", found.next_attempt_at),
        ]
    )


def _wake(chosen: Settings, actor: str, subject: str) -> bool:
    broker = make_broker(chosen.redis_url)
    try:
        send(broker, actor, subject)
    except redis.RedisError:
        return False
    finally:
        broker.close()
    return True


def _sent(woken: bool) -> str:
    return "a wake-up was sent" if woken else "Redis cannot be reached; the scheduler sends the wake-up later"
