"""Groups about which CloudAPI's list says what it said before need no plan."""

from alembic import op

revision = "0045"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE tsg_group_state ADD COLUMN IF NOT EXISTS listing TEXT, ADD COLUMN IF NOT EXISTS rest_at TIMESTAMPTZ")


def downgrade() -> None:
    op.execute("ALTER TABLE tsg_group_state DROP COLUMN IF EXISTS listing, DROP COLUMN IF EXISTS rest_at")
