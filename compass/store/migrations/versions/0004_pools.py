"""Columns for the pool policies: zone, load and degradation of a listener."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns; the defaults mean unknown and idle."""
    op.add_column("listener", sa.Column("zone", sa.Text, nullable=False, server_default=""))
    op.add_column("listener", sa.Column("load", sa.Double, nullable=False, server_default="0"))
    op.add_column("listener", sa.Column("degradation", sa.Double, nullable=False, server_default="0"))


def downgrade() -> None:
    """Remove the columns; the reports are lost, and policies depend on weight alone."""
    for name in ("degradation", "load", "zone"):
        op.drop_column("listener", name)
