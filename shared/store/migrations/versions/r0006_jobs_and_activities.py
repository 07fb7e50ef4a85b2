"""What a group's Nomad job is called and how far it is; and what was done or refused, one row for each."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS = (
    "job_id TEXT",
    "job_generation BIGINT NOT NULL DEFAULT 0",
    "job_check_at TIMESTAMPTZ DEFAULT now()",
    "job_claimed_until TIMESTAMPTZ",
    "job_failures INTEGER NOT NULL DEFAULT 0",
)


def upgrade() -> None:
    for column in COLUMNS:
        op.execute(f"ALTER TABLE tsg_groups ADD COLUMN IF NOT EXISTS {column}")
    op.execute(
        """
        CREATE TABLE IF NOT EXISTS tsg_activities (
            id UUID NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
            account_id UUID NOT NULL REFERENCES tsg_accounts (id),
            group_id UUID NOT NULL REFERENCES tsg_groups (id),
            kind TEXT NOT NULL,
            status TEXT NOT NULL,
            description TEXT NOT NULL,
            machine_id UUID,
            error_code TEXT,
            cloudapi_request_id TEXT,
            request_id TEXT,
            actor TEXT NOT NULL,
            at TIMESTAMPTZ NOT NULL DEFAULT now()
        )
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS tsg_activities")
    for column in COLUMNS:
        op.execute(f"ALTER TABLE tsg_groups DROP COLUMN IF EXISTS {column.split()[0]}")
