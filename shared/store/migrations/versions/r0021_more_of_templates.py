"""What the columns of 2018 can't say of a template lies in one JSON document. Earlier releases read the columns alone."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE tsg_templates ADD COLUMN IF NOT EXISTS more TEXT")


def downgrade() -> None:
    op.execute("ALTER TABLE tsg_templates DROP COLUMN IF EXISTS more")
