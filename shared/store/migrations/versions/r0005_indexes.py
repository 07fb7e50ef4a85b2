"""Names are unique among what lives; what is due is found without reading the rest."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEXES = {
    "tsg_accounts_live_triton_uuid": ("UNIQUE", "tsg_accounts (triton_uuid) WHERE NOT archived"),
    "tsg_templates_live_name": ("UNIQUE", "tsg_templates (account_id, template_name) WHERE NOT archived"),
    "tsg_groups_live_name": ("UNIQUE", "tsg_groups (account_id, name) WHERE NOT archived"),
    "tsg_groups_due": ("", "tsg_groups (check_at, account_id) WHERE check_at IS NOT NULL"),
    "tsg_groups_template": ("", "tsg_groups (template_id)"),
    "tsg_instances_machine": ("UNIQUE", "tsg_instances (account_id, machine_id)"),
    "tsg_instances_group": ("", "tsg_instances (group_id, gone_at)"),
    "tsg_instances_gone": ("", "tsg_instances (gone_at) WHERE gone_at IS NOT NULL"),
}


def upgrade() -> None:
    for name, (kind, target) in INDEXES.items():
        op.execute(f"CREATE {kind} INDEX IF NOT EXISTS {name} ON {target}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")
