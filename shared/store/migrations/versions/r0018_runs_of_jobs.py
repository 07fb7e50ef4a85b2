"""What is wrong with a group's Nomad job, when a run of it was started by us, and when one last came to the group."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

COLUMNS = ("job_error TEXT", "job_forced_at TIMESTAMPTZ", "job_ran_at TIMESTAMPTZ")


def upgrade() -> None:
    for column in COLUMNS:
        op.execute(f"ALTER TABLE tsg_group_state ADD COLUMN IF NOT EXISTS {column}")


def downgrade() -> None:
    for column in COLUMNS:
        op.execute(f"ALTER TABLE tsg_group_state DROP COLUMN IF EXISTS {column.split()[0]}")
