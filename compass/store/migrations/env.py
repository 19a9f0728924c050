"""Environment of Alembic: runs the migrations on the connection of `compass.store.migrate`, inside its transaction."""

from __future__ import annotations

from alembic import context

from compass.store.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
