"""The tables: what the migrations make is what the models say, from nothing and from the tables of 2018."""

import gc
import inspect
import uuid
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import alembic.command
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlalchemy_cockroachdb.psycopg2 import CockroachDBDialect_psycopg2

from dev.services import Postgres
from shared import state
from shared.cli import seed
from shared.reasons import Reason
from shared.spec import policy_settings
from shared.spec.rollout_settings import RolloutSettings
from shared.spec.spec import Spec
from shared.state import (
    accounts,
    activities,
    adoption,
    clock,
    decisions,
    deliveries,
    feed_messages,
    feeds,
    group_state,
    groups,
    idempotency,
    instance_lists,
    instances,
    jobs,
    leases,
    members,
    notifications,
    overview,
    policies,
    probes,
    rollouts,
    status,
    templates,
    work,
)
from shared.state.changes import Asker, Change
from shared.state.instances import Described
from shared.store import db, schema, tables
from shared.store.db import Database
from shared.store.prepared import Prepared

#: As the 2018 service made them in CockroachDB, with PostgreSQL's names of its types.
TABLES_OF_2018 = """
    CREATE TABLE tsg_keys (
        id UUID NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY, name TEXT NOT NULL, fingerprint TEXT NOT NULL, material TEXT NOT NULL,
        account_id UUID NULL, created_at TIMESTAMPTZ NOT NULL, updated_at TIMESTAMPTZ NOT NULL, archived BOOLEAN NULL DEFAULT false);
    CREATE TABLE tsg_accounts (
        id UUID NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY, account_name TEXT NOT NULL, triton_uuid TEXT NOT NULL,
        key_id UUID NULL REFERENCES tsg_keys (id), created_at TIMESTAMPTZ NOT NULL, updated_at TIMESTAMPTZ NOT NULL,
        archived BOOLEAN NULL DEFAULT false);
    CREATE TABLE tsg_users (
        id UUID NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY, username TEXT NOT NULL,
        account_id UUID NOT NULL REFERENCES tsg_accounts (id), created_at TIMESTAMPTZ NOT NULL, updated_at TIMESTAMPTZ NOT NULL,
        archived BOOLEAN NULL DEFAULT false);
    CREATE TABLE tsg_templates (
        id UUID NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY, template_name TEXT NOT NULL,
        account_id UUID NOT NULL REFERENCES tsg_accounts (id), package TEXT NOT NULL, image_id TEXT NOT NULL,
        firewall_enabled BOOLEAN NULL DEFAULT false, networks TEXT NULL, userdata TEXT NULL, metadata TEXT NULL, tags TEXT NULL,
        created_at TIMESTAMPTZ NOT NULL, archived BOOLEAN NULL DEFAULT false);
    CREATE TABLE tsg_groups (
        id UUID NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY, name TEXT NOT NULL, template_id UUID NOT NULL REFERENCES tsg_templates (id),
        account_id UUID NOT NULL REFERENCES tsg_accounts (id), capacity BIGINT NOT NULL, health_check_interval BIGINT NULL DEFAULT 300,
        created_at TIMESTAMPTZ NOT NULL, updated_at TIMESTAMPTZ NOT NULL, archived BOOLEAN NULL DEFAULT false);
"""

KEY, ACCOUNT, USER, TEMPLATE, ARCHIVED_TEMPLATE = (str(uuid.UUID(int=number)) for number in range(1, 6))
GROUP, ARCHIVED_GROUP, BARE_GROUP = (str(uuid.UUID(int=number)) for number in range(11, 14))
MADE = "2018-04-14T15:24:20.205784Z"
ROWS_OF_2018 = f"""
    INSERT INTO tsg_keys VALUES ('{KEY}', 'TSG_Management', 'aa:bb', '-----BEGIN RSA PRIVATE KEY-----', '{ACCOUNT}', '{MADE}', '{MADE}');
    INSERT INTO tsg_accounts VALUES ('{ACCOUNT}', 'joyent', 'some-uuid', '{KEY}', '{MADE}', '{MADE}');
    INSERT INTO tsg_users VALUES ('{USER}', 'bob', '{ACCOUNT}', '{MADE}', '{MADE}');
    INSERT INTO tsg_templates VALUES
        ('{TEMPLATE}', 'web', '{ACCOUNT}', 'p', 'i', true, 'n1,n2', 'script', '{{"a": "b"}}', 'null', '{MADE}', false),
        ('{ARCHIVED_TEMPLATE}', 'web', '{ACCOUNT}', 'p', 'i', NULL, '', NULL, NULL, '', '{MADE}', true);
    INSERT INTO tsg_groups VALUES
        ('{GROUP}', 'web', '{TEMPLATE}', '{ACCOUNT}', 3, 120, '{MADE}', '{MADE}', false),
        ('{ARCHIVED_GROUP}', 'web', '{TEMPLATE}', '{ACCOUNT}', 9, 300, '{MADE}', '{MADE}', true),
        ('{BARE_GROUP}', 'bare', '{TEMPLATE}', '{ACCOUNT}', 0, NULL, '{MADE}', '{MADE}', false);
"""

STATE_MODULES = [import_module(f"{state.__name__}.{found.name}") for found in iter_modules(state.__path__)]


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[Engine]:
    """A database with nothing in it."""
    name = f"empty_{uuid.uuid4().hex}"
    postgres.create_database(name)
    engine = create_engine(postgres.url(name), poolclass=NullPool)
    yield engine
    engine.dispose()
    postgres.drop_database(name)


@pytest.fixture
def of_2018(empty: Engine) -> Engine:
    with empty.begin() as connection:
        connection.exec_driver_sql(TABLES_OF_2018)
        connection.exec_driver_sql(ROWS_OF_2018)
    return empty


def upgrade(engine: Engine) -> None:
    with engine.connect() as connection:
        schema.upgrade(connection)
        connection.commit()


def differences(engine: Engine, *, nullable: bool = True) -> list[Any]:
    """What alembic would change to make the tables what the models say."""

    def include(found: Any, name: str | None, kind: str, _reflected: bool, _compare_to: object) -> bool:
        is_retired = kind == "column" and name in tables.RETIRED.get(found.table.name, ())
        return name != "alembic_version" and not is_retired

    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_object": include}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata)
    flat = [change for entry in found for change in (entry if isinstance(entry, list) else [entry])]
    return flat if nullable else [change for change in flat if change[0] != "modify_nullable"]


def shape(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        columns = text(
            "SELECT table_name, column_name, data_type, column_default FROM information_schema.columns"
            " WHERE table_schema = 'public' ORDER BY table_name, column_name"
        )
        indexes = text("SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY indexname")
        return [*map(tuple, connection.execute(columns)), *map(tuple, connection.execute(indexes))]


# Migrations


def test_the_migrations_make_what_the_models_say(empty: Engine) -> None:
    upgrade(empty)
    assert differences(empty) == []


def test_a_database_with_all_migrations_is_current(empty: Engine) -> None:
    """The numbers ascend along the history: by them a program sees whether it needs more than the database has."""
    with empty.begin() as connection:
        schema.upgrade(connection)
        assert schema.is_current(connection)
    history = ScriptDirectory.from_config(schema.config()).walk_revisions()
    assert [one.revision for one in history] == schema.revisions()


def test_a_difference_would_be_seen(empty: Engine) -> None:
    upgrade(empty)
    with empty.begin() as connection:
        connection.execute(text("ALTER TABLE tsg_groups DROP COLUMN request_id, ALTER COLUMN capacity TYPE integer"))
        connection.execute(text("DROP INDEX tsg_groups_live_name"))
    assert {change[0] for change in differences(empty)} == {"add_column", "modify_type", "add_index"}


def test_the_tables_of_2018_become_what_an_empty_database_becomes(of_2018: Engine, postgres: Postgres) -> None:
    upgrade(of_2018)
    assert differences(of_2018, nullable=False) == []
    name = f"fresh_{uuid.uuid4().hex}"
    postgres.create_database(name)
    fresh = create_engine(postgres.url(name), poolclass=NullPool)
    upgrade(fresh)
    assert shape(of_2018) == shape(fresh)
    postgres.drop_database(name)


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(empty: Engine) -> None:
    upgrade(empty)
    before = shape(empty)
    upgrade(empty)
    assert shape(empty) == before


def test_an_upgrade_that_was_broken_off_is_gone_on_with(empty: Engine) -> None:
    """CockroachDB does not take a change of the schema back: what is there already must not stop the next try."""
    upgrade(empty)
    before = shape(empty)
    with empty.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    upgrade(empty)
    assert shape(empty) == before


def test_every_revision_but_the_first_can_be_taken_back(of_2018: Engine) -> None:
    upgrade(of_2018)
    with of_2018.connect() as connection:
        alembic.command.downgrade(schema.config(connection), "0001")
        connection.commit()
    with of_2018.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM tsg_groups")) == 3
        tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public' AND table_name LIKE 'tsg%'"
        assert connection.scalar(text(tables)) == 5
    upgrade(of_2018)
    assert differences(of_2018, nullable=False) == []


def test_not_a_row_of_2018_is_lost_or_changed(of_2018: Engine) -> None:
    tables = ("tsg_keys", "tsg_accounts", "tsg_users", "tsg_templates", "tsg_groups")

    def rows(connection: Connection) -> dict[str, list[dict[str, Any]]]:
        return {table: [dict(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY id")).mappings()] for table in tables}

    with of_2018.connect() as connection:
        before = rows(connection)
    upgrade(of_2018)
    with of_2018.connect() as connection:
        after = rows(connection)
    kept = {table: [{name: row[name] for name in before[table][0]} for row in after[table]] for table in tables}
    assert kept == before


def test_the_rows_of_2018_work(of_2018: Engine) -> None:
    upgrade(of_2018)
    database = db.connect(of_2018.url, pool_size=2)
    with database.read() as connection:
        account = accounts.get_by_triton_uuid(connection, "some-uuid")
        assert account == (ACCOUNT, "joyent", "some-uuid", True, False)
        key = accounts.get_key(connection, ACCOUNT)
        assert key is not None
        assert key.material == "-----BEGIN RSA PRIVATE KEY-----"
        (entry,) = templates.list_entries(connection, ACCOUNT, limit=10)
        template = templates.get_by_ids(connection, [entry.id])[entry.id]
        made_from = {"package": "p", "image_id": "i"}
        assert template.spec == Spec(
            "web", {**made_from, "firewall_enabled": True, "networks": ["n1", "n2"], "userdata": "script", "metadata": {"a": "b"}}
        )
        assert templates.get_by_ids(connection, {ARCHIVED_TEMPLATE})[ARCHIVED_TEMPLATE].spec == Spec(
            "web", {**made_from, "firewall_enabled": False, "networks": [], "userdata": ""}
        )
        assert {group.id: group.capacity for group in all_groups(connection, ACCOUNT)} == {GROUP: 3, BARE_GROUP: 0}
        due = {work.id: work for work in group_state.list_due(connection, ACCOUNT, limit=10)}
        assert set(due) == {GROUP, BARE_GROUP}, "what lives is looked at, and what was deleted then is done with"
        assert (due[GROUP].by_name, due[GROUP].desired, due[GROUP].interval, due[GROUP].generation) == (True, 3, 120, 1)
        assert due[BARE_GROUP].interval == 300
        assert leases.claim_due(connection, limit=10) == [ACCOUNT]
        archived = connection.execute(text(f"SELECT emptied_at, check_at FROM tsg_group_state WHERE group_id = '{ARCHIVED_GROUP}'"))
        emptied_at, check_at = archived.one()
        assert emptied_at is not None
        assert check_at is None
    raised = database.transact(lambda connection: groups.increment(connection, ACCOUNT, GROUP, by=2, maximum=10, request_id=None))
    assert raised.capacity == 5
    database.close()


def test_what_was_observed_of_a_group_goes_to_its_own_table_and_back(of_2018: Engine) -> None:
    columns = "observed_generation, last_error, reason, launch_failures, launch_at, replacing, job_id, job_generation"
    observed = f"""
        UPDATE tsg_groups SET observed_generation = 1, last_error = 'no', reason = 'Settled', launch_failures = 2, launch_at = now(),
        replacing = 1, job_id = 'job', job_generation = 1, job_failures = 4, check_at = now() + interval '1 hour' WHERE id = '{GROUP}'"""
    with of_2018.connect() as connection:
        schema.upgrade(connection, "0014")
        connection.execute(text(observed))
        connection.commit()
        before = connection.execute(text(f"SELECT {columns} FROM tsg_groups WHERE id = '{GROUP}'")).one()
    upgrade(of_2018)
    with of_2018.connect() as connection:
        state = connection.execute(text(f"SELECT {columns} FROM tsg_group_state WHERE group_id = '{GROUP}'")).one()
        assert state == before
        assert connection.scalar(text("SELECT count(*) FROM tsg_groups WHERE check_at IS NOT NULL")) == 0
        assert connection.execute(text("SELECT subject::text, failures FROM tsg_work WHERE kind = 'nomad_job'")).all() == [(GROUP, 4)]
        connection.execute(text(f"UPDATE tsg_group_state SET last_error = NULL, reason = 'Backoff' WHERE group_id = '{GROUP}'"))
        connection.commit()
        alembic.command.downgrade(schema.config(connection), "0014")
        connection.commit()
        after = connection.execute(text(f"SELECT last_error, reason, job_id, check_at > now() FROM tsg_groups WHERE id = '{GROUP}'")).one()
        assert tuple(after) == (None, "Backoff", "job", True)


def test_an_account_is_enabled_by_the_statement_that_the_readers_of_the_seed_know(empty: Engine) -> None:
    upgrade(empty)
    with empty.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO tsg_accounts (account_name, triton_uuid, created_at, updated_at)"
                " VALUES ('demouser', 'd82a1f04-b9f6-4075-998f-af20e3d49de6', NOW(), NOW());"
            )
        )
        account = accounts.get_by_triton_uuid(connection, "d82a1f04-b9f6-4075-998f-af20e3d49de6")
        assert account is not None
        assert (account.name, account.enabled, account.has_registered_key) == ("demouser", True, False)
        assert leases.claim(connection, account.id, "worker", seconds=30) is not None


def all_groups(connection: Connection, account_id: str) -> Iterable[groups.Group]:
    return groups.get_by_ids(connection, [entry.id for entry in groups.list_entries(connection, account_id, limit=100)]).values()


def test_the_development_data_is_loaded_once_however_often(empty: Engine) -> None:
    upgrade(empty)
    database = db.connect(empty.url, pool_size=2)
    database.transact(seed.load)
    database.transact(seed.load)
    with database.read() as connection:
        loaded = {group.name: group.capacity for group in all_groups(connection, seed.ACCOUNT_ID)}
        assert loaded == {f"test-group-{number}": capacity for number, capacity in enumerate((3, 3, 6, 1, 3, 12), start=1)}
        assert len(templates.list_entries(connection, seed.ACCOUNT_ID, limit=100)) == 6
        assert len(accounts.list_all(connection)) == 1
    database.close()


# Constraints


GROUP_OF_THAT_NAME = f"""
    INSERT INTO tsg_groups (name, template_id, account_id, capacity, created_at, updated_at)
    VALUES ('web', '{TEMPLATE}', '{ACCOUNT}', 1, now(), now())"""
TEMPLATE_OF_THAT_NAME = f"""
    INSERT INTO tsg_templates (template_name, account_id, package, image_id, created_at) VALUES ('web', '{ACCOUNT}', 'p', 'i', now())"""
ACCOUNT_OF_THAT_UUID = """
    INSERT INTO tsg_accounts (account_name, triton_uuid, created_at, updated_at) VALUES ('again', 'some-uuid', now(), now())"""
MACHINE_TWICE = f"""
    INSERT INTO tsg_instances (account_id, group_id, machine_id, state)
    SELECT '{ACCOUNT}', '{GROUP}', '{USER}', 'running' FROM generate_series(1, 2)"""
INSTANCE_OF_NO_GROUP = f"INSERT INTO tsg_instances (account_id, group_id, state) VALUES ('{ACCOUNT}', '{USER}', 'running')"
ONE_JOB_OF_TWO_GROUPS = f"UPDATE tsg_group_state SET job_id = 'job' WHERE account_id = '{ACCOUNT}'"
TEMPLATE_GONE_FROM_UNDER_A_GROUP = f"DELETE FROM tsg_templates WHERE id = '{TEMPLATE}'"


@pytest.mark.parametrize(
    "statement",
    [
        GROUP_OF_THAT_NAME,
        TEMPLATE_OF_THAT_NAME,
        ACCOUNT_OF_THAT_UUID,
        MACHINE_TWICE,
        INSTANCE_OF_NO_GROUP,
        ONE_JOB_OF_TWO_GROUPS,
        TEMPLATE_GONE_FROM_UNDER_A_GROUP,
    ],
)
def test_what_must_not_be_there_twice_or_point_nowhere_is_refused(of_2018: Engine, statement: str) -> None:
    upgrade(of_2018)
    with of_2018.connect() as connection, pytest.raises(IntegrityError):
        connection.execute(text(statement))


def test_a_name_that_was_archived_is_free(of_2018: Engine) -> None:
    upgrade(of_2018)
    database = db.connect(of_2018.url, pool_size=2)
    database.transact(lambda connection: groups.delete_group(connection, ACCOUNT, GROUP, request_id=None))

    def create(connection: Connection) -> groups.Group:
        return groups.insert_group(connection, ACCOUNT, groups.Wish("web", TEMPLATE, 1), interval=300, request_id=None)

    assert database.transact(create).id not in {GROUP, ARCHIVED_GROUP}
    database.close()


def test_what_is_due_is_found_by_its_index(of_2018: Engine) -> None:
    upgrade(of_2018)
    with of_2018.begin() as connection:
        connection.execute(text("SET enable_seqscan = off"))
        plan = "\n".join(connection.scalars(text("EXPLAIN SELECT account_id FROM tsg_group_state WHERE check_at <= now()")))
    assert "tsg_group_state_due" in plan


# CockroachDB: no server here, so at least every statement is one that its dialect can write


def test_the_tables_can_be_written_for_cockroachdb() -> None:
    dialect = CockroachDBDialect_psycopg2()
    for table in tables.metadata.sorted_tables:
        assert f"CREATE TABLE {table.name}" in str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert str(index.name) in str(CreateIndex(index).compile(dialect=dialect))


def test_every_statement_of_the_state_modules_can_be_written_for_cockroachdb(database: Database) -> None:
    """All that the functions of the state modules have SQLAlchemy execute, compiled again; and all that is prepared."""
    dialect = CockroachDBDialect_psycopg2()
    compiled: list[str] = []

    @event.listens_for(database.engine, "before_execute")
    def gather(_connection: Connection, statement: Any, *_more: Any) -> None:
        compiled.append(str(statement.compile(dialect=dialect)))

    used = database.transact(use_everything)
    compiled += [statement._write(dialect).prepare for statement in gc.get_objects() if isinstance(statement, Prepared)]
    assert used == set(functions()), "use_everything leaves one out, or has one that is not there any more"
    assert len(set(compiled)) >= len(used)
    assert all(statement.split()[0] in {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "PREPARE"} for statement in compiled)


def functions() -> Iterator[Any]:
    """The public functions of the state modules that execute something."""
    for module in STATE_MODULES:
        for function in vars(module).values():
            is_ours = inspect.isfunction(function) and function.__module__ == module.__name__ and not function.__name__.startswith("_")
            if is_ours and next(iter(inspect.signature(function).parameters)) == "connection":
                yield function


def use_everything(connection: Connection) -> set[Any]:  # noqa: PLR0915 - there is as much as there is
    """Call each of them once, on one account; which ones were called."""
    used = set()

    def use(function: Any, *arguments: Any, **keywords: Any) -> Any:
        used.add(function)
        return function(connection, *arguments, **keywords)

    account_id = use(accounts.insert_account, "joyent", "some-uuid").id
    use(accounts.insert_key, account_id, key_id=KEY, name="k", fingerprint="aa:bb", material="sealed")
    use(accounts.mark_registered, KEY, registered=True)
    use(accounts.mark_renamed, account_id, "renamed")
    for function, argument in ((accounts.get, account_id), (accounts.get_by_triton_uuid, "some-uuid"), (accounts.get_key, account_id)):
        assert use(function, argument) is not None
    assert len(use(accounts.find_enabled, "renamed")) == 1
    use(accounts.mark_let_in, account_id, "robin", may_write=True)
    assert use(accounts.get_let_in, account_id, "robin") == (0, True)
    use(accounts.mark_kept_out, account_id, "robin")
    assert accounts.get_let_in(connection, account_id, "robin") is None
    assert not use(accounts.is_disabled, "some-uuid")
    assert len(use(accounts.list_all)) == 1
    use_keys(use, account_id)

    template = use(templates.create, account_id, Spec("web", {"package": "p", "image_id": "i", "userdata": "script"}))
    spare = templates.create(connection, account_id, Spec("spare", {"package": "p", "image_id": "i"}))
    use(templates.archive, account_id, spare.id)
    assert use(templates.get, account_id, template.id) == template
    assert use(templates.list_entries, account_id, limit=10) == [(template.id, len("script"))]
    assert use(templates.list_entries, account_id, limit=10, marker=template.id) == []
    assert use(templates.count, account_id) == use(groups.count, account_id) + 1 == 1
    assert use(templates.get_by_ids, {template.id, spare.id}).keys() == {template.id, spare.id}
    assert use(templates.is_live, account_id, template.id)

    group = use(groups.insert_group, account_id, groups.Wish("web", template.id, 1), interval=300, request_id="r")
    assert use(groups.update_group, account_id, group.id, groups.Wish("web", template.id, 3), request_id="r").capacity == 3
    assert use(groups.increment, account_id, group.id, by=2, maximum=10, request_id="r").capacity == 5
    assert use(groups.decrement, account_id, group.id, by=1, minimum=0, request_id="r").capacity == 4
    assert use(groups.change, Change(account_id, group.id, "k", "cause", "r")).generation == 5
    assert use(groups.get, account_id, group.id) == use(groups.get_by_name, account_id, "web")
    assert use(groups.list_entries, account_id, limit=10) == [(group.id, 0)]
    assert use(groups.get_by_ids, [group.id])[group.id].capacity == 4
    assert not use(groups.is_by_name, group.id)
    use(adoption.adopt, limit=10)
    (group_work,) = use(group_state.list_due, account_id, limit=10)

    assert use(leases.claim_due, limit=10) == [account_id]
    lease = use(leases.claim, account_id, "worker", seconds=30)
    assert use(leases.renew, lease, seconds=30)
    use(leases.require_held, lease)

    launch_id = use(instances.insert_launch, lease, group_work)
    use(instances.mark_doubted, launch_id)
    use(instances.mark_launched, launch_id, USER, "provisioning")
    use(instances.delete_launch, instances.insert_launch(connection, lease, group_work))
    found = use(instances.insert_found, lease, group.id, KEY, "running")
    assert use(instances.get_owners, account_id, [KEY], group_id=group.id)[KEY] == (group.id, "running")
    use(instances.mark_state, lease, found.id, "stopped")
    assert use(instances.may_delete, lease, group_work)
    assert use(instances.mark_draining, lease, group_work, found.id, seconds=None)
    use(instances.mark_drained, found.id, seconds=60)
    use(instances.mark_undrained, lease, found.id)
    use(instances.mark_updated, found.id, template.id)
    use(instances.mark_described, lease, [Described(found.id, "web-1", None, None, "10.0.0.1", "{}", template.id)])
    use(instances.mark_deleting, found.id)
    now, rows = use(instance_lists.list_of_groups, [group.id])
    assert {(row.machine_id, row.state) for row in rows} == {(USER, "provisioning"), (KEY, "deleting")}
    assert use(instance_lists.list_for_preview, group.id) == (now, [(row, None, "") for row in rows])
    assert use(group_state.get, account_id, group.id).id == group.id
    assert use(instances.delete_old, limit=10) == 0
    assert use(instances.count_by_state) == {"provisioning": 1, "deleting": 1}
    assert use(group_state.get_backlog, late=60) == (1, 0, 0.0)
    assert use(group_state.count_by_reason) == {"Provisioning": 1}

    use(activities.insert_activity, account_id=account_id, group_id=group.id, kind="k", status="s", description="d", actor="a")
    (recorded,) = use(activities.list_of_group, group.id, limit=10, status="s", kind="k")
    (entry,) = use(activities.list_entries, group.id, limit=10, status="s", kind="k")
    assert use(activities.get_by_ids, [entry.id]) == {recorded.id: recorded}
    assert (recorded.started_at, recorded.at) == (now, now)
    # All have been written in one moment.
    assert len(activities.list_of_group(connection, group.id, limit=10, before=recorded.id)) < 6
    assert use(activities.delete_old, days=1, limit=10) == 0

    use_policies(use, account_id, group.id)
    use_notifications(use, account_id, group.id)
    use_jobs(use, group.id)
    use_probes(use, group.id)
    use_work(use, group.id)
    use_feeds(use, account_id, group.id)
    use_members(use, account_id, group.id)
    use_rollouts(use, account_id, group.id)
    assert use(idempotency.claim, account_id, "key", "request")
    use(idempotency.mark_answered, account_id, "key", idempotency.Answer(202))
    assert use(idempotency.find, account_id, "key") == ("request", (202, None, None, None))
    assert use(idempotency.delete_old, limit=10) == 0
    assert use(groups.get_locked, account_id, group.id).generation == 19
    assert use(group_state.mark_checked, lease, [group_state.Check(group_work, after=1, failures=0, error=None, reason=Reason.SETTLED)])
    assert [owner.id for owner in use(group_state.list_owners, account_id, ids={group.id}, names={"web"})] == [group.id]
    use(group_state.mark_due, group.id)
    use(group_state.mark_all_due, account_id)
    assert use(group_state.get_next_due) > 0
    assert use(status.find, group.id) == use(status.get, account_id, group.id) == use(status.get_by_ids, [group.id])[group.id]
    assert use(status.list_entries, account_id, limit=10) == [(group.id, 0)]
    assert use(status.count, account_id) == 1
    assert [one.id for one in use(overview.list_groups, account_id=account_id, reason=Reason.SETTLED, limit=10)] == [group.id]
    assert [one.id for one in use(overview.find_groups, group.name)] == [group.id]
    assert len(use(overview.list_jobs, limit=10)) <= 1
    assert use(clock.get_now) == use(clock.get_now)
    use(clock.bring_back)
    use(groups.delete_group, account_id, group.id, request_id="r")
    assert use(group_state.mark_emptied, lease, group_work, after=300)
    use(group_state.mark_reopened, lease, [group.id])
    use(group_state.mark_put_off, lease, seconds=5)
    use(leases.release, lease, budget_left=1)
    return used


def use_keys(use: Callable[..., Any], account_id: str) -> None:
    assert use(accounts.list_key_materials) == [(KEY, "sealed")]
    assert use(accounts.replace_material, KEY, "sealed", "sealed anew")
    (account,) = use(accounts.find, "some-uuid")
    use(accounts.mark_enabled, account, enabled=True)
    old = use(accounts.get_key, account_id)
    use(accounts.insert_next_key, account_id, key_id=USER, name="k2", fingerprint="cc:dd", material="sealed")
    assert use(accounts.switch_key, account_id, old, use(accounts.get_next_key, account_id, "k2"))
    assert [key.name for key in use(accounts.list_retired_keys, account_id)] == ["k"]
    use(accounts.delete_retired_key, KEY)
    assert use(accounts.list_key_materials) == [(USER, "sealed")]


def use_policies(use: Callable[..., Any], account_id: str, group_id: str) -> None:
    settings = policy_settings.WebhookSettings(policy_name="hook", kind="webhook", change="+1")
    asker = Asker(account_id, group_id, "r")
    made = use(policies.insert_policy, asker, settings, token_hash="hash")
    assert use(policies.get, group_id, made.id) == made
    assert use(policies.list_of_group, group_id) == [made]
    use(policies.lock_group, group_id)
    assert use(policies.update_policy, asker, made.id, settings).version == 2
    use(policies.mark_rotated, asker, made.id, "other hash")
    scaled = use(policies.find_scaled, group_id)
    assert (scaled.available, use(policies.list_available, group_id, scaled.settings)) == (0, [])
    use(groups.scale, account_id, group_id, capacity=scaled.capacity, settings=scaled.settings, cause="policies")
    assert use(policies.insert_call, "other hash", call_id=USER, key="key") == group_id
    assert use(policies.list_waiting, group_id) == [(USER, made.id)]
    use(policies.mark_decided, [USER])
    assert use(policies.delete_old_calls, limit=10) == 0
    at = made.created_at
    decision = decisions.Decision(
        USER, group_id, made.id, "hook", at, 1, at, "changed", "webhook", "m", None, None, None, None, 5, 4, 5, None
    )
    use(decisions.insert_decision, account_id, decision)
    use(policies.mark_progress, made.id, made.progress, decision_id=USER)
    use(decisions.mark_repeated, [USER])
    (last,) = use(decisions.list_last, [group_id])
    assert use(decisions.list_newest, group_id, limit=10, policy_id=made.id) == [last]
    assert last.times == 2
    assert use(decisions.delete_old, days=1, limit=10) == 0
    use(policies.delete_policy, asker, made.id)
    use(policies.delete_of_group, group_id)


def use_notifications(use: Callable[..., Any], account_id: str, group_id: str) -> None:
    fields = {"url": "https://example.com", "groups": ["*"], "kinds": ["instance.*", "k"], "enabled": True}
    made = use(notifications.insert_notification, account_id, its_id=KEY, secret="sealed", **fields)
    assert use(notifications.list_of_account, account_id) == [made]
    assert use(notifications.get, account_id, made.id) == use(notifications.find, made.id) == made
    assert use(notifications.update_notification, account_id, made.id, **fields).version == 2
    use(notifications.mark_rotated, account_id, made.id, "sealed")
    assert use(notifications.list_secrets) == [(KEY, "sealed")]
    assert use(notifications.replace_secret, made.id, "sealed", "sealed anew")
    use(notifications.mark_failures, made.id, 1)
    for _ in range(2):
        use(activities.insert_activity, account_id=account_id, group_id=group_id, kind="k", status="s", description="d", actor="a")
    first, second = use(deliveries.list_due, made.id)
    assert use(deliveries.get_next_due, made.id) == 0.0
    use(deliveries.mark_delivered, first.id, 200)
    assert not use(deliveries.mark_failed, second.id, status=500, error="no", after=5)
    use(deliveries.mark_put_off, made.id, after=60)
    assert use(deliveries.count_waiting) == 1
    use(deliveries.mark_all_dead, made.id, "gone")
    assert use(deliveries.mark_replayed, made.id, second.id).state == "waiting"
    assert len(use(deliveries.list_newest, made.id, limit=5, state="waiting")) == 1
    assert use(deliveries.delete_old, days=1, limit=5) == 0
    use(notifications.mark_disabled, made.id, "gone")
    use(notifications.delete_notification, account_id, made.id)


def use_work(use: Callable[..., Any], subject: str) -> None:
    use(work.mark_due, "kind", subject)
    assert use(work.claim_wake_ups, "kind", limit=10) == [subject]
    assert use(work.count_late, ["kind"], late=60) == {"kind": 0}
    for give_back in (work.mark_done, work.mark_postponed):
        claimed = use(work.claim, "kind", subject, owner="test", seconds=5)
        assert use(work.renew, claimed, seconds=10)
        assert use(give_back, claimed, after=1)
    assert use(work.mark_failed, use(work.claim, "kind", subject, owner="test", seconds=5), after=1, error="no")
    use(work.delete_work, use(work.claim, "kind", subject, owner="test", seconds=5))


def use_members(use: Callable[..., Any], account_id: str, group_id: str) -> None:
    asker, (one, other) = Asker(account_id, group_id, "r"), (str(uuid.UUID(int=number)) for number in (101, 102))
    for machine_id in (one, other):
        group, member = use(members.adopt, asker, members.Adoptee(machine_id, "name", "running", None, None), most=100)
        assert (group.id, member) == (group_id, use(members.get, group_id, machine_id))
    listed = [entry.id for entry in use(members.list_entries, group_id, limit=10)]
    assert use(members.get_by_machine_ids, group_id, listed).keys() == set(listed)
    assert use(members.list_entries, group_id, limit=10, marker=listed[-1]) == []
    assert use(members.count, group_id) == len(listed)
    assert use(members.protect, asker, one, until=None, note=None)[1].instance.is_protected
    assert not use(members.unprotect, asker, one, note=None)[1].instance.is_protected
    assert use(members.vote, asker, one, status="unhealthy", note="n")[1].instance.vote == "unhealthy"
    assert use(members.hold, asker, one, lowers=False)[1].instance.is_protected
    use(members.detach, asker, one, lowers=True)
    use(members.decrement, account_id, group_id, by=1, minimum=0, machine_ids=[other], request_id="r")
    use(
        members.remove,
        asker,
        use(members.adopt, asker, members.Adoptee(one, "", "running", None, None), most=100)[1].machine_id,
        lowers=True,
    )


def use_rollouts(use: Callable[..., Any], account_id: str, group_id: str) -> None:
    made = use(rollouts.insert_rollout, account_id, group_id, template_id=None, settings=RolloutSettings(), request_id="r")
    assert use(rollouts.get, group_id, made.id) == use(rollouts.find_under_way, group_id) == use(rollouts.find_newest, group_id)
    assert use(rollouts.list_under_way, [group_id]).keys() == {group_id}
    assert use(rollouts.list_of_group, group_id, limit=10, marker=made.id) == []
    assert use(rollouts.count, group_id) == 1
    generation = use(groups.get, account_id, group_id).generation
    assert use(rollouts.mark_progress, made._replace(step=1), generation=generation)
    assert not use(rollouts.mark_progress, made, generation=generation + 1)
    use(rollouts.mark_put_off, account_id)
    use(rollouts.give_back_template, made)
    asked = use(rollouts.ask, account_id, group_id, made.id, rollouts.Ask.PAUSE, request_id="r")
    assert asked.state == rollouts.State.PAUSING
    use(rollouts.cancel_of_deleted, group_id)
    use(rollouts.require_none, group_id)
    assert use(rollouts.delete_old, days=1, limit=10) == 0


def use_probes(use: Callable[..., Any], group_id: str) -> None:
    assert not use(probes.are_wanted)
    assert use(probes.count_probers) == 0
    assert use(probes.list_free_ranges) == list(probes.RANGES)
    now, targets = use(probes.list_targets, probes.RANGES)
    assert targets == []
    claimed = use(work.claim, probes.PROBES, probes.RANGES[0], owner="test", seconds=10)
    columns = {
        "more": "",
        "primary_ip": None,
        "addresses": None,
        "running_since": now,
        "probe": None,
        "probe_since": None,
        "probe_error": None,
    }
    target = probes.Target(id=USER, account_id=USER, group_id=group_id, machine_id=USER, **columns)
    use(probes.mark_found, claimed, [probes.Finding(target, probes.UNHEALTHY, "HTTP 500")], actor="test")
    use(probes.forget, group_id)


def use_feeds(use: Callable[..., Any], account_id: str, group_id: str) -> None:
    seat = use(work.claim, work.FEED, USER, owner="test", seconds=10)
    assert use(feeds.list_watchers) == [USER]
    assert use(feeds.list_accounts) == [account_id]
    use(feeds.mark_feeds, USER, [feeds.Feed(account_id, feeds.FeedState.TRUSTED)])
    assert use(feeds.list_noted) == {account_id: (USER, "trusted")}
    assert use(feeds.mark_unwatched) == 0
    assert use(feed_messages.bring_back) == 0
    use(
        feed_messages.mark_groups_due,
        [feed_messages.FeedMessage(account_id, KEY, group_id), feed_messages.FeedMessage(account_id, USER, None, "web")],
    )
    use(feed_messages.mark_accounts_due, [account_id])
    use(feed_messages.list_events, after=0, until=60)
    use(work.delete_work, seat)
    use(feeds.delete_old_seats)
    use(feeds.delete_feeds, USER, [account_id])


def use_jobs(use: Callable[..., Any], group_id: str) -> None:
    use(jobs.insert_missing)
    assert [job.group_id for job in use(jobs.claim_due, limit=10)] == [group_id]
    job = use(jobs.get, use(work.claim, work.NOMAD_JOB, group_id, owner="test", seconds=10))
    assert use(jobs.claim_id, job, "plain", "distinct") == "plain"
    use(jobs.mark_submitted, job, error=None)
    use(jobs.mark_failing, job, error=None)
    use(jobs.mark_failing, job, error="no")
    use(jobs.mark_run, group_id)
    assert use(jobs.count_failing) >= 0
    use(jobs.mark_unsubmitted, group_id)
    use(jobs.mark_waiting, job)
    use(jobs.mark_left_to_run, job)
    use(jobs.mark_removed, job)
