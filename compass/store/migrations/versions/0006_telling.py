"""Channels by which each server notifies administrators, and the progress of each channel."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
readable_from = "0004"


def upgrade() -> None:
    """Add both; a channel without progress sends the open incidents."""
    op.add_column("server", sa.Column("ways", sa.Text, nullable=False, server_default="[]"))
    op.create_table(
        "told",
        sa.Column("way", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("way", name="pk_told"),
    )


def downgrade() -> None:
    """Remove both; after the next upgrade the open incidents are sent once more."""
    op.drop_table("told")
    op.drop_column("server", "ways")
