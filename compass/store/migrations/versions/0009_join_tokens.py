"""Join tokens, with which hosts get their first certificate."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
readable_from = "0004"


def upgrade() -> None:
    """Add the table: there are no tokens yet."""
    op.create_table(
        "join_token",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("also", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("created_by", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("used_at", sa.Double, nullable=False, server_default="0"),
        sa.Column("used_from", sa.Text, nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", name="pk_join_token"),
    )


def downgrade() -> None:
    """Remove the table: no open token can be used any more."""
    op.drop_table("join_token")
