"""SQL that fills the database with a large cloud: as it is once all groups are settled, and with what its owners may ask for beside."""

import io
from collections.abc import Iterator, Sequence

from dev.benches.numbered import Size, sql_address, sql_id, uuid_of
from dev.sim.cloudapi.catalog import DEFAULT_IMAGE, DEFAULT_NETWORK, DEFAULT_PACKAGE
from shared.clients import keys
from shared.clients.keys import Sealer
from shared.spec import group_settings, policy_settings
from shared.spec.group_settings import GroupSettings, HealthCheck, Probe

#: Machines of one INSERT.
AT_ONCE = 100_000
#: Of all groups, those with policies and those with a health check: one in so many.
SCALED, PROBED = 10, 50
KEY_COLUMNS = ("id", "name", "fingerprint", "material", "account_id", "created_at", "updated_at", "registered_at")


def key_rows(size: Size, secret_keys: Sequence[bytes]) -> io.StringIO:
    """The management key of each account, for COPY into `KEY_COLUMNS`. It is the same key: to make one takes a tenth of a second."""
    pair, sealer = keys.generate(), Sealer(secret_keys)
    rows = io.StringIO()
    for number in range(size.accounts):
        key_id = uuid_of("key", number)
        sealed = sealer.seal(pair.private_pem, row=key_id)
        rows.write("\t".join((key_id, "tsg", pair.fingerprint, sealed, uuid_of("account", number), "now", "now", "now")) + "\n")
    rows.seek(0)
    return rows


def settled(size: Size) -> Iterator[str]:
    """Accounts, templates, groups and machines. Groups are checked once a day: none is due again while it is measured."""
    each, accounts = size.instances, f"generate_series(0, {size.accounts - 1}) a"
    yield (
        "INSERT INTO tsg_accounts (id, account_name, triton_uuid, key_id, created_at, updated_at)"
        f" SELECT {sql_id('account', 'a')}, 'tenant-' || a, {sql_id('triton', 'a')}, {sql_id('key', 'a')}, now(), now()"
        f" FROM {accounts}"
    )
    yield (
        "INSERT INTO tsg_templates (id, template_name, account_id, package, image_id, created_at)"
        f" SELECT {sql_id('template', 'a')}, 't', {sql_id('account', 'a')}, '{DEFAULT_PACKAGE}', '{DEFAULT_IMAGE}', now()"
        f" FROM {accounts}"
    )
    yield (
        "INSERT INTO tsg_groups (id, name, template_id, account_id, capacity, health_check_interval, created_at, updated_at, by_name,"
        " check_at)"
        f" SELECT {sql_id('group', 'g')}, 'group-' || g, {sql_id('template', 'a')}, {sql_id('account', 'a')}, {each}, 86400,"
        " now() + g * interval '1 ms', now(), false, NULL"
        f" FROM (SELECT g, {size.account_of_group('g')} AS a FROM generate_series(0, {size.groups - 1}) g) of_account"
    )
    yield (
        "INSERT INTO tsg_group_state (group_id, account_id, observed_generation, check_at, checked_at, reason, reason_since)"
        " SELECT id, account_id, 1, now() + interval '1 day', now(), 'Settled', now() FROM tsg_groups"
    )
    for first in range(0, size.machines, AT_ONCE):
        last = min(first + AT_ONCE, size.machines) - 1
        numbers = f"SELECT n, {size.account_of_group(f'(n / {each})')} AS a FROM generate_series({first}, {last}) n"
        yield (  # as CloudAPI shows them, so that a check finds nothing new
            "INSERT INTO tsg_instances (id, account_id, group_id, machine_id, template_id, state, launched_at, ran_at, running_since, name,"
            " created_at, compute_node, primary_ip, addresses)"
            f" SELECT {sql_id('launch', 'n')}, {sql_id('account', 'a')}, {sql_id('group', f'n / {each}')}, {sql_id('machine', 'n')},"
            f" {sql_id('template', 'a')}, 'running', '2026-01-01', '2026-01-01', '2026-01-01', 'm-' || n, '2026-01-01',"
            f" {sql_id('server', 'n % 1000')}, {sql_address('n')}, '{{\"{DEFAULT_NETWORK}\": \"' || {sql_address('n')} || '\"}}'"
            f" FROM ({numbers}) numbers"
        )


def asked_beside(size: Size) -> Iterator[str]:
    """What is written for some of the groups, and what a month leaves: an activity of each machine, deliveries, decisions, gone ones."""
    target = {"policy_name": "p", "kind": "target", "metric": {"source": "pushed", "name": "load"}, "target": 60, "per": "group"}
    settings = policy_settings.TargetSettings.model_validate(target).document()
    more = group_settings.to_document(GroupSettings(health_check=HealthCheck(type=Probe.TCP, port=80)))
    yield f"UPDATE tsg_groups SET more = '{more}' WHERE id IN ({_each_of('group', size.groups, PROBED)})"
    yield (
        "INSERT INTO tsg_policies (account_id, group_id, name, settings)"
        f" SELECT account_id, id, 'p' || n, '{settings}' FROM tsg_groups, generate_series(1, 2) n"
        f" WHERE id IN ({_each_of('group', size.groups, SCALED)})"
    )
    yield (
        "INSERT INTO tsg_work (kind, subject, due_at)"
        " SELECT 'policies', group_id, now() + random() * interval '15 s' FROM tsg_policies WHERE name = 'p1'"
    )
    yield (
        "INSERT INTO tsg_notifications (account_id, url, groups, kinds, patterns, secret)"
        " SELECT id, 'https://example.com/', '{*}', '{*}', '{%}', '' FROM tsg_accounts"
        f" WHERE id IN ({_each_of('account', size.accounts, SCALED)})"
    )
    yield (
        "INSERT INTO tsg_activities (account_id, group_id, kind, status, description, actor, at, machine_id)"
        " SELECT account_id, group_id, 'TSG_INSTANCE_LAUNCH', 'done', 'launched ' || machine_id, 'a',"
        " now() - random() * interval '30 days', machine_id FROM tsg_instances"
    )
    yield (
        "INSERT INTO tsg_deliveries (notification_id, account_id, group_id, activity_id, kind, state, at, ended_at)"
        " SELECT one.id, told.account_id, told.group_id, told.id, told.kind, state, told.at,"
        " CASE WHEN state = 'waiting' THEN NULL ELSE told.at + interval '1 s' END"
        " FROM tsg_notifications one JOIN (SELECT *, CASE WHEN random() < 0.01 THEN 'waiting' ELSE 'delivered' END AS state"
        " FROM tsg_activities) told ON told.account_id = one.account_id"
    )
    yield (
        "INSERT INTO tsg_decisions (account_id, group_id, policy_id, policy_name, at, result, by, message, capacity_before, capacity_after)"
        " SELECT account_id, group_id, id, name, now() - n * interval '1 hour', 'kept', 'measure', 'enough', 10, 10"
        " FROM tsg_policies, generate_series(1, 20) n"
    )
    yield (
        "INSERT INTO tsg_idempotency_keys (account_id, key, request, status, created_at)"
        " SELECT id, 'k' || n, 'r', 201, now() - n * interval '2 hours' FROM tsg_accounts, generate_series(1, 10) n"
    )
    yield (
        "INSERT INTO tsg_instances (account_id, group_id, machine_id, state, gone_at)"
        " SELECT account_id, group_id, gen_random_uuid(), 'gone', now() - random() * interval '26 hours'"
        " FROM tsg_instances"
        f" WHERE id IN ({_each_of('launch', size.machines, 10)})"
    )
    # One tsg-feed watches all; no claim lasts longer.
    yield f"INSERT INTO tsg_work (kind, subject, until) VALUES ('feed', {sql_id('feed', '0')}, now() + interval '290 s')"
    yield (
        "INSERT INTO tsg_feeds (account_id, watcher, state, since)"
        f" SELECT id, {sql_id('feed', '0')}, 'trusted', '2026-01-01' FROM tsg_accounts"
    )


def _each_of(kind: str, count: int, each: int) -> str:
    """The ids of one in `each`."""
    return f"SELECT {sql_id(kind, 'n')} FROM generate_series(0, {count - 1}, {each}) n"
