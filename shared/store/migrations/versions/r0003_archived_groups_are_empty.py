"""Groups deleted under the 2018 service are done with. Data apart from schema: CockroachDB mixes the two badly."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("UPDATE tsg_groups SET check_at = NULL, emptied_at = now() WHERE archived AND emptied_at IS NULL")


def downgrade() -> None:
    pass
