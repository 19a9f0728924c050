"""Column for draining: a listener that fails meanwhile still drains after its recovery."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; its default is false, and the state of a draining listener shows the drain."""
    op.add_column("listener", sa.Column("draining", sa.Boolean, nullable=False, server_default=sa.false()))
    op.execute("UPDATE listener SET draining = (state = 'draining')")


def downgrade() -> None:
    """Remove the column: a listener that drains while it is suspect or down returns as `up` then; its state shows the
    rest."""
    op.drop_column("listener", "draining")
