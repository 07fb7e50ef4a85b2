"""What an owner asks of a group beyond the columns of 2018, what is asked and known of its members, and rollouts."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_GROUPS = {"more": "TEXT", "previous_template_id": "UUID"}
_INSTANCES = {
    "rollout_id": "UUID",
    "name": "TEXT",
    "created_at": "TIMESTAMPTZ",
    "compute_node": "UUID",
    "primary_ip": "TEXT",
    "addresses": "TEXT",
    "running_since": "TIMESTAMPTZ",
    "protected": "BOOL NOT NULL DEFAULT false",
    "protected_until": "TIMESTAMPTZ",
    "protected_note": "TEXT",
    "vote": "TEXT",
    "vote_note": "TEXT",
    "voted_at": "TIMESTAMPTZ",
    "probe": "TEXT",
    "probe_since": "TIMESTAMPTZ",
    "probe_error": "TEXT",
    "draining_since": "TIMESTAMPTZ",
    "drained_at": "TIMESTAMPTZ",
}


def upgrade() -> None:
    for table, columns in (("tsg_groups", _GROUPS), ("tsg_instances", _INSTANCES)):
        for name, kind in columns.items():
            op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {kind}")
    op.execute(
        "CREATE TABLE IF NOT EXISTS tsg_rollouts ("
        " id UUID PRIMARY KEY DEFAULT gen_random_uuid(),"
        " account_id UUID NOT NULL REFERENCES tsg_accounts (id),"
        " group_id UUID NOT NULL REFERENCES tsg_groups (id),"
        " template_id UUID NOT NULL, previous_template_id UUID NOT NULL,"
        " settings TEXT NOT NULL,"
        " state TEXT NOT NULL, asked TEXT, reason TEXT, message TEXT,"
        " step INT8 NOT NULL DEFAULT 0, failures INT8 NOT NULL DEFAULT 0, counts TEXT,"
        " progress_at TIMESTAMPTZ, next_at TIMESTAMPTZ,"
        " request_id TEXT,"
        " created_at TIMESTAMPTZ NOT NULL DEFAULT now(), started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ)"
    )
    op.execute("CREATE UNIQUE INDEX IF NOT EXISTS tsg_rollouts_under_way ON tsg_rollouts (group_id) WHERE ended_at IS NULL")
    op.execute("CREATE INDEX IF NOT EXISTS tsg_rollouts_listed ON tsg_rollouts (group_id, created_at, id)")
    op.execute("ALTER TABLE tsg_activities ADD COLUMN IF NOT EXISTS rollout_id UUID")
    op.execute(
        "CREATE INDEX IF NOT EXISTS tsg_groups_probed ON tsg_groups (id)"
        """ WHERE more LIKE '%"health_check": {%' AND NOT archived"""
    )


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS tsg_groups_probed")
    op.execute("ALTER TABLE tsg_activities DROP COLUMN IF EXISTS rollout_id")
    op.execute("DROP TABLE IF EXISTS tsg_rollouts")
    for table, columns in (("tsg_groups", _GROUPS), ("tsg_instances", _INSTANCES)):
        for name in columns:
            op.execute(f"ALTER TABLE {table} DROP COLUMN IF EXISTS {name}")
