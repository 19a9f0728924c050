"""The way from every earlier schema to this one, in Alembic's layout. The store runs it when it is opened."""
