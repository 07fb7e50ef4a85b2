"""Policies of groups, their decisions, and the calls of their webhooks."""

from alembic import op

revision = "0024"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "CREATE TABLE IF NOT EXISTS tsg_policies ("
        " id UUID PRIMARY KEY DEFAULT gen_random_uuid(),"
        " account_id UUID NOT NULL REFERENCES tsg_accounts (id), group_id UUID NOT NULL REFERENCES tsg_groups (id),"
        " name TEXT NOT NULL, settings TEXT NOT NULL, version INT8 NOT NULL DEFAULT 1, token_hash TEXT,"
        " created_at TIMESTAMPTZ NOT NULL DEFAULT now(), updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),"
        " out_until TIMESTAMPTZ, in_until TIMESTAMPTZ, ran_until TIMESTAMPTZ DEFAULT now(), failures INT4 NOT NULL DEFAULT 0, memory TEXT,"
        " decision_id UUID, result TEXT, recommended INT8)"
    )
    op.execute("CREATE UNIQUE INDEX IF NOT EXISTS tsg_policies_name ON tsg_policies (group_id, name)")
    op.execute("CREATE UNIQUE INDEX IF NOT EXISTS tsg_policies_token ON tsg_policies (token_hash) WHERE token_hash IS NOT NULL")
    op.execute(
        "CREATE TABLE IF NOT EXISTS tsg_decisions ("
        " id UUID PRIMARY KEY DEFAULT gen_random_uuid(),"
        " account_id UUID NOT NULL REFERENCES tsg_accounts (id), group_id UUID NOT NULL REFERENCES tsg_groups (id),"
        " policy_id UUID NOT NULL, policy_name TEXT NOT NULL,"
        " at TIMESTAMPTZ NOT NULL DEFAULT now(), times INT8 NOT NULL DEFAULT 1, last_at TIMESTAMPTZ NOT NULL DEFAULT now(),"
        " result TEXT NOT NULL, by TEXT NOT NULL, message TEXT NOT NULL,"
        " value FLOAT8, target FLOAT8, samples INT8, reporting INT8, recommended INT8,"
        " capacity_before INT8 NOT NULL, capacity_after INT8 NOT NULL, next_at TIMESTAMPTZ)"
    )
    op.execute("CREATE INDEX IF NOT EXISTS tsg_decisions_of_group ON tsg_decisions (group_id, at, id)")
    op.execute("CREATE INDEX IF NOT EXISTS tsg_decisions_of_policy ON tsg_decisions (policy_id, at, id)")
    op.execute("CREATE INDEX IF NOT EXISTS tsg_decisions_by_age ON tsg_decisions (at)")
    op.execute(
        "CREATE TABLE IF NOT EXISTS tsg_hook_calls ("
        " id UUID PRIMARY KEY DEFAULT gen_random_uuid(), policy_id UUID NOT NULL, group_id UUID NOT NULL,"
        " key TEXT, at TIMESTAMPTZ NOT NULL DEFAULT now(), decided_at TIMESTAMPTZ)"
    )
    op.execute("CREATE UNIQUE INDEX IF NOT EXISTS tsg_hook_calls_key ON tsg_hook_calls (policy_id, key) WHERE key IS NOT NULL")
    op.execute("CREATE INDEX IF NOT EXISTS tsg_hook_calls_waiting ON tsg_hook_calls (group_id, at) WHERE decided_at IS NULL")
    op.execute("CREATE INDEX IF NOT EXISTS tsg_hook_calls_by_age ON tsg_hook_calls (at)")


def downgrade() -> None:
    for table in ("tsg_hook_calls", "tsg_decisions", "tsg_policies"):
        op.execute(f"DROP TABLE IF EXISTS {table}")
