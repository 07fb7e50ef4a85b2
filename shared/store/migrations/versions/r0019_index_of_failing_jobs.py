"""Jobs that Nomad does not run are counted without reading the others."""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("CREATE INDEX IF NOT EXISTS tsg_group_state_job_failing ON tsg_group_state (group_id) WHERE job_error IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS tsg_group_state_job_failing")
