"""A job belongs to one group; due jobs, and a group's newest activities, are found without reading the rest."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INDEXES = {
    "tsg_groups_job": ("UNIQUE", "tsg_groups (job_id) WHERE job_id IS NOT NULL"),
    "tsg_groups_job_due": ("", "tsg_groups (job_check_at) WHERE job_check_at IS NOT NULL"),
    "tsg_activities_of_group": ("", "tsg_activities (group_id, at)"),
    "tsg_activities_by_age": ("", "tsg_activities (at)"),
}


def upgrade() -> None:
    for name, (kind, target) in INDEXES.items():
        op.execute(f"CREATE {kind} INDEX IF NOT EXISTS {name} ON {target}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")
