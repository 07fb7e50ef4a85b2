"""The launches and machines of our groups."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS tsg_instances (
            id UUID NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
            account_id UUID NOT NULL REFERENCES tsg_accounts (id),
            group_id UUID NOT NULL REFERENCES tsg_groups (id),
            machine_id UUID,
            state TEXT NOT NULL,
            state_since TIMESTAMPTZ NOT NULL DEFAULT now(),
            launched_at TIMESTAMPTZ NOT NULL DEFAULT now(),
            gone_at TIMESTAMPTZ
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS tsg_instances")
