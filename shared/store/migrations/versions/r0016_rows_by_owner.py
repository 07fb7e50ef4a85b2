"""Copy what was observed of each group, and its Nomad job, to their new tables. Data apart from schema: CockroachDB mixes the two badly."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

OBSERVED = (
    "observed_generation, check_at, checked_at, emptied_at, failures, last_error, reason, reason_since,"
    " launch_failures, launch_window, launch_at, replacing, job_id, job_generation"
)
STATE = f"""
    INSERT INTO tsg_group_state (group_id, account_id, generation, changed_at, {OBSERVED})
    SELECT id, account_id, generation, updated_at, {OBSERVED} FROM tsg_groups WHERE true
    ON CONFLICT (group_id) DO NOTHING
    """  # noqa: S608 - of constants alone
JOBS = """
    INSERT INTO tsg_work (kind, subject, due_at, failures)
    SELECT 'nomad_job', id, job_check_at, job_failures FROM tsg_groups WHERE job_id IS NOT NULL
    ON CONFLICT (kind, subject) DO NOTHING
    """
#: From here on, a time in this column is one that a program of the previous release has written.
TAKEN_OVER = "UPDATE tsg_groups SET check_at = NULL WHERE check_at IS NOT NULL"
#: The other way: programs of the previous release go on from what was observed since.
BACK = (
    "UPDATE tsg_groups SET job_id = NULL WHERE job_id IS NOT NULL",
    """
    UPDATE tsg_groups SET
        observed_generation = state.observed_generation, check_at = state.check_at, checked_at = state.checked_at,
        emptied_at = state.emptied_at, failures = state.failures, last_error = state.last_error, reason = state.reason,
        reason_since = state.reason_since, launch_failures = state.launch_failures, launch_window = state.launch_window,
        launch_at = state.launch_at, replacing = state.replacing, job_id = state.job_id, job_generation = state.job_generation,
        job_check_at = CASE WHEN state.emptied_at IS NOT NULL AND state.job_id IS NULL THEN NULL ELSE now() END,
        job_claimed_until = NULL, job_failures = 0
    FROM tsg_group_state AS state WHERE state.group_id = tsg_groups.id
    """,
    "UPDATE tsg_accounts SET lease_owner = NULL, lease_until = NULL, rung_at = NULL",
)


def upgrade() -> None:
    for statement in (STATE, JOBS, TAKEN_OVER):
        op.execute(statement)


def downgrade() -> None:
    for statement in BACK:
        op.execute(statement)
