"""Why a group is not what it should be, and what led to each thing that was done."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

COLUMNS = {
    "tsg_groups": ("reason TEXT", "reason_since TIMESTAMPTZ", "checked_at TIMESTAMPTZ", "cause TEXT"),
    "tsg_activities": ("cause TEXT", "started_at TIMESTAMPTZ"),
}


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column}")


def downgrade() -> None:
    for table, columns in COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} DROP COLUMN IF EXISTS {column.split()[0]}")
