"""Indexes of the new tables; and none for old columns that no query searches by any more."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

INDEXES = {
    "tsg_group_state_due": ("", "tsg_group_state (check_at, account_id) WHERE check_at IS NOT NULL"),
    "tsg_group_state_job": ("UNIQUE", "tsg_group_state (job_id) WHERE job_id IS NOT NULL"),
    "tsg_group_state_unseen": ("", "tsg_group_state (changed_at) WHERE observed_generation < generation AND check_at IS NOT NULL"),
    "tsg_group_state_reason": ("", "tsg_group_state (reason) WHERE emptied_at IS NULL"),
    "tsg_work_due": ("", "tsg_work (kind, due_at) WHERE due_at IS NOT NULL"),
}
#: Of the previous release: its programs go on without them, more slowly.
RETIRED = {
    "tsg_groups_job": ("UNIQUE", "tsg_groups (job_id) WHERE job_id IS NOT NULL"),
    "tsg_groups_job_due": ("", "tsg_groups (job_check_at) WHERE job_check_at IS NOT NULL"),
    "tsg_groups_unseen": ("", "tsg_groups (updated_at) WHERE observed_generation < generation AND check_at IS NOT NULL"),
    "tsg_groups_reason": ("", "tsg_groups (reason) WHERE emptied_at IS NULL"),
}


def upgrade() -> None:
    _replace(RETIRED, INDEXES)


def downgrade() -> None:
    _replace(INDEXES, RETIRED)


def _replace(old: dict[str, tuple[str, str]], new: dict[str, tuple[str, str]]) -> None:
    for name, (kind, target) in new.items():
        op.execute(f"CREATE {kind} INDEX IF NOT EXISTS {name} ON {target}")
    for name in old:
        op.execute(f"DROP INDEX IF EXISTS {name}")
