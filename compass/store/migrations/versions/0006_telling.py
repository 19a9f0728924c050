"""By which ways each server tells administrators, and up to where each way has told all."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
readable_from = "0004"


def upgrade() -> None:
    """Add both; a way that nothing is known of tells what is open."""
    op.add_column("server", sa.Column("ways", sa.Text, nullable=False, server_default="[]"))
    op.create_table(
        "told",
        sa.Column("way", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("way", name="pk_told"),
    )


def downgrade() -> None:
    """Take them away; after the next upgrade what is open is told once more."""
    op.drop_table("told")
    op.drop_column("server", "ways")
