"""What runs has run. Data apart from schema: CockroachDB mixes the two badly."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE tsg_instances SET ran_at = state_since WHERE state = 'running' AND ran_at IS NULL")


def downgrade() -> None:
    pass
