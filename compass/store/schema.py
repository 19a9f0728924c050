"""Tables of a store, column by column. `migrations/` creates the same tables in steps; a test compares the two.

Times are UNIX times in seconds. Text that holds JSON is written and read by msgspec, never by SQL, so it is plain
text on both engines. Empty values are `''` and 0, as in the rows of the model; only a missing backup is NULL,
because it is a foreign key.
"""

from __future__ import annotations

import sqlalchemy as sa

VERSION_TABLE = "schema_version"
"""Table with the migration that a database is at."""

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
_Number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""Type of 64 bits on both engines: SQLite's INTEGER, which only as such can be the table's row id."""

clock = sa.Table(
    "clock",
    metadata,
    # Always 1: there is one row. Every transaction that writes updates the row, which is the lock of all writers.
    sa.Column("one", sa.SmallInteger, sa.CheckConstraint("one = 1", name="one"), primary_key=True, autoincrement=False),
    # Id of the store, 32 hexadecimal digits: revisions of different stores cannot be compared.
    sa.Column("store", sa.Text, nullable=False),
    # Last committed revision: the fence.
    sa.Column("revision", sa.BigInteger, nullable=False),
    # Last number in the security log.
    sa.Column("security", sa.BigInteger, nullable=False),
    # Last number in the administration log.
    sa.Column("administration", sa.BigInteger, nullable=False),
    # Time of the store's creation, by the database's clock (UTC).
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.current_timestamp()),
    # Digest of all rows (opengnsp.md, "Digests"), 64 hexadecimal digits; '': not recorded.
    sa.Column("digest", sa.Text, nullable=False, server_default=""),
    # Revision of the digest. A server without digests advances `revision` and leaves these two unchanged.
    sa.Column("digest_at", sa.BigInteger, nullable=False, server_default="0"),
    # Last revision at which a server found the digest wrong: the other servers then also verify the tables.
    sa.Column("doubted", sa.BigInteger, nullable=False, server_default="0"),
    # Oldest schema whose programs can use this one during an upgrade.
    sa.Column("readable_from", sa.Text, nullable=False, server_default=""),
)

category = sa.Table(
    "category",
    metadata,
    # One DNS label.
    sa.Column("name", sa.Text, primary_key=True),
    # Id of the backup service; NULL: none. Checked at the end of the transaction: the two tables refer to each other.
    sa.Column(
        "backup",
        sa.Text,
        sa.ForeignKey("service.id", use_alter=True, deferrable=True, initially="DEFERRED"),
        nullable=True,
    ),
    # JSON of `Policy`: how its listeners are judged and selected.
    sa.Column("policy", sa.Text, nullable=False),
    # Revision of the last change of the category, its services or its dependencies.
    sa.Column("revision", sa.BigInteger, nullable=False),
)

service = sa.Table(
    "service",
    metadata,
    # `service.category`.
    sa.Column("id", sa.Text, primary_key=True),
    # Second part of the id.
    sa.Column("category", sa.Text, sa.ForeignKey("category.name"), nullable=False),
    # Revision of the last change of one of its listeners, or of its own creation.
    sa.Column("revision", sa.BigInteger, nullable=False),
)

listener = sa.Table(
    "listener",
    metadata,
    # Id of its service.
    sa.Column("service", sa.Text, sa.ForeignKey("service.id"), primary_key=True),
    # IPv4 or IPv6 literal in canonical form.
    sa.Column("address", sa.Text, primary_key=True),
    # TCP port.
    sa.Column(
        "port",
        sa.Integer,
        sa.CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
        primary_key=True,
        autoincrement=False,
    ),
    # One of `State`.
    sa.Column(
        "state",
        sa.Text,
        sa.CheckConstraint("state IN ('up', 'slow', 'suspect', 'down', 'draining', 'offline')", name="state"),
        nullable=False,
    ),
    # Time of the last change of state.
    sa.Column("changed_at", sa.Double, nullable=False),
    # Instance that registered it last; up to 2**63 - 1.
    sa.Column("epoch", sa.BigInteger, nullable=False),
    # Name of the host that registered it; '': an administrator did.
    sa.Column("host", sa.Text, nullable=False),
    # Share of users, 0 to 65535.
    sa.Column("weight", sa.Integer, sa.CheckConstraint("weight BETWEEN 0 AND 65535", name="weight"), nullable=False),
    # JSON object of strings.
    sa.Column("metadata", sa.Text, nullable=False),
    # Cause of its state, as text.
    sa.Column("cause", sa.Text, nullable=False),
    # True: no new users, independent of its health.
    sa.Column("draining", sa.Boolean, nullable=False, server_default=sa.false()),
    # Zone, one label; '': unknown.
    sa.Column("zone", sa.Text, nullable=False, server_default=""),
    # Share of its capacity in use, 0 to 1, from its last report.
    sa.Column("load", sa.Double, nullable=False, server_default="0"),
    # Load that one more user adds.
    sa.Column("degradation", sa.Double, nullable=False, server_default="0"),
)

dependency = sa.Table(
    "dependency",
    metadata,
    # Category whose services receive the changes.
    sa.Column("category", sa.Text, sa.ForeignKey("category.name"), primary_key=True),
    # Category whose changes they receive.
    sa.Column("on", sa.Text, sa.ForeignKey("category.name"), primary_key=True),
)

credential = sa.Table(
    "credential",
    metadata,
    # Id of the service that authenticates itself with it.
    sa.Column("service", sa.Text, sa.ForeignKey("service.id"), primary_key=True),
    # Name for administrators: the prefix of the digest.
    sa.Column("id", sa.Text, primary_key=True),
    # SHA-256 of the token, hexadecimal; the token is not stored.
    sa.Column("digest", sa.Text, nullable=False),
    # Time of issue.
    sa.Column("created_at", sa.Double, nullable=False),
    # Time from which it is refused; 0: never.
    sa.Column("expires_at", sa.Double, nullable=False),
)

host = sa.Table(
    "host",
    metadata,
    # Name in its certificate.
    sa.Column("name", sa.Text, primary_key=True),
    # Address to which the server connects; '': none.
    sa.Column("update_address", sa.Text, nullable=False),
    # Port of the update address; 0: none.
    sa.Column(
        "update_port",
        sa.Integer,
        sa.CheckConstraint("update_port BETWEEN 0 AND 65535", name="update_port"),
        nullable=False,
    ),
    # JSON array of the service ids on whose behalf it receives changes. They need not exist (yet): no foreign key.
    sa.Column("services", sa.Text, nullable=False),
    # True: all its requests are refused.
    sa.Column("barred", sa.Boolean, nullable=False),
)

alert = sa.Table(
    "alert",
    metadata,
    # Kind of the incident, and the listener.
    sa.Column("id", sa.Text, primary_key=True),
    # `failure` or `slow`.
    sa.Column("kind", sa.Text, sa.CheckConstraint("kind IN ('failure', 'slow')", name="kind"), nullable=False),
    # Time of its begin.
    sa.Column("opened_at", sa.Double, nullable=False),
    # Text for the administrators.
    sa.Column("text", sa.Text, nullable=False),
)

update_log = sa.Table(
    "update_log",
    metadata,
    # Revision of the change: 1, 2, 3 and so on without a gap; the oldest are trimmed.
    sa.Column("revision", _Number, primary_key=True, autoincrement=False),
    # Time of the decision.
    sa.Column("time", sa.Double, nullable=False),
    # Operation: register, deregister, died, report, confirm, category-add ...
    sa.Column("operation", sa.Text, nullable=False),
    # Subject: a service id for listeners and credentials, or the object's name.
    sa.Column("subject", sa.Text, nullable=False),
    # Address of the listener; '' for other objects.
    sa.Column("address", sa.Text, nullable=False),
    # Port of the listener; 0 for other objects.
    sa.Column("port", sa.Integer, nullable=False),
    # New state of the listener, or `removed`; '' for other objects that were set.
    sa.Column("state", sa.Text, nullable=False),
    # Revision of the change before this one on the same topic.
    sa.Column("previous", sa.BigInteger, nullable=False),
    # JSON of the whole `Change`, which replicas apply.
    sa.Column("change", sa.Text, nullable=False),
)

# Volatile facts: the servers of this store, and the sessions of hosts (`compass.model.cluster`).
server = sa.Table(
    "server",
    metadata,
    # Id of one run of a server: hexadecimal digits, new at each start.
    sa.Column("id", sa.Text, primary_key=True),
    # Name as in logs and replies; two runs may have the same.
    sa.Column("name", sa.Text, nullable=False),
    # Program and version.
    sa.Column("software", sa.Text, nullable=False),
    # Time of its start, by the server's clock.
    sa.Column("started_at", sa.Double, nullable=False),
    # Time of its last beat, by the database's clock.
    sa.Column("seen_at", sa.Double, nullable=False),
    # Number of its last beat: a server is silent if this does not change.
    sa.Column("beat", sa.BigInteger, nullable=False),
    # Last revision that it has applied.
    sa.Column("revision", sa.BigInteger, nullable=False),
    # Number of its connections.
    sa.Column("sessions", sa.Integer, nullable=False),
    # Number of those with a subscription.
    sa.Column("watching", sa.Integer, nullable=False),
    # True: it has hosts and trusts its own probes.
    sa.Column("able", sa.Boolean, nullable=False),
    # Largest number among its presences.
    sa.Column("entry", sa.BigInteger, nullable=False),
    # Revision that all its hosts hold, except those in `behind`; -1: too many lag.
    sa.Column("held", sa.BigInteger, nullable=False),
    # JSON array of `HostLag`.
    sa.Column("behind", sa.Text, nullable=False),
    # JSON array of the names of the channels by which it notifies administrators.
    sa.Column("ways", sa.Text, nullable=False, server_default="[]"),
)

told = sa.Table(
    "told",
    metadata,
    # Name of a channel to administrators.
    sa.Column("way", sa.Text, primary_key=True),
    # Revision up to which the channel has delivered everything. The next sender begins after it.
    sa.Column("revision", sa.BigInteger, nullable=False),
)

presence = sa.Table(
    "presence",
    metadata,
    # Name of the host. The entry stays until its server is removed.
    sa.Column("host", sa.Text, primary_key=True),
    # Id of the server that has its session or had it last. No foreign key: a server may be removed first.
    sa.Column("server", sa.Text, nullable=False),
    # Number of the entry at that server: readers read only newer ones.
    sa.Column("entry", sa.BigInteger, nullable=False),
    # One of `Where`.
    sa.Column("state", sa.Text, sa.CheckConstraint("state IN ('here', 'left', 'lost')", name="state"), nullable=False),
    # Revision that it held when the session ended.
    sa.Column("held", sa.BigInteger, nullable=False),
    sa.Index("ix_presence_server", "server", "entry"),
)

security_log = sa.Table(
    "security_log",
    metadata,
    # 1, 2, 3 and so on without a gap, in the order of the commits; the oldest are trimmed.
    sa.Column("number", _Number, primary_key=True, autoincrement=False),
    # Time of the refusal.
    sa.Column("time", sa.Double, nullable=False),
    # Requested operation.
    sa.Column("operation", sa.Text, nullable=False),
    # Service or object of the request, as the client spelled it.
    sa.Column("subject", sa.Text, nullable=False),
    # JSON of the request without its credential, cut at PARAMETERS_MAX.
    sa.Column("parameters", sa.Text, nullable=False),
    # Origin of the connection.
    sa.Column("origin", sa.Text, nullable=False),
    # Name in the certificate.
    sa.Column("principal", sa.Text, nullable=False),
    # Reason of the refusal.
    sa.Column("reason", sa.Text, nullable=False),
)

administration_log = sa.Table(
    "administration_log",
    metadata,
    # 1, 2, 3 and so on without a gap, in the order of the commits; the oldest are trimmed.
    sa.Column("number", _Number, primary_key=True, autoincrement=False),
    # Time of the decision.
    sa.Column("time", sa.Double, nullable=False),
    # Requested operation.
    sa.Column("operation", sa.Text, nullable=False),
    # JSON of the request without its credential, cut at PARAMETERS_MAX.
    sa.Column("arguments", sa.Text, nullable=False),
    # Origin of the connection.
    sa.Column("origin", sa.Text, nullable=False),
    # Name in the certificate.
    sa.Column("principal", sa.Text, nullable=False),
    # `done` or the refusal's code.
    sa.Column("outcome", sa.Text, nullable=False),
    # Revision after the decision.
    sa.Column("revision", sa.BigInteger, nullable=False),
)
