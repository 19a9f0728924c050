"""Columns for the digest of the store, and for the oldest programs that can use it during an upgrade."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
readable_from = "0004"


def upgrade() -> None:
    """Add the columns, without values."""
    op.add_column("clock", sa.Column("digest", sa.Text, nullable=False, server_default=""))
    op.add_column("clock", sa.Column("digest_at", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("clock", sa.Column("doubted", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("clock", sa.Column("readable_from", sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    """Remove the columns."""
    for column in ("readable_from", "doubted", "digest_at", "digest"):
        op.drop_column("clock", column)
