"""Alembic's entry: runs each revision in a transaction of its own on the connection that `shared.store.schema` hands in."""

from alembic import context

from shared.store import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.metadata,
    # CockroachDB: one change of the schema to a transaction.
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
