"""Columns for the pool policies: zone, load and degradation of a listener."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add them; a listener that has not reported any is nowhere, and idle."""
    op.add_column("listener", sa.Column("zone", sa.Text, nullable=False, server_default=""))
    op.add_column("listener", sa.Column("load", sa.Double, nullable=False, server_default="0"))
    op.add_column("listener", sa.Column("degradation", sa.Double, nullable=False, server_default="0"))


def downgrade() -> None:
    """Take them away; what was reported is lost, and policies go by weight alone."""
    for name in ("degradation", "load", "zone"):
        op.drop_column("listener", name)
