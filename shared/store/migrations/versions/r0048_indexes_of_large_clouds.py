"""What is asked about one account, or of the last minutes, is found without reading what all accounts have."""

from alembic import op

revision = "0048"
down_revision = "0045"
branch_labels = None
depends_on = None

INDEXES = {
    # After a long stop nearly all groups are due.
    "tsg_group_state_of_account": "tsg_group_state (account_id, check_at) WHERE check_at IS NOT NULL",
    "tsg_groups_by_name": "tsg_groups (account_id, name) WHERE by_name",
    "tsg_feeds_since": "tsg_feeds (since)",
}


def upgrade() -> None:
    for name, target in INDEXES.items():
        op.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {target}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")
