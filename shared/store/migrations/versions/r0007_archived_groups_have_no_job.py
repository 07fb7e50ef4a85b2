"""The 2018 service removed the job of a group with the group. Data apart from schema: CockroachDB mixes the two badly."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE tsg_groups SET job_check_at = NULL WHERE emptied_at IS NOT NULL AND job_id IS NULL")


def downgrade() -> None:
    pass
