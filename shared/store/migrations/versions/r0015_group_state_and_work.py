"""What was observed of a group has a table of its own, and so has what is due and who has claimed it.

The old columns stay for programs of the previous release, which may run beside newer ones during an upgrade.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

GROUP_STATE = """
    CREATE TABLE IF NOT EXISTS tsg_group_state (
        group_id UUID NOT NULL PRIMARY KEY REFERENCES tsg_groups (id),
        account_id UUID NOT NULL,
        generation BIGINT NOT NULL DEFAULT 1,
        observed_generation BIGINT NOT NULL DEFAULT 0,
        changed_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        check_at TIMESTAMPTZ DEFAULT now(),
        checked_at TIMESTAMPTZ,
        emptied_at TIMESTAMPTZ,
        failures INTEGER NOT NULL DEFAULT 0,
        last_error TEXT,
        reason TEXT,
        reason_since TIMESTAMPTZ,
        launch_failures INTEGER NOT NULL DEFAULT 0,
        launch_window BIGINT,
        launch_at TIMESTAMPTZ,
        replacing BIGINT NOT NULL DEFAULT 0,
        job_id TEXT,
        job_generation BIGINT NOT NULL DEFAULT 0
    )
    """
WORK = """
    CREATE TABLE IF NOT EXISTS tsg_work (
        kind TEXT NOT NULL,
        subject UUID NOT NULL,
        due_at TIMESTAMPTZ,
        woken_at TIMESTAMPTZ,
        owner TEXT,
        token BIGINT NOT NULL DEFAULT 0,
        until TIMESTAMPTZ,
        failures INTEGER NOT NULL DEFAULT 0,
        last_error TEXT,
        PRIMARY KEY (kind, subject)
    )
    """
INSTANCES = ("template_id UUID", "desired TEXT NOT NULL DEFAULT 'run'")


def upgrade() -> None:
    op.execute(GROUP_STATE)
    op.execute(WORK)
    for column in INSTANCES:
        op.execute(f"ALTER TABLE tsg_instances ADD COLUMN IF NOT EXISTS {column}")


def downgrade() -> None:
    for column in INSTANCES:
        op.execute(f"ALTER TABLE tsg_instances DROP COLUMN IF EXISTS {column.split()[0]}")
    op.execute("DROP TABLE IF EXISTS tsg_work")
    op.execute("DROP TABLE IF EXISTS tsg_group_state")
