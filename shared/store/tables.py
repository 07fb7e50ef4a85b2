"""The tables. Five are those of 2018 under their old names and columns; the rest is ours. No behaviour here.

Their history is in `shared/store/migrations`; a test holds the two together.
"""

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    false,
    func,
    text,
    true,
)

metadata = MetaData()


def _id() -> Column[str]:
    return Column("id", Uuid(as_uuid=False), primary_key=True, server_default=text("gen_random_uuid()"))


def _reference(name: str, target: str | None = None, *, nullable: bool = False) -> Column[str]:
    keys = [ForeignKey(target)] if target else []
    return Column(name, Uuid(as_uuid=False), *keys, nullable=nullable)


def _time(name: str, *, nullable: bool = False, now: bool = False) -> Column[datetime]:
    return Column(name, DateTime(timezone=True), nullable=nullable, server_default=func.now() if now else None)


def _archived() -> Column[bool]:
    return Column("archived", Boolean, nullable=True, server_default=false())


keys = Table(
    "tsg_keys",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("fingerprint", Text),
    # Sealed (see shared.clients.keys), or a PEM in clear text that the 2018 service left.
    Column("material", Text),
    _reference("account_id", nullable=True),
    _time("created_at"),
    _time("updated_at"),
    _archived(),
    # When CloudAPI was seen to know the key. Ours.
    _time("registered_at", nullable=True),
)

accounts = Table(
    "tsg_accounts",
    metadata,
    _id(),
    Column("account_name", Text, nullable=False),
    Column("triton_uuid", Text),
    _reference("key_id", "tsg_keys.id", nullable=True),
    _time("created_at"),
    _time("updated_at"),
    _archived(),
    # What was left of CloudAPI's request budget, and when. Ours, as is all that follows.
    Column("budget_left", Double),
    _time("budget_at", nullable=True),
    # The lease as programs of the previous release know it (see `shared.state.leases`).
    Column("lease_owner", Text),
    Column("lease_token", BigInteger, nullable=False, server_default=text("0")),
    _time("lease_until", nullable=True),
    Index("tsg_accounts_live_triton_uuid", "triton_uuid", unique=True, postgresql_where=text("NOT archived")),
)

users = Table(
    "tsg_users",
    metadata,
    _id(),
    Column("username", Text, nullable=False),
    _reference("account_id", "tsg_accounts.id"),
    _time("created_at"),
    _time("updated_at"),
    _archived(),
    # Ours: CloudAPI lets the user make machines, too.
    Column("may_write", Boolean, nullable=False, server_default=text("false")),
)

templates = Table(
    "tsg_templates",
    metadata,
    _id(),
    Column("template_name", Text, nullable=False),
    _reference("account_id", "tsg_accounts.id"),
    Column("package", Text, nullable=False),
    Column("image_id", Text, nullable=False),
    Column("firewall_enabled", Boolean, server_default=false()),
    # UUIDs joined by commas, and JSON objects as text: the forms of 2018.
    Column("networks", Text),
    Column("userdata", Text),
    Column("metadata", Text),
    Column("tags", Text),
    # What these columns can't say, as a JSON document with a version (see `shared.spec.spec`). Ours.
    Column("more", Text),
    _time("created_at"),
    _archived(),
    Index("tsg_templates_listed", "account_id", "created_at", "id", postgresql_where=text("NOT archived")),
    Index("tsg_templates_live_name", "account_id", "template_name", unique=True, postgresql_where=text("NOT archived")),
)

groups = Table(
    "tsg_groups",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    _reference("template_id", "tsg_templates.id"),
    _reference("account_id", "tsg_accounts.id"),
    Column("capacity", BigInteger, nullable=False),
    Column("health_check_interval", BigInteger, server_default=text("300")),
    _time("created_at"),
    _time("updated_at"),
    _archived(),
    # One more with every change that its owner asked for. Ours, as is all that follows.
    Column("generation", BigInteger, nullable=False, server_default=text("1")),
    # Its last change, in words: the first link of every later activity's cause.
    Column("cause", Text),
    # The request that changed it last: the thread from a POST to its instances in the logs.
    Column("request_id", Text),
    # What its owner asks for beyond these columns, as a JSON document with a version. And the template before the newest rollout.
    Column("more", Text),
    _reference("previous_template_id", nullable=True),
    # Made by the 2018 service, which tagged machines with the group's name alone.
    Column("by_name", Boolean, nullable=False, server_default=true()),
    # Set by a writer that knows no state: a program of the previous release, or SQL by hand. See `shared.state.adoption`.
    _time("check_at", nullable=True, now=True),
    Index("tsg_groups_listed", "account_id", "created_at", "id", postgresql_where=text("NOT archived")),
    Index("tsg_groups_live_name", "account_id", "name", unique=True, postgresql_where=text("NOT archived")),
    Index("tsg_groups_due", "check_at", "account_id", postgresql_where=text("check_at IS NOT NULL")),
    Index("tsg_groups_template", "template_id"),
    # Those of the 2018 service, the deleted ones too.
    Index("tsg_groups_by_name", "account_id", "name", postgresql_where=text("by_name")),
    # Groups with a health check.
    Index("tsg_groups_probed", "id", postgresql_where=text("""more LIKE '%"health_check": {%' AND NOT archived""")),
)

#: What the service has observed of a group: one row for each.
group_state = Table(
    "tsg_group_state",
    metadata,
    Column("group_id", Uuid(as_uuid=False), ForeignKey("tsg_groups.id"), primary_key=True),
    _reference("account_id"),
    # The generation of the group, written with each change; and the one that a worker last reconciled.
    Column("generation", BigInteger, nullable=False, server_default=text("1")),
    Column("observed_generation", BigInteger, nullable=False, server_default=text("0")),
    # When it was last changed, and when to check it next; null once it is deleted and has long been empty.
    _time("changed_at", now=True),
    _time("check_at", nullable=True, now=True),
    _time("checked_at", nullable=True),
    _time("emptied_at", nullable=True),
    # Digest of CloudAPI's list at the last check, where the next one has nothing to do while the list is the same; and when that one was to
    # be. A check at another time was asked for.
    Column("listing", Text),
    _time("rest_at", nullable=True),
    # Checks in a row that failed.
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("last_error", Text),
    # What it waits for (shared.reasons), and since when.
    Column("reason", Text),
    _time("reason_since", nullable=True),
    # Pacing of launches: attempts in a row that failed, launches that may be under way at once (null: as many as are missing), nothing
    # before then. And machines that ran and whose replacement does not run yet.
    Column("launch_failures", Integer, nullable=False, server_default=text("0")),
    Column("launch_window", BigInteger),
    _time("launch_at", nullable=True),
    Column("replacing", BigInteger, nullable=False, server_default=text("0")),
    # The Nomad job, where Nomad runs the scaling: its id, and the generation it last ran for.
    Column("job_id", Text),
    Column("job_generation", BigInteger, nullable=False, server_default=text("0")),
    # What is wrong with it, in Nomad's words; when we last had a run started, and when a run last came to the group.
    Column("job_error", Text),
    _time("job_forced_at", nullable=True),
    _time("job_ran_at", nullable=True),
    Index("tsg_group_state_job_failing", "group_id", postgresql_where=text("job_error IS NOT NULL")),
    # Due groups of all accounts, for the scheduler; and of one, for its worker.
    Index("tsg_group_state_due", "check_at", "account_id", postgresql_where=text("check_at IS NOT NULL")),
    Index("tsg_group_state_of_account", "account_id", "check_at", postgresql_where=text("check_at IS NOT NULL")),
    Index("tsg_group_state_job", "job_id", unique=True, postgresql_where=text("job_id IS NOT NULL")),
    # For counts: changes that no worker has looked at, and what groups wait for.
    Index("tsg_group_state_unseen", "changed_at", postgresql_where=text("observed_generation < generation AND check_at IS NOT NULL")),
    Index("tsg_group_state_reason", "reason", postgresql_where=text("emptied_at IS NULL")),
)

#: What is to be looked at, when, and who has claimed it (see `shared.state.work`).
work = Table(
    "tsg_work",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("subject", Uuid(as_uuid=False), primary_key=True),
    # Null: its due time is derived elsewhere, or it waits for somebody to make it due.
    _time("due_at", nullable=True),
    # When the scheduler last sent a wake-up that no worker has answered yet.
    _time("woken_at", nullable=True),
    Column("owner", Text),
    Column("token", BigInteger, nullable=False, server_default=text("0")),
    _time("until", nullable=True),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("last_error", Text),
    Index("tsg_work_due", "kind", "due_at", postgresql_where=text("due_at IS NOT NULL")),
)

instances = Table(
    "tsg_instances",
    metadata,
    # The launch, named before CloudAPI is asked: the machine carries it in its tag `tsg.launch`.
    _id(),
    _reference("account_id", "tsg_accounts.id"),
    _reference("group_id", "tsg_groups.id"),
    # Null until CloudAPI has answered.
    _reference("machine_id", nullable=True),
    # The template it was made from; null until that is known. And what is asked of it: `run` or `gone`.
    _reference("template_id", nullable=True),
    Column("desired", Text, nullable=False, server_default=text("'run'")),
    Column("state", Text, nullable=False),
    _time("state_since", now=True),
    _time("launched_at", now=True),
    # When it was first seen running, and since when it has been.
    _time("ran_at", nullable=True),
    _time("running_since", nullable=True),
    _time("gone_at", nullable=True),
    # The rollout that launched it.
    _reference("rollout_id", nullable=True),
    # What CloudAPI says of the machine.
    Column("name", Text),
    _time("created_at", nullable=True),
    _reference("compute_node", nullable=True),
    Column("primary_ip", Text),
    # Its address on each of its networks: a JSON object, by the network's UUID.
    Column("addresses", Text),
    # Its owner's protection against scale-in and rollouts.
    Column("protected", Boolean, nullable=False, server_default=false()),
    _time("protected_until", nullable=True),
    Column("protected_note", Text),
    # Its health: the application's own vote, and what the probes found (`healthy`, `unhealthy`; null: nothing yet).
    Column("vote", Text),
    Column("vote_note", Text),
    _time("voted_at", nullable=True),
    Column("probe", Text),
    _time("probe_since", nullable=True),
    Column("probe_error", Text),
    # Its drain: since when, and when it is over and the machine may be deleted.
    _time("draining_since", nullable=True),
    _time("drained_at", nullable=True),
    Index("tsg_instances_machine", "account_id", "machine_id", unique=True),
    Index("tsg_instances_group", "group_id", "gone_at"),
    Index("tsg_instances_state", "state", postgresql_where=text("gone_at IS NULL")),
    Index("tsg_instances_gone", "gone_at", postgresql_where=text("gone_at IS NOT NULL")),
)

#: The rollouts of groups: what was asked for, and how far they were at the last look (see `shared.state.rollouts`).
rollouts = Table(
    "tsg_rollouts",
    metadata,
    _id(),
    _reference("account_id", "tsg_accounts.id"),
    _reference("group_id", "tsg_groups.id"),
    _reference("template_id"),
    _reference("previous_template_id"),
    # A JSON document with a version.
    Column("settings", Text, nullable=False),
    Column("state", Text, nullable=False),
    # What its owner asked for since the last look: `pause`, `resume`, `cancel`, `rollback`.
    Column("asked", Text),
    Column("reason", Text),
    Column("message", Text),
    # The index of the step it is at, and the failures so far.
    Column("step", BigInteger, nullable=False, server_default=text("0")),
    Column("failures", BigInteger, nullable=False, server_default=text("0")),
    # A JSON object.
    Column("counts", Text),
    _time("progress_at", nullable=True),
    _time("next_at", nullable=True),
    Column("request_id", Text),
    _time("created_at", now=True),
    _time("started_at", nullable=True),
    _time("ended_at", nullable=True),
    Index("tsg_rollouts_under_way", "group_id", unique=True, postgresql_where=text("ended_at IS NULL")),
    Index("tsg_rollouts_listed", "group_id", "created_at", "id"),
)

#: The changefeed of each account that has groups, as its watcher last noted it (see `shared.state.feeds`).
feeds = Table(
    "tsg_feeds",
    metadata,
    Column("account_id", Uuid(as_uuid=False), primary_key=True),
    # The `tsg-feed` whose it is: the subject of its row of work, whose claim says whether it is alive.
    _reference("watcher"),
    Column("state", Text, nullable=False),
    Column("problem", Text),
    _time("since", now=True),
    Index("tsg_feeds_since", "since"),
)

activities = Table(
    "tsg_activities",
    metadata,
    _id(),
    _reference("account_id", "tsg_accounts.id"),
    _reference("group_id", "tsg_groups.id"),
    # What was done (shared.state.activities has the words), how it ended, and a sentence about it.
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("description", Text, nullable=False),
    _reference("machine_id", nullable=True),
    _reference("rollout_id", nullable=True),
    Column("error_code", Text),
    Column("cloudapi_request_id", Text),
    Column("request_id", Text),
    Column("actor", Text, nullable=False),
    # What led to it, the first cause first.
    Column("cause", Text),
    _time("started_at", nullable=True),
    # When it was done.
    _time("at", now=True),
    Index("tsg_activities_of_group", "group_id", "at"),
    Index("tsg_activities_by_age", "at"),
)

idempotency_keys = Table(
    "tsg_idempotency_keys",
    metadata,
    Column("account_id", Uuid(as_uuid=False), ForeignKey("tsg_accounts.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    # A fingerprint of the request, and what it was answered.
    Column("request", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Text),
    Column("location", Text),
    Column("etag", Text),
    _time("created_at", now=True),
    Index("tsg_idempotency_keys_by_age", "created_at"),
)

#: How groups are scaled: what their owners ask for, and what a policy has behind it (see `shared.spec.policy`).
policies = Table(
    "tsg_policies",
    metadata,
    _id(),
    _reference("account_id", "tsg_accounts.id"),
    _reference("group_id", "tsg_groups.id"),
    Column("name", Text, nullable=False),
    # A JSON document with a version; one more with every change of it; and of a webhook the SHA-256 of its token.
    Column("settings", Text, nullable=False),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Column("token_hash", Text),
    _time("created_at", now=True),
    _time("updated_at", now=True),
    _time("out_until", nullable=True),
    _time("in_until", nullable=True),
    _time("ran_until", nullable=True, now=True),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    # A JSON document.
    Column("memory", Text),
    # Its last decision: another row is written when one of these is another.
    _reference("decision_id", nullable=True),
    Column("result", Text),
    Column("recommended", BigInteger),
    Index("tsg_policies_name", "group_id", "name", unique=True),
    Index("tsg_policies_token", "token_hash", unique=True, postgresql_where=text("token_hash IS NOT NULL")),
)

#: What was decided, and why: a row for each result or recommendation that is another than the last of its policy.
decisions = Table(
    "tsg_decisions",
    metadata,
    _id(),
    _reference("account_id", "tsg_accounts.id"),
    _reference("group_id", "tsg_groups.id"),
    # They outlive the policy.
    _reference("policy_id"),
    Column("policy_name", Text, nullable=False),
    _time("at", now=True),
    # How often it was decided so in a row, and when last.
    Column("times", BigInteger, nullable=False, server_default=text("1")),
    _time("last_at", now=True),
    # What came of it (shared.policies.verdict), what led to it (`schedule`, `measure`, `webhook`), and a sentence.
    Column("result", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("value", Double),
    Column("target", Double),
    Column("samples", BigInteger),
    Column("reporting", BigInteger),
    Column("recommended", BigInteger),
    Column("capacity_before", BigInteger, nullable=False),
    Column("capacity_after", BigInteger, nullable=False),
    _time("next_at", nullable=True),
    Index("tsg_decisions_of_group", "group_id", "at", "id"),
    Index("tsg_decisions_of_policy", "policy_id", "at", "id"),
    Index("tsg_decisions_by_age", "at"),
)

#: Calls of webhooks. Each is decided about once; the row stays for a day, so that a repeated delivery is known.
hook_calls = Table(
    "tsg_hook_calls",
    metadata,
    # That of its decision.
    _id(),
    _reference("policy_id"),
    _reference("group_id"),
    # What the caller named the delivery by.
    Column("key", Text),
    _time("at", now=True),
    _time("decided_at", nullable=True),
    Index("tsg_hook_calls_key", "policy_id", "key", unique=True, postgresql_where=text("key IS NOT NULL")),
    Index("tsg_hook_calls_waiting", "group_id", "at", postgresql_where=text("decided_at IS NULL")),
    Index("tsg_hook_calls_by_age", "at"),
)

#: Where an account's activities are told, and which of them (see `shared.state.notifications`).
notifications = Table(
    "tsg_notifications",
    metadata,
    _id(),
    _reference("account_id", "tsg_accounts.id"),
    Column("url", Text, nullable=False),
    # Ids of groups or `*`; kinds of activities as they were asked for, and as SQL's LIKE has them.
    Column("groups", ARRAY(Text), nullable=False),
    Column("kinds", ARRAY(Text), nullable=False),
    Column("patterns", ARRAY(Text), nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=true()),
    Column("disabled_why", Text),
    # Sealed, as private keys are.
    Column("secret", Text, nullable=False),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    _time("created_at", now=True),
    _time("updated_at", now=True),
    Index("tsg_notifications_listed", "account_id", "created_at", "id"),
)

#: One activity told to one receiver, written with the activity (see `shared.state.outbox`).
deliveries = Table(
    "tsg_deliveries",
    metadata,
    _id(),
    _reference("notification_id"),
    _reference("account_id"),
    _reference("group_id"),
    _reference("activity_id"),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'waiting'")),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    _time("due_at", now=True),
    Column("status", Integer),
    Column("last_error", Text),
    _time("at", now=True),
    # When it was sent first, or replayed.
    _time("first_at", now=True),
    _time("ended_at", nullable=True),
    Index("tsg_deliveries_listed", "notification_id", "at", "id"),
    Index("tsg_deliveries_waiting", "notification_id", "at", postgresql_where=text("state = 'waiting'")),
    Index("tsg_deliveries_ended", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
)

#: Columns that only programs of the previous release use. The next release drops them.
RETIRED = {
    "tsg_accounts": ("rung_at",),
    "tsg_groups": (
        *("observed_generation", "emptied_at", "failures", "last_error", "reason", "reason_since", "checked_at"),
        *("launch_failures", "launch_window", "launch_at", "replacing"),
        *("job_id", "job_generation", "job_check_at", "job_claimed_until", "job_failures"),
    ),
}
