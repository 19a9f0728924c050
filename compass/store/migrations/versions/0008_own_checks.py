"""Columns for the check that a listener's own host makes, and its result."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
readable_from = "0004"


def upgrade() -> None:
    """Add the columns; the defaults mean that there is no check."""
    op.add_column("listener", sa.Column("check", sa.Text, nullable=False, server_default=""))
    op.add_column("listener", sa.Column("failing", sa.Text, nullable=False, server_default=""))
    op.add_column("listener", sa.Column("checked_at", sa.Double, nullable=False, server_default="0"))


def downgrade() -> None:
    """Remove the columns; hosts state the result of their checks again at their next session."""
    for name in ("checked_at", "failing", "check"):
        op.drop_column("listener", name)
