"""How each account's changefeed is doing."""

from alembic import op

revision = "0028"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE TABLE IF NOT EXISTS tsg_feeds ("
        " account_id UUID PRIMARY KEY,"
        " watcher UUID NOT NULL,"
        " state TEXT NOT NULL, problem TEXT,"
        " since TIMESTAMPTZ NOT NULL DEFAULT now())"
    )


def downgrade() -> None:
    op.execute("DROP TABLE IF EXISTS tsg_feeds")
