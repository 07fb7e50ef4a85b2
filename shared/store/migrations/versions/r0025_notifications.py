"""Notifications: where activities are told, and the deliveries that do it."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE TABLE IF NOT EXISTS tsg_notifications ("
        " id UUID PRIMARY KEY DEFAULT gen_random_uuid(), account_id UUID NOT NULL REFERENCES tsg_accounts (id),"
        " url TEXT NOT NULL, groups TEXT[] NOT NULL, kinds TEXT[] NOT NULL, patterns TEXT[] NOT NULL,"
        " enabled BOOL NOT NULL DEFAULT true, disabled_why TEXT, secret TEXT NOT NULL,"
        " version INT8 NOT NULL DEFAULT 1, failures INT4 NOT NULL DEFAULT 0,"
        " created_at TIMESTAMPTZ NOT NULL DEFAULT now(), updated_at TIMESTAMPTZ NOT NULL DEFAULT now())"
    )
    op.execute("CREATE INDEX IF NOT EXISTS tsg_notifications_listed ON tsg_notifications (account_id, created_at, id)")
    op.execute(
        "CREATE TABLE IF NOT EXISTS tsg_deliveries ("
        " id UUID PRIMARY KEY DEFAULT gen_random_uuid(), notification_id UUID NOT NULL, account_id UUID NOT NULL,"
        " group_id UUID NOT NULL, activity_id UUID NOT NULL, kind TEXT NOT NULL,"
        " state TEXT NOT NULL DEFAULT 'waiting', attempts INT4 NOT NULL DEFAULT 0, due_at TIMESTAMPTZ NOT NULL DEFAULT now(),"
        " status INT4, last_error TEXT, at TIMESTAMPTZ NOT NULL DEFAULT now(), first_at TIMESTAMPTZ NOT NULL DEFAULT now(),"
        " ended_at TIMESTAMPTZ)"
    )
    op.execute("CREATE INDEX IF NOT EXISTS tsg_deliveries_listed ON tsg_deliveries (notification_id, at, id)")
    op.execute("CREATE INDEX IF NOT EXISTS tsg_deliveries_waiting ON tsg_deliveries (notification_id, at) WHERE state = 'waiting'")
    op.execute("CREATE INDEX IF NOT EXISTS tsg_deliveries_ended ON tsg_deliveries (ended_at) WHERE ended_at IS NOT NULL")


def downgrade() -> None:
    for table in ("tsg_deliveries", "tsg_notifications"):
        op.execute(f"DROP TABLE IF EXISTS {table}")
