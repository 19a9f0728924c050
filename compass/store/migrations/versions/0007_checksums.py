"""Checksum of each entry of the update log, and the mark of a store that went back in time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
readable_from = "0004"


def upgrade() -> None:
    """Add both; entries of older programs have no checksum."""
    op.add_column("update_log", sa.Column("checksum", sa.Text, nullable=False, server_default=""))
    op.add_column("clock", sa.Column("lost", sa.BigInteger, nullable=False, server_default="0"))


def downgrade() -> None:
    """Remove both."""
    op.drop_column("clock", "lost")
    op.drop_column("update_log", "checksum")
