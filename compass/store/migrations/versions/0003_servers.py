"""Tables for the cluster: the servers of a store, and the sessions of hosts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add both tables, empty: each server inserts itself when it starts."""
    op.create_table(
        "server",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("software", sa.Text, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("sessions", sa.Integer, nullable=False),
        sa.Column("watching", sa.Integer, nullable=False),
        sa.Column("able", sa.Boolean, nullable=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("behind", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_server"),
    )
    op.create_table(
        "presence",
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("entry", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.CheckConstraint("state IN ('here', 'left', 'lost')", name=op.f("ck_presence_state")),
        sa.PrimaryKeyConstraint("host", name="pk_presence"),
    )
    op.create_index("ix_presence_server", "presence", ["server", "entry"])


def downgrade() -> None:
    """Remove both tables, whose content is valid only while the servers run."""
    op.drop_table("presence")
    op.drop_table("server")
