"""Columns for the lease, the budget and the generations, on the tables of 2018.

A group that was deleted before this service came has nothing left to do: the 2018 service emptied it.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS = {
    "tsg_keys": ("registered_at TIMESTAMPTZ",),
    "tsg_accounts": (
        "lease_owner TEXT",
        "lease_token BIGINT NOT NULL DEFAULT 0",
        "lease_until TIMESTAMPTZ",
        "rung_at TIMESTAMPTZ",
        "budget_left DOUBLE PRECISION",
        "budget_at TIMESTAMPTZ",
    ),
    "tsg_groups": (
        "generation BIGINT NOT NULL DEFAULT 1",
        "observed_generation BIGINT NOT NULL DEFAULT 0",
        "check_at TIMESTAMPTZ DEFAULT now()",
        "emptied_at TIMESTAMPTZ",
        "failures INTEGER NOT NULL DEFAULT 0",
        "last_error TEXT",
        "request_id TEXT",
        "by_name BOOLEAN NOT NULL DEFAULT true",
    ),
}


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {column}")


def downgrade() -> None:
    for table, columns in COLUMNS.items():
        for column in columns:
            op.execute(f"ALTER TABLE {table} DROP COLUMN IF EXISTS {column.split()[0]}")
