"""What waits, and what it waits for, is counted without reading the rest."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

INDEXES = {
    "tsg_groups_unseen": "tsg_groups (updated_at) WHERE observed_generation < generation AND check_at IS NOT NULL",
    "tsg_groups_reason": "tsg_groups (reason) WHERE emptied_at IS NULL",
    "tsg_instances_state": "tsg_instances (state) WHERE gone_at IS NULL",
}


def upgrade() -> None:
    for name, target in INDEXES.items():
        op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {target}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")
