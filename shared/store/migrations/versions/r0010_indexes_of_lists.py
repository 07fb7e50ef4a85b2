"""A page of a list, and the oldest keys, are found without reading the rest."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

INDEXES = {
    "tsg_idempotency_keys_by_age": "tsg_idempotency_keys (created_at)",
    "tsg_templates_listed": "tsg_templates (account_id, created_at, id) WHERE NOT archived",
    "tsg_groups_listed": "tsg_groups (account_id, created_at, id) WHERE NOT archived",
}


def upgrade() -> None:
    for name, target in INDEXES.items():
        op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {target}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")
