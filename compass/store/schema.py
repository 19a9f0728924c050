"""Tables of a store, column by column. `migrations/` creates the same tables in steps; a test compares the two.

Times are UNIX times in seconds. Text that holds JSON is written and read by msgspec, never by SQL, so it is plain
text on both engines. Empty values are `''` and 0, as in the rows of the model; only a missing backup is NULL,
because it is a foreign key.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    false,
    func,
)

VERSION_TABLE = "schema_version"
"""Table with the migration that a database is at."""

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)
_Number = BigInteger().with_variant(Integer, "sqlite")
"""Type of 64 bits on both engines: SQLite's INTEGER, which only as such can be the table's row id."""

clock = Table(
    "clock",
    metadata,
    # Always 1: there is one row. Every transaction that writes updates the row, which is the lock of all writers.
    Column("one", SmallInteger, CheckConstraint("one = 1", name="one"), primary_key=True, autoincrement=False),
    # Id of the store, 32 hexadecimal digits: revisions of different stores cannot be compared.
    Column("store", Text, nullable=False),
    # Last committed revision: the fence.
    Column("revision", BigInteger, nullable=False),
    # Last number in the security log.
    Column("security", BigInteger, nullable=False),
    # Last number in the administration log.
    Column("administration", BigInteger, nullable=False),
    # Time of the store's creation, by the database's clock (UTC).
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.current_timestamp()),
    # Digest of all rows (opengnsp.md, "Digests"), 64 hexadecimal digits; '': not recorded.
    Column("digest", Text, nullable=False, server_default=""),
    # Revision of the digest. A server without digests advances `revision` and leaves these two unchanged.
    Column("digest_at", BigInteger, nullable=False, server_default="0"),
    # Last revision at which a server found the digest wrong: the other servers then also verify the tables.
    Column("doubted", BigInteger, nullable=False, server_default="0"),
    # Oldest schema whose programs can use this one during an upgrade.
    Column("readable_from", Text, nullable=False, server_default=""),
    # Revision that a server held although the store has not reached it: the store went back in time and is not served
    # until it has a new id. 0: no such revision is known.
    Column("lost", BigInteger, nullable=False, server_default="0"),
)

category = Table(
    "category",
    metadata,
    # One DNS label.
    Column("name", Text, primary_key=True),
    # Id of the backup service; NULL: none. Checked at the end of the transaction: the two tables refer to each other.
    Column(
        "backup",
        Text,
        ForeignKey("service.id", use_alter=True, deferrable=True, initially="DEFERRED"),
        nullable=True,
    ),
    # JSON of `Policy`: how its listeners are judged and selected.
    Column("policy", Text, nullable=False),
    # Revision of the last change of the category, its services or its dependencies.
    Column("revision", BigInteger, nullable=False),
)

service = Table(
    "service",
    metadata,
    # `service.category`.
    Column("id", Text, primary_key=True),
    # Second part of the id.
    Column("category", Text, ForeignKey("category.name"), nullable=False),
    # Revision of the last change of one of its listeners, or of its own creation.
    Column("revision", BigInteger, nullable=False),
)

listener = Table(
    "listener",
    metadata,
    # Id of its service.
    Column("service", Text, ForeignKey("service.id"), primary_key=True),
    # IPv4 or IPv6 literal in canonical form.
    Column("address", Text, primary_key=True),
    # TCP port.
    Column(
        "port",
        Integer,
        CheckConstraint("port BETWEEN 1 AND 65535", name="port"),
        primary_key=True,
        autoincrement=False,
    ),
    # One of `State`.
    Column(
        "state",
        Text,
        CheckConstraint("state IN ('up', 'slow', 'suspect', 'down', 'draining', 'offline')", name="state"),
        nullable=False,
    ),
    # Time of the last change of state.
    Column("changed_at", Double, nullable=False),
    # Instance that registered it last; up to 2**63 - 1.
    Column("epoch", BigInteger, nullable=False),
    # Name of the host that registered it; '': an administrator did.
    Column("host", Text, nullable=False),
    # Share of users, 0 to 65535.
    Column("weight", Integer, CheckConstraint("weight BETWEEN 0 AND 65535", name="weight"), nullable=False),
    # JSON object of strings.
    Column("metadata", Text, nullable=False),
    # Cause of its state, as text.
    Column("cause", Text, nullable=False),
    # True: no new users, independent of its health.
    Column("draining", Boolean, nullable=False, server_default=false()),
    # Zone, one label; '': unknown.
    Column("zone", Text, nullable=False, server_default=""),
    # Share of its capacity in use, 0 to 1, from its last report.
    Column("load", Double, nullable=False, server_default="0"),
    # Load that one more user adds.
    Column("degradation", Double, nullable=False, server_default="0"),
    # Check that its own host makes, in words; '': none.
    Column("check", Text, nullable=False, server_default=""),
    # Problem that this check found; '': it passes.
    Column("failing", Text, nullable=False, server_default=""),
    # Time of the last change of the check's result; 0: no check.
    Column("checked_at", Double, nullable=False, server_default="0"),
)

dependency = Table(
    "dependency",
    metadata,
    # Category whose services receive the changes.
    Column("category", Text, ForeignKey("category.name"), primary_key=True),
    # Category whose changes they receive.
    Column("on", Text, ForeignKey("category.name"), primary_key=True),
)

credential = Table(
    "credential",
    metadata,
    # Id of the service that authenticates itself with it.
    Column("service", Text, ForeignKey("service.id"), primary_key=True),
    # Name for administrators: the prefix of the digest.
    Column("id", Text, primary_key=True),
    # SHA-256 of the token, hexadecimal; the token is not stored.
    Column("digest", Text, nullable=False),
    # Time of issue.
    Column("created_at", Double, nullable=False),
    # Time from which it is refused; 0: never.
    Column("expires_at", Double, nullable=False),
)

host = Table(
    "host",
    metadata,
    # Name in its certificate.
    Column("name", Text, primary_key=True),
    # Address to which the server connects; '': none.
    Column("update_address", Text, nullable=False),
    # Port of the update address; 0: none.
    Column(
        "update_port",
        Integer,
        CheckConstraint("update_port BETWEEN 0 AND 65535", name="update_port"),
        nullable=False,
    ),
    # JSON array of the service ids on whose behalf it receives changes. They need not exist (yet): no foreign key.
    Column("services", Text, nullable=False),
    # True: all its requests are refused.
    Column("barred", Boolean, nullable=False),
)

alert = Table(
    "alert",
    metadata,
    # Kind of the incident, and the listener.
    Column("id", Text, primary_key=True),
    # `failure` or `slow`.
    Column("kind", Text, CheckConstraint("kind IN ('failure', 'slow')", name="kind"), nullable=False),
    # Time of its begin.
    Column("opened_at", Double, nullable=False),
    # Text for the administrators.
    Column("text", Text, nullable=False),
)

update_log = Table(
    "update_log",
    metadata,
    # Revision of the change: 1, 2, 3 and so on without a gap; the oldest are trimmed.
    Column("revision", _Number, primary_key=True, autoincrement=False),
    # Time of the decision.
    Column("time", Double, nullable=False),
    # Operation: register, deregister, died, report, confirm, category-add ...
    Column("operation", Text, nullable=False),
    # Subject: a service id for listeners and credentials, or the object's name.
    Column("subject", Text, nullable=False),
    # Address of the listener; '' for other objects.
    Column("address", Text, nullable=False),
    # Port of the listener; 0 for other objects.
    Column("port", Integer, nullable=False),
    # New state of the listener, or `removed`; '' for other objects that were set.
    Column("state", Text, nullable=False),
    # Revision of the change before this one on the same topic.
    Column("previous", BigInteger, nullable=False),
    # JSON of the whole `Change`, which replicas apply.
    Column("change", Text, nullable=False),
    # Checksum of the other columns (`row_mapping.checksum_of`); '' in entries of programs before schema 0007.
    Column("checksum", Text, nullable=False, server_default=""),
)

# Join tokens, with which hosts get their first certificate. Not in the update log: no host and no replica gets them.
join_token = Table(
    "join_token",
    metadata,
    # Prefix of the digest.
    Column("id", Text, primary_key=True),
    # SHA-256 of the token's secret, hexadecimal; the secret is not stored.
    Column("digest", Text, nullable=False),
    # Name of the host that may join with it.
    Column("host", Text, nullable=False),
    # JSON array of the further names and addresses in its certificate.
    Column("also", Text, nullable=False),
    # Time of its creation.
    Column("created_at", Double, nullable=False),
    # Name of the administrator who created it.
    Column("created_by", Text, nullable=False),
    # Time from which it is refused.
    Column("expires_at", Double, nullable=False),
    # Time of its use; 0: it was not used.
    Column("used_at", Double, nullable=False, server_default="0"),
    # Address that used it; '': none.
    Column("used_from", Text, nullable=False, server_default=""),
)

# Volatile facts: the servers of this store, and the sessions of hosts (`compass.model.cluster`).
server = Table(
    "server",
    metadata,
    # Id of one run of a server: hexadecimal digits, new at each start.
    Column("id", Text, primary_key=True),
    # Name as in logs and replies; two runs may have the same.
    Column("name", Text, nullable=False),
    # Program and version.
    Column("software", Text, nullable=False),
    # Time of its start, by the server's clock.
    Column("started_at", Double, nullable=False),
    # Time of its last beat, by the database's clock.
    Column("seen_at", Double, nullable=False),
    # Number of its last beat: a server is silent if this does not change.
    Column("beat", BigInteger, nullable=False),
    # Last revision that it has applied.
    Column("revision", BigInteger, nullable=False),
    # Number of its connections.
    Column("sessions", Integer, nullable=False),
    # Number of those with a subscription.
    Column("watching", Integer, nullable=False),
    # True: it has hosts and trusts its own probes.
    Column("able", Boolean, nullable=False),
    # Largest number among its presences.
    Column("entry", BigInteger, nullable=False),
    # Revision that all its hosts hold, except those in `behind`; -1: too many lag.
    Column("held", BigInteger, nullable=False),
    # JSON array of `HostLag`.
    Column("behind", Text, nullable=False),
    # JSON array of the names of the channels by which it notifies administrators.
    Column("ways", Text, nullable=False, server_default="[]"),
)

told = Table(
    "told",
    metadata,
    # Name of a channel to administrators.
    Column("way", Text, primary_key=True),
    # Revision up to which the channel has delivered everything. The next sender begins after it.
    Column("revision", BigInteger, nullable=False),
)

presence = Table(
    "presence",
    metadata,
    # Name of the host. The entry stays until its server is removed.
    Column("host", Text, primary_key=True),
    # Id of the server that has its session or had it last. No foreign key: a server may be removed first.
    Column("server", Text, nullable=False),
    # Number of the entry at that server: readers read only newer ones.
    Column("entry", BigInteger, nullable=False),
    # One of `Where`.
    Column("state", Text, CheckConstraint("state IN ('here', 'left', 'lost')", name="state"), nullable=False),
    # Revision that it held when the session ended.
    Column("held", BigInteger, nullable=False),
    Index("ix_presence_server", "server", "entry"),
)

security_log = Table(
    "security_log",
    metadata,
    # 1, 2, 3 and so on without a gap, in the order of the commits; the oldest are trimmed.
    Column("number", _Number, primary_key=True, autoincrement=False),
    # Time of the refusal.
    Column("time", Double, nullable=False),
    # Requested operation.
    Column("operation", Text, nullable=False),
    # Service or object of the request, as the client spelled it.
    Column("subject", Text, nullable=False),
    # JSON of the request without its credential, cut at PARAMETERS_MAX.
    Column("parameters", Text, nullable=False),
    # Origin of the connection.
    Column("origin", Text, nullable=False),
    # Name in the certificate.
    Column("principal", Text, nullable=False),
    # Reason of the refusal.
    Column("reason", Text, nullable=False),
)

administration_log = Table(
    "administration_log",
    metadata,
    # 1, 2, 3 and so on without a gap, in the order of the commits; the oldest are trimmed.
    Column("number", _Number, primary_key=True, autoincrement=False),
    # Time of the decision.
    Column("time", Double, nullable=False),
    # Requested operation.
    Column("operation", Text, nullable=False),
    # JSON of the request without its credential, cut at PARAMETERS_MAX.
    Column("arguments", Text, nullable=False),
    # Origin of the connection.
    Column("origin", Text, nullable=False),
    # Name in the certificate.
    Column("principal", Text, nullable=False),
    # `done` or the refusal's code.
    Column("outcome", Text, nullable=False),
    # Revision after the decision.
    Column("revision", BigInteger, nullable=False),
)
