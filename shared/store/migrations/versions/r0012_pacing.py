"""Where a group stands with its launches, and when an instance first ran."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

GROUPS = (
    "launch_failures INTEGER NOT NULL DEFAULT 0",
    "launch_window BIGINT",
    "launch_at TIMESTAMPTZ",
    "replacing BIGINT NOT NULL DEFAULT 0",
)


def upgrade() -> None:
    for column in GROUPS:
        op.execute(f"ALTER TABLE tsg_groups ADD COLUMN IF NOT EXISTS {column}")
    op.execute("ALTER TABLE tsg_instances ADD COLUMN IF NOT EXISTS ran_at TIMESTAMPTZ")


def downgrade() -> None:
    op.execute("ALTER TABLE tsg_instances DROP COLUMN IF EXISTS ran_at")
    for column in GROUPS:
        op.execute(f"ALTER TABLE tsg_groups DROP COLUMN IF EXISTS {column.split()[0]}")
