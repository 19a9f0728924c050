"""First tables. `compass/store/schema.py` describes the columns."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    _create_clock()
    _create_objects()
    _create_dependency_and_credential()
    _create_listener()
    _create_hosts_and_alerts()
    _create_logs()


def _create_clock() -> None:
    op.create_table(
        "clock",
        sa.Column("one", sa.SmallInteger, autoincrement=False, nullable=False),
        sa.Column("store", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("security", sa.BigInteger, nullable=False),
        sa.Column("administration", sa.BigInteger, nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            nullable=False,
            server_default=sa.func.current_timestamp(),
        ),
        sa.CheckConstraint("one = 1", name=op.f("ck_clock_one")),
        sa.PrimaryKeyConstraint("one", name="pk_clock"),
    )


def _create_objects() -> None:
    op.create_table(
        "category",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("backup", sa.Text, nullable=True),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        # On SQLite the key is part of the table; PostgreSQL requires the other table first.
        sa.ForeignKeyConstraint(
            ["backup"],
            ["service.id"],
            name="fk_category_backup",
            deferrable=True,
            initially="DEFERRED",
            use_alter=True,
        ),
        sa.PrimaryKeyConstraint("name", name="pk_category"),
    )
    op.create_table(
        "service",
        *_texts("id", "category"),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.ForeignKeyConstraint(["category"], ["category.name"], name="fk_service_category"),
        sa.PrimaryKeyConstraint("id", name="pk_service"),
    )
    if op.get_context().dialect.supports_alter:
        op.create_foreign_key(
            "fk_category_backup",
            "category",
            "service",
            ["backup"],
            ["id"],
            deferrable=True,
            initially="DEFERRED",
        )


def _create_dependency_and_credential() -> None:
    op.create_table(
        "dependency",
        *_texts("category", "on"),
        sa.ForeignKeyConstraint(["category"], ["category.name"], name="fk_dependency_category"),
        sa.ForeignKeyConstraint(["on"], ["category.name"], name="fk_dependency_on"),
        sa.PrimaryKeyConstraint("category", "on", name="pk_dependency"),
    )
    op.create_table(
        "credential",
        *_texts("service", "id", "digest"),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.ForeignKeyConstraint(["service"], ["service.id"], name="fk_credential_service"),
        sa.PrimaryKeyConstraint("service", "id", name="pk_credential"),
    )


def _create_listener() -> None:
    op.create_table(
        "listener",
        *_texts("service", "address"),
        sa.Column("port", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("weight", sa.Integer, nullable=False),
        *_texts("metadata", "cause"),
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name=op.f("ck_listener_port")),
        sa.CheckConstraint(
            "state IN ('up', 'slow', 'suspect', 'down', 'draining', 'offline')", name=op.f("ck_listener_state")
        ),
        sa.CheckConstraint("weight BETWEEN 0 AND 65535", name=op.f("ck_listener_weight")),
        sa.ForeignKeyConstraint(["service"], ["service.id"], name="fk_listener_service"),
        sa.PrimaryKeyConstraint("service", "address", "port", name="pk_listener"),
    )


def _create_hosts_and_alerts() -> None:
    op.create_table(
        "host",
        *_texts("name", "update_address"),
        sa.Column("update_port", sa.Integer, nullable=False),
        sa.Column("services", sa.Text, nullable=False),
        sa.Column("barred", sa.Boolean, nullable=False),
        sa.CheckConstraint("update_port BETWEEN 0 AND 65535", name=op.f("ck_host_update_port")),
        sa.PrimaryKeyConstraint("name", name="pk_host"),
    )
    op.create_table(
        "alert",
        *_texts("id", "kind"),
        sa.Column("opened_at", sa.Double, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.CheckConstraint("kind IN ('failure', 'slow')", name=op.f("ck_alert_kind")),
        sa.PrimaryKeyConstraint("id", name="pk_alert"),
    )


def _create_logs() -> None:
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "update_log",
        sa.Column("revision", number, autoincrement=False, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        *_texts("operation", "subject", "address"),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("previous", sa.BigInteger, nullable=False),
        sa.Column("change", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_update_log"),
    )
    op.create_table(
        "security_log",
        sa.Column("number", number, autoincrement=False, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        *_texts("operation", "subject", "parameters", "origin", "principal", "reason"),
        sa.PrimaryKeyConstraint("number", name="pk_security_log"),
    )
    op.create_table(
        "administration_log",
        sa.Column("number", number, autoincrement=False, nullable=False),
        sa.Column("time", sa.Double, nullable=False),
        *_texts("operation", "arguments", "origin", "principal", "outcome"),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_administration_log"),
    )


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]
