"""Alembic's entry: runs the steps on the connection that `compass.store.migrate` holds, inside its transaction."""

from __future__ import annotations

from alembic import context

from compass.store.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
