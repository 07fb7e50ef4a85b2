"""Taking over a database of 2018 in which two live rows share what must be unique: told before anything is touched."""

import uuid
from subprocess import CompletedProcess

from sqlalchemy import Engine, text

from shared.cli import admin as tsg_admin
from shared.cli import takeover
from tests.conftest import run_here
from tests.integration.test_migrations import ACCOUNT, GROUP, MADE, TEMPLATE, empty, of_2018  # noqa: F401 - fixtures

TWIN, OTHER_ACCOUNT, THIRD = (str(uuid.UUID(int=number)) for number in range(21, 24))

#: One more of each, and what must not be counted: archived ones, other accounts' and rows without a UUID in Triton.
TWINS = f"""
    INSERT INTO tsg_accounts VALUES ('{OTHER_ACCOUNT}', 'joyent-again', 'some-uuid', NULL, '{MADE}', '{MADE}');
    INSERT INTO tsg_accounts VALUES ('{THIRD}', 'third', 'another-uuid', NULL, '{MADE}', '{MADE}');
    INSERT INTO tsg_templates VALUES ('{TWIN}', 'web', '{ACCOUNT}', 'p', 'i', true, '', '', '', '', '{MADE}', false);
    INSERT INTO tsg_templates VALUES ('{THIRD}', 'web', '{THIRD}', 'p', 'i', true, '', '', '', '', '{MADE}', false);
    INSERT INTO tsg_groups VALUES ('{TWIN}', 'web', '{TEMPLATE}', '{ACCOUNT}', 7, 120, '{MADE}', '{MADE}', false);
    INSERT INTO tsg_groups VALUES ('{THIRD}', 'web', '{THIRD}', '{THIRD}', 7, 120, '{MADE}', '{MADE}', false);
"""


def run_upgrade(engine: Engine, *more: str) -> CompletedProcess[str]:
    url = engine.url.render_as_string(hide_password=False)
    return run_here(tsg_admin.main, ["db", "upgrade", *more], {"TSG_DATABASE_URL": url})


def execute(engine: Engine, statements: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(statements)


def tables(engine: Engine) -> set[tuple[str, str]]:
    with engine.connect() as connection:
        found = connection.execute(text("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"))
        return {(table, column) for table, column in found}


def test_live_twins_are_named_with_what_to_do_and_nothing_is_touched(of_2018: Engine) -> None:  # noqa: F811
    execute(of_2018, TWINS)
    before = tables(of_2018)
    done = run_upgrade(of_2018)
    assert done.returncode == 4
    assert done.stdout == ""
    assert tables(of_2018) == before
    told = done.stderr
    assert "Traceback" not in told
    assert "nothing was changed" in told
    assert "tsg_accounts: 2 live rows have the triton_uuid some-uuid" in told
    assert f"tsg_templates: 2 live rows of the account {ACCOUNT} have the template_name 'web'" in told
    assert f"tsg_groups: 2 live rows of the account {ACCOUNT} have the name 'web'" in told
    assert told.count("live rows") == 3
    for row in (ACCOUNT, OTHER_ACCOUNT, TEMPLATE, GROUP, TWIN):
        assert f"id {row}, " in told
    assert THIRD not in told


def test_what_is_advised_is_enough(of_2018: Engine) -> None:  # noqa: F811
    execute(of_2018, TWINS)
    execute(
        of_2018,
        f"""
        UPDATE tsg_templates SET account_id = '{ACCOUNT}' WHERE account_id = '{OTHER_ACCOUNT}';
        UPDATE tsg_groups SET account_id = '{ACCOUNT}' WHERE account_id = '{OTHER_ACCOUNT}';
        UPDATE tsg_accounts SET archived = true WHERE id = '{OTHER_ACCOUNT}';
        UPDATE tsg_templates SET template_name = 'web-2' WHERE id = '{TWIN}';
        UPDATE tsg_groups SET archived = true WHERE id = '{TWIN}';
        """,
    )
    done = run_upgrade(of_2018)
    assert (done.returncode, done.stdout) == (0, "the database is up to date\n")
    with of_2018.connect() as connection:
        emptied = connection.execute(text(f"SELECT emptied_at IS NOT NULL FROM tsg_group_state WHERE group_id = '{TWIN}'")).scalar_one()
        assert emptied, "its machines are the other one's now"


def test_nothing_is_in_the_way_of_an_empty_database_or_one_that_is_up_to_date(empty: Engine) -> None:  # noqa: F811
    for revision in ("0001", "head"):
        done = run_upgrade(empty, "--revision", revision)
        assert done.returncode == 0, done.stderr
        with empty.connect() as connection:
            assert takeover.obstacles(connection) == []
    assert ("tsg_groups", "check_at") in tables(empty)
