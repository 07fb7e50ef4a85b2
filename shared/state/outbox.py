"""The outbox: a delivery is a row, made in the statement that writes its activity. None is lost, and none is of what was rolled back.

SQL that follows an INSERT of one activity in a WITH: the text begins behind that INSERT, which is called `recorded`.
"""

#: The kind of work whose subject is a notification.
DELIVERIES = "deliveries"

#: A delivery to each notification of the account that asks for it, and its sender is due.
SENT = (
    " RETURNING id, account_id, group_id, kind),"  # noqa: S608 - of constants alone
    " sent AS (INSERT INTO tsg_deliveries (notification_id, account_id, group_id, activity_id, kind)"
    " SELECT one.id, recorded.account_id, recorded.group_id, recorded.id, recorded.kind FROM recorded"
    " JOIN tsg_notifications AS one ON one.account_id = recorded.account_id AND one.enabled"
    " WHERE ('*' = ANY (one.groups) OR CAST(recorded.group_id AS text) = ANY (one.groups)) AND recorded.kind LIKE ANY (one.patterns)"
    " RETURNING notification_id),"
    f" wake_up AS (INSERT INTO tsg_work (kind, subject, due_at) SELECT '{DELIVERIES}', notification_id, now() FROM sent"
    " ON CONFLICT (kind, subject) DO UPDATE SET due_at = now(), woken_at = NULL)"
)
#: The condition that the account asks for no deliveries. A statement without `SENT` does nothing where it does not hold.
NONE_ASKED = "NOT EXISTS (SELECT 1 FROM tsg_notifications WHERE account_id = :owner AND enabled)"
