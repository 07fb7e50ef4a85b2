"""Two clocks at once: each due account and job is told to one of them, and neither runs into the other."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from sqlalchemy import text

from shared.state import adoption, jobs, leases
from shared.store.db import Database

CLOCKS, ACCOUNTS, ROUNDS = 2, 200, 5

FILL = """
WITH account AS (INSERT INTO tsg_accounts (account_name, triton_uuid, created_at, updated_at)
                 SELECT 'many' || n, gen_random_uuid()::text, now(), now() FROM generate_series(1, :accounts) n RETURNING id),
template AS (INSERT INTO tsg_templates (template_name, account_id, package, image_id, created_at)
             SELECT 't', id, 'p', 'i', now() FROM account RETURNING id, account_id)
INSERT INTO tsg_groups (name, template_id, account_id, capacity, created_at, updated_at)
SELECT 'g', id, account_id, 1, now(), now() FROM template RETURNING account_id::text, id::text
"""


def test_each_is_told_to_one(database: Database) -> None:
    with database.engine.begin() as connection:
        filled = connection.execute(text(FILL), {"accounts": ACCOUNTS}).all()
    accounts, groups = [account for account, _ in filled], [group for _, group in filled]
    with database.read() as connection:
        adoption.adopt(connection, limit=ACCOUNTS)
        jobs.insert_missing(connection)

    def together(claim: Callable[..., list[Any]]) -> Counter[str]:
        start = Barrier(CLOCKS)

        def look(_clock: int) -> list[str]:
            with database.read() as connection:
                start.wait(timeout=20)
                return [getattr(one, "group_id", one) for one in claim(connection, limit=1000)]

        with ThreadPoolExecutor(CLOCKS) as pool:
            return Counter(subject for told in pool.map(look, range(CLOCKS)) for subject in told)

    for _ in range(ROUNDS):
        with database.engine.begin() as connection:
            connection.execute(text("UPDATE tsg_work SET woken_at = NULL"))
            for table, column, key in (("tsg_group_state", "check_at", "group_id"), ("tsg_work", "due_at", "subject")):
                due = f"UPDATE {table} SET {column} = now() - random() * interval '1 hour' WHERE {key} = ANY(:ids ::uuid[])"
                connection.execute(text(due), {"ids": groups})
        told = together(leases.claim_due)
        assert [told[account] for account in accounts] == [1] * ACCOUNTS
        told = together(jobs.claim_due)
        assert [told[group] for group in groups] == [1] * ACCOUNTS
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE tsg_group_state SET check_at = NULL WHERE group_id = ANY(:ids ::uuid[])"), {"ids": groups})
        connection.execute(text("UPDATE tsg_work SET due_at = NULL WHERE subject = ANY(:ids ::uuid[])"), {"ids": groups})
