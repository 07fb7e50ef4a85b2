"""The five tables of the 2018 service, where they are not there already.

`STRING`, `INT` and `BOOL` of its CockroachDB are text, bigint and boolean here; a database that the old service made is left as it is.
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    """
    CREATE TABLE IF NOT EXISTS tsg_keys (
        id UUID NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
        name TEXT NOT NULL,
        fingerprint TEXT,
        material TEXT,
        account_id UUID,
        created_at TIMESTAMPTZ NOT NULL,
        updated_at TIMESTAMPTZ NOT NULL,
        archived BOOLEAN DEFAULT false
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS tsg_accounts (
        id UUID NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
        account_name TEXT NOT NULL,
        triton_uuid TEXT,
        key_id UUID REFERENCES tsg_keys (id),
        created_at TIMESTAMPTZ NOT NULL,
        updated_at TIMESTAMPTZ NOT NULL,
        archived BOOLEAN DEFAULT false
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS tsg_users (
        id UUID NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
        username TEXT NOT NULL,
        account_id UUID NOT NULL REFERENCES tsg_accounts (id),
        created_at TIMESTAMPTZ NOT NULL,
        updated_at TIMESTAMPTZ NOT NULL,
        archived BOOLEAN DEFAULT false
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS tsg_templates (
        id UUID NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
        template_name TEXT NOT NULL,
        account_id UUID NOT NULL REFERENCES tsg_accounts (id),
        package TEXT NOT NULL,
        image_id TEXT NOT NULL,
        firewall_enabled BOOLEAN DEFAULT false,
        networks TEXT,
        userdata TEXT,
        metadata TEXT,
        tags TEXT,
        created_at TIMESTAMPTZ NOT NULL,
        archived BOOLEAN DEFAULT false
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS tsg_groups (
        id UUID NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
        name TEXT NOT NULL,
        template_id UUID NOT NULL REFERENCES tsg_templates (id),
        account_id UUID NOT NULL REFERENCES tsg_accounts (id),
        capacity BIGINT NOT NULL,
        health_check_interval BIGINT DEFAULT 300,
        created_at TIMESTAMPTZ NOT NULL,
        updated_at TIMESTAMPTZ NOT NULL,
        archived BOOLEAN DEFAULT false
    )
    """,
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("the tables of 2018 hold what users made: they are not dropped")
