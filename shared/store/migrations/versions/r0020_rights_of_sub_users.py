"""What CloudAPI said that a sub-user may do: to be let in is one thing, to change something another."""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE tsg_users ADD COLUMN IF NOT EXISTS may_write BOOLEAN NOT NULL DEFAULT false")


def downgrade() -> None:
    op.execute("ALTER TABLE tsg_users DROP COLUMN IF EXISTS may_write")
